//! The FIFO as a file: made, taken over, read, removed. Never removes anything but the very FIFO it holds open,
//! never knows what is in it.

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// A FIFO that this instance reads.
#[derive(Debug)]
pub(crate) struct Pipe {
    file: OwnedFd,
    path: PathBuf,
    /// Device and inode. While `file` is open no other file can have the same.
    identity: (u64, u64),
    removed: AtomicBool,
}

/// Why there is no FIFO.
#[derive(Debug)]
pub(crate) enum PipeError {
    /// There is a file of another type, which is not ours to remove.
    NoFifo { path: PathBuf },
    /// Another process reads it.
    Taken { path: PathBuf },
    /// A system call failed.
    System { what: &'static str, path: PathBuf, error: Errno },
}

impl fmt::Display for PipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PipeError::NoFifo { path } => {
                write!(f, "{} exists and is no fifo; remove it or choose another path", path.display())
            }
            PipeError::Taken { path } => write!(f, "another process reads {}", path.display()),
            PipeError::System { what, path, error } => write!(f, "cannot {what} {}: {error}", path.display()),
        }
    }
}

impl Pipe {
    /// Makes the FIFO, or takes over one that nobody reads, and opens it; `mode` holds whatever the umask is.
    pub(crate) fn open(path: &Path, mode: u32) -> Result<Self, PipeError> {
        let failed = |what| move |error| PipeError::System { what, path: path.to_owned(), error };
        let made = match rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR) {
            Ok(()) => true,
            Err(Errno::EXIST) => {
                check_unread(path)?;
                false
            }
            Err(error) => return Err(failed("make fifo")(error)),
        };
        // opened for writing too, there is always a writer, hence never an end of the file
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
        let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open fifo"));
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                if made {
                    let _ = rustix::fs::unlinkat(CWD, path, AtFlags::empty());
                }
                return Err(error);
            }
        };
        let stat = rustix::fs::fstat(&file).map_err(failed("examine"))?;
        if !is_fifo(&stat) {
            return Err(PipeError::NoFifo { path: path.to_owned() });
        }
        // one that was there already stays where a later step fails
        let pipe =
            Pipe { file, path: path.to_owned(), identity: identity(&stat), removed: AtomicBool::new(!made) };
        rustix::fs::fchmod(&pipe.file, Mode::from_raw_mode(mode)).map_err(failed("set the mode of"))?;
        pipe.removed.store(false, Ordering::Relaxed);
        Ok(pipe)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what is there; `Errno::AGAIN` where nothing is.
    pub(crate) fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.file, into)
    }

    /// Removes the file if the path still leads to this FIFO. Only the first call does anything.
    pub(crate) fn remove(&self) {
        if self.removed.swap(true, Ordering::Relaxed) {
            return;
        }
        let found = rustix::fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|stat| identity(&stat) == self.identity)
            && let Err(error) = rustix::fs::unlinkat(CWD, &self.path, AtFlags::empty())
        {
            tracing::warn!(path = %self.path.display(), %error, "fifo not removed");
        }
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Whether the path is a FIFO that nobody has open for reading: opening it for writing then says so.
fn check_unread(path: &Path) -> Result<(), PipeError> {
    let failed = |what| move |error| PipeError::System { what, path: path.to_owned(), error };
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("examine"))?;
    if !is_fifo(&stat) {
        return Err(PipeError::NoFifo { path: path.to_owned() });
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NXIO) => Ok(()),
        Ok(_) => Err(PipeError::Taken { path: path.to_owned() }),
        Err(error) => Err(failed("open fifo")(error)),
    }
}

fn is_fifo(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Fifo
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{FileTypeExt, PermissionsExt},
    };

    #[test]
    fn a_fifo_is_made_with_its_mode_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let pipe = Pipe::open(&path, 0o622).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert!(meta.file_type().is_fifo());
        assert_eq!(meta.permissions().mode() & 0o777, 0o622);
        assert_eq!(pipe.read(&mut [0; 8]), Err(Errno::AGAIN));
        drop(pipe);
        assert!(!path.exists());
    }

    #[test]
    fn only_an_unread_fifo_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let pipe = Pipe::open(&path, 0o600).unwrap();
        let error = Pipe::open(&path, 0o600).unwrap_err().to_string();
        assert_eq!(error, format!("another process reads {}", path.display()));
        assert!(path.exists());
        pipe.removed.store(true, Ordering::Relaxed);
        drop(pipe);
        let again = Pipe::open(&path, 0o640).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        drop(again);
        assert!(!path.exists());
    }

    #[test]
    fn no_other_file_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "data").unwrap();
        assert!(matches!(Pipe::open(&path, 0o622), Err(PipeError::NoFifo { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"data");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(matches!(Pipe::open(&path, 0o622), Err(PipeError::NoFifo { .. })));
        let error = Pipe::open(&dir.path().join("no/f"), 0o622).unwrap_err().to_string();
        assert!(error.starts_with("cannot make fifo "), "{error}");
    }

    #[test]
    fn what_has_taken_its_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let pipe = Pipe::open(&path, 0o622).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "data").unwrap();
        pipe.remove();
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }
}
