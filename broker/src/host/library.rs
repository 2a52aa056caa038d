//! Loading a library: find it, read it once, inspect these very bytes, load these very bytes.
//!
//! What is loaded is a sealed private copy in memory: nothing can change between check and load, overwriting the
//! file later cannot crash the broker, and a new build at the same path really is new code. Libraries are never
//! unloaded, since threads and statics of theirs may live on.

use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals},
    library::{AbiHeaderRef, LibHeader},
};
use elbus_plugin_api::abi::PluginRef;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use parking_lot::{Mutex, RwLock};
use rustix::fs::{MemfdFlags, SealFlags};
use std::{
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use super::{
    explain::explain,
    inspect::{self, PluginRecord},
};

/// Larger files are not even read.
const MAX_LIBRARY_BYTES: u64 = 512 * 1024 * 1024;
/// How many lines a layout mismatch is explained with.
const EXPLAINED_LINES: usize = 2;

/// Why a library was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LibraryError {
    /// There is no such file in any folder that was searched.
    NotFound {
        /// The library's name as it was asked for.
        library: String,
        /// The folders, in order.
        searched: Vec<PathBuf>,
    },
    /// It cannot be loaded.
    Refused {
        /// The file.
        path: PathBuf,
        /// Why, and what helps.
        why: String,
    },
}

impl std::fmt::Display for LibraryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LibraryError::NotFound { library, searched } => {
                let folders: Vec<_> = searched.iter().map(|folder| folder.display().to_string()).collect();
                write!(f, "{} not found in {} (plugin_dirs)", file_name(library), folders.join(", "))
            }
            LibraryError::Refused { path, why } => write!(f, "{}: {why}", path.display()),
        }
    }
}

impl std::error::Error for LibraryError {}

/// The libraries loaded so far, and where others are looked for.
pub(crate) struct Libraries {
    folders: RwLock<Vec<PathBuf>>,
    loaded: Mutex<Vec<Loaded>>,
}

struct Loaded {
    fingerprint: Fingerprint,
    module: PluginRef,
    record: PluginRecord,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Fingerprint(usize, u64, u64);

impl Fingerprint {
    fn of(bytes: &[u8]) -> Self {
        let hash = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, bytes).hash(&mut hasher);
            hasher.finish()
        };
        Fingerprint(bytes.len(), hash(0), hash(1))
    }
}

impl Libraries {
    /// Libraries are looked for in `folders`, then beside the executable. Cargo refreshes `deps/` on every build,
    /// the copies beside the executable only when they are asked for, so `deps/` comes first.
    pub(crate) fn new(folders: Vec<PathBuf>) -> Self {
        Libraries { folders: RwLock::new(with_own_folders(folders)), loaded: Mutex::default() }
    }

    /// Looks in other folders from now on, and says in which it has looked before.
    pub(super) fn set_folders(&self, folders: Vec<PathBuf>) -> Vec<PathBuf> {
        std::mem::replace(&mut *self.folders.write(), folders)
    }

    /// The file of a library: a path is taken as it is, a name is looked for.
    pub(crate) fn find(&self, library: &str) -> Result<PathBuf, LibraryError> {
        if library.contains('/') {
            return Ok(library.into());
        }
        let file = file_name(library);
        let searched = self.folders.read().clone();
        let found = searched.iter().map(|folder| folder.join(&file)).find(|path| path.is_file());
        found.ok_or_else(|| LibraryError::NotFound { library: library.to_owned(), searched })
    }

    /// Loads a library, once for the same bytes.
    pub(crate) fn load(&self, library: &str) -> Result<(PluginRef, PluginRecord), LibraryError> {
        let path = self.find(library)?;
        let refused = |why: String| LibraryError::Refused { path: path.clone(), why };
        let bytes = read(&path).map_err(refused)?;
        let record = inspect::inspect(&bytes).map_err(refused)?;
        let fingerprint = Fingerprint::of(&bytes);
        let mut loaded = self.loaded.lock();
        if let Some(known) = loaded.iter().find(|known| known.fingerprint == fingerprint) {
            return Ok((known.module, known.record.clone()));
        }
        let module = map(&path, &bytes, &record).map_err(refused)?;
        loaded.push(Loaded { fingerprint, module, record: record.clone() });
        Ok((module, record))
    }
}

/// These folders, and those of the executable.
pub(super) fn with_own_folders(mut folders: Vec<PathBuf>) -> Vec<PathBuf> {
    if let Ok(executable) = std::env::current_exe()
        && let Some(folder) = executable.parent()
    {
        // a test's executable is itself in deps/
        folders.extend([folder.join("deps"), folder.to_owned()]);
    }
    folders
}

/// `elbus_unix`, `libelbus_unix` and `libelbus_unix.so` all name the same file.
fn file_name(library: &str) -> String {
    let stem = library.strip_suffix(".so").unwrap_or(library);
    format!("lib{}.so", stem.strip_prefix("lib").unwrap_or(stem))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    if metadata.len() > MAX_LIBRARY_BYTES {
        return Err(format!(
            "{} bytes exceed {MAX_LIBRARY_BYTES}, the most a library may have",
            metadata.len()
        ));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

/// Loads a private copy of the bytes and checks its layout.
fn map(path: &Path, bytes: &[u8], record: &PluginRecord) -> Result<PluginRef, String> {
    let copy =
        private_copy(path, bytes).map_err(|error| format!("no private copy of it could be made: {error}"))?;
    // By the number of the descriptor, which stays open for ever: the loader tells libraries apart by this path,
    // and backtraces read it.
    let target = format!("/proc/self/fd/{}", copy.as_raw_fd());
    let header = open(Path::new(&target), &record.entry)?;
    std::mem::forget(copy);
    let module = checked_module(header)?;
    tracing::debug!(path = %path.display(), name = record.name, version = record.version, "library loaded");
    Ok(module)
}

fn private_copy(path: &Path, bytes: &[u8]) -> std::io::Result<File> {
    let name = path.file_name().unwrap_or_default();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // kernels before 6.3 do not know EXEC, and need none
    let descriptor = rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(name, flags))?;
    let mut file = File::from(descriptor);
    file.write_all(bytes).map_err(|error| explain_size(error, bytes.len()))?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
    )?;
    Ok(file)
}

/// The limit of the size of files holds for memory as well.
fn explain_size(error: std::io::Error, length: usize) -> std::io::Error {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    match limit {
        Some(limit) if error.kind() == std::io::ErrorKind::FileTooLarge => std::io::Error::other(format!(
            "file too large: the library has {length} bytes, and this process may write files of {limit} bytes \
             at most (ulimit -f, LimitFSIZE)"
        )),
        _ => error,
    }
}

fn open(path: &Path, entry: &str) -> Result<&'static LibHeader, String> {
    // SAFETY: running the initializers of a library is what loading a plugin means; its record has been checked, it
    // says it is one.
    let library =
        unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| error.to_string())?;
    // SAFETY: the record names the symbol; `export_plugin!` makes it a static that begins with an abi_stable
    // header, which in turn begins with a magic string that `upgrade` checks.
    let header = unsafe { library.get::<AbiHeaderRef>(entry.as_bytes()) };
    let header = *header.map_err(|_| format!("it lacks the symbol {entry} that its record names"))?;
    std::mem::forget(library); // never unloaded
    header.upgrade().map_err(|_| {
        "built with another abi_stable; rebuild it with the plugin API of this broker".to_owned()
    })
}

/// Compares the layout of everything that crosses the boundary. The plugin is the interface and the broker the
/// implementation, since it is the broker that may be newer and have more methods.
fn checked_module(header: &'static LibHeader) -> Result<PluginRef, String> {
    let theirs = header.layout().ok_or("its header has no layout")?;
    let ours = <PluginRef as StableAbi>::LAYOUT;
    // Fresh globals: shared ones would compare plugins with one another, in an order that depends on which was
    // loaded first.
    check_layout_compatibility_with_globals(theirs, ours, &CheckingGlobals::new()).map_err(|errors| {
        let mut lines = explain(&errors);
        lines.truncate(EXPLAINED_LINES);
        let differences = lines.join("; ");
        format!("its layout differs from this broker's ({differences}); rebuild it with the plugin API of this broker")
    })?;
    // SAFETY: the layout was checked above, both ways through.
    unsafe { header.unchecked_layout::<PluginRef>() }
        .map_err(|error| format!("its constructor failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        for name in ["elbus_unix", "libelbus_unix", "libelbus_unix.so", "elbus_unix.so"] {
            assert_eq!(file_name(name), "libelbus_unix.so");
        }
    }

    #[test]
    fn a_missing_library_names_the_folders() {
        let libraries = Libraries::new(vec!["/nowhere".into()]);
        let error = libraries.load("elbus_nothing").err().unwrap().to_string();
        assert!(error.starts_with("libelbus_nothing.so not found in /nowhere, "), "{error}");
        let error = libraries.load("/nowhere/lib.so").err().unwrap().to_string();
        assert!(error.starts_with("/nowhere/lib.so: No such file"), "{error}");
        let error = libraries.load("/dev/zero").err().unwrap().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}
