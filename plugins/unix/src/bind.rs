//! Binds the socket file and removes a stale one. Owns the file from bind to removal; never changes a socket
//! that a broker serves, nor a file that is not a socket.
//!
//! The lock on the folder prevents other brokers from replacing the file between the check of a stale file
//! and the bind. Permissions and owners are set on the bound file, never by its name, which may refer to
//! another file by then.

use elbus_files::{Folder, FolderLock, Identity, Node};
use elbus_plugin_api::{Host, PluginError};
use elbus_stream::Listener;
use rustix::{
    fs::{FileType, Mode, fchmod},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_socket, connect, listen,
        socket_with,
    },
};
use std::{
    ffi::{OsStr, OsString},
    fmt::Display,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::socket_path::SocketPath;

/// Length of the accept queue.
const BACKLOG: i32 = 4096;
/// Timeout for the lock. Brokers hold it briefly; a process that holds it longer cannot prevent a start.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Returns the inherited socket of this path, if any; its file is not removed.
pub(crate) fn inherited(host: &Host, socket_path: &SocketPath) -> Option<Listener> {
    let port = socket_path.path.display().to_string();
    let address = format!("unix:{port}");
    let socket = host.inherited_listener(&address)?;
    Some(Listener { socket, port, address, inherited: true })
}

/// Binds a socket at the path, with its mode and owners, and listens.
pub(crate) fn bind(socket_path: &SocketPath) -> Result<(Listener, SocketFile), PluginError> {
    let path = &socket_path.path;
    let failed = |what: &str, error: io::Error| {
        PluginError::of_key("path", format!("cannot {what} {}: {error}", path.display()))
    };
    let address = SocketAddrUnix::new(path).map_err(|error| failed("use", error.into()))?;
    let (folder, name) = Folder::of(path).map_err(|error| PluginError::of_key("path", error.to_string()))?;
    let lock = lock(&folder);
    clear_way(path, &folder, &name)?;

    let socket = stream_socket().map_err(|error| failed("create a socket for", error))?;
    // the file inherits the mode of the unbound socket, so no user can connect until its owners are set
    fchmod(&socket, Mode::empty()).map_err(|error| failed("create a socket for", error.into()))?;
    bind_socket(&socket, &address).map_err(|error| failed("bind", error.into()))?;
    let node = bound(&folder, &name).map_err(|why| failed("bind", why))?;
    let file = SocketFile { path: path.to_owned(), identity: node.identity() };
    let opened = give_to_owners(socket_path, &node)
        .and_then(|()| open_to_users(socket_path, &node))
        .and_then(|()| listen(&socket, BACKLOG).map_err(|error| failed("listen on", error.into())));
    drop(lock); // before removing the file, which takes the lock again
    opened?;

    let port = path.display().to_string();
    let address = format!("unix:{port}");
    Ok((Listener { socket, port, address, inherited: false }, file))
}

fn lock(folder: &Folder) -> Option<FolderLock> {
    let lock = folder.lock(LOCK_PATIENCE);
    if lock.is_none() {
        tracing::debug!(folder = %folder.path().display(), "folder cannot be locked; binding without the lock");
    }
    lock
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Returns the file of the socket that was just bound under this name. Another user with write access to the
/// folder could have replaced it, and the owner of that file must not be changed. The file is valid if it is
/// a socket without permissions, with one name, and of the broker's user.
fn bound(folder: &Folder, name: &OsStr) -> io::Result<Node> {
    let replaced = || io::Error::other("the socket was replaced by another file while it was bound");
    let node = match folder.node(name) {
        Err(Errno::NOENT) => return Err(replaced()),
        node => node?,
    };
    let is_ours = node.file_type().is_socket() && node.is_own() && node.permissions() == 0;
    if is_ours { Ok(node) } else { Err(replaced()) }
}

fn give_to_owners(socket_path: &SocketPath, node: &Node) -> Result<(), PluginError> {
    let owner = socket_path.owner.as_ref().map(|account| account.user_id("owner")).transpose()?;
    let group = socket_path.group.as_ref().map(|account| account.group_id("group")).transpose()?;
    if owner.is_none() && group.is_none() {
        return Ok(());
    }
    let key = if owner.is_some() { "owner" } else { "group" };
    node.give_to(owner, group).map_err(|error| {
        PluginError::of_key(key, format!("cannot give {} away: {error}", socket_path.path.display()))
    })
}

fn open_to_users(socket_path: &SocketPath, node: &Node) -> Result<(), PluginError> {
    node.set_permissions(socket_path.mode).map_err(|error| {
        PluginError::of_key("mode", format!("cannot set it on {}: {error}", socket_path.path.display()))
    })
}

/// Removes a stale socket file.
fn clear_way(path: &Path, folder: &Folder, name: &OsStr) -> Result<(), PluginError> {
    let refuse = |why: &dyn Display| Err(PluginError::of_key("path", format!("{}: {why}", path.display())));
    let node = match folder.node(name) {
        Ok(node) => node,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return refuse(&format_args!("cannot check it: {error}")),
    };
    if node.file_type() != FileType::Socket {
        return refuse(&"exists and is not a socket");
    }
    // connects through the file itself, since its name may refer to another file by now
    let asked = stream_socket()
        .and_then(|socket| Ok((socket, SocketAddrUnix::new(node.path()).map_err(io::Error::from)?)));
    let (socket, address) = match asked {
        Ok(asked) => asked,
        Err(error) => return refuse(&format_args!("cannot check whether a broker listens there: {error}")),
    };
    match connect(&socket, &address) {
        // a full accept queue means that a broker serves the socket
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => refuse(&"a broker is listening there already"),
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::CONNREFUSED) => {
            tracing::info!(path = %path.display(), "removing the socket file of a broker that is gone");
            match folder.remove(name, node.identity()) {
                Ok(_) => Ok(()),
                Err(error) => refuse(&format_args!("no broker serves it, but it cannot be removed: {error}")),
            }
        }
        Err(error) => {
            refuse(&format_args!("exists, and the check whether a broker listens there failed: {error}"))
        }
    }
}

/// The file of a bound socket. Removed when dropped, if the path still refers to it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

impl SocketFile {
    /// Returns whether the path still refers to this socket. While it is bound, no other file has its
    /// identity.
    pub(crate) fn is_there(&self) -> bool {
        self.folder().is_some_and(|(folder, name)| folder.holds(&name, self.identity))
    }

    fn folder(&self) -> Option<(Folder, OsString)> {
        Folder::of(&self.path).ok()
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let Some((folder, name)) = self.folder() else { return };
        let _lock = lock(&folder);
        if let Err(error) = folder.remove(&name, self.identity) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}
