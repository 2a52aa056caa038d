//! Addresses of brokers as text (section 9), and the default addresses. Never reads the environment or the
//! file system.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// The default file name of the socket.
const DEFAULT_SOCKET: &str = "elbus.sock";

/// An address of a broker. Borrows the text it was parsed from; [`parse`](Address::parse) determines only its
/// kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Address<'a> {
    /// The path of a UNIX socket.
    Unix(&'a str),
    /// The `host:port` of a TCP socket.
    Tcp(&'a str),
    /// The `host:port` of a WebSocket server, and the path there, which is empty or begins with a slash.
    WebSocket(&'a str, &'a str),
    /// The path of a FIFO, which accepts commands and sends no replies.
    Fifo(&'a str),
}

impl<'a> Address<'a> {
    /// Determines the kind of an address by the first match: `fifo:PATH`; `unix:PATH`; `ws://HOST:PORT/PATH`;
    /// a path that begins with `/` or ends in `.sock`, `.socket` or `.ipc`, or the name of an abstract
    /// socket, `@NAME`, which neither broker nor client supports; anything else is TCP, with or without
    /// `tcp:`. Never fails: an invalid address fails when it is used.
    pub fn parse(text: &'a str) -> Self {
        if let Some(rest) = text.strip_prefix("ws://") {
            let (address, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            Address::WebSocket(address, path)
        } else if let Some(path) = text.strip_prefix("fifo:") {
            Address::Fifo(path)
        } else if let Some(path) = text.strip_prefix("unix:") {
            Address::Unix(path)
        } else if text.starts_with(['/', '@'])
            || [".sock", ".socket", ".ipc"].iter().any(|end| text.ends_with(end))
        {
            Address::Unix(text)
        } else {
            Address::Tcp(text.strip_prefix("tcp:").unwrap_or(text))
        }
    }
}

/// The sockets of the machine's broker: the one that the packages configure, and the default one of root's
/// broker. Only root can create files in `/run`.
pub const MACHINE_SOCKETS: [&str; 2] = ["/run/elbus/bus.sock", "/run/elbus.sock"];

/// Returns the default socket of a broker: `elbus.sock` in the user's runtime folder, else in `/run` for
/// root, else in `/tmp`, in which any user can create it first.
///
/// `runtime_dir` is `$XDG_RUNTIME_DIR` if it names an existing folder; `is_root` says whether the broker can
/// use `/run`. The caller determines both, in the broker and in clients.
pub fn default_socket(runtime_dir: Option<&OsStr>, is_root: bool) -> PathBuf {
    let [_, of_root] = MACHINE_SOCKETS;
    match runtime_dir.filter(|folder| !folder.is_empty()) {
        Some(folder) => Path::new(folder).join(DEFAULT_SOCKET),
        None if is_root => PathBuf::from(of_root),
        None => Path::new("/tmp").join(DEFAULT_SOCKET),
    }
}

/// Returns the sockets that a client tries by default, in this order: the user's own if there is a runtime
/// folder, those of the machine, and the one in `/tmp`.
pub fn default_sockets(runtime_dir: Option<&OsStr>) -> Vec<PathBuf> {
    let own = runtime_dir.filter(|folder| !folder.is_empty()).map(|_| default_socket(runtime_dir, false));
    let machine = MACHINE_SOCKETS.iter().map(PathBuf::from);
    own.into_iter().chain(machine).chain([default_socket(None, false)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, address) in [
            ("/run/x", Address::Unix("/run/x")),
            ("x.sock", Address::Unix("x.sock")),
            ("@x:1", Address::Unix("@x:1")),
            ("x.ipc", Address::Unix("x.ipc")),
            ("a/b.socket", Address::Unix("a/b.socket")),
            ("unix:x", Address::Unix("x")),
            ("fifo:/run/f", Address::Fifo("/run/f")),
            ("ws://127.0.0.1:8080", Address::WebSocket("127.0.0.1:8080", "")),
            ("ws://[::1]:8080/bus.sock", Address::WebSocket("[::1]:8080", "/bus.sock")),
            ("127.0.0.1:7777", Address::Tcp("127.0.0.1:7777")),
            ("tcp:[::1]:7777", Address::Tcp("[::1]:7777")),
        ] {
            assert_eq!(Address::parse(text), address);
        }
    }

    #[test]
    fn the_default_socket_is_the_users_or_roots_or_in_tmp() {
        for (runtime_dir, is_root, path) in [
            (Some("/run/user/1000"), false, "/run/user/1000/elbus.sock"),
            (Some("/run/user/0"), true, "/run/user/0/elbus.sock"),
            (Some(""), false, "/tmp/elbus.sock"),
            (None, false, "/tmp/elbus.sock"),
            (None, true, "/run/elbus.sock"),
        ] {
            assert_eq!(default_socket(runtime_dir.map(OsStr::new), is_root), Path::new(path));
        }
        let all = default_sockets(Some(OsStr::new("/run/user/1")));
        let expected =
            ["/run/user/1/elbus.sock", "/run/elbus/bus.sock", "/run/elbus.sock", "/tmp/elbus.sock"];
        assert_eq!(all, expected.map(PathBuf::from));
        assert_eq!(default_sockets(None), expected.map(PathBuf::from)[1..]);
    }
}
