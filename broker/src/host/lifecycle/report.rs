//! The state of an instance as it is reported to embedding programs and by `plugin.list`.

use elbus_plugin_api::Status;
use std::{path::PathBuf, time::Duration};

/// The state of an instance of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PluginState {
    /// Declared, nothing done yet.
    Declared,
    /// Its library is loaded, or it is linked in.
    Loaded,
    /// Its table was read and is valid.
    Configured,
    /// It has acquired its resources and serves.
    Started,
    /// It was stopped.
    Stopped,
    /// It failed; the text says why.
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
    /// The library it was loaded from, or `linked in`.
    pub origin: String,
    /// The name and version of its crate; empty before it is loaded.
    pub plugin: String,
    /// The file its library was read from; `None` before it is loaded, and if it is linked in.
    pub path: Option<PathBuf>,
    /// The build id that the linker has written into its library; empty if there is none.
    pub build_id: String,
    /// Time since its library was loaded. Instances of one library share it.
    pub loaded_for: Option<Duration>,
    /// Its state.
    pub state: PluginState,
    /// Its own status.
    pub status: Status,
    /// The number of restarts after failures.
    pub restarts: u64,
    /// Time until the next restart attempt, or `None` if none is scheduled.
    pub next_attempt: Option<Duration>,
    /// The number of its callbacks that have taken 0.1 s or more.
    pub slow_callbacks: u64,
}
