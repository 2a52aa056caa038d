//! The rate limits of one client: how long it must pause to stay within them. Owns the arithmetic; reads no
//! clock and waits for nothing.

use elbus_plugin_api::{config::Limit, rate::TokenBucket};
use std::time::{Duration, Instant};

use crate::connection::limits::Rates;

/// Longest pause, whatever a client has sent.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The rate limits of one client.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    /// The rates it was created for.
    pub(crate) rates: Rates,
    /// Messages of the current read that can still be dispatched; maintained by the dispatcher.
    pub(crate) messages_left: u32,
    messages: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
    /// End of the current pause.
    until: Option<Instant>,
}

/// Portion of a second's tokens that an empty bucket waits for, so that a client at its limit is not woken
/// for each byte.
const PORTION: f64 = 0.02;
/// Bytes read at once for each message left, and the minimum: messages that cannot be dispatched yet occupy
/// memory.
const READ_BYTES_PER_MESSAGE: usize = 512;
const MIN_READ_BYTES: usize = 4096;

impl RateLimiter {
    /// `debt` is the time after which the buckets are full.
    pub(crate) fn new(rates: Rates, debt: Duration, now: Instant) -> Self {
        let bucket = |rate: Limit| {
            let mut bucket = rate.get().map(|rate| TokenBucket::new(rate, now));
            bucket.iter_mut().for_each(|bucket| bucket.owe(debt));
            bucket
        };
        let (messages, bytes) = (bucket(rates.messages), bucket(rates.bytes));
        RateLimiter { rates, messages_left: 0, messages, bytes, until: None }
    }

    /// Counts what was read; returns whether reading must pause.
    pub(crate) fn take(&mut self, messages: u64, bytes: u64, now: Instant) -> bool {
        let wait = |bucket: &mut Option<TokenBucket>, count| {
            bucket.as_mut().map_or(Duration::ZERO, |bucket| {
                bucket.take(count, now);
                pause_of(bucket)
            })
        };
        let wait = wait(&mut self.messages, messages).max(wait(&mut self.bytes, bytes));
        self.until = (!wait.is_zero()).then(|| now.checked_add(wait).unwrap_or(now + LONGEST));
        self.until.is_some()
    }

    /// Takes the end of the pause.
    pub(crate) fn take_deadline(&mut self) -> Option<Instant> {
        self.until.take()
    }

    /// Returns how many messages can be dispatched now, given what was read and not [taken](Self::take) yet.
    pub(crate) fn left(&mut self, messages: u64, bytes: u64, now: Instant) -> u32 {
        if self.bytes.as_mut().is_some_and(|bucket| bucket.left(now) < bytes as f64) {
            return 0;
        }
        self.messages.as_mut().map_or(u32::MAX, |bucket| (bucket.left(now) - messages as f64).max(0.0) as u32)
    }

    /// Returns how many bytes to read at once.
    pub(crate) fn read_bytes(&mut self, now: Instant) -> usize {
        let by_bytes = self.bytes.as_mut().map_or(usize::MAX, |bucket| bucket.left(now).max(1.0) as usize);
        let by_messages = self.messages.as_mut().map_or(usize::MAX, |bucket| {
            let left = bucket.left(now).max(0.0) as usize;
            left.saturating_mul(READ_BYTES_PER_MESSAGE).max(MIN_READ_BYTES)
        });
        by_bytes.min(by_messages)
    }

    /// Returns the time after which the buckets are full.
    pub(crate) fn debt(&mut self, now: Instant) -> Duration {
        let debt = |bucket: &mut Option<TokenBucket>| {
            bucket.as_mut().map_or(Duration::ZERO, |bucket| bucket.until_full(now))
        };
        debt(&mut self.messages).max(debt(&mut self.bytes))
    }
}

/// Returns the time until some tokens can be taken again.
fn pause_of(bucket: &TokenBucket) -> Duration {
    if bucket.until(1.0).is_zero() {
        return Duration::ZERO;
    }
    bucket.until((bucket.per_second() * PORTION).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_burst_is_paid_for_by_a_pause() {
        let start = Instant::now();
        let mut pace = RateLimiter::new(
            Rates { messages: Limit::new(10), bytes: Limit::new(1000) },
            Duration::ZERO,
            start,
        );
        let at = |millis| start + Duration::from_millis(millis);
        assert!(pace.take(1, 5000, start));
        assert_eq!((pace.take_deadline(), pace.take_deadline()), (Some(at(4020)), None));
        assert_eq!(pace.left(0, 0, at(3990)), 0, "nothing is dispatched as long as bytes are owed");
        assert!(!pace.take(0, 0, at(4020)) && pace.take_deadline().is_none());
        assert_eq!(pace.left(0, 0, at(4020)), 10);
        assert!(pace.take(20, 1, at(4020)));
        assert_eq!(pace.take_deadline(), Some(at(5120)), "until there is one");
        let mut free = RateLimiter::new(Rates::default(), Duration::ZERO, start);
        assert!(!free.take(u64::MAX, u64::MAX, start));
        assert_eq!(
            (free.left(7, 7, start), free.read_bytes(start), free.debt(start)),
            (u32::MAX, usize::MAX, Duration::ZERO)
        );
    }

    #[test]
    fn no_more_is_dispatched_than_is_left() {
        let start = Instant::now();
        let mut pace =
            RateLimiter::new(Rates { messages: Limit::new(10), bytes: Limit::NONE }, Duration::ZERO, start);
        assert_eq!((pace.left(0, 0, start), pace.left(3, 0, start), pace.left(30, 0, start)), (10, 7, 0));
        assert!(pace.take(10, 100_000, start), "all at once, then one by one");
        assert_eq!(pace.take_deadline(), Some(start + Duration::from_millis(100)));
        assert_eq!(pace.left(0, 0, start + Duration::from_millis(110)), 1);
        assert_eq!(pace.read_bytes(start), MIN_READ_BYTES);
    }

    #[test]
    fn a_reconnection_has_only_what_was_left() {
        let start = Instant::now();
        let rates = Rates { messages: Limit::new(100), bytes: Limit::new(100_000) };
        let (mut now, mut sent, mut debt) = (start, 0, Duration::ZERO);
        // a new connection for each burst
        while now < start + Duration::from_secs(10) {
            let mut pace = RateLimiter::new(rates, debt, now);
            let burst = pace.left(0, 0, now);
            pace.take(burst.into(), 0, now);
            (sent, debt) = (sent + burst, pace.debt(now));
            now += Duration::from_millis(7);
            debt = debt.saturating_sub(Duration::from_millis(7));
        }
        assert!((1000..=1100).contains(&sent), "{sent}");
    }
}
