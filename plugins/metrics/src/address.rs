//! Where an instance listens: reads the address, binds it, and removes the file of a UNIX socket. Serves
//! nothing.
//!
//! A socket file gets its permissions before anybody can connect, and only a socket that nobody serves is
//! replaced.

use elbus_files::{Folder, Identity};
use elbus_plugin_api::{Host, PluginError};
use rustix::{
    fs::{FileType, Mode, fchmod},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_socket, connect, listen,
        socket_with,
    },
};
use std::{
    fmt, io,
    net::{SocketAddr, TcpListener as StdTcpListener, ToSocketAddrs},
    os::{fd::OwnedFd, unix::net::UnixListener as StdUnixListener},
    path::{Path, PathBuf},
    time::Duration,
};

const DEFAULT_MODE: u32 = 0o660;
/// The longest path in a socket address, without its NUL.
const MAX_PATH_BYTES: usize = 107;
/// Connections that can wait to be accepted, at a UNIX socket.
const BACKLOG: i32 = 128;
/// Time limit for the lock on the folder of a socket.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// The address of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A host and a port; `remote` if it may be another address than loopback.
    Tcp { text: String, remote: bool },
    /// The path of a UNIX socket, and its permissions.
    Unix { path: PathBuf, mode: u32 },
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
}

/// A bound address.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: Listener,
    /// The address as clients use it.
    pub(crate) url: String,
    /// Whether it is a loopback port.
    pub(crate) is_loopback: bool,
    /// `None` for a port, and for a socket that belongs to the parent of the broker.
    pub(crate) file: Option<SocketFile>,
}

fn wrong(text: String) -> PluginError {
    PluginError::of_key("bind", text)
}

impl Address {
    /// Reads the keys `bind`, `mode` and `allow_remote`.
    ///
    /// # Errors
    /// The key that is wrong.
    pub(crate) fn parse(bind: &str, mode: Option<&str>, allow_remote: bool) -> Result<Self, PluginError> {
        if let Some(path) = unix_path(bind) {
            if path.is_empty() || path.ends_with('/') || path.contains('\0') {
                return Err(wrong(format!("{bind:?} is not the path of a file")));
            }
            if path.len() > MAX_PATH_BYTES {
                let bytes = path.len();
                return Err(wrong(format!("the path has {bytes} bytes; the limit is {MAX_PATH_BYTES}")));
            }
            let octal = |mode: &str| u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
            let mode = match mode {
                None => DEFAULT_MODE,
                Some(mode) => octal(mode).ok_or_else(|| {
                    let text = format!("{mode:?} is not an octal number up to \"0777\"");
                    PluginError::of_key("mode", text)
                })?,
            };
            return Ok(Address::Unix { path: path.into(), mode });
        }
        if mode.is_some() {
            return Err(PluginError::of_key("mode", "is for the path of a UNIX socket in `bind`"));
        }
        let text = bind.strip_prefix("tcp:").unwrap_or(bind);
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none() {
            return Err(wrong(format!(
                "{bind:?} is no address: expected \"127.0.0.1:9464\", \"[::1]:9464\" or the path of a UNIX socket"
            )));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            check_remote(address, allow_remote)?;
        }
        Ok(Address::Tcp { text: text.to_owned(), remote: allow_remote })
    }

    /// Binds the address and listens, or uses the socket that the parent of the broker has passed.
    ///
    /// # Errors
    /// It cannot be bound, or is not loopback.
    pub(crate) fn bind(&self, host: &Host) -> Result<Bound, PluginError> {
        match self {
            Address::Tcp { text, remote } => bind_tcp(host, text, *remote),
            Address::Unix { path, mode } => bind_unix(host, path, *mode),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { text, .. } => f.write_str(text),
            Address::Unix { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

fn unix_path(bind: &str) -> Option<&str> {
    bind.strip_prefix("unix:").or_else(|| (bind.starts_with(['/', '.'])).then_some(bind))
}

fn check_remote(address: SocketAddr, allow_remote: bool) -> Result<(), PluginError> {
    if address.ip().is_loopback() || allow_remote {
        return Ok(());
    }
    Err(wrong(format!(
        "{address} is not a loopback address: metrics name plugins and clients, and are served to everybody who \
         can connect; set allow_remote = true to serve them to other machines"
    )))
}

fn bind_tcp(host: &Host, text: &str, remote: bool) -> Result<Bound, PluginError> {
    let failed = |error: io::Error| wrong(format!("cannot listen on {text}: {error}"));
    let listener = match host.inherited_listener(&format!("tcp:{text}")) {
        Some(socket) => StdTcpListener::from(socket),
        None => {
            let addresses: Vec<SocketAddr> = text.to_socket_addrs().map_err(failed)?.collect();
            addresses.iter().try_for_each(|address| check_remote(*address, remote))?;
            StdTcpListener::bind(addresses.as_slice()).map_err(failed)?
        }
    };
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    check_remote(address, remote)?;
    let (url, is_loopback) = (format!("http://{address}/metrics"), address.ip().is_loopback());
    Ok(Bound { listener: Listener::Tcp(listener), url, is_loopback, file: None })
}

fn bind_unix(host: &Host, path: &Path, mode: u32) -> Result<Bound, PluginError> {
    let url = format!("http+unix:{}", path.display());
    if let Some(socket) = host.inherited_listener(&format!("unix:{}", path.display())) {
        let listener = StdUnixListener::from(socket);
        listener.set_nonblocking(true).map_err(|error| wrong(format!("cannot listen on {url}: {error}")))?;
        return Ok(Bound { listener: Listener::Unix(listener), url, is_loopback: false, file: None });
    }
    let failed = |what: &str, error: io::Error| wrong(format!("cannot {what} {}: {error}", path.display()));
    let address = SocketAddrUnix::new(path).map_err(|error| failed("use", error.into()))?;
    let (folder, name) = Folder::of(path).map_err(|error| wrong(error.to_string()))?;
    let lock = folder.lock(LOCK_PATIENCE);
    remove_unserved(path, &folder)?;
    let socket = stream_socket().map_err(|error| failed("create a socket for", error))?;
    // the file inherits the mode of the unbound socket, so nobody can connect until its mode is set
    fchmod(&socket, Mode::empty()).map_err(|error| failed("create a socket for", error.into()))?;
    bind_socket(&socket, &address).map_err(|error| failed("bind", error.into()))?;
    let node = folder.node(&name).map_err(|error| failed("bind", error.into()))?;
    let file = SocketFile { path: path.to_owned(), identity: node.identity() };
    // another user with write access to the folder may have replaced it
    let is_ours = node.file_type().is_socket() && node.is_own() && node.permissions() == 0;
    let opened = match is_ours {
        false => Err(wrong(format!("{}: the socket was replaced while it was bound", path.display()))),
        true => node
            .set_permissions(mode)
            .map_err(|error| PluginError::of_key("mode", format!("cannot set it: {error}")))
            .and_then(|()| listen(&socket, BACKLOG).map_err(|error| failed("listen on", error.into()))),
    };
    drop(lock); // before the file is removed, which takes it again
    opened?;
    Ok(Bound { listener: Listener::Unix(socket.into()), url, is_loopback: false, file: Some(file) })
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Removes a socket file that nobody serves.
fn remove_unserved(path: &Path, folder: &Folder) -> Result<(), PluginError> {
    let refuse = |why: String| Err(wrong(format!("{}: {why}", path.display())));
    let Some(name) = path.file_name() else { return refuse("is not the path of a file".to_owned()) };
    let node = match folder.node(name) {
        Ok(node) => node,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return refuse(format!("cannot check it: {error}")),
    };
    if node.file_type() != FileType::Socket {
        return refuse("exists and is not a socket".to_owned());
    }
    let connected = stream_socket().map_err(|error| wrong(error.to_string()))?;
    let address = SocketAddrUnix::new(node.path()).map_err(|error| wrong(error.to_string()))?;
    match connect(&connected, &address) {
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => refuse("another process serves it".to_owned()),
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::CONNREFUSED) => match folder.remove(name, node.identity()) {
            Ok(_) => Ok(()),
            Err(error) => refuse(format!("nobody serves it, but it cannot be removed: {error}")),
        },
        Err(error) => refuse(format!("exists, and cannot be checked: {error}")),
    }
}

/// The file of a bound socket. Removed when dropped, if the path still refers to it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let Ok((folder, name)) = Folder::of(&self.path) else { return };
        let _lock = folder.lock(LOCK_PATIENCE);
        if let Err(error) = folder.remove(&name, self.identity) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use elbus_plugin_api::testing::FakeHost;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn addresses_and_their_errors() {
        let path = |path: &str, mode| Address::Unix { path: path.into(), mode };
        assert_eq!(Address::parse("/run/m.sock", None, false).unwrap(), path("/run/m.sock", 0o660));
        assert_eq!(Address::parse("unix:m.sock", Some("0600"), false).unwrap(), path("m.sock", 0o600));
        for bind in ["127.0.0.1:0", "[::1]:9464", "localhost:1", "tcp:127.9.9.9:1"] {
            assert!(matches!(Address::parse(bind, None, false), Ok(Address::Tcp { .. })), "{bind}");
        }
        assert!(Address::parse("0.0.0.0:1", None, true).is_ok());
        for (bind, mode, expected) in [
            ("0.0.0.0:9464", None, "bind: 0.0.0.0:9464 is not a loopback address: metrics name plugins"),
            ("[::]:9464", None, "set allow_remote = true to serve them to other machines"),
            ("9464", None, "bind: \"9464\" is no address: expected \"127.0.0.1:9464\""),
            ("localhost:", None, "is no address"),
            (":9464", None, "is no address"),
            ("/run/", None, "bind: \"/run/\" is not the path of a file"),
            ("/m", Some("888"), "mode: \"888\" is not an octal number up to \"0777\""),
            ("127.0.0.1:1", Some("600"), "mode: is for the path of a UNIX socket in `bind`"),
        ] {
            let error = Address::parse(bind, mode, false).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let long = Address::parse(&format!("/{}", "x".repeat(107)), None, false).unwrap_err();
        assert_eq!(long.to_string(), "bind: the path has 108 bytes; the limit is 107");
    }

    #[test]
    fn a_socket_file_has_its_mode_and_is_removed() {
        let (folder, host) = (tempfile::tempdir().unwrap(), FakeHost::new().host("metrics"));
        let path = folder.path().join("m.sock");
        let address = Address::Unix { path: path.clone(), mode: 0o600 };
        let bound = address.bind(&host).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = address.bind(&host).unwrap_err().to_string();
        assert!(error.ends_with("another process serves it"), "{error}");
        let Bound { listener, file, .. } = bound;
        drop(listener);
        // nobody serves it any more
        let again = address.bind(&host).unwrap();
        std::mem::forget(file); // a broker that was killed removes nothing
        assert!(path.exists());
        drop(again);
        assert!(!path.exists());
        std::fs::write(&path, "text").unwrap();
        let error = address.bind(&host).unwrap_err().to_string();
        assert!(error.ends_with("exists and is not a socket"), "{error}");
    }
}
