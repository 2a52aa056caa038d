//! The pid file: locked before anything is bound, written when the broker has started, removed on exit.
//!
//! The lock indicates a running broker, not the number in the file: process ids are reused. Never follows a
//! symbolic link, never waits for the other end of a FIFO, and never changes a file that is not a pid file of
//! the broker's user. Only that user and root can open it: any user who can read a file can lock it, which
//! would prevent the start.

use elbus_files::{Folder, Identity};
use rustix::{
    fs::{FlockOperation, Mode, OFlags, fchmod, flock, fstat, ftruncate},
    io::{Errno, pread, pwrite},
    process::{Pid, geteuid, test_kill_process},
};
use std::{
    ffi::OsString,
    io::{Error, ErrorKind},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// The mode of the file: only its owner can open it, and so lock it.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// A longer file is not a pid file.
const MAX_BYTES: usize = 64;
/// How often to reopen a file that is removed while it is being locked.
const ATTEMPTS: u32 = 100;

/// The pid file of this process, locked. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct PidFile {
    folder: Folder,
    name: OsString,
    path: PathBuf,
    file: OwnedFd,
    identity: Identity,
    /// Whether this process created or wrote the file, and so removes it.
    owned: bool,
}

impl PidFile {
    /// Opens and locks the file, or creates it, empty.
    ///
    /// # Errors
    /// Another process has locked it; it is not a pid file; the folder or the file cannot be used.
    pub(crate) fn lock(path: &Path) -> Result<Self, Error> {
        let (folder, name) = Folder::of(path)?;
        for _ in 0..ATTEMPTS {
            let (file, created) = open(&folder, &name)?;
            let identity = check(&file)?;
            acquire_lock(&file)?;
            // a file of an earlier version was readable by all users
            fchmod(&file, MODE)?;
            // the previous owner of the lock may have removed the file
            if folder.holds(&name, identity) {
                let path = path.to_owned();
                return Ok(PidFile { folder, name, path, file, identity, owned: created });
            }
        }
        Err(Error::new(ErrorKind::ResourceBusy, "other processes keep removing and creating it"))
    }

    /// Writes the process id.
    ///
    /// # Errors
    /// The system call fails.
    pub(crate) fn write(&mut self) -> Result<(), Error> {
        let text = format!("{}\n", std::process::id());
        self.owned = true;
        pwrite(&self.file, text.as_bytes(), 0)?;
        Ok(ftruncate(&self.file, text.len() as u64)?)
    }

    /// Returns whether the file is empty or contains this process's id.
    fn holds_own_pid(&self) -> bool {
        read(&self.file).is_ok_and(|text| {
            let text = text.trim();
            text.is_empty() || text.parse() == Ok(std::process::id())
        })
    }
}

/// Opens the file. Returns it, and whether it was created.
fn open(folder: &Folder, name: &OsString) -> Result<(OwnedFd, bool), Error> {
    for _ in 0..ATTEMPTS {
        match folder.open_file(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, MODE) {
            Ok(file) => return Ok((file, true)),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        match folder.open_file(name, OFlags::RDWR, MODE) {
            Ok(file) => return Ok((file, false)),
            Err(Errno::NOENT) => {}
            Err(Errno::LOOP) => return Err(refused("is a symbolic link, which is not followed")),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::new(ErrorKind::ResourceBusy, "other processes keep removing and creating it"))
}

fn refused(what: &str) -> Error {
    Error::other(format!("the file {what}; remove it or choose another path"))
}

/// Checks that it can be a pid file of the broker's user.
fn check(file: &OwnedFd) -> Result<Identity, Error> {
    let stat = fstat(file)?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(refused("is not a regular file"));
    }
    if stat.st_uid != geteuid().as_raw() {
        return Err(refused(&format!("belongs to user {}", stat.st_uid)));
    }
    if stat.st_nlink > 1 {
        return Err(refused("has other names as well (hard links)"));
    }
    if u64::try_from(stat.st_size).unwrap_or_default() > MAX_BYTES as u64 {
        return Err(refused(&format!("has {} bytes, more than the {MAX_BYTES} of a pid file", stat.st_size)));
    }
    Ok(Identity::of(&stat))
}

/// Locks the file. An error names the process that has locked it.
fn acquire_lock(file: &OwnedFd) -> Result<(), Error> {
    let recorded_pid = || read(file).ok()?.trim().parse().ok().and_then(Pid::from_raw);
    let running = |who: String| Error::new(ErrorKind::AlreadyExists, who);
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(running(match recorded_pid() {
            Some(pid) => format!("process {pid} is running and has locked it"),
            None => "another process has locked it".to_owned(),
        })),
        // a file system without locks: only the number is known
        Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => match recorded_pid() {
            Some(pid) if is_alive(pid) => Err(running(format!(
                "it names process {pid}, which is running; the file system has no locks to tell whether it is a broker"
            ))),
            _ => Ok(()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Returns whether a process other than this one exists. One of another user cannot be signalled, but exists.
fn is_alive(pid: Pid) -> bool {
    let other = pid.as_raw_nonzero().get().unsigned_abs() != std::process::id();
    other && matches!(test_kill_process(pid), Ok(()) | Err(Errno::PERM))
}

fn read(file: &OwnedFd) -> Result<String, Error> {
    let mut bytes = [0; MAX_BYTES];
    let length = pread(file, &mut bytes, 0)?;
    Ok(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let path = self.path.display();
        if !self.owned {
            return;
        }
        if !self.holds_own_pid() {
            return tracing::warn!(%path, "pid file names another process; not removed");
        }
        match self.folder.remove(&self.name, self.identity) {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(%path, "pid file was removed or replaced; not removed")
            }
            Err(error) => tracing::warn!(%path, %error, "pid file not removed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn refusal(path: &Path) -> String {
        PidFile::lock(path).unwrap_err().to_string()
    }

    #[test]
    fn the_file_is_written_after_the_start_and_removed_on_exit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        // a reused number of a running process is no reason to refuse, and neither is other text
        for before in ["1\n", "no number", "", "4294967295\n"] {
            fs::write(&path, before).unwrap();
            let mut file = PidFile::lock(&path).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), before, "not before the broker has started");
            file.write().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
            drop(file);
            assert!(!path.exists());
        }
        drop(PidFile::lock(&path).unwrap());
        assert!(!path.exists(), "created by this process");
        fs::write(&path, "17\n").unwrap();
        drop(PidFile::lock(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "17\n", "not written by this process");
    }

    #[test]
    fn only_one_process_can_lock_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let mut file = PidFile::lock(&path).unwrap();
        assert_eq!(refusal(&path), "another process has locked it");
        file.write().unwrap();
        assert_eq!(refusal(&path), format!("process {} is running and has locked it", std::process::id()));
        drop(file);
        drop(PidFile::lock(&path).unwrap());
    }

    #[test]
    fn files_that_are_not_pid_files_are_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("pid"), folder.path().join("target"));
        fs::write(&target, "precious").unwrap();
        symlink(&target, &path).unwrap();
        assert!(refusal(&path).contains("is a symbolic link"), "{}", refusal(&path));
        fs::remove_file(&path).unwrap();
        fs::hard_link(&target, &path).unwrap();
        assert!(refusal(&path).contains("hard links"), "{}", refusal(&path));
        fs::remove_file(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(refusal(&path).contains("is not a regular file"), "{}", refusal(&path));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "x".repeat(65)).unwrap();
        assert!(refusal(&path).contains("has 65 bytes"), "{}", refusal(&path));
        fs::remove_file(&path).unwrap();
        // a replacement, or a file rewritten by another process, is not removed
        let mut file = PidFile::lock(&path).unwrap();
        file.write().unwrap();
        fs::remove_file(&path).unwrap();
        symlink(&target, &path).unwrap();
        drop(file);
        assert!(path.is_symlink());
        fs::remove_file(&path).unwrap();
        let mut file = PidFile::lock(&path).unwrap();
        file.write().unwrap();
        fs::write(&path, "17\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "17\n");
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }

    #[test]
    fn other_users_cannot_open_and_lock_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let file = PidFile::lock(&path).unwrap();
        assert_eq!(mode(), 0o600);
        drop(file);
        fs::write(&path, "17\n").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let _file = PidFile::lock(&path).unwrap();
        assert_eq!(mode(), 0o600, "left by an earlier version");
    }

    #[test]
    fn processes_of_other_users_are_alive() {
        assert!(is_alive(Pid::INIT), "as root and as another user");
        assert!(!is_alive(rustix::process::getpid()));
    }
}
