//! Maps a sealed copy of a library into the process and compares its ABI layout. Runs the library's
//! initializers; never reads its file.

use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals},
    library::{AbiHeaderRef, LibHeader},
};
use elbus_plugin_api::abi::PluginRef;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::{
    fs::File,
    os::fd::{AsRawFd, RawFd},
    path::{Path, PathBuf},
};

use super::{fatal_signals, inspect::PluginManifest, layout_errors::explain};

/// Number of differences listed in a layout error.
const EXPLAINED_LINES: usize = 2;

/// Loads a sealed copy, which stays open until the process ends, and checks its layout.
///
/// # Errors
/// Why the dynamic loader or this broker refuses it.
pub(super) fn map(copy: File, path: &Path, manifest: &PluginManifest) -> Result<PluginRef, String> {
    // the file descriptor is never closed: the loader identifies libraries by this path, and backtraces read
    // it
    let header = open(&path_of(copy.as_raw_fd()), &manifest.entry)?;
    fatal_signals::add_library(&copy, path, manifest);
    std::mem::forget(copy);
    checked_module(header)
}

/// Returns a path to the file descriptor that is valid in other processes too. With `self`, a debugger that
/// reads the list of loaded libraries would open one of its own file descriptors, and block if that is a
/// terminal or a pipe.
fn path_of(fd: RawFd) -> PathBuf {
    // the process id in the mounted /proc, which may belong to another pid namespace
    let process = rustix::fs::readlink("/proc/self", Vec::new()).ok();
    let process = process.as_ref().and_then(|name| name.to_str().ok()).unwrap_or("self");
    format!("/proc/{process}/fd/{fd}").into()
}

fn open(path: &Path, entry: &str) -> Result<&'static LibHeader, String> {
    // SAFETY: loading a plugin means running its initializers; its manifest has been checked and identifies
    // it as a plugin.
    let library =
        unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| error.to_string())?;
    // SAFETY: the manifest names the symbol; `export_plugin!` makes it a static that begins with an
    // abi_stable header, which in turn begins with a magic string that `upgrade` checks.
    let header = unsafe { library.get::<AbiHeaderRef>(entry.as_bytes()) };
    let header = *header.map_err(|_| format!("it lacks the symbol {entry} that its manifest names"))?;
    std::mem::forget(library); // never unloaded
    header.upgrade().map_err(|_| {
        "built with another abi_stable; rebuild it with the plugin API of this broker".to_owned()
    })
}

/// Compares the layout of all types that cross the boundary. The plugin is the interface and the broker the
/// implementation, since the broker may be newer and have more methods.
fn checked_module(header: &'static LibHeader) -> Result<PluginRef, String> {
    let theirs = header.layout().ok_or("its header has no layout")?;
    let ours = <PluginRef as StableAbi>::LAYOUT;
    // Fresh globals: shared ones would compare plugins with each other, in the order in which they were
    // loaded.
    check_layout_compatibility_with_globals(theirs, ours, &CheckingGlobals::new()).map_err(|errors| {
        let mut lines = explain(&errors);
        lines.truncate(EXPLAINED_LINES);
        let differences = lines.join("; ");
        format!(
            "its layout differs from this broker's ({differences}); rebuild it with the plugin API of this \
             broker"
        )
    })?;
    // SAFETY: the layout was checked above.
    unsafe { header.unchecked_layout::<PluginRef>() }
        .map_err(|error| format!("its constructor failed: {error}"))
}
