//! The FIFO as a file: made, taken over, read, removed. It is the broker's own: its owner is checked on the
//! opened descriptor, links are not followed. Never removes anything but a FIFO of its own that nobody reads,
//! never knows what is in it.

use rustix::{
    event::epoll,
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat},
    io::Errno,
    process::geteuid,
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
    /// It belongs to another user, who can open it whatever its mode.
    Foreign { path: PathBuf, owner: u32 },
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
            PipeError::Foreign { path, owner } => write!(
                f,
                "the fifo {} belongs to the user {owner} and not to that of the broker, {}; remove it",
                path.display(),
                geteuid().as_raw()
            ),
            PipeError::Taken { path } => write!(f, "another process reads {}", path.display()),
            PipeError::System { what, path, error } => write!(f, "cannot {what} {}: {error}", path.display()),
        }
    }
}

impl Pipe {
    /// Makes the FIFO, or takes over one of its own that nobody reads, and opens it; `mode` holds whatever
    /// the umask is.
    pub(crate) fn open(path: &Path, mode: u32, group: Option<u32>) -> Result<Self, PipeError> {
        let failed = |what| move |error| PipeError::System { what, path: path.to_owned(), error };
        let make = || rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR);
        let made = match make() {
            Ok(()) => true,
            Err(Errno::EXIST) => {
                let stat = check_unread(path)?;
                let keeps = may_keep(&stat, mode, group);
                if !keeps {
                    rustix::fs::unlinkat(CWD, path, AtFlags::empty()).map_err(failed("replace fifo"))?;
                    make().map_err(failed("make fifo"))?;
                }
                !keeps
            }
            Err(error) => return Err(failed("make fifo")(error)),
        };
        // for reading only, so that the end of the last writer is seen
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
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
        check_own(path, &stat)?;
        // one that was there already stays where a later step fails
        let pipe =
            Pipe { file, path: path.to_owned(), identity: identity(&stat), removed: AtomicBool::new(!made) };
        if let Some(group) = group {
            rustix::fs::fchown(&pipe.file, None, Some(Gid::from_raw(group)))
                .map_err(failed("set the group of"))?;
        }
        rustix::fs::fchmod(&pipe.file, Mode::from_raw_mode(mode)).map_err(failed("set the mode of"))?;
        pipe.removed.store(false, Ordering::Relaxed);
        Ok(pipe)
    }

    /// Has `poll` report each time something arrives or the last writer leaves, once.
    pub(crate) fn watch(&self, poll: &OwnedFd, data: epoll::EventData) -> Result<(), Errno> {
        // level-triggered it would report for ever that there is no writer
        epoll::add(poll, &self.file, data, epoll::EventFlags::IN | epoll::EventFlags::ET)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what is there; `Errno::AGAIN` where nothing is, 0 where nothing is and no writer either.
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

/// Whether the path is a FIFO of the broker's own that nobody has open for reading: opening it for writing
/// then says so.
fn check_unread(path: &Path) -> Result<Stat, PipeError> {
    let failed = |what| move |error| PipeError::System { what, path: path.to_owned(), error };
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("examine"))?;
    check_own(path, &stat)?;
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NXIO) => Ok(stat),
        Ok(_) => Err(PipeError::Taken { path: path.to_owned() }),
        Err(error) => Err(failed("open fifo")(error)),
    }
}

fn check_own(path: &Path, stat: &Stat) -> Result<(), PipeError> {
    if !is_fifo(stat) {
        return Err(PipeError::NoFifo { path: path.to_owned() });
    }
    if stat.st_uid != geteuid().as_raw() {
        return Err(PipeError::Foreign { path: path.to_owned(), owner: stat.st_uid });
    }
    Ok(())
}

/// Whether nobody can have opened a FIFO that is there, or be about to, who may not by `mode` and `group`. A
/// changed mode takes nothing away from who has opened it.
fn may_keep(stat: &Stat, mode: u32, group: Option<u32>) -> bool {
    let wider = stat.st_mode & 0o777 & !mode;
    wider == 0 && (group.is_none_or(|group| group == stat.st_gid) || stat.st_mode & 0o070 == 0)
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
        os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    };

    #[test]
    fn a_fifo_is_made_with_its_mode_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let pipe = Pipe::open(&path, 0o622, None).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert!(meta.file_type().is_fifo());
        assert_eq!(meta.permissions().mode() & 0o777, 0o622);
        assert_eq!(pipe.read(&mut [0; 8]), Ok(0), "no writer");
        let writer = fs::File::options().write(true).open(&path).unwrap();
        assert_eq!(pipe.read(&mut [0; 8]), Err(Errno::AGAIN));
        drop(writer);
        assert_eq!(pipe.read(&mut [0; 8]), Ok(0));
        drop(pipe);
        assert!(!path.exists());
    }

    #[test]
    fn only_an_unread_fifo_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let pipe = Pipe::open(&path, 0o600, None).unwrap();
        let error = Pipe::open(&path, 0o600, None).unwrap_err().to_string();
        assert_eq!(error, format!("another process reads {}", path.display()));
        assert!(path.exists());
        pipe.removed.store(true, Ordering::Relaxed);
        drop(pipe);
        let again = Pipe::open(&path, 0o640, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        drop(again);
        assert!(!path.exists());
    }

    #[test]
    fn no_other_file_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "data").unwrap();
        assert!(matches!(Pipe::open(&path, 0o622, None), Err(PipeError::NoFifo { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"data");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(matches!(Pipe::open(&path, 0o622, None), Err(PipeError::NoFifo { .. })));
        let error = Pipe::open(&dir.path().join("no/f"), 0o622, None).unwrap_err().to_string();
        assert!(error.starts_with("cannot make fifo "), "{error}");
    }

    #[test]
    fn who_had_a_wider_fifo_open_has_not_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let leave = |pipe: Pipe| pipe.removed.store(true, Ordering::Relaxed);
        let pipe = Pipe::open(&path, 0o622, None).unwrap();
        let mut stranger = fs::File::options().write(true).open(&path).unwrap();
        let first = pipe.identity;
        leave(pipe);
        let again = Pipe::open(&path, 0o622, None).unwrap();
        assert_eq!(again.identity, first, "taken over");
        leave(again);
        let narrow = Pipe::open(&path, 0o600, None).unwrap();
        assert_ne!(narrow.identity, first, "made anew");
        assert!(std::io::Write::write_all(&mut stranger, b"x").is_err());
        assert_eq!(narrow.read(&mut [0; 8]), Ok(0));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_fifo_without_writers_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let pipe = Pipe::open(&path, 0o600, None).unwrap();
        let events = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        pipe.watch(&events, epoll::EventData::new_u64(0)).unwrap();
        let reported = || {
            let mut ready =
                [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
            epoll::wait(&events, &mut ready[..], Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))
                .unwrap()
        };
        for _ in 0..3 {
            let mut writer = fs::File::options().write(true).open(&path).unwrap();
            std::io::Write::write_all(&mut writer, b"x").unwrap();
            assert_eq!(reported(), 1);
            assert_eq!(pipe.read(&mut [0; 8]), Ok(1));
            drop(writer);
            assert_eq!(reported(), 1, "its writer has left");
            assert_eq!(pipe.read(&mut [0; 8]), Ok(0));
            assert_eq!(reported(), 0, "and the thread sleeps");
        }
    }

    #[test]
    fn the_fifo_of_another_user_is_refused() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can give a file away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        rustix::fs::mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        let error = Pipe::open(&path, 0o600, None).unwrap_err().to_string();
        let expected = format!(
            "the fifo {} belongs to the user 65534 and not to that of the broker, 0; remove it",
            path.display()
        );
        assert_eq!(error, expected);
        assert!(path.exists());
    }

    #[test]
    fn the_group_is_set_on_the_opened_fifo() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let own = fs::metadata(dir.path()).unwrap().gid();
        let _pipe = Pipe::open(&path, 0o620, Some(own)).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.gid(), meta.permissions().mode() & 0o777), (own, 0o620));
    }

    #[test]
    fn what_has_taken_its_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let pipe = Pipe::open(&path, 0o622, None).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "data").unwrap();
        pipe.remove();
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }
}
