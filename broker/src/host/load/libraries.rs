//! The libraries of a broker: finds a library, reads its file once, then inspects, probes and loads the same
//! bytes.
//!
//! The loaded file is a sealed private copy in memory: it cannot change between check and load, overwriting
//! the original cannot crash the broker, and a new build at the same path is loaded as new code. Libraries
//! are never unloaded, since their threads and statics may still be in use.

use elbus_plugin_api::abi::PluginRef;
use parking_lot::{Mutex, RwLock};
use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    time::Instant,
};

use super::{
    inspect::{self, PluginManifest},
    library_file::{self, Fingerprint},
    mapping,
    probe::Probe,
};

/// The number of libraries that are read and probed at the same time.
const PARALLEL_PROBES: usize = 4;

/// Why a library could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LibraryError {
    /// No searched folder contains the file.
    NotFound {
        /// The name of the library as it was requested.
        library: String,
        /// The folders, in order.
        searched: Vec<PathBuf>,
    },
    /// The file cannot be loaded.
    Refused {
        /// The file.
        path: PathBuf,
        /// Why, and the remedy.
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

/// The folders to search, and the libraries that may be loaded.
#[derive(Debug, Clone, Default)]
pub(crate) struct LibraryPolicy {
    folders: Vec<PathBuf>,
    /// Load files that other users can change, even as root.
    allow_untrusted: bool,
}

impl LibraryPolicy {
    /// Creates a policy that searches `folders`, then the folder of the executable. In a build folder of
    /// cargo, `deps/` comes first: cargo refreshes it on every build, but the copies beside the executable
    /// only on request. `deps/` of an installed program is ignored.
    pub(crate) fn new(mut folders: Vec<PathBuf>, allow_untrusted: bool) -> Self {
        if let Ok(executable) = std::env::current_exe()
            && let Some(folder) = executable.parent()
        {
            // the executable of a test is in deps/ itself
            if is_build_folder(folder) {
                folders.push(folder.join("deps"));
            }
            folders.push(folder.to_owned());
        }
        LibraryPolicy { folders, allow_untrusted }
    }
}

/// Returns whether cargo builds into this folder.
fn is_build_folder(folder: &Path) -> bool {
    folder.join(".cargo-lock").exists()
}

/// A library that an instance needs, with the table that the instance will be created with.
pub(crate) struct LibraryRequest<'a> {
    pub(crate) library: &'a str,
    pub(crate) instance: &'a str,
    pub(crate) config: &'a str,
}

/// The code of an instance.
#[derive(Clone)]
pub(crate) struct Module {
    pub(crate) root: PluginRef,
    pub(crate) manifest: PluginManifest,
    /// `None` for a plugin that is linked in.
    pub(crate) file: Option<LoadedFile>,
}

/// The file of a loaded library.
#[derive(Debug, Clone)]
pub(crate) struct LoadedFile {
    pub(crate) path: PathBuf,
    pub(crate) since: Instant,
}

/// The loaded libraries, and how to find and check further ones.
pub(crate) struct Libraries {
    policy: RwLock<LibraryPolicy>,
    probe: Option<Probe>,
    /// Libraries read and probed before they are loaded, by path. Held briefly, like `loaded`; neither lock
    /// is taken while the other is held.
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
    manifest: PluginManifest,
    /// `None` if the same bytes are loaded already.
    copy: Option<File>,
}

impl Libraries {
    pub(crate) fn new(policy: LibraryPolicy, probe: Option<Probe>) -> Self {
        Libraries { policy: RwLock::new(policy), probe, prepared: Mutex::default(), loaded: Mutex::default() }
    }

    /// Replaces the policy and returns the previous one.
    pub(crate) fn set_policy(&self, policy: LibraryPolicy) -> LibraryPolicy {
        std::mem::replace(&mut *self.policy.write(), policy)
    }

    /// Returns the file of a library: a path is used as it is, a name is searched for.
    pub(crate) fn find(&self, library: &str) -> Result<PathBuf, LibraryError> {
        if library.contains('/') {
            return Ok(library.into());
        }
        let file = file_name(library);
        let searched = self.policy.read().folders.clone();
        let found = searched.iter().map(|folder| folder.join(&file)).find(|path| path.is_file());
        found.ok_or_else(|| LibraryError::NotFound { library: library.to_owned(), searched })
    }

    /// Reads and probes libraries that will be loaded next, several at the same time.
    /// [`load`](Libraries::load) reports failures.
    pub(crate) fn prepare(&self, requests: &[LibraryRequest<'_>]) {
        if self.probe.is_none() {
            return;
        }
        let mut files: Vec<(PathBuf, &LibraryRequest<'_>)> = Vec::new();
        for request in requests {
            let Ok(path) = self.find(request.library) else { continue };
            if !files.iter().any(|(other, _)| *other == path) {
                files.push((path, request));
            }
        }
        for some in files.chunks(PARALLEL_PROBES) {
            std::thread::scope(|scope| {
                for (path, request) in some {
                    let work = || {
                        let prepared = self.read(path, request);
                        self.prepared.lock().insert(path.clone(), prepared);
                    };
                    // without a thread, `load` prepares it
                    _ = std::thread::Builder::new().name("probe".to_owned()).spawn_scoped(scope, work);
                }
            });
        }
    }

    /// Drops libraries that were prepared but not loaded.
    pub(crate) fn forget_prepared(&self) {
        let unused = std::mem::take(&mut *self.prepared.lock());
        drop(unused);
    }

    /// Loads a library; the same bytes are loaded only once.
    pub(crate) fn load(&self, request: &LibraryRequest<'_>) -> Result<Module, LibraryError> {
        let path = self.find(request.library)?;
        let refused = |why: String| LibraryError::Refused { path: path.clone(), why };
        let prepared = self.prepared.lock().remove(&path);
        let Prepared { fingerprint, manifest, copy } =
            prepared.unwrap_or_else(|| self.read(&path, request)).map_err(refused)?;
        if let Some(module) = self.known(fingerprint, &path) {
            return Ok(module);
        }
        let copy = copy.ok_or_else(|| refused("its private copy is gone".to_owned()))?;
        let begun = Instant::now();
        let root = mapping::map(copy, &path, &manifest).map_err(refused)?;
        tracing::debug!(
            path = %path.display(),
            name = manifest.name,
            version = manifest.version,
            micros = begun.elapsed().as_micros() as u64,
            "library loaded"
        );
        let file = Some(LoadedFile { path, since: Instant::now() });
        let module = Module { root, manifest, file };
        self.loaded.lock().push(Loaded { fingerprint, module: module.clone() });
        Ok(module)
    }

    /// Returns the module that was loaded from these bytes, with the path requested now.
    fn known(&self, fingerprint: Fingerprint, path: &Path) -> Option<Module> {
        let loaded = self.loaded.lock();
        let mut module = loaded.iter().find(|known| known.fingerprint == fingerprint)?.module.clone();
        if let Some(file) = &mut module.file {
            path.clone_into(&mut file.path);
        }
        Some(module)
    }

    /// Reads, inspects and probes a library.
    fn read(&self, path: &Path, request: &LibraryRequest<'_>) -> Result<Prepared, String> {
        let allow_untrusted = self.policy.read().allow_untrusted;
        let bytes = library_file::read(path, allow_untrusted)?;
        let manifest = inspect::inspect(&bytes)?;
        let fingerprint = Fingerprint::of(&bytes);
        if self.known(fingerprint, path).is_some() {
            return Ok(Prepared { fingerprint, manifest, copy: None });
        }
        let copy = library_file::sealed_copy(path, &bytes)
            .map_err(|error| format!("cannot make a private copy: {error}"))?;
        drop(bytes);
        if let Some(probe) = &self.probe {
            probe.run(path, &copy, request.instance, request.config)?;
        }
        Ok(Prepared { fingerprint, manifest, copy: Some(copy) })
    }
}

/// Returns the file name: `elbus_unix`, `libelbus_unix` and `libelbus_unix.so` all refer to the same file.
fn file_name(library: &str) -> String {
    let stem = library.strip_suffix(".so").unwrap_or(library);
    format!("lib{}.so", stem.strip_prefix("lib").unwrap_or(stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_named_with_or_without_prefix_and_suffix() {
        for name in ["elbus_unix", "libelbus_unix", "libelbus_unix.so", "elbus_unix.so"] {
            assert_eq!(file_name(name), "libelbus_unix.so");
        }
    }

    #[test]
    fn the_error_for_a_missing_library_names_the_folders() {
        let libraries = Libraries::new(LibraryPolicy::new(vec!["/nowhere".into()], false), None);
        let load = |library: &str| {
            let request = LibraryRequest { library, instance: "x", config: "" };
            libraries.load(&request).err().unwrap().to_string()
        };
        let error = load("elbus_nothing");
        assert!(error.starts_with("libelbus_nothing.so not found in /nowhere, "), "{error}");
        let error = load("/nowhere/lib.so");
        assert!(error.starts_with("/nowhere/lib.so: No such file"), "{error}");
        let error = load("/dev/zero");
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn deps_is_searched_only_in_a_build_folder_of_cargo() {
        let executable = std::env::current_exe().unwrap();
        let deps = executable.parent().unwrap();
        assert!(is_build_folder(deps.parent().unwrap()), "{}", deps.display());
        assert!(!is_build_folder(deps) && !is_build_folder(Path::new("/usr/bin")));
    }
}
