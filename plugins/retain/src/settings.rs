//! The table of an instance: which topics are kept, how many, and where.

use elbus_plugin_api::{Config, PluginError, hooks::MAX_HOOK_FILTERS};
use elbus_protocol::subscription::has_options;
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
            if has_options(&topic.filter) {
                return error("filter", "expected a topic filter without options ($share, $latest, ..)");
            }
            if topic.filter.starts_with('.') {
                return error("filter", "topics that begin with a dot are the broker's and are not kept");
            }
            let mut before = settings.topic.iter().take(index);
            if let Some(other) = before.find(|other| covers(&other.filter, &topic.filter)) {
                let text = format!("no topic is left for it: {:?} stands before it", other.filter);
                return error("filter", &text);
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

/// Returns whether a filter matches every topic that another one matches.
fn covers(filter: &str, other: &str) -> bool {
    let mut rest = other.split('/');
    for segment in filter.split('/') {
        match (segment, rest.next()) {
            ("#", Some(_)) => return true,
            ("+", Some(one)) if one != "#" => {}
            (plain, Some(one)) if plain == one && one != "#" => {}
            _ => return false,
        }
    }
    rest.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(filters: &[&str]) -> Option<String> {
        let table = |filter: &&str| format!("[[topic]]\nfilter = '{filter}'\n");
        let config = Config::parse(&filters.iter().map(table).collect::<String>()).unwrap();
        Settings::read(&config).err().map(|error| format!("{}: {}", error.key, error.message))
    }

    #[test]
    fn filters_that_no_topic_can_reach_are_refused() {
        for filters in [
            &["a", "b", "$other/a"][..],
            &["a/b", "a/+", "a/#", "#"],
            &["a/+", "a/#"],
            &["+/b", "a/+"],
            &["a/#", "a"],
            &["a/b/c", "a/b"],
        ] {
            assert_eq!(error(filters), None, "{filters:?}");
        }
        for (filters, expected) in [
            (["a", "a"], "topic[1].filter: no topic is left for it: \"a\" stands before it"),
            (["#", "a/#"], "topic[1].filter: no topic is left for it: \"#\" stands before it"),
            (["a/#", "a/+/b"], "topic[1].filter: no topic is left for it: \"a/#\" stands before it"),
            (["a/+", "a/b"], "topic[1].filter: no topic is left for it: \"a/+\" stands before it"),
            (
                ["a", "$latest/a"],
                "topic[1].filter: expected a topic filter without options ($share, $latest, ..)",
            ),
            (
                ["a", ".broker/#"],
                "topic[1].filter: topics that begin with a dot are the broker's and are not kept",
            ),
        ] {
            assert_eq!(error(&filters).as_deref(), Some(expected), "{filters:?}");
        }
    }
}
