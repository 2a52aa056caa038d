//! The plugin host: finds, inspects, checks and loads libraries, and leads instances of plugins through their
//! states. It knows no plugin by name.

mod bell;
mod bridge;
mod calling;
mod check;
mod core;
mod explain;
mod fatal;
mod hold_watch;
mod inspect;
mod instance;
mod library;
mod library_file;
mod listeners;
mod log;
mod mapping;
mod methods;
mod needs;
mod plugins;
mod probe;
mod reload;
mod revival;
mod stop;
mod supervisor;
mod watch;
mod workers;

pub(crate) use bridge::{Bridge, EMBEDDER};
pub(crate) use core::Core;
pub use fatal::report_fatal_signals;
pub(crate) use hold_watch::watch_holds;
pub use inspect::{PluginRecord, inspect};
pub use instance::{PluginReport, PluginState};
pub use library::LibraryError;
pub(crate) use library::{Libraries, LibraryPolicy};
pub(crate) use listeners::Listeners;
pub(crate) use methods::add_plugin_methods;
pub(crate) use plugins::Plugins;
pub(crate) use probe::Probe;
pub use probe::run_library_probe;
pub use reload::Reloaded;
pub use watch::hanging_calls;
