//! The pid file: written when the broker has started, removed when it ends.

use rustix::process::{Pid, test_kill_process};
use std::{
    io::{Error, ErrorKind},
    path::{Path, PathBuf},
};

/// A pid file of this process; dropping it removes the file.
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Refuses where the file names another process that is alive.
    pub(crate) fn check(path: &Path) -> Result<(), Error> {
        let Ok(text) = std::fs::read_to_string(path) else { return Ok(()) };
        let other = text.trim().parse().ok().and_then(Pid::from_raw);
        match other.filter(|pid| pid.as_raw_nonzero().get() as u32 != std::process::id()) {
            Some(pid) if test_kill_process(pid).is_ok() => {
                Err(Error::new(ErrorKind::AlreadyExists, format!("it names process {pid}, which is alive")))
            }
            _ => Ok(()),
        }
    }

    /// Writes the file.
    pub(crate) fn write(path: &Path) -> Result<Self, Error> {
        Self::check(path)?;
        std::fs::write(path, format!("{}\n", std::process::id()))?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "pid file not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        std::fs::write(&path, "no number").unwrap();
        let file = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        std::fs::write(&path, "1\n").unwrap();
        let error = PidFile::write(&path).err().unwrap();
        assert!(error.to_string().contains("process 1"), "{error}");
    }
}
