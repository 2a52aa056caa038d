//! When a failed instance is started again: the first time after a second, then after twice as long each time, up to a
//! minute. After it has run for ten minutes it begins anew. Knows times only; starts nothing.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Whoever has run for so long has recovered.
const RECOVERED: Duration = Duration::from_secs(600);

/// What is known of an instance's failures.
#[derive(Debug)]
pub(super) struct Revival {
    /// Whether it is to run: from its start until it is stopped on request.
    wanted: bool,
    since: Option<Instant>,
    pause: Duration,
    due: Option<Instant>,
    restarts: u64,
}

impl Default for Revival {
    fn default() -> Self {
        Revival { wanted: false, since: None, pause: FIRST_PAUSE, due: None, restarts: 0 }
    }
}

impl Revival {
    /// It serves, by request or since it was started again.
    pub(super) fn serves(&mut self, now: Instant) {
        (self.wanted, self.since, self.due) = (true, Some(now), None);
    }

    /// It has failed. In how much time it is to be started again; `None` where that is known already, or where it is
    /// not to run, unless `anyway`.
    pub(super) fn failed(&mut self, now: Instant, anyway: bool) -> Option<Duration> {
        self.wanted |= anyway;
        if !self.wanted || self.due.is_some() {
            return None;
        }
        if self.since.take().is_some_and(|since| now.saturating_duration_since(since) >= RECOVERED) {
            self.pause = FIRST_PAUSE;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        self.due = Some(now + pause);
        Some(pause)
    }

    /// It is not to run any more, until it serves again.
    pub(super) fn end(&mut self) {
        (self.wanted, self.due, self.pause) = (false, None, FIRST_PAUSE);
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is to be started now; then that is no longer due, and counted.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let now_due = self.due.take_if(|due| *due <= now).is_some();
        self.restarts += u64::from(now_due);
        now_due
    }

    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew() {
        let (mut revival, mut now) = (Revival::default(), Instant::now());
        assert_eq!(revival.failed(now, false), None, "it has never served");
        revival.serves(now);
        let mut pauses = vec![];
        for _ in 0..8 {
            let pause = revival.failed(now, false).unwrap();
            assert_eq!(revival.failed(now, false), None, "known already");
            assert!(!revival.take(now), "not yet");
            pauses.push(pause.as_secs());
            now += pause;
            assert!(revival.take(now) && !revival.take(now));
            revival.serves(now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(revival.restarts(), 8);
        now += RECOVERED;
        assert_eq!(revival.failed(now, false), Some(FIRST_PAUSE));
    }

    #[test]
    fn a_stop_on_request_ends_it_and_a_failed_start_begins_it() {
        let (mut revival, now) = (Revival::default(), Instant::now());
        revival.serves(now);
        revival.failed(now, false);
        revival.end();
        assert_eq!((revival.due(), revival.failed(now, false)), (None, None));
        assert_eq!(revival.failed(now, true), Some(FIRST_PAUSE));
    }
}
