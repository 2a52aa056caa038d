//! For how long senders wait: the sum over all of them, without a record of each.

use std::time::{Duration, Instant};

/// The time that any number of senders have waited, together. Its owner locks it and passes the time.
#[derive(Debug, Default)]
pub(crate) struct WaitingTime {
    waiting: usize,
    /// When `waiting` last changed.
    since: Option<Instant>,
    sum: Duration,
}

impl WaitingTime {
    /// Sets how many senders wait from now on.
    pub(crate) fn set(&mut self, waiting: usize, now: Instant) {
        self.sum = self.sum(now);
        (self.waiting, self.since) = (waiting, Some(now));
    }

    /// Records that one more sender waits.
    pub(crate) fn begin_one(&mut self, now: Instant) {
        self.set(self.waiting + 1, now);
    }

    /// Records that one of the senders waits no longer.
    pub(crate) fn end_one(&mut self, now: Instant) {
        self.set(self.waiting.saturating_sub(1), now);
    }

    /// Returns how many senders wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Returns how long all senders have waited until now.
    pub(crate) fn sum(&self, now: Instant) -> Duration {
        let passed = self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.sum.saturating_add(passed.saturating_mul(u32::try_from(self.waiting).unwrap_or(u32::MAX)))
    }
}

#[cfg(all(test, not(elbus_model)))]
mod tests {
    use super::*;

    #[test]
    fn each_waiting_sender_counts() {
        let (mut time, start) = (WaitingTime::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(time.sum(start), Duration::ZERO);
        time.begin_one(start);
        time.begin_one(after(1));
        assert_eq!((time.waiting(), time.sum(after(2))), (2, Duration::from_secs(3)));
        time.end_one(after(3));
        time.set(0, after(4));
        time.end_one(after(5));
        assert_eq!((time.waiting(), time.sum(after(9))), (0, Duration::from_secs(6)));
    }
}
