//! Keys of clients for hold budgets, quotas and limits of filters: name and identity. Never knows which
//! clients are registered.

use elbus_protocol::name::primary_of;
use std::{
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

use crate::client_origin::ClientOrigin;

/// The owner of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum BudgetOwner {
    /// All clients at a node of a bridged bus.
    Node(Box<str>),
    /// A client, by its primary name.
    Name(Box<str>),
    /// All clients with a certificate of these names.
    Certificate(Box<[String]>),
    /// The user of a process on this machine.
    User(u32),
    /// All clients with the token of this name.
    Token(Box<str>),
    /// An address; the first half of an IPv6 address.
    Address(Box<str>),
}

impl BudgetOwner {
    /// Returns the owner that a client's identity belongs to; `None` within this process.
    pub(super) fn identity_of(origin: &ClientOrigin) -> Option<BudgetOwner> {
        if let Some(node) = origin.node() {
            return Some(BudgetOwner::Node(node.into()));
        }
        if let Some(token) = origin.token() {
            return Some(BudgetOwner::Token(token.into()));
        }
        match (origin.certificate_names(), origin.credentials, origin.source.as_deref()) {
            ([], None, None) => None,
            ([], None, Some(source)) => Some(BudgetOwner::Address(network(source).into())),
            ([], Some(credentials), _) => Some(BudgetOwner::User(credentials.uid)),
            (names, ..) => Some(BudgetOwner::Certificate(names.into())),
        }
    }
}

/// Name and identity of a client as hashes with a secret of this process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ClientKeys {
    pub(super) name: u64,
    /// 0 for clients within this process.
    pub(super) identity: u64,
}

static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl ClientKeys {
    /// The keys of a sender without a registration, which sends as `.broker`.
    pub(super) const BROKER: ClientKeys = ClientKeys { name: 1, identity: 0 };

    pub(super) fn of(name: &str, origin: &ClientOrigin) -> Self {
        let key = |owner: &BudgetOwner| SECRET.hash_one(owner).max(2);
        let identity = BudgetOwner::identity_of(origin).map_or(0, |owner| key(&owner));
        ClientKeys { name: key(&BudgetOwner::Name(primary_of(name).into())), identity }
    }

    /// Returns one key of both: a client of the same name but another identity is another sender.
    pub(super) fn of_sender(self) -> u64 {
        SECRET.hash_one(self)
    }
}

/// Returns the part of `ip:port` that a network assigns to one subscriber. All addresses of this machine are
/// one.
fn network(source: &str) -> String {
    match source.parse::<std::net::SocketAddr>().map(|address| address.ip().to_canonical()) {
        Ok(ip) if ip.is_loopback() => std::net::Ipv4Addr::LOCALHOST.to_string(),
        Ok(std::net::IpAddr::V6(ip)) => format!("{:x?}", ip.segments().first_chunk::<4>()),
        Ok(ip) => ip.to_string(),
        Err(_) => source.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_subscriber_are_one() {
        assert_eq!(network("10.0.0.1:5"), network("10.0.0.1:6"));
        assert_ne!(network("10.0.0.1:5"), network("10.0.0.2:5"));
        assert_eq!(network("[::ffff:10.0.0.1]:5"), network("10.0.0.1:5"));
        assert_eq!(network("[2001:db8:1:2::1]:5"), network("[2001:db8:1:2:ffff::]:6"));
        assert_ne!(network("[2001:db8:1:2::1]:5"), network("[2001:db8:1:3::1]:5"));
        for loopback in ["127.0.0.2:5", "127.255.1.1:5", "[::1]:5", "[::ffff:127.0.0.3]:5"] {
            assert_eq!(network(loopback), network("127.0.0.1:5"), "this machine, whichever address it uses");
        }
    }
}
