//! Rate limits: a token bucket, and a throttle for log lines that peers can cause. Owns the arithmetic; reads
//! no clock and waits for nothing.

use std::time::{Duration, Instant};

/// A token bucket: something that happens at most N times per second on average.
///
/// # Examples
/// ```
/// use elbus_plugin_api::rate::TokenBucket;
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// let mut bucket = TokenBucket::new(10, start);
/// assert_eq!((0..100).filter(|_| bucket.try_take(start)).count(), 10, "a burst of one second");
/// assert!(bucket.try_take(start + Duration::from_millis(150)));
///
/// // or more at once, and a pause that pays for it
/// bucket.take(20, start + Duration::from_millis(150));
/// assert!(bucket.until(1.0) > Duration::from_secs(1));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    /// Negative if more was taken than was there.
    left: f64,
    at: Instant,
}

impl TokenBucket {
    /// Creates a full bucket that holds the tokens of one second; a rate of 0 counts as 1.
    pub fn new(per_second: u64, now: Instant) -> Self {
        let per_second = per_second.max(1) as f64;
        Self::with_burst(per_second, per_second, now)
    }

    /// Creates a full bucket that holds `burst` tokens.
    pub fn with_burst(per_second: f64, burst: f64, now: Instant) -> Self {
        TokenBucket { per_second, burst, left: burst, at: now }
    }

    /// Returns the rate.
    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Takes `count` tokens, also more than are left.
    pub fn take(&mut self, count: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.left = (self.left + passed * self.per_second).min(self.burst) - count as f64;
    }

    /// Takes a token if there is one.
    pub fn try_take(&mut self, now: Instant) -> bool {
        let enough = self.left(now) >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }

    /// Removes the tokens of this time.
    pub fn owe(&mut self, debt: Duration) {
        self.left -= debt.as_secs_f64() * self.per_second;
    }

    /// Returns the tokens that are left.
    pub fn left(&mut self, now: Instant) -> f64 {
        self.take(0, now);
        self.left
    }

    /// Returns the time from the last call until there are `tokens`.
    pub fn until(&self, tokens: f64) -> Duration {
        Duration::try_from_secs_f64(((tokens - self.left) / self.per_second).max(0.0))
            .unwrap_or(Duration::MAX)
    }

    /// Returns the time until the bucket is full.
    pub fn until_full(&mut self, now: Instant) -> Duration {
        self.take(0, now);
        self.until(self.burst)
    }
}

/// Limits the log lines about one thing to a number per window, and counts the suppressed ones, so that the
/// next line can report them.
///
/// The broker limits the log lines of all plugins, per client and identity. This is for lines that name no
/// client.
///
/// # Examples
/// ```
/// use elbus_plugin_api::rate::LogThrottle;
/// use std::time::{Duration, Instant};
///
/// let (window, start) = (Duration::from_secs(10), Instant::now());
/// let mut throttle = LogThrottle::new(2, window);
/// assert_eq!([(); 4].map(|()| throttle.admit(start)), [Some(0), Some(0), None, None]);
/// assert_eq!(throttle.admit(start + window), Some(2));
/// ```
#[derive(Debug)]
pub struct LogThrottle {
    lines: u32,
    window: Duration,
    /// When the first line of the window was logged.
    since: Option<Instant>,
    logged: u32,
    suppressed: u64,
}

impl LogThrottle {
    /// Creates a throttle that admits `lines` per `window`.
    pub const fn new(lines: u32, window: Duration) -> Self {
        LogThrottle { lines, window, since: None, logged: 0, suppressed: 0 }
    }

    /// Returns the number suppressed since the last line that was logged.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Returns the number suppressed before this line if it can be logged; `None` if it is suppressed too.
    #[inline]
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        self.admit_many(1, now)
    }

    /// As [`admit`](Self::admit), for a line about `count` things, all of which count as suppressed if it is.
    pub fn admit_many(&mut self, count: u64, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= self.window) {
            self.since = Some(now);
            self.logged = 0;
        }
        if self.logged >= self.lines {
            self.suppressed = self.suppressed.saturating_add(count);
            return None;
        }
        self.logged += 1;
        Some(std::mem::take(&mut self.suppressed))
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

    #[test]
    fn a_bucket_can_hold_more_than_a_second_and_fill_slowly() {
        let start = Instant::now();
        let mut bucket = TokenBucket::with_burst(1.0 / 6.0, 10.0, start);
        let mut take =
            |seconds| (0..100).filter(|_| bucket.try_take(start + Duration::from_secs(seconds))).count();
        assert_eq!([take(0), take(5), take(7), take(10_000)], [10, 0, 1, 10]);
    }

    #[test]
    fn a_bucket_without_a_rate_stays_empty() {
        let start = Instant::now();
        let mut bucket = TokenBucket::with_burst(0.0, 0.0, start);
        assert!(!bucket.try_take(start + Duration::from_secs(1000)));
    }

    #[test]
    fn lines_beyond_the_limit_are_suppressed_and_counted() {
        let (window, start) = (Duration::from_secs(10), Instant::now());
        let mut throttle = LogThrottle::new(20, window);
        let logged = (0..1000).filter(|_| throttle.admit(start).is_some()).count();
        assert_eq!((logged, throttle.suppressed()), (20, 980));
        assert_eq!(throttle.admit(start + window), Some(980));
        assert_eq!(throttle.admit(start + window), Some(0));
    }

    #[test]
    fn the_things_that_suppressed_lines_are_about_are_counted() {
        let (window, start) = (Duration::from_secs(10), Instant::now());
        let mut throttle = LogThrottle::new(1, window);
        let admitted = [3, 4, 5].map(|count| throttle.admit_many(count, start));
        assert_eq!((admitted, throttle.admit_many(1, start + window)), ([Some(0), None, None], Some(9)));
    }
}
