//! The FIFO as a file: made, taken over, read, removed. It is the broker's own: its owner is checked on the
//! opened descriptor, links are not followed. Its folder is held by descriptor, so that nobody who renames folders
//! leads it elsewhere. Never removes anything but a FIFO of its own that nobody reads, never knows what is in it.

use elbus_files::{Folder, FolderError, Identity};
use rustix::{
    event::epoll,
    fs::{FileType, Gid, Mode, OFlags, Stat},
    io::Errno,
    process::geteuid,
};
use std::{
    ffi::{OsStr, OsString},
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
    folder: Folder,
    name: OsString,
    /// While `file` is open no other file can have the same.
    identity: Identity,
    removed: AtomicBool,
}

/// Why there is no FIFO.
#[derive(Debug)]
pub(crate) enum PipeError {
    /// Its folder is not used.
    Folder(FolderError),
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
            PipeError::Folder(error) => write!(f, "{error}"),
            PipeError::NoFifo { path } => {
                write!(f, "{} exists and is not a FIFO; remove it or choose another path", path.display())
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

/// A name in a folder, and how it is called in messages.
struct Place<'a> {
    path: &'a Path,
    folder: &'a Folder,
    name: &'a OsStr,
}

impl Place<'_> {
    fn failed(&self, what: &'static str) -> impl Fn(Errno) -> PipeError {
        let path = self.path.to_owned();
        move |error| PipeError::System { what, path: path.clone(), error }
    }

    fn make(&self) -> Result<(), Errno> {
        rustix::fs::mkfifoat(self.folder, self.name, Mode::RUSR | Mode::WUSR)
    }

    /// Whether there is a FIFO of the broker's own that nobody has open for reading: opening it for writing then says so.
    fn check_unread(&self) -> Result<Stat, PipeError> {
        let stat = self.folder.stat(self.name).map_err(self.failed("examine"))?;
        let stat = stat.ok_or_else(|| self.failed("examine")(Errno::NOENT))?;
        check_own(self.path, &stat)?;
        match self.folder.open_file(self.name, OFlags::WRONLY, Mode::empty()) {
            Err(Errno::NXIO) => Ok(stat),
            Ok(_) => Err(PipeError::Taken { path: self.path.to_owned() }),
            Err(error) => Err(self.failed("open fifo")(error)),
        }
    }

    /// Removes the name if it leads to this file.
    fn remove(&self, identity: Identity) -> Result<(), PipeError> {
        self.folder.remove(self.name, identity).map(drop).map_err(self.failed("remove"))
    }
}

impl Pipe {
    /// Makes the FIFO, or takes over one of its own that nobody reads, and opens it; `mode` holds whatever
    /// the umask is.
    pub(crate) fn open(path: &Path, mode: u32, group: Option<u32>) -> Result<Self, PipeError> {
        let (folder, name) = Folder::of(path).map_err(PipeError::Folder)?;
        let place = Place { path, folder: &folder, name: &name };
        let made = match place.make() {
            Ok(()) => true,
            Err(Errno::EXIST) => {
                let stat = place.check_unread()?;
                let keeps = may_keep(&stat, mode, group);
                if !keeps {
                    place.remove(Identity::of(&stat))?;
                    place.make().map_err(place.failed("make fifo"))?;
                }
                !keeps
            }
            Err(error) => return Err(place.failed("make fifo")(error)),
        };
        // for reading only, so that the end of the last writer is seen
        let file =
            folder.open_file(&name, OFlags::RDONLY, Mode::empty()).map_err(place.failed("open fifo"))?;
        let stat = rustix::fs::fstat(&file).map_err(place.failed("examine"))?;
        check_own(path, &stat)?;
        let identity = Identity::of(&stat);
        let finish = || {
            if let Some(group) = group {
                rustix::fs::fchown(&file, None, Some(Gid::from_raw(group)))
                    .map_err(place.failed("set the group of"))?;
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(place.failed("set the mode of"))
        };
        if let Err(error) = finish() {
            // one that was there already stays
            if made {
                _ = place.remove(identity);
            }
            return Err(error);
        }
        Ok(Pipe { file, path: path.to_owned(), folder, name, identity, removed: AtomicBool::new(false) })
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

    /// Whether the path still leads to this FIFO. By the path, since writers go by it.
    pub(crate) fn is_there(&self) -> bool {
        Folder::of(&self.path).is_ok_and(|(folder, name)| folder.holds(&name, self.identity))
    }

    /// Removes the file if its name in the folder still leads to this FIFO. Only the first call does anything.
    pub(crate) fn remove(&self) {
        if self.removed.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.folder.remove(&self.name, self.identity) {
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
        assert_eq!(error, format!("folder {} does not exist", dir.path().join("no").display()));
        // whoever may replace files in the folder would get what is written
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = Pipe::open(&open.join("f"), 0o600, None).unwrap_err().to_string();
        assert!(error.contains("every user may replace files in it"), "{error}");
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
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
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
    fn a_folder_that_is_swapped_leads_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, moved) = (dir.path().join("d"), dir.path().join("moved"));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("f");
        let pipe = Pipe::open(&path, 0o600, None).unwrap();
        assert!(pipe.is_there());
        fs::rename(&folder, &moved).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(!pipe.is_there(), "nobody finds it by its path");
        drop(pipe);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert!(!moved.join("f").exists());
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
