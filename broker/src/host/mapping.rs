//! Mapping a sealed copy of a library into the process and comparing its layout. Runs the initializers of the library; never
//! reads its file.

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

use super::{explain::explain, fatal, inspect::PluginRecord};

/// How many lines a layout mismatch is explained with.
const EXPLAINED_LINES: usize = 2;

/// Loads a sealed copy, which stays open for ever, and checks its layout.
///
/// # Errors
/// Why the dynamic loader or this broker refuses it.
pub(super) fn map(copy: File, path: &Path, record: &PluginRecord) -> Result<PluginRef, String> {
    // the descriptor stays open for ever: the loader tells libraries apart by this path, and backtraces read it
    let header = open(&path_of(copy.as_raw_fd()), &record.entry)?;
    fatal::note_library(&copy, path, record);
    std::mem::forget(copy);
    checked_module(header)
}

/// A path to the descriptor that means the same to other processes: with `self` a debugger that reads the list of loaded
/// libraries would open a descriptor of its own, and wait for it if that is a terminal or a pipe.
fn path_of(descriptor: RawFd) -> PathBuf {
    // in the numbers of the mounted /proc, which may be those of another pid namespace
    let process = rustix::fs::readlink("/proc/self", Vec::new()).ok();
    let process = process.as_ref().and_then(|name| name.to_str().ok()).unwrap_or("self");
    format!("/proc/{process}/fd/{descriptor}").into()
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
