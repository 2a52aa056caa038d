//! What a transport reports of a connection when it registers a client.

use abi_stable::std_types::{ROption, RSlice, RStr};

use crate::{
    abi::{
        CLIENT_INTERNAL, CLIENT_OVERFLOW_SHIFT, CLIENT_RINGS, FromRaw, IDENTITY_NODE, IDENTITY_TOKEN,
        RawClientInfo, RawCredentials, RawIdentity, convert::sealed::Sealed,
    },
    config::{Limit, Overflow},
    locality::Locality,
};

/// What a transport reports of a connection when it registers a client. Created with [`new`](Self::new) or
/// [`in_process`](Self::in_process); the fields stay readable and writable.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{ClientInfo, Credentials, Locality};
///
/// let info = ClientInfo::new("local_ipc", Locality::SameHost)
///     .with_port("/run/elbus.sock")
///     .with_credentials(Credentials { pid: 4711, uid: 1000, gid: 1000 });
/// assert_eq!(info.source, None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientInfo {
    /// Kind of connection, as `client.list` shows it: `internal`, `local_ipc`, `tcp`, ... For display only.
    pub kind: String,
    /// Where the peer runs. Access rules and administration depend on it.
    pub locality: Locality,
    /// Address of the peer (`ip:port` for TCP), if that means anything.
    pub source: Option<String>,
    /// Socket path or bound address that accepted the connection.
    pub port: Option<String>,
    /// Process at the other end, if the transport knows it.
    pub credentials: Option<Credentials>,
    /// Unit of systemd that this process belonged to when it connected, if the transport could determine it.
    pub unit: Option<String>,
    /// Names in the verified client certificate, each prefixed with its kind: the common name of the subject
    /// (`cn:`), then the DNS names (`dns:`), URIs (`uri:`) and email addresses (`email:`) it was issued for.
    /// Empty without a client certificate.
    pub certificate_names: Vec<String>,
    /// Name of the token that the client has authenticated itself with.
    pub token: Option<String>,
    /// Name of the node of a bridged bus at which the client is connected, if it is not a client of this
    /// broker. It is then the identity of the client, masks that begin with a wildcard do not reach it, and
    /// `client.list` has it only if all clients are requested.
    pub node: Option<String>,
    /// Limit of subscriptions, and of exclusions likewise. The effective limit is the stricter of this and
    /// the broker's.
    pub max_filters: Limit,
    /// Limit of the segments of a filter.
    pub max_filter_depth: Limit,
    /// Marks a part of the broker rather than a client of the bus: its name can have a leading dot, it has
    /// no subscriptions and is not announced.
    pub internal: bool,
    /// What the transport does if the client's queue is full. Access rules can have another policy for the
    /// client ([`SinkLimits::overflow`](crate::SinkLimits::overflow)).
    pub overflow: Overflow,
    /// Whether the bytes of the connection are in rings of shared memory. For display only.
    pub has_rings: bool,
}

impl ClientInfo {
    /// Creates the description of a connection of this kind. All else is absent.
    pub fn new(kind: impl Into<String>, locality: Locality) -> Self {
        ClientInfo { kind: kind.into(), locality, ..ClientInfo::default() }
    }

    /// Creates the description of a client that a plugin runs itself, inside the broker's process.
    pub fn in_process() -> Self {
        ClientInfo::new("internal", Locality::InProcess)
    }

    /// Sets the address of the peer.
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Sets the socket path or address that accepted the connection.
    pub fn with_port(mut self, port: impl Into<String>) -> Self {
        self.port = Some(port.into());
        self
    }

    /// Sets the process at the other end.
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Sets the unit of systemd that the process belongs to.
    pub fn with_unit(mut self, unit: impl Into<String>) -> Self {
        self.unit = Some(unit.into());
        self
    }

    /// Sets the names in the client certificate.
    pub fn with_certificate_names(mut self, names: Vec<String>) -> Self {
        self.certificate_names = names;
        self
    }

    /// Sets the name of the token.
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets the node of a bridged bus at which the client is connected, see [`node`](Self::node).
    pub fn with_node(mut self, node: impl Into<String>) -> Self {
        self.node = Some(node.into());
        self
    }

    /// Sets the limits of subscriptions and of the segments of a filter.
    pub fn with_filter_limits(mut self, max_filters: Limit, max_filter_depth: Limit) -> Self {
        self.max_filters = max_filters;
        self.max_filter_depth = max_filter_depth;
        self
    }

    /// Sets what the transport does if the client's queue is full.
    pub fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Marks a part of the broker rather than a client of the bus, see [`internal`](Self::internal).
    pub fn as_internal(mut self) -> Self {
        self.internal = true;
        self
    }

    pub(crate) fn with_raw<R>(&self, f: impl FnOnce(&RawClientInfo<'_>) -> R) -> R {
        fn text(text: &Option<String>) -> ROption<RStr<'_>> {
            text.as_deref().map(RStr::from_str).into()
        }
        let names: Vec<_> = self.certificate_names.iter().map(|name| RStr::from_str(name)).collect();
        let identities = [(IDENTITY_TOKEN, &self.token), (IDENTITY_NODE, &self.node)];
        let identities = identities.into_iter().filter_map(|(kind, value)| {
            Some(RawIdentity { kind, flags: 0, value: RStr::from_str(value.as_deref()?) })
        });
        let identities: Vec<_> = identities.collect();
        f(&RawClientInfo {
            flags: if self.internal { CLIENT_INTERNAL } else { 0 }
                | if self.has_rings { CLIENT_RINGS } else { 0 }
                | self.overflow.number() << CLIENT_OVERFLOW_SHIFT,
            kind: RStr::from_str(&self.kind),
            locality: self.locality,
            source: text(&self.source),
            port: text(&self.port),
            credentials: self
                .credentials
                .map(|c| RawCredentials { pid: c.pid, uid: c.uid, gid: c.gid })
                .into(),
            unit: text(&self.unit),
            certificate_names: RSlice::from_slice(&names),
            max_filters: self.max_filters,
            max_filter_depth: self.max_filter_depth,
            identities: RSlice::from_slice(&identities),
        })
    }
}

impl Sealed for ClientInfo {}

impl FromRaw<&RawClientInfo<'_>> for ClientInfo {
    fn from_raw(raw: &RawClientInfo<'_>) -> Self {
        let text = |text: ROption<RStr<'_>>| text.into_option().map(|t| t.as_str().to_owned());
        let identity = |kind| {
            let found = raw.identities.iter().find(|identity| identity.kind == kind);
            found.map(|identity| identity.value.as_str().to_owned())
        };
        ClientInfo {
            kind: raw.kind.as_str().to_owned(),
            locality: raw.locality,
            source: text(raw.source),
            port: text(raw.port),
            credentials: raw.credentials.into_option().map(|c| Credentials {
                pid: c.pid,
                uid: c.uid,
                gid: c.gid,
            }),
            unit: text(raw.unit),
            certificate_names: raw.certificate_names.iter().map(|name| name.as_str().to_owned()).collect(),
            token: identity(IDENTITY_TOKEN),
            node: identity(IDENTITY_NODE),
            max_filters: raw.max_filters,
            max_filter_depth: raw.max_filter_depth,
            internal: raw.flags & CLIENT_INTERNAL != 0,
            has_rings: raw.flags & CLIENT_RINGS != 0,
            overflow: Overflow::from_number(raw.flags >> CLIENT_OVERFLOW_SHIFT & 7).unwrap_or_default(),
        }
    }
}

/// The process at the other end of a UNIX socket, as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Process id; 0 if unknown.
    pub pid: i32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_description_crosses_the_boundary() {
        let full = ClientInfo {
            kind: "tcp".into(),
            locality: Locality::SameHost,
            source: Some("127.0.0.1:5".into()),
            port: Some("localhost:7777".into()),
            credentials: Some(Credentials { pid: 1, uid: 2, gid: 3 }),
            unit: Some("plc.service".into()),
            certificate_names: vec!["plc-1".into(), String::new(), "spiffe://plant/plc/1".into()],
            token: Some("panel".into()),
            node: Some("mill".into()),
            max_filters: Limit::new(7),
            max_filter_depth: Limit::new(8),
            internal: true,
            overflow: Overflow::Latest,
            has_rings: true,
        };
        for info in [full, ClientInfo::default()] {
            assert_eq!(info.with_raw(|raw| ClientInfo::from_raw(raw)), info);
        }
    }
}
