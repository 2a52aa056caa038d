//! Which requests become connections, and for what reason. Owns the decision and its order; performs no I/O.

use elbus_plugin_api::Locality;
use parking_lot::RwLock;
use std::{net::SocketAddr, sync::Arc};

use crate::{
    forwarding::TrustedProxies,
    origin::AllowedOrigins,
    refusal::{Refusal, Status},
    request::UpgradeRequest,
    tokens::{KnownToken, StartToken, Tokens},
};

/// The subprotocol that is chosen if the client offers it.
pub(crate) const PROTOCOL: &str = "elbus";
/// A subprotocol that is never chosen: the token follows. Browsers let a page set no other field.
const TOKEN_PROTOCOL: &str = "elbus.token.";
/// The key of the token in a query.
const QUERY_KEY: &str = "token";

/// Why a client may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It has presented a token of the file.
    Token(KnownToken),
    /// It has presented a verified certificate.
    Certificate,
    /// Access rules decide about its name.
    Rules,
    /// It has presented the token of this start.
    Start {
        /// Whether it has connected by itself, without a proxy.
        is_direct: bool,
    },
}

/// The rules of an instance.
pub(crate) struct AdmissionRules {
    pub(crate) path: String,
    pub(crate) origins: AllowedOrigins,
    pub(crate) proxies: TrustedProxies,
    /// The host names in `bind`.
    pub(crate) names: Vec<String>,
    pub(crate) cookie: String,
    pub(crate) token_in_query: bool,
    /// `None` without `tokens_file`.
    pub(crate) tokens: Option<RwLock<Arc<Tokens>>>,
    /// `None` with `tokens_file`.
    pub(crate) start_token: Option<StartToken>,
    /// Where clients count as running that connect with that token from this machine.
    pub(crate) start_locality: Locality,
}

/// What is known of a client besides its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// The address that the connection comes from.
    pub(crate) address: SocketAddr,
    /// Whether the connection is under TLS.
    pub(crate) is_secure: bool,
    /// Whether the client has presented a verified certificate.
    pub(crate) has_certificate: bool,
    /// Whether the broker has access rules.
    pub(crate) has_access_rules: bool,
}

impl AdmissionRules {
    /// Checks everything but the identity of the client. Returns its address.
    pub(crate) fn check(&self, request: &UpgradeRequest, peer: &Peer) -> Result<SocketAddr, Refusal> {
        if request.path != self.path {
            let path: String = request.path.chars().take(64).collect();
            let why = format!("path {path:?} is not served (path)");
            return Err(Refusal::answered_with(Status::NotFound, why, "this path is not served"));
        }
        let client = self.proxies.client_of(peer.address, &request.forwarded_for);
        client.map_err(|why| Refusal::new(Status::BadRequest, why))
    }

    /// Decides whether the client may connect. `client` is its address, from [`check`](Self::check).
    pub(crate) fn admit(
        &self,
        request: &UpgradeRequest,
        peer: &Peer,
        client: SocketAddr,
    ) -> Result<Admission, Refusal> {
        let admission = self.authenticate(request, peer, client)?;
        let has_token = matches!(admission, Admission::Token(_) | Admission::Start { .. });
        let names: Vec<_> = self.names.iter().map(String::as_str).collect();
        if let Some(origin) = &request.origin
            && !self.origins.allow(origin, &request.host, peer.is_secure, has_token, &names)
        {
            let (origin, host): (String, String) =
                (origin.chars().take(128).collect(), request.host.chars().take(128).collect());
            let why = format!("origin {origin:?} is not allowed at host {host:?} (allowed_origins)");
            return Err(Refusal::new(Status::Forbidden, why));
        }
        Ok(admission)
    }

    fn authenticate(
        &self,
        request: &UpgradeRequest,
        peer: &Peer,
        client: SocketAddr,
    ) -> Result<Admission, Refusal> {
        let wrong = |why: &str, answer: &'static str| {
            Refusal::answered_with(Status::Unauthorized, why.to_owned(), answer)
        };
        if let Some(tokens) = &self.tokens {
            let Some(token) = self.presented_token(request)? else {
                return peer
                    .has_certificate
                    .then_some(Admission::Certificate)
                    .ok_or_else(|| wrong("no token (tokens_file)", "a token is needed"));
            };
            let known = tokens.read().find(token);
            return known
                .map(Admission::Token)
                .ok_or_else(|| wrong("unknown token (tokens_file)", "the token is not valid"));
        }
        if peer.has_certificate {
            return Ok(Admission::Certificate);
        }
        if peer.has_access_rules {
            return Ok(Admission::Rules);
        }
        // without both, every program that reaches the port could be any client
        if !client.ip().to_canonical().is_loopback()
            || request.is_forwarded && !self.proxies.contain(peer.address.ip())
        {
            let why = "not a program of this machine, and there is neither tokens_file nor access rules";
            return Err(Refusal::answered_with(
                Status::Forbidden,
                why.to_owned(),
                "only local clients are served",
            ));
        }
        let Some(token) = self.presented_token(request)? else {
            return Err(wrong("no token; the log has the one of this start", "a token is needed"));
        };
        let is_direct = !request.is_forwarded && peer.address.ip().to_canonical().is_loopback();
        let is_right = self.start_token.as_ref().is_some_and(|start| start.is(token));
        is_right
            .then_some(Admission::Start { is_direct })
            .ok_or_else(|| wrong("wrong token; the log has the one of this start", "the token is not valid"))
    }

    /// Returns the token that a request contains: in the field of programs, in that of pages, in the query,
    /// or in a cookie.
    fn presented_token<'a>(&self, request: &'a UpgradeRequest) -> Result<Option<&'a str>, Refusal> {
        if let Some(token) = &request.bearer {
            return Ok(Some(token));
        }
        let mut offered = request.protocols.iter().filter_map(|name| name.strip_prefix(TOKEN_PROTOCOL));
        if let Some(token) = offered.next() {
            return Ok(Some(token));
        }
        let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
        if let Some((_, token)) = pairs.into_iter().find(|(key, _)| *key == QUERY_KEY) {
            // a token of the file outlives the connection, and addresses are logged by proxies
            if self.tokens.is_some() && !self.token_in_query {
                let why =
                    "the token is in the query; send it as a header field or subprotocol (token_in_query)";
                return Err(Refusal::new(Status::Unauthorized, why.to_owned()));
            }
            return Ok(Some(token));
        }
        let cookie = request.cookies.iter().find(|(name, _)| *name == self.cookie);
        Ok(cookie.map(|(_, token)| token.as_str()))
    }

    /// Returns where a client that was admitted counts as running; `None` if only its address is known.
    pub(crate) fn locality_of(&self, admission: &Admission) -> Option<Locality> {
        matches!(admission, Admission::Start { is_direct: true }).then_some(self.start_locality)
    }

    /// Returns whether a client that was admitted may stay.
    pub(crate) fn still_admits(&self, admission: &Admission, has_access_rules: bool) -> bool {
        match admission {
            Admission::Token(token) => {
                self.tokens.as_ref().is_some_and(|tokens| tokens.read().contain(token))
            }
            Admission::Rules => has_access_rules,
            // rules decide about each name from then on, and the token says nothing to them
            Admission::Start { .. } => !has_access_rules,
            Admission::Certificate => true,
        }
    }
}

impl Admission {
    /// Returns why a client that is no longer admitted is disconnected.
    pub(crate) fn end_reason(&self) -> &'static str {
        match self {
            Admission::Token(_) => "its token has been removed (tokens_file)",
            Admission::Rules => "there are no access rules any more, and no tokens_file",
            Admission::Start { .. } => "there are access rules now: the token of the start admits nobody",
            Admission::Certificate => "no longer admitted",
        }
    }
}
