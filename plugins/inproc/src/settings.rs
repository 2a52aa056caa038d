//! The configuration of an instance: its keys, defaults and checks.

use elbus_plugin_api::{
    PluginError,
    config::{Overflow, check_range, seconds},
};
use serde::Deserialize;
use std::{
    ops::{Bound, RangeInclusive},
    time::Duration,
};

/// Twice a limit must be a number.
const QUEUE_BYTES: RangeInclusive<usize> = 1..=usize::MAX / 4;
/// A client that reads nothing must not hold its senders indefinitely.
const STALL_SECONDS: (Bound<f64>, Bound<f64>) = (Bound::Excluded(0.0), Bound::Included(3600.0));

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
        let Settings { queue_bytes, stall_seconds, overflow } = self;
        check_range("queue_bytes", queue_bytes, QUEUE_BYTES)?;
        check_range("stall_seconds", stall_seconds, STALL_SECONDS)?;
        Ok(Limits { queue_bytes, stall: seconds(stall_seconds), overflow })
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
