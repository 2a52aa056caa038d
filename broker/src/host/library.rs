//! The libraries of a broker: finds them, reads each once, inspects these very bytes, has them probed, loads these very bytes.
//!
//! What is loaded is a sealed private copy in memory: nothing can change between check and load, overwriting the
//! file later cannot crash the broker, and a new build at the same path really is new code. Libraries are never
//! unloaded, since threads and statics of theirs may live on.

use elbus_plugin_api::abi::PluginRef;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    inspect::{self, PluginRecord},
    library_file::{self, Fingerprint},
    mapping,
    probe::Probe,
};

/// Most libraries that are read and probed at the same time.
const PREPARED_AT_ONCE: usize = 4;

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

/// Where libraries are looked for, and which are loaded.
#[derive(Debug, Clone, Default)]
pub(crate) struct LibraryPolicy {
    folders: Vec<PathBuf>,
    /// Load what other users can change, also as root.
    allow_untrusted: bool,
}

impl LibraryPolicy {
    /// Libraries are looked for in `folders`, then beside the executable. Cargo refreshes `deps/` on every build,
    /// the copies beside the executable only when they are asked for, so `deps/` comes first; installed programs have
    /// none, and it is not looked for beside them.
    pub(crate) fn new(mut folders: Vec<PathBuf>, allow_untrusted: bool) -> Self {
        if let Ok(executable) = std::env::current_exe()
            && let Some(folder) = executable.parent()
        {
            // a test's executable is itself in deps/
            if is_build_folder(folder) {
                folders.push(folder.join("deps"));
            }
            folders.push(folder.to_owned());
        }
        LibraryPolicy { folders, allow_untrusted }
    }
}

/// Whether cargo builds into this folder.
fn is_build_folder(folder: &Path) -> bool {
    folder.join(".cargo-lock").exists()
}

/// A library that an instance wants, and the table it is to be created with.
pub(super) struct Wanted<'a> {
    pub(super) library: &'a str,
    pub(super) instance: &'a str,
    pub(super) config: &'a str,
}

/// What an instance is made of.
#[derive(Clone)]
pub(super) struct Module {
    pub(super) root: PluginRef,
    pub(super) record: PluginRecord,
    /// `None` for a plugin that is linked in.
    pub(super) file: Option<LoadedFile>,
}

/// Where a loaded library comes from.
#[derive(Debug, Clone)]
pub(super) struct LoadedFile {
    pub(super) path: PathBuf,
    pub(super) since: Instant,
}

/// The libraries loaded so far, and where others are looked for.
pub(crate) struct Libraries {
    policy: RwLock<LibraryPolicy>,
    probe: Option<Probe>,
    /// Read and probed ahead of their load, by path. Held for moments only, like `loaded`; neither while the other is.
    prepared: Mutex<HashMap<PathBuf, Result<Prepared, String>>>,
    loaded: Mutex<Vec<Loaded>>,
}

struct Loaded {
    fingerprint: Fingerprint,
    module: Module,
}

/// A library that was read, inspected and probed.
struct Prepared {
    fingerprint: Fingerprint,
    record: PluginRecord,
    /// `None` if the same bytes are loaded already.
    copy: Option<File>,
}

impl Libraries {
    pub(crate) fn new(policy: LibraryPolicy, probe: Option<Probe>) -> Self {
        Libraries { policy: RwLock::new(policy), probe, prepared: Mutex::default(), loaded: Mutex::default() }
    }

    /// Replaces the policy and returns the previous one.
    pub(super) fn set_policy(&self, policy: LibraryPolicy) -> LibraryPolicy {
        std::mem::replace(&mut *self.policy.write(), policy)
    }

    /// The file of a library: a path is taken as it is, a name is looked for.
    pub(crate) fn find(&self, library: &str) -> Result<PathBuf, LibraryError> {
        if library.contains('/') {
            return Ok(library.into());
        }
        let file = file_name(library);
        let searched = self.policy.read().folders.clone();
        let found = searched.iter().map(|folder| folder.join(&file)).find(|path| path.is_file());
        found.ok_or_else(|| LibraryError::NotFound { library: library.to_owned(), searched })
    }

    /// Reads and probes libraries that will be loaded next, several at the same time. What fails is reported by
    /// [`load`](Libraries::load).
    pub(super) fn prepare(&self, wanted: &[Wanted<'_>]) {
        if self.probe.is_none() {
            return;
        }
        let mut files: Vec<(PathBuf, &Wanted<'_>)> = Vec::new();
        for wanted in wanted {
            let Ok(path) = self.find(wanted.library) else { continue };
            if !files.iter().any(|(other, _)| *other == path) {
                files.push((path, wanted));
            }
        }
        for some in files.chunks(PREPARED_AT_ONCE) {
            std::thread::scope(|scope| {
                for (path, wanted) in some {
                    let work = || {
                        let prepared = self.read(path, wanted);
                        self.prepared.lock().insert(path.clone(), prepared);
                    };
                    // without a thread it is prepared when it is loaded
                    _ = std::thread::Builder::new().name("probe".to_owned()).spawn_scoped(scope, work);
                }
            });
        }
    }

    /// Forgets what was prepared and not loaded.
    pub(super) fn forget_prepared(&self) {
        let forgotten = std::mem::take(&mut *self.prepared.lock());
        drop(forgotten);
    }

    /// Loads a library, once for the same bytes.
    pub(super) fn load(&self, wanted: &Wanted<'_>) -> Result<Module, LibraryError> {
        let path = self.find(wanted.library)?;
        let refused = |why: String| LibraryError::Refused { path: path.clone(), why };
        let prepared = self.prepared.lock().remove(&path);
        let Prepared { fingerprint, record, copy } =
            prepared.unwrap_or_else(|| self.read(&path, wanted)).map_err(refused)?;
        if let Some(module) = self.known(fingerprint, &path) {
            return Ok(module);
        }
        let copy = copy.ok_or_else(|| refused("its private copy is gone".to_owned()))?;
        let begun = Instant::now();
        let root = mapping::map(copy, &path, &record).map_err(refused)?;
        tracing::debug!(
            path = %path.display(),
            name = record.name,
            version = record.version,
            micros = begun.elapsed().as_micros() as u64,
            "library loaded"
        );
        let file = Some(LoadedFile { path, since: Instant::now() });
        let module = Module { root, record, file };
        self.loaded.lock().push(Loaded { fingerprint, module: module.clone() });
        Ok(module)
    }

    /// What was loaded from these bytes, under the path it is asked for now.
    fn known(&self, fingerprint: Fingerprint, path: &Path) -> Option<Module> {
        let loaded = self.loaded.lock();
        let mut module = loaded.iter().find(|known| known.fingerprint == fingerprint)?.module.clone();
        if let Some(file) = &mut module.file {
            path.clone_into(&mut file.path);
        }
        Some(module)
    }

    /// Reads, inspects and probes a library.
    fn read(&self, path: &Path, wanted: &Wanted<'_>) -> Result<Prepared, String> {
        let allow_untrusted = self.policy.read().allow_untrusted;
        let bytes = library_file::read(path, allow_untrusted)?;
        let record = inspect::inspect(&bytes)?;
        let fingerprint = Fingerprint::of(&bytes);
        if self.known(fingerprint, path).is_some() {
            return Ok(Prepared { fingerprint, record, copy: None });
        }
        let copy = library_file::sealed_copy(path, &bytes)
            .map_err(|error| format!("no private copy of it could be made: {error}"))?;
        drop(bytes);
        if let Some(probe) = &self.probe {
            probe.run(path, &copy, wanted)?;
        }
        Ok(Prepared { fingerprint, record, copy: Some(copy) })
    }
}

/// `elbus_unix`, `libelbus_unix` and `libelbus_unix.so` all name the same file.
fn file_name(library: &str) -> String {
    let stem = library.strip_suffix(".so").unwrap_or(library);
    format!("lib{}.so", stem.strip_prefix("lib").unwrap_or(stem))
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
        let libraries = Libraries::new(LibraryPolicy::new(vec!["/nowhere".into()], false), None);
        let load = |library: &str| {
            let wanted = Wanted { library, instance: "x", config: "" };
            libraries.load(&wanted).err().unwrap().to_string()
        };
        let error = load("elbus_nothing");
        assert!(error.starts_with("libelbus_nothing.so not found in /nowhere, "), "{error}");
        let error = load("/nowhere/lib.so");
        assert!(error.starts_with("/nowhere/lib.so: No such file"), "{error}");
        let error = load("/dev/zero");
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn deps_is_searched_beside_what_cargo_builds_only() {
        let executable = std::env::current_exe().unwrap();
        let deps = executable.parent().unwrap();
        assert!(is_build_folder(deps.parent().unwrap()), "{}", deps.display());
        assert!(!is_build_folder(deps) && !is_build_folder(Path::new("/usr/bin")));
    }
}
