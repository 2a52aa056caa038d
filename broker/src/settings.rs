//! The `[broker]` table of `broker.toml`.

use elbus_plugin_api::{
    PluginError,
    config::{check_range, seconds},
};
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};

use crate::{host::load::libraries::LibraryPolicy, routing::HoldSettings};

/// Minimum limit of queued bytes: less would delay even a single client.
const MIN_QUEUED_BYTES: usize = 1 << 20;

/// The settings of the broker. Plugins have settings of their own.
///
/// ```
/// use elbus_broker::{Broker, BrokerSettings};
///
/// let mut settings = BrokerSettings::default();
/// settings.max_topic_bytes = 1024;
/// let builder = Broker::builder().settings(settings);
/// ```
#[derive(Debug, Clone, Deserialize, PartialEq)]
#[serde(default)]
#[non_exhaustive]
pub struct BrokerSettings {
    /// The name that the control method `health` returns.
    pub name: String,
    /// Folders to search libraries in, before that of the executable.
    pub plugin_dirs: Vec<PathBuf>,
    /// Load plugin files that users other than root and the broker's can change also if the broker runs as
    /// root. A warning is logged.
    pub allow_untrusted_plugin_files: bool,
    /// A second client of a primary name evicts the first instead of being refused.
    pub force_register: bool,
    /// Clients on other machines can call administrative control methods.
    pub remote_admin: bool,
    /// The limit of subscriptions of one client, and of its exclusions.
    pub max_filters: usize,
    /// The limit of one topic filter, in bytes.
    pub max_filter_bytes: usize,
    /// The limit of a client's name, in bytes: it precedes every message of the client.
    pub max_name_bytes: usize,
    /// The limit of a target, mask or topic, in bytes.
    pub max_topic_bytes: usize,
    /// How long a receiver can hold senders that have other receivers, within any `hold_window_seconds`; zero
    /// means no limit. All receivers of one user, certificate or address together have two and a half times
    /// as much.
    pub hold_budget_seconds: f64,
    /// See `hold_budget_seconds`.
    pub hold_window_seconds: f64,
    /// Name masks of receivers without a hold budget.
    pub may_hold: Vec<String>,
    /// The limit of memory for the subscriptions of one client, and for its exclusions, in bytes.
    pub filter_memory_bytes: usize,
    /// The limit of memory for the filters of all clients, in bytes. A client whose filters take less than
    /// 128 KiB is not limited by it.
    pub total_filter_memory_bytes: usize,
    /// The limit of segments of the shapes of all complex filters, and of complex exclusions; an eighth for
    /// one client, half for one identity. Limits the cost of one publication.
    pub max_complex_segments: usize,
    /// The time limit of a shutdown: clients are notified, then queues drain. A plugin that is stopped or
    /// reloaded alone may take as long, and at least 2 s.
    pub shutdown_seconds: f64,
    /// The time limit of callbacks that must not block. An instance that exceeds it fails.
    pub callback_seconds: f64,
    /// The time limit for a plugin to be created, to start, or to read its files again.
    pub start_seconds: f64,
    /// A reload that removes plugins waits until the file has been unchanged for this long.
    pub reload_settle_seconds: f64,
    /// The limit of queued bytes of all clients together.
    pub max_queued_bytes: usize,
}

/// Limited by the two-byte length field of the protocol.
const NAME_BYTES: std::ops::RangeInclusive<usize> = 1..=elbus_protocol::name::MAX_NAME_BYTES;
const HOLD_BUDGET_SECONDS: std::ops::RangeInclusive<f64> = 0.0..=86_400.0;
const HOLD_WINDOW_SECONDS: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;
const SHUTDOWN_SECONDS: std::ops::RangeInclusive<f64> = 0.0..=3600.0;
/// Minimum of the callback limit, so that no instance fails because the machine is busy.
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
    /// Checks the values.
    pub(crate) fn check(&self) -> Result<(), PluginError> {
        if self.name.is_empty() {
            return Err(PluginError::of_key("name", "must not be empty"));
        }
        for (key, value) in [
            ("max_filters", self.max_filters),
            ("max_filter_bytes", self.max_filter_bytes),
            ("max_topic_bytes", self.max_topic_bytes),
            ("filter_memory_bytes", self.filter_memory_bytes),
            ("total_filter_memory_bytes", self.total_filter_memory_bytes),
            ("max_complex_segments", self.max_complex_segments),
        ] {
            check_range(key, value, 1..)?;
        }
        check_range("max_name_bytes", self.max_name_bytes, NAME_BYTES)?;
        for (key, seconds, allowed) in [
            ("hold_budget_seconds", self.hold_budget_seconds, HOLD_BUDGET_SECONDS),
            ("hold_window_seconds", self.hold_window_seconds, HOLD_WINDOW_SECONDS),
            ("shutdown_seconds", self.shutdown_seconds, SHUTDOWN_SECONDS),
            ("callback_seconds", self.callback_seconds, CALLBACK_SECONDS),
            ("start_seconds", self.start_seconds, CALLBACK_SECONDS),
            ("reload_settle_seconds", self.reload_settle_seconds, RELOAD_SETTLE_SECONDS),
        ] {
            check_range(key, seconds, allowed)?;
        }
        check_range("max_queued_bytes", self.max_queued_bytes, MIN_QUEUED_BYTES..)?;
        Ok(())
    }

    /// Returns the settings of hold budgets.
    pub(crate) fn holds(&self) -> HoldSettings {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        HoldSettings {
            budget: seconds(self.hold_budget_seconds),
            window: seconds(self.hold_window_seconds).max(Duration::from_secs(1)),
            exempt: self.may_hold.clone(),
        }
    }

    /// Returns the time limit of a callback that must not block.
    pub(crate) fn callback_limit(&self) -> Duration {
        seconds(self.callback_seconds)
    }

    /// Returns the time limit of a start.
    pub(crate) fn start_limit(&self) -> Duration {
        seconds(self.start_seconds)
    }

    /// Returns the folders to search, and the libraries that may be loaded.
    pub(crate) fn library_policy(&self) -> LibraryPolicy {
        LibraryPolicy::new(self.plugin_dirs.clone(), self.allow_untrusted_plugin_files)
    }

    /// Returns how long the file must be unchanged before a reload removes plugins.
    pub fn reload_settle(&self) -> Duration {
        Duration::try_from_secs_f64(self.reload_settle_seconds).unwrap_or_default()
    }

    /// Returns the time limit of a shutdown.
    pub fn shutdown(&self) -> Duration {
        Duration::try_from_secs_f64(self.shutdown_seconds).unwrap_or_default()
    }
}
