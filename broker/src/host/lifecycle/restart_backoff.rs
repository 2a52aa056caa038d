//! The restart schedule of a failed instance: the first restart after one second, each further one after
//! twice the previous delay, up to a minute. The delay is reset once the instance has run for ten minutes.
//! Computes times only; starts nothing.

use std::time::{Duration, Instant};

const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(60);
/// An instance that has run this long has recovered.
const RECOVERED_AFTER: Duration = Duration::from_secs(600);

/// The restart schedule of one instance.
#[derive(Debug)]
pub(super) struct RestartBackoff {
    /// Whether a failure causes a restart: from the start of service until a requested stop.
    enabled: bool,
    started: Option<Instant>,
    delay: Duration,
    due: Option<Instant>,
    restarts: u64,
}

impl Default for RestartBackoff {
    fn default() -> Self {
        RestartBackoff { enabled: false, started: None, delay: FIRST_DELAY, due: None, restarts: 0 }
    }
}

impl RestartBackoff {
    /// Records that the instance serves, on request or after a restart.
    pub(super) fn started(&mut self, now: Instant) {
        (self.enabled, self.started, self.due) = (true, Some(now), None);
    }

    /// Schedules a restart after a failure and returns the delay. Returns `None` if one is scheduled already,
    /// or if the instance is not restarted. `force` includes an instance that has never served.
    pub(super) fn schedule(&mut self, now: Instant, force: bool) -> Option<Duration> {
        self.enabled |= force;
        if !self.enabled || self.due.is_some() {
            return None;
        }
        if self
            .started
            .take()
            .is_some_and(|started| now.saturating_duration_since(started) >= RECOVERED_AFTER)
        {
            self.delay = FIRST_DELAY;
        }
        let delay = self.delay;
        self.delay = (delay * 2).min(MAX_DELAY);
        self.due = Some(now + delay);
        Some(delay)
    }

    /// Cancels the restart. None is scheduled until the instance serves again.
    pub(super) fn cancel(&mut self) {
        (self.enabled, self.due, self.delay) = (false, None, FIRST_DELAY);
    }

    /// Returns when the restart is due, if one is scheduled.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns whether the restart is due. If so, it is counted and no longer scheduled.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.due.take_if(|due| *due <= now).is_some();
        self.restarts += u64::from(is_due);
        is_due
    }

    /// Returns the number of restarts.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute_and_are_reset_after_recovery() {
        let (mut backoff, mut now) = (RestartBackoff::default(), Instant::now());
        assert_eq!(backoff.schedule(now, false), None, "the instance has never served");
        backoff.started(now);
        let mut delays = vec![];
        for _ in 0..8 {
            let delay = backoff.schedule(now, false).unwrap();
            assert_eq!(backoff.schedule(now, false), None, "scheduled already");
            assert!(!backoff.take_due(now), "not yet");
            delays.push(delay.as_secs());
            now += delay;
            assert!(backoff.take_due(now) && !backoff.take_due(now));
            backoff.started(now);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.restarts(), 8);
        now += RECOVERED_AFTER;
        assert_eq!(backoff.schedule(now, false), Some(FIRST_DELAY));
    }

    #[test]
    fn a_requested_stop_cancels_the_restart_and_a_failed_start_schedules_one() {
        let (mut backoff, now) = (RestartBackoff::default(), Instant::now());
        backoff.started(now);
        backoff.schedule(now, false);
        backoff.cancel();
        assert_eq!((backoff.due(), backoff.schedule(now, false)), (None, None));
        assert_eq!(backoff.schedule(now, true), Some(FIRST_DELAY));
    }
}
