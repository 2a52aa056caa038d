//! Errors of opening a folder.

use rustix::io::Errno;
use std::{fmt, io, path::PathBuf};

/// Why a folder cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FolderError {
    /// The path does not name a file in a folder.
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// A folder does not exist.
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// Every user may write to the folder and it is not sticky: any user may replace the files in it.
    Writable {
        /// The folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The path contains a symbolic link of another user, who may change its target.
    ForeignLink {
        /// The link.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// A system call failed.
    System {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: Errno,
    },
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FolderError::NoFile { path } => write!(f, "{} is not the path of a file", path.display()),
            FolderError::Missing { path } => write!(f, "folder {} does not exist", path.display()),
            FolderError::Writable { path, mode } => write!(
                f,
                "folder {} has mode {mode:04o}: every user may replace files in it; remove that permission \
                 (chmod o-w), set the sticky bit (chmod +t), or choose another folder",
                path.display()
            ),
            FolderError::ForeignLink { path, uid } => write!(
                f,
                "{} is a symbolic link of user {uid}, who may change where it leads; use the path it leads to",
                path.display()
            ),
            FolderError::System { path, error } => write!(f, "cannot use folder {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for FolderError {}

impl From<FolderError> for io::Error {
    fn from(error: FolderError) -> Self {
        let kind = match &error {
            FolderError::NoFile { .. } => io::ErrorKind::InvalidInput,
            FolderError::Missing { .. } => io::ErrorKind::NotFound,
            FolderError::Writable { .. } | FolderError::ForeignLink { .. } => io::ErrorKind::PermissionDenied,
            FolderError::System { error, .. } => io::Error::from(*error).kind(),
        };
        io::Error::new(kind, error)
    }
}
