//! What the table of a stream transport says beside its addresses. Owns defaults and limits; reads nothing
//! itself.

use elbus_plugin_api::PluginError;
use elbus_protocol::request::DEFAULT_MAX_FRAME_BYTES;
use serde::Deserialize;
use std::{ops::RangeInclusive, time::Duration};

const SECONDS: RangeInclusive<f64> = 0.05..=86_400.0;
const WORKERS: RangeInclusive<usize> = 1..=1024;
const RATES: RangeInclusive<u64> = 1..=1_000_000_000_000;
const SHARES: RangeInclusive<f64> = 0.01..=1.0;
/// Bounds of the default of `max_pending`.
const DEFAULT_PENDING: RangeInclusive<usize> = 1024..=4096;
const DEFAULT_STALL_SECONDS: f64 = 4.0;
/// The default stall limit where the timeout is too short for [`DEFAULT_STALL_SECONDS`], as a part of it.
const STALL_PER_TIMEOUT: f64 = 0.8;

/// What to do with messages for a client whose queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Its senders wait: nobody reads from them until the queue has drained.
    #[default]
    Block,
    /// The client is disconnected.
    Disconnect,
    /// The new message is refused, and its sender told so.
    DropNewest,
}

/// The keys every stream transport has: `config.read::<StreamSettings>()`, then
/// [`check`](StreamSettings::check).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct StreamSettings {
    /// Threads of the instance's own runtime. Unused where the embedding program has a tokio runtime.
    pub workers: usize,
    /// `T` of the protocol, in seconds: how long a step of the handshake or the body of a frame may take; a
    /// client is pinged each half of it and closed after a silence of 1.25 times.
    pub timeout_seconds: f64,
    /// How much may wait for one client, in bytes.
    pub queue_bytes: usize,
    /// How long a client may take nothing of what waits for it, in seconds; below `timeout_seconds`. The
    /// default is 4, or 0.8 times the timeout where that is less.
    pub stall_seconds: Option<f64>,
    /// What happens at `queue_bytes`.
    pub overflow: Overflow,
    /// The longest body of a frame that is read, in bytes.
    pub max_frame_bytes: usize,
    /// Registered clients at once; further ones are refused.
    pub max_clients: Option<usize>,
    /// Connections at once that have not registered yet; a further one takes the place of the oldest silent
    /// one. The default is `max_clients`, but at least 1024 and at most 4096, and 1024 without `max_clients`.
    pub max_pending: Option<usize>,
    /// The share of `max_clients`, from 0 to 1, that one source (a user, an address, a /64 of IPv6) keeps
    /// when clients of other sources want in.
    pub max_source_share: f64,
    /// Connections that go on to register in a second, on average and at once; further ones wait, and sources
    /// take turns.
    pub connects_per_second: Option<u64>,
    /// Frames read from one client in a second, on average and at once; then it is not read from for a while.
    pub messages_per_second: Option<u64>,
    /// Bytes read from one client in a second, likewise.
    pub bytes_per_second: Option<u64>,
    /// Subscriptions of one client, and as many exclusions, beside the limit of the broker.
    pub max_filters: Option<u32>,
    /// Segments of one topic filter.
    pub max_filter_depth: Option<u32>,
}

impl Default for StreamSettings {
    fn default() -> Self {
        StreamSettings {
            workers: 2,
            timeout_seconds: 5.0,
            queue_bytes: 8 << 20,
            stall_seconds: None,
            overflow: Overflow::Block,
            max_frame_bytes: DEFAULT_MAX_FRAME_BYTES,
            max_clients: None,
            max_pending: None,
            max_source_share: 0.5,
            connects_per_second: None,
            messages_per_second: None,
            bytes_per_second: None,
            max_filters: None,
            max_filter_depth: None,
        }
    }
}

impl StreamSettings {
    /// Judges the values.
    ///
    /// # Errors
    /// The first key whose value is out of its range.
    pub fn check(&self) -> Result<(), PluginError> {
        within("workers", self.workers, WORKERS)?;
        within("timeout_seconds", self.timeout_seconds, SECONDS)?;
        within("queue_bytes", self.queue_bytes, 1..=usize::MAX / 4)?;
        within("max_frame_bytes", self.max_frame_bytes, 1..=u32::MAX as usize)?;
        within("max_clients", self.max_clients.unwrap_or(1), 1..=usize::MAX)?;
        within("max_pending", self.max_pending.unwrap_or(1), 1..=usize::MAX)?;
        within("max_source_share", self.max_source_share, SHARES)?;
        for (key, rate) in [
            ("connects_per_second", self.connects_per_second),
            ("messages_per_second", self.messages_per_second),
            ("bytes_per_second", self.bytes_per_second),
        ] {
            within(key, rate.unwrap_or(1), RATES)?;
        }
        within("max_filters", self.max_filters.unwrap_or(1), 1..=u32::MAX)?;
        within("max_filter_depth", self.max_filter_depth.unwrap_or(1), 1..=u32::MAX)?;
        match self.stall_seconds {
            None => Ok(()),
            Some(stall) if stall > 0.0 && stall < self.timeout_seconds => Ok(()),
            Some(stall) => Err(PluginError::of_key(
                "stall_seconds",
                format!("{stall} is not between 0 and {} (timeout_seconds)", self.timeout_seconds),
            )),
        }
    }

    /// `T` of the protocol.
    pub fn timeout(&self) -> Duration {
        seconds(self.timeout_seconds)
    }

    /// Connections at once that have not registered yet.
    pub fn pending(&self) -> usize {
        let (least, most) = (*DEFAULT_PENDING.start(), *DEFAULT_PENDING.end());
        self.max_pending.unwrap_or_else(|| self.max_clients.unwrap_or(least).clamp(least, most))
    }

    /// How long a client may take nothing.
    pub fn stall(&self) -> Duration {
        let default = DEFAULT_STALL_SECONDS.min(STALL_PER_TIMEOUT * self.timeout_seconds);
        seconds(self.stall_seconds.unwrap_or(default))
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), PluginError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(PluginError::of_key(key, format!("{value} is not between {} and {}", range.start(), range.end())))
}

/// Values out of range are refused by `check`; without it, they are the greatest of all.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound() {
        let settings = StreamSettings::default();
        assert_eq!(settings.check(), Ok(()));
        assert_eq!((settings.timeout(), settings.stall()), (Duration::from_secs(5), Duration::from_secs(4)));
        let short = StreamSettings { timeout_seconds: 0.5, ..settings };
        assert_eq!(short.check(), Ok(()));
        let pending = |max_clients, max_pending| {
            StreamSettings { max_clients, max_pending, ..StreamSettings::default() }.pending()
        };
        assert_eq!(
            [pending(None, None), pending(Some(5), None), pending(Some(2000), None)],
            [1024, 1024, 2000]
        );
        assert_eq!(pending(Some(5), Some(7)), 7);
        assert_eq!(short.stall(), Duration::from_millis(400));
    }

    #[test]
    fn errors_name_key_value_and_limit() {
        let good = StreamSettings::default;
        let table = [
            (StreamSettings { workers: 0, ..good() }, "workers: 0 is not between 1 and 1024"),
            (
                StreamSettings { timeout_seconds: f64::NAN, ..good() },
                "timeout_seconds: NaN is not between 0.05 and 86400",
            ),
            (
                StreamSettings { stall_seconds: Some(5.0), ..good() },
                "stall_seconds: 5 is not between 0 and 5 (timeout_seconds)",
            ),
            (
                StreamSettings { max_frame_bytes: 0, ..good() },
                "max_frame_bytes: 0 is not between 1 and 4294967295",
            ),
            (
                StreamSettings { bytes_per_second: Some(0), ..good() },
                "bytes_per_second: 0 is not between 1 and 1000000000000",
            ),
        ];
        for (settings, message) in table {
            assert_eq!(settings.check().unwrap_err().to_string(), message);
        }
    }
}
