//! Settings of a client and their defaults. Never connects.

use std::{
    any::Any,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

#[cfg(feature = "tls")]
use crate::tls::TlsConfig;

/// What a client does when its connection is lost.
///
/// ```
/// use elbus_client::{Backoff, Client};
/// use std::time::Duration;
/// let backoff = Backoff::new().max_delay(Duration::from_secs(60)).max_attempts(100);
/// let builder = Client::builder("plant.sensor").reconnect(backoff);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Reconnect {
    /// The client ends.
    #[default]
    Off,
    /// The client connects again, with increasing delays, and restores its registration, subscriptions and
    /// exclusions.
    ///
    /// Operations in flight fail with [`Error::Disconnected`](crate::Error::Disconnected), and so do new ones
    /// while there is no connection, except for topic operations: the client remembers those and performs
    /// them after it has reconnected.
    Backoff(Backoff),
}

impl Reconnect {
    /// Returns [`Reconnect::Backoff`] with the defaults: delays from 0.1 s to 10 s with a jitter of 0.5,
    /// indefinitely.
    pub fn backoff() -> Self {
        Reconnect::Backoff(Backoff::new())
    }
}

impl From<Backoff> for Reconnect {
    fn from(backoff: Backoff) -> Self {
        Reconnect::Backoff(backoff)
    }
}

/// The delays between attempts to reconnect; see [`Reconnect`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use = "pass it to ClientBuilder::reconnect"]
pub struct Backoff {
    first_delay: Duration,
    max_delay: Duration,
    jitter: f64,
    max_attempts: Option<u32>,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            first_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(10),
            jitter: 0.5,
            max_attempts: None,
        }
    }
}

impl Backoff {
    /// Returns the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the delay before the first attempt. The delay doubles with each further attempt. Default: 0.1 s.
    pub fn first_delay(mut self, delay: Duration) -> Self {
        self.first_delay = delay;
        self
    }

    /// Sets the longest delay. Default: 10 s.
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// Sets the random part of each delay, from 0 to 1. It spreads the attempts of many clients of one
    /// broker. Default: 0.5.
    pub fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// Ends the client after this many consecutive failed attempts. Default: no limit.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// Returns the delay before an attempt, which counts from 1, or `None` if it exceeds the limit.
    pub(crate) fn delay(&self, attempt: u32) -> Option<Duration> {
        if self.max_attempts.is_some_and(|limit| attempt > limit) {
            return None;
        }
        let factor = 2u32.checked_pow(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let delay = self.first_delay.saturating_mul(factor).min(self.max_delay);
        let random = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
        Some(delay.mul_f64(1.0 - self.jitter.clamp(0.0, 1.0) * random))
    }
}

/// What happens to received frames when more than `queue_bytes` of them are queued for their consumer.
///
/// ```
/// use elbus_client::{Client, Overflow};
/// // a display that only needs recent values
/// let builder = Client::builder("plant.display").queue_bytes(64 * 1024).overflow(Overflow::DropOldest);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The connection is not read until the consumer has caught up; the broker then holds the senders.
    ///
    /// Nothing is lost while the consumer takes at least 128 KiB of frames, or all of them, within every
    /// [`hold_limit`](crate::ClientBuilder::hold_limit), 3 s by default. If it takes less, frames over the
    /// limit are dropped and counted, so that the client stays connected: those of one read or, if it takes
    /// none at all, until it continues.
    ///
    /// While an operation waits for its outcome, which arrives behind the frames, up to four times as much is
    /// read. A consumer that awaits an operation for every frame of an endless flood is slower than that: its
    /// operations end with [`Error::Timeout`](crate::Error::Timeout). Await them in another task, or send
    /// without acknowledgement.
    #[default]
    Block,
    /// New frames are dropped; the next queued frame reports how many
    /// ([`Frame::missed`](crate::Frame::missed)).
    DropNewest,
    /// The oldest frames are dropped; the frame behind them reports how many.
    DropOldest,
}

/// Settings of one client.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) timeout: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) queue_bytes: usize,
    pub(crate) max_frame_bytes: usize,
    pub(crate) overflow: Overflow,
    pub(crate) hold_limit: Duration,
    pub(crate) queue_calls: bool,
    pub(crate) reconnect: Reconnect,
    pub(crate) busy_poll: Duration,
    pub(crate) rings: bool,
    /// Lives as long as the client: the runtime of a blocking one.
    pub(crate) runtime_guard: Option<Arc<dyn Any + Send + Sync>>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<TlsConfig>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(1),
            queue_bytes: 8 << 20,
            max_frame_bytes: elbus_protocol::request::DEFAULT_MAX_FRAME_BYTES,
            overflow: Overflow::Block,
            hold_limit: Duration::from_secs(3),
            queue_calls: false,
            reconnect: Reconnect::Off,
            busy_poll: Duration::ZERO,
            rings: false,
            runtime_guard: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_their_limit_and_differ_by_the_jitter() {
        let backoff = Backoff::new().jitter(0.0);
        let exact: Vec<_> = (1..=9).map(|attempt| backoff.delay(attempt).unwrap().as_millis()).collect();
        assert_eq!(exact, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.delay(u32::MAX), Some(Duration::from_secs(10)));
        let random: std::collections::HashSet<_> =
            (0..20).map(|_| Backoff::new().delay(3).unwrap()).collect();
        assert!(random.len() > 1);
        assert!(random.iter().all(|delay| (200..=400).contains(&delay.as_millis())));
    }

    #[test]
    fn attempts_are_limited() {
        let backoff = Backoff::new().max_attempts(2);
        assert!(backoff.delay(1).is_some() && backoff.delay(2).is_some() && backoff.delay(3).is_none());
    }
}
