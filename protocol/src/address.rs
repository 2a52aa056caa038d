//! How the place of a broker is written (section 9); never reads the environment, never looks whether anything is
//! there.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// The name of the socket in its folder, if nobody says otherwise.
const DEFAULT_SOCKET: &str = "elbus.sock";

/// Where a broker listens. Borrowed from the text it was parsed from, and no more checked than
/// [`parse`](Address::parse) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Address<'a> {
    /// The path of a UNIX socket.
    Unix(&'a str),
    /// `host:port` of TCP.
    Tcp(&'a str),
    /// The path of a FIFO, which takes commands and answers nothing.
    Fifo(&'a str),
}

impl<'a> Address<'a> {
    /// Tells the kind of an address by its first match: `fifo:PATH`, `unix:PATH`, a path that begins with `/` or ends
    /// in `.sock`, `.socket` or `.ipc`, a name of a socket without a file, `@NAME`, which neither broker nor client
    /// supports, and anything else is TCP, with or without `tcp:`. Never fails: what is no
    /// address fails where it is used.
    pub fn parse(text: &'a str) -> Self {
        if let Some(path) = text.strip_prefix("fifo:") {
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

/// Where the broker listens if nobody says otherwise: `elbus.sock` in the user's folder for such things, else in
/// `/tmp`.
///
/// `runtime_dir` is `$XDG_RUNTIME_DIR`, where that names a folder that exists: to find this out is the caller's, broker
/// and client alike.
pub fn default_socket(runtime_dir: Option<&OsStr>) -> PathBuf {
    let folder = runtime_dir.filter(|folder| !folder.is_empty()).map_or(Path::new("/tmp"), Path::new);
    folder.join(DEFAULT_SOCKET)
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
            ("127.0.0.1:7777", Address::Tcp("127.0.0.1:7777")),
            ("tcp:[::1]:7777", Address::Tcp("[::1]:7777")),
        ] {
            assert_eq!(Address::parse(text), address);
        }
    }

    #[test]
    fn the_default_socket_is_the_users_or_in_tmp() {
        for (runtime_dir, path) in [
            (Some("/run/user/1000"), "/run/user/1000/elbus.sock"),
            (Some(""), "/tmp/elbus.sock"),
            (None, "/tmp/elbus.sock"),
        ] {
            assert_eq!(default_socket(runtime_dir.map(OsStr::new)), Path::new(path));
        }
    }
}
