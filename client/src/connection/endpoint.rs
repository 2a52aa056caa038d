//! What a client connects to: a socket, or a broker in the same program. Never connects.

use std::fmt;

use crate::address::Address;

#[derive(Debug, Clone)]
pub(crate) enum Endpoint {
    Socket(Address),
    #[cfg(feature = "in-process")]
    InProcess(elbus_plugin_api::Host),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Socket(address) => write!(f, "{address}"),
            #[cfg(feature = "in-process")]
            Endpoint::InProcess(_) => f.write_str("this process"),
        }
    }
}
