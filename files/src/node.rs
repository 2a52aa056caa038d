//! One file of any type, reached without opening it: its identity, owner and permissions.

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

/// Identifies a file for as long as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Returns the identity in this status.
    pub fn of(stat: &Stat) -> Self {
        Identity { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// A file that was reached by name and is then held by descriptor. It is not open for reading or writing, and
/// reaching it has no effect on it.
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

    /// Returns the file's identity.
    pub fn identity(&self) -> Identity {
        Identity::of(&self.stat)
    }

    /// Returns the file type at the time it was reached.
    pub fn file_type(&self) -> FileType {
        type_of(&self.stat)
    }

    /// Returns whether the file belongs to the current user and has no other name, so that it cannot be
    /// another user's file under a second name.
    pub fn is_own(&self) -> bool {
        self.stat.st_uid == geteuid().as_raw() && self.stat.st_nlink == 1
    }

    /// Returns the permissions at the time it was reached.
    pub fn permissions(&self) -> u32 {
        self.stat.st_mode & 0o7777
    }

    /// Returns a path to this file that stays valid while the node exists and that no other user can
    /// redirect.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()).into()
    }

    /// Changes the file's owner and group; `None` leaves one unchanged.
    ///
    /// # Errors
    /// The system call fails.
    pub fn give_to(&self, owner: Option<u32>, group: Option<u32>) -> Result<(), Errno> {
        let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
        chownat(&self.descriptor, "", owner, group, AtFlags::EMPTY_PATH)
    }

    /// Sets the file's permissions. Requires `/proc`.
    ///
    /// # Errors
    /// The system call fails.
    pub fn set_permissions(&self, mode: u32) -> Result<(), Errno> {
        chmod(self.path(), Mode::from_raw_mode(mode))
    }
}
