//! Where a connection comes from, as a key: limits are shared fairly among sources. Owns what counts as one
//! source; counts nothing itself.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::server::peer_info::PeerInfo;

/// One source of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Nothing is known about the peer.
    Unknown,
    /// A user of this machine.
    User(u32),
    /// An IPv4 address.
    Address(Ipv4Addr),
    /// The first 64 bits of an IPv6 address: usually one host may use any address below them.
    Network([u8; 8]),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Unknown => f.write_str("unknown"),
            Source::User(uid) => write!(f, "uid {uid}"),
            Source::Address(address) => write!(f, "{address}"),
            Source::Network(octets) => {
                let network = u128::from(u64::from_be_bytes(*octets)) << 64;
                write!(f, "{}/64", Ipv6Addr::from(network))
            }
        }
    }
}

impl Source {
    /// The source of a connection: the user of a UNIX socket, else the address.
    pub(crate) fn of(peer: &PeerInfo) -> Self {
        match peer.credentials {
            Some(credentials) => Source::User(credentials.uid),
            None => Source::of_address(peer.source.as_deref()),
        }
    }

    /// The source that `ip:port` stands for.
    pub(crate) fn of_address(address: Option<&str>) -> Self {
        let Some(address) = address.and_then(|address| address.parse::<SocketAddr>().ok()) else {
            return Source::Unknown;
        };
        match address.ip().to_canonical() {
            IpAddr::V4(address) => Source::Address(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Source::Network([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::Credentials;

    #[test]
    fn a_host_is_one_source_whatever_ports_and_lower_ipv6_bits_it_uses() {
        let of = |address: &str| Source::of_address(Some(address));
        assert_eq!(of("10.0.0.1:1"), of("10.0.0.1:2"));
        assert_ne!(of("10.0.0.1:1"), of("10.0.0.2:1"));
        assert_eq!(of("[::ffff:10.0.0.1]:1"), of("10.0.0.1:1"));
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:1]:2"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("somewhere"), Source::Unknown);
        assert_eq!(of("[2001:db8::1]:1").to_string(), "2001:db8::/64");
        let user = |uid| {
            let credentials = Some(Credentials { pid: 1, uid, gid: 0 });
            Source::of(&PeerInfo { credentials, ..PeerInfo::default() })
        };
        assert_eq!((user(1), user(1) == user(2)), (Source::User(1), false));
    }
}
