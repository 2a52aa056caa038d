//! The state of an instance as it is reported to embedding programs and by `plugin.list`.

use elbus_plugin_api::Status;
use std::{path::PathBuf, time::Duration};

/// The state of an instance of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PluginState {
    /// Declared; not loaded yet.
    Declared,
    /// The plugin's library is loaded, or the plugin is linked in.
    Loaded,
    /// The plugin's table was read and is valid.
    Configured,
    /// The plugin has acquired its resources and serves.
    Started,
    /// The plugin was stopped.
    Stopped,
    /// The plugin failed; the text is the reason.
    Failed(String),
}

impl PluginState {
    /// Returns the state in one word, as `plugin.list` shows it.
    pub fn as_str(&self) -> &'static str {
        match self {
            PluginState::Declared => "declared",
            PluginState::Loaded => "loaded",
            PluginState::Configured => "configured",
            PluginState::Started => "started",
            PluginState::Stopped => "stopped",
            PluginState::Failed(_) => "failed",
        }
    }
}

/// A report about one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PluginReport {
    /// The name of the instance.
    pub name: String,
    /// The library that it was loaded from, or `linked in`.
    pub origin: String,
    /// The name and version of its crate; empty before it is loaded.
    pub plugin: String,
    /// The file that its library was read from; `None` before it is loaded, and if it is linked in.
    pub path: Option<PathBuf>,
    /// The build id that the linker has written into its library; empty if there is none.
    pub build_id: String,
    /// Time since its library was loaded; the same for all instances of one library.
    pub loaded_for: Option<Duration>,
    /// Its state.
    pub state: PluginState,
    /// The status that the plugin reports.
    pub status: Status,
    /// The number of restarts after failures.
    pub restarts: u64,
    /// Time until the next restart attempt, or `None` if none is scheduled.
    pub next_attempt: Option<Duration>,
    /// The number of callbacks that took 0.1 s or longer.
    pub slow_callbacks: u64,
}
