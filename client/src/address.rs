//! The address of a broker. Owns its text form; never connects.

use elbus_protocol::address::{Address as Parsed, MACHINE_SOCKETS, default_socket, default_sockets};
use std::{
    convert::Infallible,
    fmt,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::error::Error;

/// What follows the path of a socket whose client asks for rings.
const RINGS_SUFFIX: &str = "?rings";

/// The address of a broker.
///
/// ```
/// use elbus_client::Address;
/// assert_eq!("/run/elbus/bus.sock".parse::<Address>()?, Address::Unix("/run/elbus/bus.sock".into()));
/// assert_eq!("localhost:7777".parse::<Address>()?, Address::Tcp("localhost:7777".into()));
/// assert_eq!("tls://broker.plant:7778".parse::<Address>()?, Address::Tls("broker.plant:7778".into()));
/// # Ok::<(), elbus_client::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// The path of a UNIX socket.
    Unix(PathBuf),
    /// The path of a UNIX socket, with rings of shared memory if the broker has them; see
    /// [`ClientBuilder::rings`](crate::ClientBuilder::rings).
    UnixWithRings(PathBuf),
    /// The path of a UNIX socket that [`Address::default`] has found. It is used only if it is served by root
    /// or the user of this process, or if only root can create it: any user can create `/tmp/elbus.sock`.
    Default(PathBuf),
    /// `host:port`.
    Tcp(String),
    /// `host:port`, under TLS; needs the cargo feature `tls`.
    Tls(String),
}

impl Default for Address {
    /// Returns the first of these sockets that exists: `$XDG_RUNTIME_DIR/elbus.sock`, `/run/elbus/bus.sock`,
    /// `/run/elbus.sock`, `/tmp/elbus.sock`. If none exists, returns the default of `elbusd` started by this
    /// user.
    fn default() -> Self {
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_dir());
        let is_socket = |path: &PathBuf| path.metadata().is_ok_and(|file| file.file_type().is_socket());
        let found = default_sockets(runtime_dir.as_deref()).into_iter().find(is_socket);
        let is_root = rustix::process::geteuid().is_root();
        Address::Default(found.unwrap_or_else(|| default_socket(runtime_dir.as_deref(), is_root)))
    }
}

impl Address {
    /// Returns whether a broker that runs as this user is trusted.
    pub(crate) fn may_be_served_by(&self, uid: u32) -> bool {
        match self {
            Address::Default(path) => {
                let only_root_creates = || MACHINE_SOCKETS.iter().any(|socket| path == Path::new(socket));
                uid == 0 || uid == rustix::process::geteuid().as_raw() || only_root_creates()
            }
            _ => true,
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    /// Parses an address. The path of a UNIX socket can be followed by `?rings`.
    ///
    /// A path that starts with `/`, ends in `.sock`, `.socket` or `.ipc`, or follows `unix:` is a UNIX
    /// socket. All else is `host:port`, with or without `tcp:` (protocol section 9), or with `tls://` or
    /// `tls:` for TLS. `tcp://` and `unix://` are accepted as well; white space around the address is
    /// ignored.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadAddress { text: text.to_owned() };
        let text = text.trim();
        // as in URLs: the two slashes have no meaning of their own
        let without_slashes = ["tcp", "unix"].iter().find_map(|scheme| {
            text.strip_prefix(scheme)?.strip_prefix("://").map(|rest| format!("{scheme}:{rest}"))
        });
        let text = without_slashes.as_deref().unwrap_or(text);
        let is_host_and_port = |address: &str| {
            let parts = address.rsplit_once(':');
            // a slash is part of an address of another kind, such as `wss://host:443`
            let is_host = |host: &str| !host.is_empty() && !host.contains('/');
            parts.is_some_and(|(host, port)| is_host(host) && port.parse::<u16>().is_ok())
        };
        if let Some(address) = text.strip_prefix("tls:") {
            let address = address.strip_prefix("//").unwrap_or(address);
            return if is_host_and_port(address) { Ok(Address::Tls(address.to_owned())) } else { Err(bad()) };
        }
        if let Some(path) = text.strip_suffix(RINGS_SUFFIX) {
            return match path.parse()? {
                Address::Unix(path) => Ok(Address::UnixWithRings(path)),
                _ => Err(bad()),
            };
        }
        match Parsed::parse(text) {
            Parsed::Unix(path) if !path.is_empty() && !path.starts_with('@') => {
                Ok(Address::Unix(path.into()))
            }
            Parsed::Tcp(address) if is_host_and_port(address) => Ok(Address::Tcp(address.to_owned())),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::UnixWithRings(path) => write!(f, "{}{RINGS_SUFFIX}", Address::Unix(path.clone())),
            Address::Unix(path) | Address::Default(path) => {
                // so that it can be parsed again
                let is_plain = path.to_str().is_none_or(|path| Parsed::parse(path) == Parsed::Unix(path));
                write!(f, "{}{}", if is_plain { "" } else { "unix:" }, path.display())
            }
            Address::Tcp(address) => f.write_str(address),
            Address::Tls(address) => write!(f, "tls://{address}"),
        }
    }
}

impl TryFrom<&str> for Address {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Address::Unix(path)
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Address::Unix(path.to_owned())
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Address::Tcp(address.to_string())
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_addresses_are_served_by_trusted_users() {
        let me = rustix::process::geteuid().as_raw();
        let other = me + 1;
        for (address, allowed) in [
            (Address::Default("/tmp/elbus.sock".into()), false),
            (Address::Default("/run/user/1/elbus.sock".into()), false),
            (Address::Default("/run/elbus.sock".into()), true),
            (Address::Default("/run/elbus/bus.sock".into()), true),
            (Address::Unix("/tmp/elbus.sock".into()), true),
        ] {
            assert_eq!(address.may_be_served_by(other), allowed, "{address}");
            assert!(address.may_be_served_by(0) && address.may_be_served_by(me));
        }
    }

    #[test]
    fn texts_are_parsed_and_formatted() {
        for (text, address) in [
            ("/run/x", Address::Unix("/run/x".into())),
            ("x.sock", Address::Unix("x.sock".into())),
            ("unix:x", Address::Unix("x".into())),
            ("/run/x?rings", Address::UnixWithRings("/run/x".into())),
            ("unix:x?rings", Address::UnixWithRings("x".into())),
            ("/run/x?ring", Address::Unix("/run/x?ring".into())),
            ("localhost:7777", Address::Tcp("localhost:7777".into())),
            ("tcp:[::1]:7777", Address::Tcp("[::1]:7777".into())),
            ("tls://[::1]:7777", Address::Tls("[::1]:7777".into())),
        ] {
            assert_eq!(text.parse::<Address>().unwrap(), address);
            assert_eq!(address.to_string(), text.trim_start_matches("tcp:"));
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
        for (text, address) in [
            ("tcp://localhost:7777", Address::Tcp("localhost:7777".into())),
            ("unix:///run/x", Address::Unix("/run/x".into())),
            ("  /run/x\n", Address::Unix("/run/x".into())),
        ] {
            assert_eq!(text.parse::<Address>().unwrap(), address, "{text}");
        }
        for text in [
            "",
            "localhost",
            ":7777",
            "host:port",
            "host:70000",
            "fifo:/run/f",
            "unix:@bus",
            "@bus",
            "unix:",
            "tls://host",
            "tls:",
            "http://host:80",
            "ws://host:80",
            "wss://host:443",
            "localhost:7777?rings",
            "?rings",
            "/run/x?rings?rings",
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(matches!(error, Error::BadAddress { .. }), "{text}");
            let names_the_limit = error.to_string().contains("does not speak WebSocket");
            assert_eq!(names_the_limit, text.starts_with("ws"), "{error}");
        }
    }
}
