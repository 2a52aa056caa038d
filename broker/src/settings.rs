//! The `[broker]` table of `broker.toml`.

use elbus_plugin_api::PluginError;
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};

use crate::{host::LibraryPolicy, routing::HoldSettings};

/// Less would hold up a single client.
const LEAST_QUEUED_BYTES: usize = 1 << 20;

/// The settings of the broker itself; everything else is a plugin's.
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(default)]
#[non_exhaustive]
pub struct BrokerSettings {
    /// Shown by the control method `health`.
    pub name: String,
    /// Folders to look for libraries in, before that of the executable.
    pub plugin_dirs: Vec<PathBuf>,
    /// Load plugin files that users other than their owner, root and the broker's can change, with a warning, also if
    /// the broker runs as root.
    pub allow_untrusted_plugin_files: bool,
    /// A second client of a primary name evicts the first instead of being refused.
    pub force_register: bool,
    /// Clients from other machines may call control methods that change the broker.
    pub remote_admin: bool,
    /// Subscriptions of one client, and as many exclusions.
    pub max_filters: usize,
    /// Length of one topic filter in bytes.
    pub max_filter_bytes: usize,
    /// Length of a client's name in bytes: it precedes every message that the client sends.
    pub max_name_bytes: usize,
    /// Length of a target, mask, topic or receiver in bytes.
    pub max_topic_bytes: usize,
    /// For how long a receiver may hold senders that have other receivers as well, in any `hold_window_seconds`; zero: for
    /// any time. Those of one user, certificate or address together two and a half times as long.
    pub hold_budget_seconds: f64,
    /// See `hold_budget_seconds`.
    pub hold_window_seconds: f64,
    /// Masks of names of receivers that may hold their senders for any time.
    pub may_hold: Vec<String>,
    /// Memory that the subscriptions of one client may take, and its exclusions as much, in bytes.
    pub filter_memory_bytes: usize,
    /// Memory that the filters of all clients may take together, in bytes; a client whose filters take less than 128 KiB may
    /// have more all the same.
    pub total_filter_memory_bytes: usize,
    /// Segments of the shapes of all complex filters in use together, an eighth of them for one client, a half for one
    /// identity; exclusions likewise. Limits what one publication costs.
    pub max_complex_segments: usize,
    /// What the end of the broker may take: clients are told, then what is queued for them drains. A plugin that is stopped or
    /// reloaded alone may take as long, and at least 2 s.
    pub shutdown_seconds: f64,
    /// How long a callback of a plugin that must not block may take; then the instance is failed.
    pub callback_seconds: f64,
    /// How long a plugin may take to be created, to start, or to read its files again.
    pub start_seconds: f64,
    /// A reload that removes plugins waits until the file has been unchanged for this long.
    pub reload_settle_seconds: f64,
    /// Bytes that may wait in the queues of all transports that carry streams together.
    pub max_queued_bytes: usize,
}

/// The protocol's length field holds two bytes.
const NAME_BYTES: std::ops::RangeInclusive<usize> = 1..=elbus_protocol::name::MAX_NAME_BYTES;
const HOLD_BUDGET_SECONDS: std::ops::RangeInclusive<f64> = 0.0..=86_400.0;
const HOLD_WINDOW_SECONDS: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;
const SHUTDOWN_SECONDS: std::ops::RangeInclusive<f64> = 0.0..=3600.0;
/// A processor that is busy with something else must not fail an instance.
const CALLBACK_SECONDS: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;
const RELOAD_SETTLE_SECONDS: std::ops::RangeInclusive<f64> = 0.0..=60.0;

impl Default for BrokerSettings {
    fn default() -> Self {
        BrokerSettings {
            name: "elbus".to_owned(),
            plugin_dirs: Vec::new(),
            allow_untrusted_plugin_files: false,
            force_register: false,
            remote_admin: false,
            max_filters: 100_000,
            max_filter_bytes: elbus_protocol::MAX_FILTER_BYTES,
            max_name_bytes: 1024,
            max_topic_bytes: 65_535,
            hold_budget_seconds: 8.0,
            hold_window_seconds: 600.0,
            may_hold: Vec::new(),
            filter_memory_bytes: 32 << 20,
            total_filter_memory_bytes: 1 << 30,
            max_complex_segments: 16_384,
            shutdown_seconds: 2.0,
            callback_seconds: 10.0,
            start_seconds: 60.0,
            reload_settle_seconds: 1.0,
            max_queued_bytes: 1 << 30,
        }
    }
}

impl BrokerSettings {
    /// Whether the values make sense.
    pub(crate) fn check(&self) -> Result<(), PluginError> {
        if self.name.is_empty() {
            return Err(PluginError::of_key("name", "must not be empty"));
        }
        for (key, value) in [
            ("max_filters", self.max_filters),
            ("max_filter_bytes", self.max_filter_bytes),
            ("filter_memory_bytes", self.filter_memory_bytes),
            ("total_filter_memory_bytes", self.total_filter_memory_bytes),
            ("max_complex_segments", self.max_complex_segments),
        ] {
            if value == 0 {
                return Err(PluginError::of_key(key, "must be at least 1"));
            }
        }
        if !NAME_BYTES.contains(&self.max_name_bytes) {
            let (least, most) = (NAME_BYTES.start(), NAME_BYTES.end());
            let message = format!("{} is not between {least} and {most}", self.max_name_bytes);
            return Err(PluginError::of_key("max_name_bytes", message));
        }
        if self.max_topic_bytes == 0 {
            return Err(PluginError::of_key("max_topic_bytes", "must be at least 1"));
        }
        let budgets = [
            ("hold_budget_seconds", self.hold_budget_seconds, HOLD_BUDGET_SECONDS),
            ("hold_window_seconds", self.hold_window_seconds, HOLD_WINDOW_SECONDS),
            ("shutdown_seconds", self.shutdown_seconds, SHUTDOWN_SECONDS),
            ("callback_seconds", self.callback_seconds, CALLBACK_SECONDS),
            ("start_seconds", self.start_seconds, CALLBACK_SECONDS),
        ];
        for (key, seconds, allowed) in budgets {
            if !allowed.contains(&seconds) {
                let (least, most) = (allowed.start(), allowed.end());
                return Err(PluginError::of_key(key, format!("{seconds} is not between {least} and {most}")));
            }
        }
        if !RELOAD_SETTLE_SECONDS.contains(&self.reload_settle_seconds) {
            let (least, most) = (RELOAD_SETTLE_SECONDS.start(), RELOAD_SETTLE_SECONDS.end());
            let message = format!("{} is not between {least} and {most}", self.reload_settle_seconds);
            return Err(PluginError::of_key("reload_settle_seconds", message));
        }
        if self.max_queued_bytes < LEAST_QUEUED_BYTES {
            let message = format!("{} is below {LEAST_QUEUED_BYTES}", self.max_queued_bytes);
            return Err(PluginError::of_key("max_queued_bytes", message));
        }
        Ok(())
    }

    /// How long receivers may hold their senders.
    pub(crate) fn holds(&self) -> HoldSettings {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        HoldSettings {
            budget: seconds(self.hold_budget_seconds),
            window: seconds(self.hold_window_seconds).max(Duration::from_secs(1)),
            exempt: self.may_hold.clone(),
        }
    }

    /// The limit of a callback that must not block.
    pub(crate) fn callback_limit(&self) -> Duration {
        Duration::try_from_secs_f64(self.callback_seconds).unwrap_or(Duration::MAX)
    }

    /// The limit of a start.
    pub(crate) fn start_limit(&self) -> Duration {
        Duration::try_from_secs_f64(self.start_seconds).unwrap_or(Duration::MAX)
    }

    /// Where libraries are looked for, and which are loaded.
    pub(crate) fn library_policy(&self) -> LibraryPolicy {
        LibraryPolicy::new(self.plugin_dirs.clone(), self.allow_untrusted_plugin_files)
    }

    /// How long the file must be unchanged before a reload removes plugins.
    pub fn reload_settle(&self) -> Duration {
        Duration::try_from_secs_f64(self.reload_settle_seconds).unwrap_or_default()
    }

    /// What the end of the broker may take.
    pub fn shutdown(&self) -> Duration {
        Duration::try_from_secs_f64(self.shutdown_seconds).unwrap_or_default()
    }
}
