//! What a transport knows about the peer of a connection. Owns no socket; checks nothing.

use elbus_plugin_api::Credentials;

/// The peer of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// `ip:port`, if the transport has addresses.
    pub source: Option<String>,
    /// The process at the other end, if known.
    pub credentials: Option<Credentials>,
    /// The systemd unit of that process, if known.
    pub unit: Option<Box<String>>,
    /// The verified certificate of the client, if it has sent one.
    pub certificate: Option<Box<Certificate>>,
}

/// A verified client certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Names as in [`ClientInfo`](elbus_plugin_api::ClientInfo).
    pub names: Vec<String>,
}
