//! Resolves a path to the descriptor of a folder, one component at a time. Owns which folders and links on
//! the path are trusted; never looks at the files in the folder.

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat},
    io::Errno,
    process::geteuid,
};
use std::{
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Component, Path, PathBuf},
};

use crate::FolderError;

/// Maximum number of symbolic links on one path, as in the kernel.
const MAX_LINKS: u32 = 40;
/// Flags that reach a file or folder without opening it for reading.
pub(crate) const REACH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The state of a resolution: the remaining components and the folder reached.
struct Walk {
    at: OwnedFd,
    /// The path reached, for error messages.
    shown: PathBuf,
    /// The remaining components, the next one last.
    rest: Vec<OsString>,
    links: u32,
    /// The owner of `/`, which is not user 0 in some user namespaces.
    root_uid: u32,
}

/// Opens the folder at a path.
pub(crate) fn folder(path: &Path) -> Result<OwnedFd, FolderError> {
    let system = |error| FolderError::System { path: path.to_owned(), error };
    let root_uid = fstat(open_root().map_err(system)?).map_err(system)?.st_uid;
    let at = openat(CWD, ".", REACH | OFlags::DIRECTORY, Mode::empty()).map_err(system)?;
    let mut walk = Walk { at, shown: PathBuf::new(), rest: Vec::new(), links: 0, root_uid };
    walk.push(path)?;
    if walk.shown.as_os_str().is_empty() {
        check_writers(&fstat(&walk.at).map_err(system)?, Path::new("."))?;
    }
    while let Some(component) = walk.rest.pop() {
        walk.step(&component)?;
    }
    Ok(walk.at)
}

fn open_root() -> Result<OwnedFd, Errno> {
    openat(CWD, "/", REACH | OFlags::DIRECTORY, Mode::empty())
}

impl Walk {
    /// Puts a path before the remaining components; an absolute path restarts at the root.
    fn push(&mut self, path: &Path) -> Result<(), FolderError> {
        let mut components = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir => {
                    let system = |error| FolderError::System { path: path.to_owned(), error };
                    self.at = open_root().map_err(system)?;
                    self.shown = PathBuf::from("/");
                    check_writers(&fstat(&self.at).map_err(system)?, &self.shown)?;
                }
                Component::Normal(name) => components.push(name.to_owned()),
                Component::ParentDir => components.push(OsString::from("..")),
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        self.rest.extend(components.into_iter().rev());
        Ok(())
    }

    fn step(&mut self, component: &OsStr) -> Result<(), FolderError> {
        let shown = self.shown.join(component);
        let system = |error| match error {
            Errno::NOENT => FolderError::Missing { path: shown.clone() },
            error => FolderError::System { path: shown.clone(), error },
        };
        let found = openat(&self.at, component, REACH, Mode::empty()).map_err(system)?;
        let stat = fstat(&found).map_err(system)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                check_writers(&stat, &shown)?;
                (self.at, self.shown) = (found, shown);
                Ok(())
            }
            FileType::Symlink => {
                self.links += 1;
                if self.links > MAX_LINKS {
                    return Err(system(Errno::LOOP));
                }
                if ![0, self.root_uid, geteuid().as_raw()].contains(&stat.st_uid) {
                    return Err(FolderError::ForeignLink { path: shown, uid: stat.st_uid });
                }
                let target = readlinkat(&found, "", Vec::new()).map_err(system)?;
                self.push(&PathBuf::from(OsString::from_vec(target.into_bytes())))
            }
            _ => Err(system(Errno::NOTDIR)),
        }
    }
}

fn check_writers(stat: &Stat, path: &Path) -> Result<(), FolderError> {
    let mode = stat.st_mode & 0o7777;
    if mode & 0o1002 == 0o0002 {
        return Err(FolderError::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}
