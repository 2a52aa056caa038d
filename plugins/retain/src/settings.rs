//! The table of an instance: which topics are kept, how many, and where.

use elbus_plugin_api::{Config, PluginError, hooks::MAX_HOOK_FILTERS};
use serde::Deserialize;
use std::path::PathBuf;

/// The configuration of an instance.
#[derive(Debug, Deserialize)]
pub(crate) struct Settings {
    /// The topics that are kept; of several filters that match a topic, the first one counts.
    pub(crate) topic: Vec<TopicSettings>,
    /// The file of the values of disk tables.
    #[serde(default)]
    pub(crate) path: Option<PathBuf>,
    /// Time between two writes to it.
    #[serde(default = "default_commit_ms")]
    pub(crate) commit_ms: u64,
    /// Topics that replays look at per second, for each identity.
    #[serde(default = "default_replay_topics_per_second")]
    pub(crate) replay_topics_per_second: u64,
}

/// A `[[plugin.config.topic]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TopicSettings {
    pub(crate) filter: String,
    #[serde(default)]
    pub(crate) store: StoreKind,
    #[serde(default = "default_max_topics")]
    pub(crate) max_topics: usize,
    /// Of topics, senders and payloads.
    #[serde(default = "default_max_bytes")]
    pub(crate) max_bytes: usize,
}

/// Where the values of a table are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreKind {
    /// In memory, until the instance stops.
    #[default]
    Memory,
    /// In memory and in a file.
    Disk,
}

/// The longest time between two writes.
const MAX_COMMIT_MS: u64 = 60_000;

fn default_commit_ms() -> u64 {
    50
}

fn default_max_topics() -> usize {
    100_000
}

fn default_max_bytes() -> usize {
    64 << 20
}

fn default_replay_topics_per_second() -> u64 {
    1_000_000
}

impl Settings {
    /// Reads and checks the table of an instance.
    pub(crate) fn read(config: &Config) -> Result<Self, PluginError> {
        let settings: Settings = config.read()?;
        let count = settings.topic.len();
        if count == 0 || count > MAX_HOOK_FILTERS {
            let text = format!("expected 1 to {MAX_HOOK_FILTERS} tables, found {count}");
            return Err(PluginError::of_key("topic", text));
        }
        for (index, topic) in settings.topic.iter().enumerate() {
            let error =
                |key: &str, text: &str| Err(PluginError::of_key(format!("topic[{index}].{key}"), text));
            if topic.filter.is_empty() || topic.filter.contains('\0') {
                return error("filter", "expected a topic filter");
            }
            if topic.filter.starts_with('$') {
                return error("filter", "expected a topic filter without options ($share, $latest, ..)");
            }
            if topic.max_topics == 0 {
                return error("max_topics", "must be at least 1");
            }
            if topic.max_bytes == 0 {
                return error("max_bytes", "must be at least 1");
            }
        }
        let is_on_disk = settings.topic.iter().any(|topic| topic.store == StoreKind::Disk);
        if is_on_disk && settings.path.as_ref().is_none_or(|path| path.as_os_str().is_empty()) {
            let text = "expected the file of the values of tables with store = \"disk\"";
            return Err(PluginError::of_key("path", text));
        }
        if !(1..=MAX_COMMIT_MS).contains(&settings.commit_ms) {
            let text = format!("{} is not within 1 to {MAX_COMMIT_MS}", settings.commit_ms);
            return Err(PluginError::of_key("commit_ms", text));
        }
        if settings.replay_topics_per_second == 0 {
            return Err(PluginError::of_key("replay_topics_per_second", "must be at least 1"));
        }
        Ok(settings)
    }
}
