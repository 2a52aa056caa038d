//! Listening sockets that were passed to the broker at its start: the address of each, and whether a plugin
//! uses it. Never accepts a connection; never closes the original while the broker runs.

use rustix::net::{SocketAddrAny, SocketAddrUnix, SocketType, getsockname, sockopt};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// The address that a socket is bound to.
#[derive(Debug, PartialEq, Eq)]
enum Bound {
    Path(PathBuf),
    /// The flag: the socket accepts IPv4 connections too.
    Address(SocketAddr, bool),
    /// Not an address of a transport.
    Other(String),
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bound::Path(path) => write!(f, "unix:{}", path.display()),
            Bound::Address(address, _) => write!(f, "tcp:{address}"),
            Bound::Other(what) => f.write_str(what),
        }
    }
}

struct Inherited {
    socket: Arc<OwnedFd>,
    bound: Bound,
    claimed: AtomicBool,
}

/// All inherited sockets.
#[derive(Default)]
pub(crate) struct InheritedListeners(Vec<Inherited>);

impl InheritedListeners {
    /// Takes the sockets and reads the address of each.
    pub(crate) fn new(sockets: Vec<Arc<OwnedFd>>) -> Self {
        let inherited = |socket: Arc<OwnedFd>| {
            let bound = bound(&socket).unwrap_or_else(|error| Bound::Other(error.to_string()));
            Inherited { socket, bound, claimed: AtomicBool::new(false) }
        };
        InheritedListeners(sockets.into_iter().map(inherited).collect())
    }

    /// Returns a non-blocking duplicate of the socket at `unix:PATH` or `tcp:ADDRESS`.
    pub(crate) fn duplicate(&self, address: &str) -> Option<OwnedFd> {
        let inherited = self.0.iter().find(|inherited| inherited.bound.is_at(address))?;
        let duplicate = inherited.socket.try_clone().and_then(|socket| {
            rustix::io::ioctl_fionbio(&socket, true)?;
            Ok(socket)
        });
        match duplicate {
            Ok(duplicate) => {
                inherited.claimed.store(true, Ordering::Relaxed);
                Some(duplicate)
            }
            Err(error) => {
                tracing::error!(address, %error, "cannot duplicate inherited listening socket");
                None
            }
        }
    }

    /// Logs the sockets that no plugin uses.
    pub(crate) fn warn_of_unclaimed(&self) {
        for inherited in self.0.iter().filter(|inherited| !inherited.claimed.load(Ordering::Relaxed)) {
            tracing::warn!(
                address = %inherited.bound,
                "inherited listening socket is not used: no plugin is configured for its address"
            );
        }
    }
}

fn bound(socket: &OwnedFd) -> io::Result<Bound> {
    if sockopt::socket_type(socket)? != SocketType::STREAM || !sockopt::socket_acceptconn(socket)? {
        return Ok(Bound::Other("not a listening stream socket".to_owned()));
    }
    let address: SocketAddrAny = getsockname(socket)?;
    if let Ok(address) = SocketAddr::try_from(address.clone()) {
        let both = address.is_ipv6() && !sockopt::ipv6_v6only(socket)?;
        return Ok(Bound::Address(address, both));
    }
    let path = SocketAddrUnix::try_from(address).ok().and_then(|address| {
        address.path_bytes().map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)))
    });
    Ok(path.map_or_else(|| Bound::Other("a socket without a path".to_owned()), Bound::Path))
}

impl Bound {
    fn is_at(&self, address: &str) -> bool {
        match self {
            Bound::Path(path) => address
                .strip_prefix("unix:")
                .is_some_and(|asked| absolute(path) == absolute(Path::new(asked))),
            Bound::Address(own, both) => {
                let asked = address.strip_prefix("tcp:").and_then(|asked| asked.parse::<SocketAddr>().ok());
                asked.is_some_and(|asked| own == &asked || *both && covers(own, &asked))
            }
            Bound::Other(_) => false,
        }
    }
}

/// Returns whether a socket at `own` that also accepts IPv4 covers the IPv4 address `asked`.
fn covers(own: &SocketAddr, asked: &SocketAddr) -> bool {
    own.port() == asked.port()
        && match (own.ip(), asked.ip()) {
            (IpAddr::V6(own), IpAddr::V4(asked)) => {
                own.is_unspecified() && asked.is_unspecified() || own.to_ipv4_mapped() == Some(asked)
            }
            _ => false,
        }
}

/// Returns the absolute path, with symbolic links in its folders resolved.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (path.parent().and_then(|folder| folder.canonicalize().ok()), path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_by_meaning() {
        let at = |bound: &str, both| Bound::Address(bound.parse().unwrap(), both);
        assert!(at("127.0.0.1:7777", false).is_at("tcp:127.0.0.1:7777"));
        assert!(!at("127.0.0.1:7777", false).is_at("tcp:127.0.0.1:7778"));
        assert!(!at("127.0.0.1:7777", false).is_at("unix:127.0.0.1:7777"));
        assert!(at("[::]:7777", true).is_at("tcp:[::]:7777"));
        assert!(
            at("[::]:7777", true).is_at("tcp:0.0.0.0:7777"),
            "a port without an address, as a service manager configures it"
        );
        assert!(!at("[::]:7777", false).is_at("tcp:0.0.0.0:7777"));
        assert!(!at("[::]:7777", true).is_at("tcp:127.0.0.1:7777"), "the socket accepts more than requested");
        let path = |path: &str| Bound::Path(path.into());
        assert!(path("/nowhere/x.sock").is_at("unix:/nowhere/x.sock"));
        assert!(path(&absolute(Path::new("x.sock")).to_string_lossy()).is_at("unix:./x.sock"));
        assert!(!path("/nowhere/x.sock").is_at("unix:/nowhere/y.sock"));
        assert!(!Bound::Other("x".into()).is_at("x"));
    }

    #[test]
    fn a_listening_socket_is_duplicated_and_any_other_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp:{}", listener.local_addr().unwrap());
        let (plain, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let listeners = InheritedListeners::new(vec![Arc::new(listener.into()), Arc::new(plain.into())]);
        let first = std::net::TcpListener::from(listeners.duplicate(&address).unwrap());
        let second = listeners.duplicate(&address).unwrap();
        assert_eq!(format!("tcp:{}", first.local_addr().unwrap()), address);
        drop((first, second));
        assert!(listeners.duplicate(&address).is_some());
        assert_eq!(listeners.0[1].bound, Bound::Other("not a listening stream socket".into()));
        assert!(listeners.duplicate("tcp:127.0.0.1:1").is_none());
    }
}
