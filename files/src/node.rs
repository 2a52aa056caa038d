//! One file, whatever its type, reached without opening it: its identity, owner and permissions.

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, Stat, Uid, chmod, chownat, fstat},
    io::Errno,
    process::geteuid,
};
use std::{
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
};

use crate::folder::type_of;

/// What tells one file from another while either of them exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// That of the file with this status.
    pub fn of(stat: &Stat) -> Self {
        Identity { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// A file that was reached by name and is from then on by descriptor. It is not open for reading or writing,
/// and reaching it had no effect on it.
#[derive(Debug)]
pub struct Node {
    descriptor: OwnedFd,
    stat: Stat,
}

impl Node {
    pub(crate) fn new(descriptor: OwnedFd) -> Result<Self, Errno> {
        let stat = fstat(&descriptor)?;
        Ok(Node { descriptor, stat })
    }

    /// What tells it from other files.
    pub fn identity(&self) -> Identity {
        Identity::of(&self.stat)
    }

    /// Its type when it was reached.
    pub fn file_type(&self) -> FileType {
        type_of(&self.stat)
    }

    /// Whether it belongs to the current user and has this name alone: then it is not somebody else's file
    /// under another name.
    pub fn is_own(&self) -> bool {
        self.stat.st_uid == geteuid().as_raw() && self.stat.st_nlink == 1
    }

    /// Its permissions when it was reached.
    pub fn permissions(&self) -> u32 {
        self.stat.st_mode & 0o7777
    }

    /// A path that leads to this very file while the node exists, through no name that anybody could change.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()).into()
    }

    /// Gives the file to other owners; `None` leaves one as it is.
    ///
    /// # Errors
    /// The system call fails.
    pub fn give_to(&self, owner: Option<u32>, group: Option<u32>) -> Result<(), Errno> {
        let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
        chownat(&self.descriptor, "", owner, group, AtFlags::EMPTY_PATH)
    }

    /// Sets its permissions. Needs `/proc`.
    ///
    /// # Errors
    /// The system call fails.
    pub fn set_permissions(&self, mode: u32) -> Result<(), Errno> {
        chmod(self.path(), Mode::from_raw_mode(mode))
    }
}
