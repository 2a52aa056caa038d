//! What a transport knows about the peer of a connection. Owns no socket; checks nothing.

use elbus_plugin_api::{Credentials, Locality};

/// The peer of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerInfo {
    /// `ip:port`, if the transport has addresses.
    pub source: Option<String>,
    /// The process at the other end, if known.
    pub credentials: Option<Credentials>,
    /// The systemd unit of that process, if known.
    pub unit: Option<Box<String>>,
    /// What the client has proved, if anything.
    pub verified: Option<Box<Verified>>,
}

/// What a client has proved to the transport. Boxed, since few clients prove anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// The names in its certificate, as in [`ClientInfo`](elbus_plugin_api::ClientInfo).
    pub certificate_names: Vec<String>,
    /// The name of its token.
    pub token: Option<String>,
    /// Where it runs, if the transport knows more of it than of its other peers.
    pub locality: Option<Locality>,
}
