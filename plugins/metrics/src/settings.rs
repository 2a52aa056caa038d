//! The table of an instance: reads and checks it. Binds nothing.

use elbus_plugin_api::{
    Config, PluginError,
    config::{check_range, seconds},
    hooks::MAX_HOOK_FILTERS,
};
use elbus_protocol::subscription::has_options;
use serde::Deserialize;
use std::time::Duration;

use crate::address::Address;

/// Bytes of a mask, filter, prefix or host name.
const MAX_TEXT_BYTES: usize = 1024;

#[derive(Deserialize)]
struct Table {
    bind: String,
    mode: Option<String>,
    #[serde(default)]
    allow_remote: bool,
    #[serde(default)]
    allowed_hosts: Vec<String>,
    #[serde(default = "default_max_connections")]
    max_connections: usize,
    #[serde(default = "default_timeout_seconds")]
    timeout_seconds: f64,
    #[serde(default = "default_cache_seconds")]
    cache_seconds: f64,
    #[serde(default = "default_worst_receivers")]
    worst_receivers: usize,
    #[serde(default)]
    clients: Vec<String>,
    #[serde(default = "default_max_series")]
    max_clients: usize,
    #[serde(default)]
    topics: Vec<String>,
    #[serde(default = "default_max_series")]
    max_topics: usize,
    #[serde(default)]
    rpc: bool,
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default = "default_max_series")]
    max_methods: usize,
    #[serde(default = "default_call_seconds")]
    call_seconds: f64,
    #[serde(default = "default_queue_bytes")]
    queue_bytes: usize,
}

fn default_max_connections() -> usize {
    32
}

fn default_timeout_seconds() -> f64 {
    5.0
}

fn default_cache_seconds() -> f64 {
    1.0
}

fn default_worst_receivers() -> usize {
    10
}

fn default_max_series() -> usize {
    100
}

fn default_call_seconds() -> f64 {
    60.0
}

fn default_queue_bytes() -> usize {
    8 << 20
}

/// The settings of an instance, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) address: Address,
    /// Names by which clients may address a loopback port.
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) max_connections: usize,
    /// Time limit of a request, from the connection to the end of the answer.
    pub(crate) timeout: Duration,
    /// For how long an answer is used again.
    pub(crate) cache: Duration,
    /// Receivers that hold senders longest.
    pub(crate) worst_receivers: usize,
    /// Masks of clients that get series of their own, and how many at most.
    pub(crate) clients: Vec<String>,
    pub(crate) max_clients: usize,
    /// Filters of topics that get series of their own, and how many at most.
    pub(crate) topics: Vec<String>,
    pub(crate) max_topics: usize,
    /// Whether calls are observed.
    pub(crate) rpc: bool,
    /// Prefixes of methods that get series of their own, and how many at most.
    pub(crate) methods: Vec<String>,
    pub(crate) max_methods: usize,
    /// Time after which a call counts as unanswered.
    pub(crate) call_time: Duration,
    /// Bytes of observed messages that wait.
    pub(crate) queue_bytes: usize,
}

impl Settings {
    /// Reads and checks the table.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub(crate) fn read(config: &Config) -> Result<Self, PluginError> {
        let table: Table = config.read()?;
        let address = Address::parse(&table.bind, table.mode.as_deref(), table.allow_remote)?;
        check_range("max_connections", table.max_connections, 1..=1024)?;
        check_range("timeout_seconds", table.timeout_seconds, 0.1..=60.0)?;
        check_range("cache_seconds", table.cache_seconds, 0.0..=60.0)?;
        check_range("worst_receivers", table.worst_receivers, 0..=1000)?;
        check_range("max_clients", table.max_clients, 1..=10_000)?;
        check_range("max_topics", table.max_topics, 1..=10_000)?;
        check_range("max_methods", table.max_methods, 1..=1000)?;
        check_range("call_seconds", table.call_seconds, 0.1..=3600.0)?;
        check_range("queue_bytes", table.queue_bytes, 64 << 10..=1 << 30)?;
        for (key, list) in [
            ("allowed_hosts", &table.allowed_hosts),
            ("clients", &table.clients),
            ("topics", &table.topics),
            ("methods", &table.methods),
        ] {
            check_texts(key, list)?;
        }
        if let Some(filter) = table.topics.iter().find(|filter| has_options(filter)) {
            let text = format!("{filter:?} matches no topic: write the filter without options");
            return Err(PluginError::of_key("topics", text));
        }
        if !table.methods.is_empty() && !table.rpc {
            return Err(PluginError::of_key("methods", "has no effect without rpc = true"));
        }
        Ok(Settings {
            address,
            allowed_hosts: table.allowed_hosts,
            max_connections: table.max_connections,
            timeout: seconds(table.timeout_seconds),
            cache: seconds(table.cache_seconds),
            worst_receivers: table.worst_receivers,
            clients: table.clients,
            max_clients: table.max_clients,
            topics: table.topics,
            max_topics: table.max_topics,
            rpc: table.rpc,
            methods: table.methods,
            max_methods: table.max_methods,
            call_time: seconds(table.call_seconds),
            queue_bytes: table.queue_bytes,
        })
    }
}

fn check_texts(key: &str, list: &[String]) -> Result<(), PluginError> {
    let limit = MAX_HOOK_FILTERS;
    if list.len() > limit {
        let text = format!("{} entries; the limit is {limit}", list.len());
        return Err(PluginError::of_key(key, text));
    }
    for entry in list {
        if entry.is_empty() || entry.contains('\0') {
            return Err(PluginError::of_key(key, format!("{entry:?} matches nothing")));
        }
        if entry.len() > MAX_TEXT_BYTES {
            let text = format!("an entry has {} bytes; the limit is {MAX_TEXT_BYTES}", entry.len());
            return Err(PluginError::of_key(key, text));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, PluginError> {
        Settings::read(&Config::parse(text).unwrap())
    }

    #[test]
    fn defaults() {
        let settings = read("bind = '127.0.0.1:9464'").unwrap();
        assert_eq!((settings.max_connections, settings.worst_receivers), (32, 10));
        assert_eq!((settings.timeout, settings.cache), (Duration::from_secs(5), Duration::from_secs(1)));
        assert!(settings.clients.is_empty() && settings.topics.is_empty() && !settings.rpc);
    }

    #[test]
    fn errors_name_key_value_and_limit() {
        let many = format!("clients = [{}]", "'a',".repeat(65));
        let long = format!("methods = ['{}']\nrpc = true", "m".repeat(1025));
        for (text, message) in [
            ("max_connections = 0", "max_connections: 0 is not between 1 and 1024"),
            ("timeout_seconds = 0", "timeout_seconds: 0 is not between 0.1 and 60"),
            ("cache_seconds = -1", "cache_seconds: -1 is not between 0 and 60"),
            ("worst_receivers = 1001", "worst_receivers: 1001 is not between 0 and 1000"),
            ("max_topics = 0", "max_topics: 0 is not between 1 and 10000"),
            ("queue_bytes = 1", "queue_bytes: 1 is not between 65536 and 1073741824"),
            ("topics = ['']", "topics: \"\" matches nothing"),
            (
                "topics = ['$latest/a']",
                "topics: \"$latest/a\" matches no topic: write the filter without options",
            ),
            ("methods = ['get']", "methods: has no effect without rpc = true"),
            (&many, "clients: 65 entries; the limit is 64"),
            (&long, "methods: an entry has 1025 bytes; the limit is 1024"),
        ] {
            let error = read(&format!("bind = '127.0.0.1:9464'\n{text}")).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        assert_eq!(read("").unwrap_err().to_string(), "missing key `bind`");
    }
}
