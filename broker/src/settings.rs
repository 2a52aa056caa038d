//! The `[broker]` table of `broker.toml`.

use elbus_plugin_api::PluginError;
use serde::Deserialize;
use std::path::PathBuf;

/// The settings of the broker itself; everything else is a plugin's.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(default)]
#[non_exhaustive]
pub struct BrokerSettings {
    /// Shown by the control method `health`.
    pub name: String,
    /// Folders to look for libraries in, before that of the executable.
    pub plugin_dirs: Vec<PathBuf>,
    /// A second client of a primary name evicts the first instead of being refused.
    pub force_register: bool,
    /// Clients from other machines may call control methods that change the broker.
    pub remote_admin: bool,
    /// Subscriptions of one client, and as many exclusions.
    pub max_filters: usize,
    /// Length of one topic filter in bytes.
    pub max_filter_bytes: usize,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        BrokerSettings {
            name: "elbus".to_owned(),
            plugin_dirs: Vec::new(),
            force_register: false,
            remote_admin: false,
            max_filters: 1_000_000,
            max_filter_bytes: elbus_protocol::MAX_FILTER_BYTES,
        }
    }
}

impl BrokerSettings {
    /// Whether the values make sense.
    pub(crate) fn check(&self) -> Result<(), PluginError> {
        if self.name.is_empty() {
            return Err(PluginError::of_key("name", "must not be empty"));
        }
        if self.max_filters == 0 {
            return Err(PluginError::of_key("max_filters", "must be at least 1"));
        }
        if self.max_filter_bytes == 0 {
            return Err(PluginError::of_key("max_filter_bytes", "must be at least 1"));
        }
        Ok(())
    }
}
