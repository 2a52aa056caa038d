//! Token buckets: how long to wait so that no more than so much happens in a second. Owns the arithmetic; reads no clock
//! and waits for nothing.

use std::time::{Duration, Instant};

use crate::allowance::Rates;

/// No pause is longer, whatever a client has sent.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What happens at most so often a second on average; as much as in one second may happen at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: f64,
    /// Below zero: more has happened than may, and the wait is for the rest.
    left: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(per_second: u64, now: Instant) -> Self {
        let per_second = per_second.max(1) as f64;
        Bucket { per_second, left: per_second, at: now }
    }

    /// `count` have happened; how long nothing more may.
    pub(crate) fn take(&mut self, count: u64, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.left = (self.left + passed * self.per_second).min(self.per_second) - count as f64;
        if self.left >= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-self.left / self.per_second).unwrap_or(Duration::MAX)
    }
}

/// What one client may send.
#[derive(Debug)]
pub(crate) struct Pace {
    /// What it was made for.
    pub(crate) rates: Rates,
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    /// Until when nothing more is to be read.
    until: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(rates: Rates, now: Instant) -> Self {
        let bucket = |rate: u64| (rate > 0).then(|| Bucket::new(rate, now));
        Pace { rates, messages: bucket(rates.messages.into()), bytes: bucket(rates.bytes), until: None }
    }

    /// So much has been read; whether nothing more is to be read for a while.
    pub(crate) fn take(&mut self, messages: u64, bytes: u64, now: Instant) -> bool {
        let wait = |bucket: &mut Option<Bucket>, count| {
            bucket.as_mut().map_or(Duration::ZERO, |bucket| bucket.take(count, now))
        };
        let wait = wait(&mut self.messages, messages).max(wait(&mut self.bytes, bytes));
        self.until = (!wait.is_zero()).then(|| now.checked_add(wait).unwrap_or(now + LONGEST));
        self.until.is_some()
    }

    /// Until when nothing more is to be read; asked once.
    pub(crate) fn take_pause(&mut self) -> Option<Instant> {
        self.until.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_may_come_at_once_and_no_more_than_the_rate_after_it() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, start);
        let (mut now, mut count) = (start, 0);
        while now < start + Duration::from_secs(10) {
            count += 1;
            now += bucket.take(1, now);
        }
        assert!((1099..=1101).contains(&count), "{count}");
        // what was not used for a long time is a second's worth, not more
        now += Duration::from_secs(1000);
        assert_eq!(bucket.take(100, now), Duration::ZERO);
        assert_eq!(bucket.take(50, now), Duration::from_millis(500));
    }

    #[test]
    fn more_than_a_second_at_once_is_waited_for_afterwards() {
        let start = Instant::now();
        let mut pace = Pace::new(Rates { messages: 10, bytes: 1000 }, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(pace.take(1, 5000, start));
        assert_eq!((pace.take_pause(), pace.take_pause()), (Some(at(4)), None));
        assert!(!pace.take(0, 0, at(4)) && pace.take_pause().is_none());
        assert!(pace.take(20, 1, at(4)));
        assert_eq!(pace.take_pause(), Some(at(5)));
        let mut free = Pace::new(Rates::default(), start);
        assert!(!free.take(u64::MAX, u64::MAX, start));
    }
}
