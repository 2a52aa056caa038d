//! Binding: the old socket file, if there is one, and the new one. Owns the file from bind to removal; never touches
//! a socket that somebody serves, nor a file that is no socket.

use elbus_plugin_api::{Host, PluginError};
use elbus_stream::Listener;
use rustix::{
    fs::{Mode, Stat, fchmod},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_socket, connect, listen,
        socket_with,
    },
};
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use crate::{
    folder::FolderLock,
    place::{Place, folder_of},
};

/// Connections that may wait for being accepted.
const BACKLOG: i32 = 4096;

/// The socket at the place that the broker was handed: its file is not ours.
pub(crate) fn inherited(host: &Host, place: &Place) -> Option<Listener> {
    let port = place.path.display().to_string();
    let address = format!("unix:{port}");
    let socket = host.inherited_listener(&address)?;
    Some(Listener { socket, port, address, inherited: true })
}

/// Binds a socket at the place, with its mode and owners, and listens.
pub(crate) fn bind(place: &Place) -> Result<(Listener, SocketFile), PluginError> {
    let path = &place.path;
    let failed = |what: &str, error: io::Error| {
        PluginError::of_key("path", format!("cannot {what} {}: {error}", path.display()))
    };
    let address = SocketAddrUnix::new(path).map_err(|error| failed("use", error.into()))?;
    // Looking at an old file and replacing it is one step to all brokers: see the folder's lock.
    let lock = FolderLock::take(place.folder());
    clear_way(path, &address)?;

    let socket = stream_socket().map_err(|error| failed("make a socket for", error))?;
    // The file takes the mode of the unbound socket over, so it is closed to everybody until its owners are right.
    let _ = fchmod(&socket, Mode::empty());
    bind_socket(&socket, &address).map_err(|error| match error {
        Errno::NOENT => PluginError::of_key(
            "path",
            format!(
                "folder {} does not exist, so {} cannot be bound",
                place.folder().display(),
                path.display()
            ),
        ),
        error => failed("bind", error.into()),
    })?;
    let file = SocketFile::at(path).map_err(|error| failed("bind", error))?;
    let opened = give_to_owners(place)
        .and_then(|()| open_to_users(place))
        .and_then(|()| listen(&socket, BACKLOG).map_err(|error| failed("listen on", error.into())));
    drop(lock); // before the file may have to be removed, which takes it again
    opened?;

    let port = path.display().to_string();
    let address = format!("unix:{port}");
    Ok((Listener { socket, port, address, inherited: false }, file))
}

fn stream_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

fn give_to_owners(place: &Place) -> Result<(), PluginError> {
    let owner = place.owner.as_ref().map(|account| account.user_id("owner")).transpose()?;
    let group = place.group.as_ref().map(|account| account.group_id("group")).transpose()?;
    if owner.is_none() && group.is_none() {
        return Ok(());
    }
    let key = if owner.is_some() { "owner" } else { "group" };
    std::os::unix::fs::chown(&place.path, owner, group).map_err(|error| {
        PluginError::of_key(key, format!("cannot give {} away: {error}", place.path.display()))
    })
}

fn open_to_users(place: &Place) -> Result<(), PluginError> {
    rustix::fs::chmod(&place.path, Mode::from_raw_mode(place.mode)).map_err(|error| {
        PluginError::of_key("mode", format!("cannot set it on {}: {error}", place.path.display()))
    })
}

/// Removes the socket file of a broker that is gone.
fn clear_way(path: &Path, address: &SocketAddrUnix) -> Result<(), PluginError> {
    let refuse = |why: String| Err(PluginError::of_key("path", format!("{}: {why}", path.display())));
    let stat = match rustix::fs::lstat(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return refuse(format!("cannot look at it: {error}")),
    };
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_socket() {
        return refuse("exists and is no socket".to_owned());
    }
    let socket = match stream_socket() {
        Ok(socket) => socket,
        Err(error) => return refuse(format!("cannot ask who serves it: {error}")),
    };
    match connect(&socket, address) {
        // a full backlog has somebody behind it, too
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => {
            refuse("a broker is listening there already".to_owned())
        }
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::CONNREFUSED) => {
            tracing::info!(path = %path.display(), "removing the socket file of a broker that is gone");
            match rustix::fs::unlink(path) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => refuse(format!("nobody serves it, but it cannot be removed: {error}")),
            }
        }
        Err(error) => refuse(format!("exists, and it cannot be told who serves it: {error}")),
    }
}

/// The file of a bound socket. Removed when dropped, if it still is the one that was bound.
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(SocketFile { path: path.to_owned(), identity: identity(&rustix::fs::lstat(path)?) })
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _lock = FolderLock::take(folder_of(&self.path));
        let ours = rustix::fs::lstat(&self.path).is_ok_and(|stat| identity(&stat) == self.identity);
        if ours && let Err(error) = rustix::fs::unlink(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket file");
        }
    }
}
