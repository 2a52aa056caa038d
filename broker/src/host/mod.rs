//! The plugin host: finds, inspects, checks and loads libraries, and leads instances of plugins through their
//! states. It knows no plugin by name.

mod bridge;
mod core;
mod explain;
mod inspect;
mod instance;
mod library;
mod log;
mod memory;
mod plugins;

pub(crate) use bridge::{Bridge, EMBEDDER};
pub(crate) use core::Core;
pub use inspect::PluginRecord;
pub use instance::{PluginReport, PluginState};
pub(crate) use library::Libraries;
pub use library::LibraryError;
pub use memory::{release_unused_memory, use_one_arena};
pub(crate) use plugins::{Plugins, add_plugin_methods};
