//! A token bucket: something that happens at most N times per second on average. Owns the arithmetic; reads
//! no clock and waits for nothing.

use std::time::{Duration, Instant};

/// A token bucket that holds the tokens of one second.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    per_second: f64,
    /// Negative if more was taken than was there.
    left: f64,
    at: Instant,
}

impl TokenBucket {
    /// Creates a full bucket; a rate of 0 counts as 1.
    pub(crate) fn new(per_second: u64, now: Instant) -> Self {
        let per_second = per_second.max(1) as f64;
        TokenBucket { per_second, left: per_second, at: now }
    }

    /// Returns the rate.
    pub(crate) fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Takes `count` tokens, also more than are left.
    pub(crate) fn take(&mut self, count: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.left = (self.left + passed * self.per_second).min(self.per_second) - count as f64;
    }

    /// Removes the tokens of this time.
    pub(crate) fn owe(&mut self, debt: Duration) {
        self.left -= debt.as_secs_f64() * self.per_second;
    }

    /// Returns the tokens that are left.
    pub(crate) fn left(&mut self, now: Instant) -> f64 {
        self.take(0, now);
        self.left
    }

    /// Returns the time from the last call until there are `tokens`.
    pub(crate) fn until(&self, tokens: f64) -> Duration {
        Duration::try_from_secs_f64(((tokens - self.left) / self.per_second).max(0.0))
            .unwrap_or(Duration::MAX)
    }

    /// Returns the time until the bucket is full.
    pub(crate) fn until_full(&mut self, now: Instant) -> Duration {
        self.take(0, now);
        self.until(self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_is_allowed_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(100, start);
        let (mut now, mut count) = (start, 0);
        while now < start + Duration::from_secs(10) {
            count += 1;
            bucket.take(1, now);
            now += bucket.until(0.0);
        }
        assert!((1099..=1101).contains(&count), "{count}");
        // what was not used for a long time is a second's worth, not more
        now += Duration::from_secs(1000);
        bucket.take(100, now);
        assert_eq!(bucket.until(0.0), Duration::ZERO);
        bucket.take(50, now);
        assert_eq!(bucket.until(0.0), Duration::from_millis(500));
    }
}
