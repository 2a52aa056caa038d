//! The origin of a client as the broker keeps it: compact, with strings that many clients share stored once.

use elbus_plugin_api::{
    ClientInfo, Credentials, Locality,
    config::{Limit, Overflow},
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use crate::sync::Mutex;

/// The number of distinct strings that are shared; further ones are stored for each client.
const MAX_STRINGS: usize = 64;

/// The information about a client that its transport has provided, see [`ClientInfo`].
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientOrigin {
    pub(crate) kind: Arc<str>,
    pub(crate) source: Option<Box<str>>,
    pub(crate) port: Option<Arc<str>>,
    pub(crate) credentials: Option<Credentials>,
    /// Shared by all clients of the unit.
    pub(crate) unit: Option<Arc<String>>,
    /// Boxed, since few clients have proved anything.
    proved: Option<Box<Proved>>,
    /// `u32::MAX`: unlimited.
    max_filters: u32,
    /// `u32::MAX`: unlimited.
    max_filter_depth: u32,
    pub(crate) locality: Locality,
    pub(crate) internal: bool,
    /// Whether its bytes are in rings of shared memory.
    pub(crate) has_rings: bool,
    /// The policy of its transport.
    pub(crate) overflow: Overflow,
}

/// What a client has proved to its transport.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Proved {
    certificate_names: Vec<String>,
    token: Option<String>,
    /// The node of a bridged bus that answers for it.
    node: Option<Arc<str>>,
}

/// A limit in four bytes.
fn short(limit: Limit) -> u32 {
    limit.or_max().try_into().unwrap_or(u32::MAX)
}

fn long(limit: u32) -> Limit {
    if limit == u32::MAX { Limit::NONE } else { Limit::new(limit.into()) }
}

impl ClientOrigin {
    pub(crate) fn new(info: ClientInfo, strings: &StringInterner) -> Self {
        let ClientInfo {
            kind,
            locality,
            source,
            port,
            credentials,
            unit,
            certificate_names,
            token,
            node,
            internal,
            overflow,
            has_rings,
            ..
        } = info;
        let has_proved = !certificate_names.is_empty() || token.is_some() || node.is_some();
        let node = node.map(|node| strings.intern(&node));
        ClientOrigin {
            kind: strings.intern(&kind),
            source: source.map(String::into_boxed_str),
            port: port.map(|port| strings.intern(&port)),
            credentials,
            unit: unit.map(|unit| strings.intern_unit(unit)),
            proved: has_proved.then(|| Box::new(Proved { certificate_names, token, node })),
            max_filters: short(info.max_filters),
            max_filter_depth: short(info.max_filter_depth),
            locality,
            internal,
            has_rings,
            overflow,
        }
    }

    /// Returns the limit of its subscriptions, and of its exclusions likewise.
    pub(crate) fn max_filters(&self) -> Limit {
        long(self.max_filters)
    }

    /// Returns the limit of the segments of a filter.
    pub(crate) fn max_filter_depth(&self) -> Limit {
        long(self.max_filter_depth)
    }

    /// Returns the identity of the peer.
    pub(crate) fn identity(&self) -> Identity<'_> {
        if let Some(node) = self.node() {
            return Identity::Node(node);
        }
        match (self.certificate_names(), self.token()) {
            ([], None) => {}
            ([], Some(token)) => return Identity::Token(token),
            (names, token) => return Identity::Certificate(names, token),
        }
        if let Some(credentials) = self.credentials {
            return Identity::User(credentials.uid);
        }
        let Some(source) = self.source.as_deref() else { return Identity::Kind(self.locality, &self.kind) };
        let Ok(address) = source.parse::<SocketAddr>() else { return Identity::Source(source) };
        let scope = if let SocketAddr::V6(address) = address { address.scope_id() } else { 0 };
        match address.ip().to_canonical() {
            address if address.is_loopback() => Identity::Address(Ipv4Addr::LOCALHOST.into(), 0),
            address => Identity::Address(address, scope),
        }
    }

    /// Returns the user that runs the client, if it is a process of this machine.
    pub(crate) fn uid(&self) -> Option<u32> {
        self.credentials.map(|credentials| credentials.uid)
    }

    /// Returns the names of a verified certificate.
    pub(crate) fn certificate_names(&self) -> &[String] {
        self.proved.as_deref().map_or(&[], |proved| proved.certificate_names.as_slice())
    }

    /// Returns the name of the token that it has authenticated itself with.
    pub(crate) fn token(&self) -> Option<&str> {
        self.proved.as_deref().and_then(|proved| proved.token.as_deref())
    }

    /// Returns the node of a bridged bus at which it is connected; `None` for a client of this broker.
    #[inline]
    pub(crate) fn node(&self) -> Option<&str> {
        self.proved.as_deref().and_then(|proved| proved.node.as_deref())
    }
}

/// The identity of a peer: the strongest that is known. A client that reconnects has the same identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity<'a> {
    /// The node of a bridged bus at which it is connected.
    Node(&'a str),
    /// The names of its certificate, and the name of its token if it has both.
    Certificate(&'a [String], Option<&'a str>),
    /// The name of its token.
    Token(&'a str),
    /// The user that runs it.
    User(u32),
    /// Its address, and the scope of a link-local one. All loopback addresses count as one.
    Address(IpAddr, u32),
    /// The text that its transport provides instead of an address.
    Source(&'a str),
    /// Only the kind of its connection is known.
    Kind(Locality, &'a str),
}

impl Identity<'_> {
    /// Returns the kind of identity, for messages.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Identity::Node(_) => "node",
            Identity::Certificate(..) => "certificate",
            Identity::Token(_) => "token",
            Identity::User(_) => "user",
            Identity::Address(..) | Identity::Source(_) => "address",
            Identity::Kind(..) => "kind of connection",
        }
    }
}

/// Strings that clients share: kinds, local addresses, units.
#[derive(Default)]
pub(crate) struct StringInterner {
    strings: Mutex<Vec<Arc<str>>>,
    /// Dropped when no client uses them.
    units: Mutex<Vec<Arc<String>>>,
}

impl StringInterner {
    fn intern(&self, text: &str) -> Arc<str> {
        let mut strings = self.strings.lock();
        if let Some(known) = strings.iter().find(|known| ***known == *text) {
            return known.clone();
        }
        let text: Arc<str> = text.into();
        if strings.len() < MAX_STRINGS {
            strings.push(text.clone());
        }
        text
    }

    fn intern_unit(&self, unit: String) -> Arc<String> {
        let mut units = self.units.lock();
        if let Some(known) = units.iter().find(|known| ***known == *unit) {
            return known.clone();
        }
        let unit = Arc::new(unit);
        if units.len() >= MAX_STRINGS {
            units.retain(|known| Arc::strong_count(known) > 1);
        }
        if units.len() < MAX_STRINGS {
            units.push(unit.clone());
        }
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_the_strongest_known_one() {
        let strings = StringInterner::default();
        let from = |source: &str| ClientInfo::default().with_source(source);
        let of_user = |info: ClientInfo, uid| info.with_credentials(Credentials { pid: 1, uid, gid: 2 });
        let certified = |info: ClientInfo, name: &str| info.with_certificate_names(vec![name.to_owned()]);
        let kind = |kind: &str| ClientInfo::new(kind, Locality::Remote);
        for (one, other, same) in [
            (from("10.0.0.1:1"), from("10.0.0.1:2"), true),
            (from("10.0.0.1:1"), from("[::ffff:10.0.0.1]:2"), true),
            (from("10.0.0.1:1"), from("10.0.0.2:1"), false),
            (from("127.0.0.1:1"), from("[::1]:2"), true),
            (from("[fe80::1%3]:1"), from("[fe80::1%4]:1"), false),
            (from("somewhere"), from("somewhere"), true),
            (from("somewhere"), from("elsewhere"), false),
            (of_user(from("10.0.0.1:1"), 7), of_user(from("10.0.0.2:1"), 7), true),
            (of_user(from("10.0.0.1:1"), 7), of_user(from("10.0.0.1:1"), 8), false),
            (of_user(from("10.0.0.1:1"), 7), from("10.0.0.1:1"), false),
            (certified(from("10.0.0.1:1"), "a"), certified(from("10.0.0.2:1"), "a"), true),
            (certified(from("10.0.0.1:1"), "a"), certified(from("10.0.0.1:1"), "b"), false),
            (certified(from("10.0.0.1:1"), "a"), from("10.0.0.1:1"), false),
            (from("10.0.0.1:1").with_token("a"), from("10.0.0.2:1").with_token("a"), true),
            (from("10.0.0.1:1").with_token("a"), from("10.0.0.1:1").with_token("b"), false),
            (from("10.0.0.1:1").with_token("a"), from("10.0.0.1:1"), false),
            (from("10.0.0.1:1").with_token("a"), certified(from("10.0.0.1:1"), "a"), false),
            // one machine with a certificate, and two of its users
            (
                certified(from("10.0.0.1:1"), "a").with_token("x"),
                certified(from("10.0.0.1:1"), "a").with_token("y"),
                false,
            ),
            (certified(from("10.0.0.1:1"), "a").with_token("x"), certified(from("10.0.0.1:1"), "a"), false),
            (kind("nats").with_node("mill"), kind("nats").with_node("mill"), true),
            (kind("nats").with_node("mill"), kind("nats").with_node("press"), false),
            (kind("nats").with_node("mill"), from("10.0.0.1:1").with_token("mill"), false),
            (kind("internal"), kind("internal"), true),
            (kind("internal"), kind("local_ipc"), false),
            (kind("internal"), of_user(kind("internal"), 0), false),
        ] {
            let (one, other) = (ClientOrigin::new(one, &strings), ClientOrigin::new(other, &strings));
            assert_eq!(one.identity() == other.identity(), same, "{one:?} {other:?}");
            assert_eq!(one.identity(), one.identity());
        }
    }

    #[test]
    fn shared_strings_are_stored_once_and_limited_in_number() {
        let strings = StringInterner::default();
        let info = |port: usize| ClientInfo::default().with_port(port.to_string());
        let (first, second) = (ClientOrigin::new(info(1), &strings), ClientOrigin::new(info(1), &strings));
        assert!(Arc::ptr_eq(&first.port.unwrap(), &second.port.unwrap()));
        (0..1000).for_each(|port| {
            assert_eq!(ClientOrigin::new(info(port), &strings).port.unwrap().parse(), Ok(port))
        });
        assert_eq!(strings.strings.lock().len(), MAX_STRINGS);
        let of_unit = |number: usize| ClientInfo::default().with_unit(number.to_string());
        let (first, second) =
            (ClientOrigin::new(of_unit(1), &strings), ClientOrigin::new(of_unit(1), &strings));
        assert!(Arc::ptr_eq(&first.unit.unwrap(), &second.unit.unwrap()));
        let many: Vec<_> = (0..1000).map(|number| ClientOrigin::new(of_unit(number), &strings)).collect();
        assert_eq!(strings.units.lock().len(), MAX_STRINGS);
        drop(many);
        drop(ClientOrigin::new(of_unit(5000), &strings));
        assert_eq!(strings.units.lock().len(), 1, "units without clients are dropped");
        assert!(size_of::<ClientOrigin>() <= 96, "one string for each client: {}", size_of::<ClientOrigin>());
    }
}
