//! The FIFO as a file: creating, taking over, reading and removing it. The FIFO belongs to the broker: its
//! owner is checked on the opened file, and links are not followed. Its folder is held open, so that renaming
//! folders cannot redirect it. Never removes anything but a FIFO of its own that has no reader, and never
//! interprets its data.

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

/// The FIFO that an instance reads.
#[derive(Debug)]
pub(crate) struct Pipe {
    file: OwnedFd,
    path: PathBuf,
    folder: Folder,
    name: OsString,
    /// No other file can have the same identity while `file` is open.
    identity: Identity,
    removed: AtomicBool,
}

/// An error in creating or opening the FIFO.
#[derive(Debug)]
pub(crate) enum PipeError {
    /// Its folder cannot be used.
    Folder(FolderError),
    /// The path names a file of another type, which the plugin must not remove.
    NotAFifo { path: PathBuf },
    /// It belongs to another user, who can write to it regardless of its mode.
    Foreign { path: PathBuf, owner: u32 },
    /// Another process reads it.
    InUse { path: PathBuf },
    /// A system call failed.
    System { what: &'static str, path: PathBuf, error: Errno },
}

impl fmt::Display for PipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PipeError::Folder(error) => write!(f, "{error}"),
            PipeError::NotAFifo { path } => {
                write!(f, "{} exists and is not a FIFO; remove it or choose another path", path.display())
            }
            PipeError::Foreign { path, owner } => write!(
                f,
                "the fifo {} belongs to user {owner}, but the broker runs as user {}; remove it",
                path.display(),
                geteuid().as_raw()
            ),
            PipeError::InUse { path } => write!(f, "another process reads {}", path.display()),
            PipeError::System { what, path, error } => write!(f, "cannot {what} {}: {error}", path.display()),
        }
    }
}

/// A name in an opened folder, with its path for messages.
struct Entry<'a> {
    path: &'a Path,
    folder: &'a Folder,
    name: &'a OsStr,
}

impl Entry<'_> {
    fn failed(&self, what: &'static str) -> impl Fn(Errno) -> PipeError {
        let path = self.path.to_owned();
        move |error| PipeError::System { what, path: path.clone(), error }
    }

    fn create(&self) -> Result<(), Errno> {
        rustix::fs::mkfifoat(self.folder, self.name, Mode::RUSR | Mode::WUSR)
    }

    /// Checks that the entry is a FIFO of the broker's user without a reader: opening it for writing fails
    /// then.
    fn check_unread(&self) -> Result<Stat, PipeError> {
        let stat = self.folder.stat(self.name).map_err(self.failed("examine"))?;
        let stat = stat.ok_or_else(|| self.failed("examine")(Errno::NOENT))?;
        check_own(self.path, &stat)?;
        match self.folder.open_file(self.name, OFlags::WRONLY, Mode::empty()) {
            Err(Errno::NXIO) => Ok(stat),
            Ok(_) => Err(PipeError::InUse { path: self.path.to_owned() }),
            Err(error) => Err(self.failed("open fifo")(error)),
        }
    }

    /// Removes the entry if it is this file.
    fn remove(&self, identity: Identity) -> Result<(), PipeError> {
        self.folder.remove(self.name, identity).map(drop).map_err(self.failed("remove"))
    }
}

impl Pipe {
    /// Creates the FIFO, or takes over one of the broker's user that has no reader, and opens it. `mode`
    /// applies regardless of the umask.
    pub(crate) fn open(path: &Path, mode: u32, group: Option<u32>) -> Result<Self, PipeError> {
        let (folder, name) = Folder::of(path).map_err(PipeError::Folder)?;
        let entry = Entry { path, folder: &folder, name: &name };
        let created = match entry.create() {
            Ok(()) => true,
            Err(Errno::EXIST) => {
                let stat = entry.check_unread()?;
                let reuse = is_reusable(&stat, mode, group);
                if !reuse {
                    entry.remove(Identity::of(&stat))?;
                    entry.create().map_err(entry.failed("create fifo"))?;
                }
                !reuse
            }
            Err(error) => return Err(entry.failed("create fifo")(error)),
        };
        // for reading only, so that the end of the last writer is seen
        let file =
            folder.open_file(&name, OFlags::RDONLY, Mode::empty()).map_err(entry.failed("open fifo"))?;
        let stat = rustix::fs::fstat(&file).map_err(entry.failed("examine"))?;
        check_own(path, &stat)?;
        let identity = Identity::of(&stat);
        let finish = || {
            if let Some(group) = group {
                rustix::fs::fchown(&file, None, Some(Gid::from_raw(group)))
                    .map_err(entry.failed("set the group of"))?;
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(entry.failed("set the mode of"))
        };
        if let Err(error) = finish() {
            // an existing one is not removed
            if created {
                _ = entry.remove(identity);
            }
            return Err(error);
        }
        Ok(Pipe { file, path: path.to_owned(), folder, name, identity, removed: AtomicBool::new(false) })
    }

    /// Adds the FIFO to `poll`, which reports arriving data and the last writer's close once each.
    pub(crate) fn watch(&self, poll: &OwnedFd, data: epoll::EventData) -> Result<(), Errno> {
        // level-triggered, it would report the absence of writers continuously
        epoll::add(poll, &self.file, data, epoll::EventFlags::IN | epoll::EventFlags::ET)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what is available; `Errno::AGAIN` if that is nothing, 0 if there is no writer either.
    pub(crate) fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.file, into)
    }

    /// Returns whether the path still leads to this FIFO. Resolves the path again, as writers do.
    pub(crate) fn exists(&self) -> bool {
        Folder::of(&self.path).is_ok_and(|(folder, name)| folder.holds(&name, self.identity))
    }

    /// Removes the file if its name in the folder still leads to this FIFO. Further calls have no effect.
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
        return Err(PipeError::NotAFifo { path: path.to_owned() });
    }
    if stat.st_uid != geteuid().as_raw() {
        return Err(PipeError::Foreign { path: path.to_owned(), owner: stat.st_uid });
    }
    Ok(())
}

/// Returns whether no user whom `mode` and `group` exclude could have opened an existing FIFO: changing the
/// mode would not close what is open.
fn is_reusable(stat: &Stat, mode: u32, group: Option<u32>) -> bool {
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
    fn a_fifo_is_created_with_its_mode_and_removed() {
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
        assert!(matches!(Pipe::open(&path, 0o622, None), Err(PipeError::NotAFifo { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"data");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(matches!(Pipe::open(&path, 0o622, None), Err(PipeError::NotAFifo { .. })));
        let error = Pipe::open(&dir.path().join("no/f"), 0o622, None).unwrap_err().to_string();
        assert_eq!(error, format!("folder {} does not exist", dir.path().join("no").display()));
        // users who can replace files in the folder could receive data meant for the broker
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = Pipe::open(&open.join("f"), 0o600, None).unwrap_err().to_string();
        assert!(error.contains("every user may replace files in it"), "{error}");
    }

    #[test]
    fn a_writer_of_a_fifo_with_a_wider_mode_cannot_write_to_the_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let abandon = |pipe: Pipe| pipe.removed.store(true, Ordering::Relaxed);
        let pipe = Pipe::open(&path, 0o622, None).unwrap();
        let mut stranger = fs::File::options().write(true).open(&path).unwrap();
        let first = pipe.identity;
        abandon(pipe);
        let again = Pipe::open(&path, 0o622, None).unwrap();
        assert_eq!(again.identity, first, "taken over");
        abandon(again);
        let narrow = Pipe::open(&path, 0o600, None).unwrap();
        assert_ne!(narrow.identity, first, "created again");
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
            assert_eq!(reported(), 1, "the close of its writer is reported");
            assert_eq!(pipe.read(&mut [0; 8]), Ok(0));
            assert_eq!(reported(), 0, "then the thread sleeps");
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
            "the fifo {} belongs to user 65534, but the broker runs as user 0; remove it",
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
    fn a_replaced_folder_does_not_redirect_the_fifo() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, moved) = (dir.path().join("d"), dir.path().join("moved"));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("f");
        let pipe = Pipe::open(&path, 0o600, None).unwrap();
        assert!(pipe.exists());
        fs::rename(&folder, &moved).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(!pipe.exists(), "its path leads elsewhere");
        drop(pipe);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert!(!moved.join("f").exists());
    }

    #[test]
    fn a_file_that_replaced_the_fifo_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let pipe = Pipe::open(&path, 0o622, None).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "data").unwrap();
        pipe.remove();
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }
}
