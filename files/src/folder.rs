//! A folder held by descriptor, and operations on the files in it by name.

use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, fchmod, flock, fsync, openat, renameat,
        statat, unlinkat,
    },
    io::{Errno, write},
};
use std::{
    ffi::{OsStr, OsString},
    fmt::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{FolderError, Identity, Node, resolve};

/// Pause between two attempts to lock a folder.
const STEP: Duration = Duration::from_millis(5);
/// Number of names that [`Folder::replace`] tries for its temporary file.
const MAX_NAMES: u32 = 100;

/// A folder, held by descriptor.
#[derive(Debug)]
pub struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
}

/// The lock on a folder, released when dropped.
#[derive(Debug)]
pub struct FolderLock(#[expect(dead_code, reason = "the lock lives as long as the descriptor")] OwnedFd);

impl Folder {
    /// Opens a folder. Follows symbolic links on the path if they belong to root or the current user.
    ///
    /// # Errors
    /// The folder does not exist; a folder on the path is writable for every user and not sticky; a symbolic
    /// link on the path belongs to another user.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(Folder { descriptor: resolve::folder(path)?, path: path.to_owned() })
    }

    /// Opens the folder of a file and returns the file's name in it. The file need not exist.
    ///
    /// # Errors
    /// As [`open`](Self::open); also if the path does not end in a file name.
    pub fn of(path: &Path) -> Result<(Self, OsString), FolderError> {
        let no_file = || FolderError::NoFile { path: path.to_owned() };
        let name = path.file_name().ok_or_else(no_file)?.to_owned();
        let folder = Folder::open(path.parent().unwrap_or(Path::new("")))?;
        Ok((folder, name))
    }

    /// Returns the path that the folder was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the status of a name, without following a symbolic link; `None` if the name does not exist.
    ///
    /// # Errors
    /// The system call fails.
    pub fn stat(&self, name: &OsStr) -> Result<Option<Stat>, Errno> {
        match statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the file of a name, without opening it.
    ///
    /// # Errors
    /// The name does not exist, or the system call fails.
    pub fn node(&self, name: &OsStr) -> Result<Node, Errno> {
        Node::new(openat(&self.descriptor, name, resolve::REACH, Mode::empty())?)
    }

    /// Opens a file with these flags. Does not follow a symbolic link, and does not wait for the other end of
    /// a FIFO.
    ///
    /// # Errors
    /// The system call fails; [`Errno::LOOP`] if the name is a symbolic link.
    pub fn open_file(&self, name: &OsStr, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let safe = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        openat(&self.descriptor, name, flags | safe, mode)
    }

    /// Returns whether the name still refers to this file.
    pub fn holds(&self, name: &OsStr, identity: Identity) -> bool {
        matches!(self.stat(name), Ok(Some(stat)) if Identity::of(&stat) == identity)
    }

    /// Removes a name if it refers to this file; returns whether it did.
    ///
    /// # Errors
    /// The system call fails.
    pub fn remove(&self, name: &OsStr, identity: Identity) -> Result<bool, Errno> {
        if !self.holds(name, identity) {
            return Ok(false);
        }
        match unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes a regular file with these contents under a name, atomically: a process that opens the name
    /// finds either the previous file or the complete new one. Replaces a symbolic link of that name instead
    /// of following it.
    ///
    /// # Errors
    /// A system call fails; the name is unchanged.
    pub fn replace(&self, name: &OsStr, bytes: &[u8], mode: Mode) -> Result<(), Errno> {
        let (file, temporary) = self.temporary(name)?;
        let written = fill(&file, bytes)
            .and_then(|()| fchmod(&file, mode))
            .and_then(|()| fsync(&file))
            .and_then(|()| renameat(&self.descriptor, &temporary, &self.descriptor, name));
        if written.is_err() {
            // every step below works on the temporary name only
            _ = unlinkat(&self.descriptor, &temporary, AtFlags::empty());
        }
        written
    }

    /// Creates an empty file that only the current user can access.
    fn temporary(&self, name: &OsStr) -> Result<(OwnedFd, OsString), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        for number in 0..MAX_NAMES {
            let mut temporary = OsString::from(".");
            temporary.push(name);
            _ = write!(temporary, ".{}.{number}", std::process::id());
            match self.open_file(&temporary, flags, Mode::RUSR | Mode::WUSR) {
                Err(Errno::EXIST) => {}
                opened => return opened.map(|file| (file, temporary)),
            }
        }
        Err(Errno::EXIST)
    }

    /// Locks the folder against other processes that lock it, without creating a file. Waits for at most
    /// `patience`; returns `None` if the lock stays taken.
    pub fn lock(&self, patience: Duration) -> Option<FolderLock> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = openat(&self.descriptor, ".", flags, Mode::empty()).ok()?;
        let end = Instant::now() + patience;
        loop {
            match flock(&descriptor, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(FolderLock(descriptor)),
                Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(STEP),
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn fill(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match write(file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the file type in this status.
pub(crate) fn type_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
