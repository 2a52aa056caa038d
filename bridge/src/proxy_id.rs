//! The numbers of remote clients.

/// A remote client that is, or will be, registered with the local broker. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyId(pub u64);
