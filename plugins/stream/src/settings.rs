//! What the table of a stream transport says beside its addresses. Owns defaults and limits; reads nothing
//! itself.

use elbus_plugin_api::{
    PluginError,
    config::{Limit, Overflow, check_range, seconds},
};
use elbus_protocol::request::DEFAULT_MAX_FRAME_BYTES;
use serde::Deserialize;
use std::{ops::RangeInclusive, time::Duration};

const SECONDS: RangeInclusive<f64> = 0.05..=86_400.0;
const WORKERS: RangeInclusive<usize> = 1..=1024;
const RATES: RangeInclusive<u64> = 1..=1_000_000_000_000;
/// Twice a limit, and a run beyond it, must be a number.
const QUEUE_BYTES: RangeInclusive<usize> = 1..=usize::MAX / 4;
const SHARES: RangeInclusive<f64> = 0.01..=1.0;
/// Bounds of the default of `max_pending`.
const DEFAULT_PENDING: RangeInclusive<usize> = 1024..=4096;
const DEFAULT_STALL_SECONDS: f64 = 4.0;
/// The default stall limit where the timeout is too short for [`DEFAULT_STALL_SECONDS`], as a part of it.
const STALL_PER_TIMEOUT: f64 = 0.8;

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
    pub max_clients: Limit,
    /// Connections at once that have not registered yet; a further one takes the place of the oldest silent
    /// one. The default is `max_clients`, but at least 1024 and at most 4096, and 1024 without `max_clients`.
    pub max_pending: Limit,
    /// The share of `max_clients`, from 0 to 1, that one source (a user, an address, a /64 of IPv6) keeps
    /// when clients of other sources want in.
    pub max_source_share: f64,
    /// Connections that go on to register in a second, on average and at once; further ones wait, and sources
    /// take turns.
    pub connects_per_second: Limit,
    /// Frames read from one client in a second, on average and at once; then it is not read from for a while.
    pub messages_per_second: Limit,
    /// Bytes read from one client in a second, likewise.
    pub bytes_per_second: Limit,
    /// Subscriptions of one client, and as many exclusions, beside the limit of the broker.
    pub max_filters: Limit,
    /// Segments of one topic filter.
    pub max_filter_depth: Limit,
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
            max_clients: Limit::NONE,
            max_pending: Limit::NONE,
            max_source_share: 0.5,
            connects_per_second: Limit::NONE,
            messages_per_second: Limit::NONE,
            bytes_per_second: Limit::NONE,
            max_filters: Limit::NONE,
            max_filter_depth: Limit::NONE,
        }
    }
}

impl StreamSettings {
    /// Judges the values.
    ///
    /// # Errors
    /// The first key whose value is out of its range.
    pub fn check(&self) -> Result<(), PluginError> {
        check_range("workers", self.workers, WORKERS)?;
        check_range("timeout_seconds", self.timeout_seconds, SECONDS)?;
        check_range("queue_bytes", self.queue_bytes, QUEUE_BYTES)?;
        check_range("max_frame_bytes", self.max_frame_bytes, 1..=u32::MAX as usize)?;
        check_range("max_source_share", self.max_source_share, SHARES)?;
        for (key, rate) in [
            ("connects_per_second", self.connects_per_second),
            ("messages_per_second", self.messages_per_second),
            ("bytes_per_second", self.bytes_per_second),
        ] {
            rate.get().map_or(Ok(()), |rate| check_range(key, rate, RATES))?;
        }
        for (key, limit) in [
            ("max_clients", self.max_clients),
            ("max_pending", self.max_pending),
            ("max_filters", self.max_filters),
            ("max_filter_depth", self.max_filter_depth),
        ] {
            check_range(key, limit.or_max(), 1..)?;
        }
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
        let default =
            || self.max_clients.get().map_or(least, |_| self.max_clients.as_usize().clamp(least, most));
        if self.max_pending.is_none() { default() } else { self.max_pending.as_usize() }
    }

    /// How long a client may take nothing.
    pub fn stall(&self) -> Duration {
        let default = DEFAULT_STALL_SECONDS.min(STALL_PER_TIMEOUT * self.timeout_seconds);
        seconds(self.stall_seconds.unwrap_or(default))
    }
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
        let (none, of) = (Limit::NONE, Limit::new);
        assert_eq!([pending(none, none), pending(of(5), none), pending(of(2000), none)], [1024, 1024, 2000]);
        assert_eq!(pending(of(5), of(7)), 7);
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
                StreamSettings { bytes_per_second: Limit::new(0), ..good() },
                "bytes_per_second: 0 is not between 1 and 1000000000000",
            ),
            (StreamSettings { max_filters: Limit::new(0), ..good() }, "max_filters: 0 is not at least 1"),
        ];
        for (settings, message) in table {
            assert_eq!(settings.check().unwrap_err().to_string(), message);
        }
    }
}
