//! What a transport knows about the peer of a connection. Owns no socket; checks nothing.

use elbus_plugin_api::Credentials;

/// Where a connection comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// `ip:port`, where that means anything.
    pub source: Option<String>,
    /// The process at the other end, where it is known.
    pub credentials: Option<Credentials>,
    /// The unit of systemd it belongs to, where that is known.
    pub unit: Option<Box<String>>,
    /// What a verified certificate says of the client, where it has shown one.
    pub certificate: Option<Box<Certificate>>,
}

/// A client certificate that was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// As [`ClientInfo`](elbus_plugin_api::ClientInfo) lists them.
    pub names: Vec<String>,
}
