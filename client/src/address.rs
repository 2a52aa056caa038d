//! Where a broker is. Owns the text form of addresses; never connects.

use elbus_protocol::address::{Address as Parsed, MACHINE_SOCKETS, default_socket, default_sockets};
use std::{
    convert::Infallible,
    fmt,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::Error;

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// The path of a UNIX socket.
    Unix(PathBuf),
    /// The path of a UNIX socket that nobody named, as [`Address::default`] finds it. It is used only if root or the user of
    /// this process serves it, or if root alone can have put it there: anybody may create `/tmp/elbus.sock`.
    Default(PathBuf),
    /// `host:port`.
    Tcp(String),
    /// `host:port`, under TLS; needs the cargo feature `tls`.
    Tls(String),
}

impl Default for Address {
    /// The first of these that is there: `$XDG_RUNTIME_DIR/elbus.sock`, `/run/elbus/bus.sock`, `/run/elbus.sock`,
    /// `/tmp/elbus.sock`. If none is, where `elbusd` of this user would listen without arguments.
    fn default() -> Self {
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| Path::new(folder).is_dir());
        let is_socket = |path: &PathBuf| path.metadata().is_ok_and(|file| file.file_type().is_socket());
        let found = default_sockets(runtime_dir.as_deref()).into_iter().find(is_socket);
        let is_root = rustix::process::geteuid().is_root();
        Address::Default(found.unwrap_or_else(|| default_socket(runtime_dir.as_deref(), is_root)))
    }
}

impl Address {
    /// Whether a broker of this user may serve it.
    pub(crate) fn may_be_served_by(&self, uid: u32) -> bool {
        match self {
            Address::Default(path) => {
                let is_roots = || MACHINE_SOCKETS.iter().any(|place| path == Path::new(place));
                uid == 0 || uid == rustix::process::geteuid().as_raw() || is_roots()
            }
            _ => true,
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    /// A path that begins with `/` or ends in `.sock`, `.socket` or `.ipc` is a UNIX socket, as is whatever follows
    /// `unix:`; anything else is `host:port`, with or without `tcp:` (protocol section 9), or with `tls://` or `tls:` where it is
    /// to be reached under TLS. `tcp://` and `unix://` are understood as well; blanks around the address are ignored.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::BadAddress { text: text.to_owned() };
        let text = text.trim();
        // as in URLs: what follows the two slashes is the same as without them
        let without_slashes = ["tcp", "unix"].iter().find_map(|scheme| {
            text.strip_prefix(scheme)?.strip_prefix("://").map(|rest| format!("{scheme}:{rest}"))
        });
        let text = without_slashes.as_deref().unwrap_or(text);
        let is_host_and_port = |address: &str| {
            let parts = address.rsplit_once(':');
            parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if let Some(address) = text.strip_prefix("tls:") {
            let address = address.strip_prefix("//").unwrap_or(address);
            return if is_host_and_port(address) { Ok(Address::Tls(address.to_owned())) } else { Err(bad()) };
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
            Address::Unix(path) | Address::Default(path) => {
                // so that it can be read again
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
    fn who_may_serve_a_default_address() {
        let me = rustix::process::geteuid().as_raw();
        let stranger = me + 1;
        for (address, allowed) in [
            (Address::Default("/tmp/elbus.sock".into()), false),
            (Address::Default("/run/user/1/elbus.sock".into()), false),
            (Address::Default("/run/elbus.sock".into()), true),
            (Address::Default("/run/elbus/bus.sock".into()), true),
            (Address::Unix("/tmp/elbus.sock".into()), true),
        ] {
            assert_eq!(address.may_be_served_by(stranger), allowed, "{address}");
            assert!(address.may_be_served_by(0) && address.may_be_served_by(me));
        }
    }

    #[test]
    fn texts() {
        for (text, address) in [
            ("/run/x", Address::Unix("/run/x".into())),
            ("x.sock", Address::Unix("x.sock".into())),
            ("unix:x", Address::Unix("x".into())),
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
        ] {
            assert!(matches!(text.parse::<Address>(), Err(Error::BadAddress { .. })), "{text}");
        }
    }
}
