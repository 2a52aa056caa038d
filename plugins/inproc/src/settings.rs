//! The configuration of an instance: its keys, defaults and checks.

use elbus_plugin_api::PluginError;
use serde::Deserialize;
use std::time::Duration;

const LONGEST_STALL_SECONDS: f64 = 3600.0;

/// The keys as written in the file.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// The queue limit of a client, in bytes.
    queue_bytes: usize,
    /// How long a client over its limit can read nothing before it is disconnected, in seconds.
    stall_seconds: f64,
    /// What happens if a queue is over its limit.
    overflow: Overflow,
}

/// What happens if the queue of a client is over its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Overflow {
    /// Senders wait.
    Block,
    /// The client is disconnected.
    Disconnect,
    /// Further messages are refused.
    DropNewest,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { queue_bytes: 8 * 1024 * 1024, stall_seconds: 4.0, overflow: Overflow::Block }
    }
}

/// The checked values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) queue_bytes: usize,
    pub(crate) stall: Duration,
    pub(crate) overflow: Overflow,
}

impl Settings {
    /// Returns the checked values, or the error of the first wrong one.
    pub(crate) fn check(self) -> Result<Limits, PluginError> {
        let queue_bytes = self.queue_bytes;
        if !(1..=usize::MAX / 4).contains(&queue_bytes) {
            return Err(PluginError::of_key("queue_bytes", format!("{queue_bytes} is not at least 1")));
        }
        let seconds = self.stall_seconds;
        if !(seconds > 0.0 && seconds <= LONGEST_STALL_SECONDS) {
            let message = format!(
                "{seconds} is not above 0 and up to {LONGEST_STALL_SECONDS}; a client that reads nothing must not \
                 hold its senders without end"
            );
            return Err(PluginError::of_key("stall_seconds", message));
        }
        let stall = Duration::from_secs_f64(seconds);
        Ok(Limits { queue_bytes, stall, overflow: self.overflow })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::Config;

    fn check(text: &str) -> Result<Limits, PluginError> {
        Config::parse(text).unwrap().read::<Settings>()?.check()
    }

    #[test]
    fn defaults_and_values() {
        let limits = check("").unwrap();
        assert_eq!((limits.queue_bytes, limits.stall), (8 << 20, Duration::from_secs(4)));
        assert_eq!(limits.overflow, Overflow::Block);
        let limits = check("stall_seconds = 0.5\noverflow = 'drop_newest'").unwrap();
        assert_eq!((limits.stall, limits.overflow), (Duration::from_millis(500), Overflow::DropNewest));
        assert_eq!(check("overflow = 'disconnect'").unwrap().overflow, Overflow::Disconnect);
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (text, key) in [
            ("queue_bytes = 0", "queue_bytes"),
            ("queue_bytes = -1", "queue_bytes"),
            ("stall_seconds = 0", "stall_seconds"),
            ("stall_seconds = -1.0", "stall_seconds"),
            ("stall_seconds = nan", "stall_seconds"),
            ("stall_seconds = 1e9", "stall_seconds"),
            ("overflow = 'wait'", "overflow"),
        ] {
            assert_eq!(check(text).unwrap_err().key, key, "{text}");
        }
    }
}
