//! Limits the log lines that writers of the FIFO can cause, and counts the suppressed ones. Has no clock.

use std::time::{Duration, Instant};

/// The number of lines logged in a window; further ones are counted.
const LINES_PER_WINDOW: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);

/// The log lines of one FIFO in the current window.
#[derive(Debug)]
pub(crate) struct LogThrottle {
    window_start: Instant,
    logged: u32,
    suppressed: u64,
}

impl LogThrottle {
    pub(crate) fn new(now: Instant) -> Self {
        LogThrottle { window_start: now, logged: 0, suppressed: 0 }
    }

    /// Returns the number of lines suppressed since the last one that was logged.
    pub(crate) fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Returns the number of lines suppressed before this one if it can be logged; `None` if it is suppressed
    /// too.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.window_start) >= WINDOW {
            self.window_start = now;
            self.logged = 0;
        }
        if self.logged == LINES_PER_WINDOW {
            self.suppressed += 1;
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
    fn lines_beyond_the_limit_are_suppressed_and_counted() {
        let start = Instant::now();
        let mut throttle = LogThrottle::new(start);
        let logged = (0..1000).filter(|_| throttle.admit(start).is_some()).count();
        assert_eq!(logged, LINES_PER_WINDOW as usize);
        assert_eq!(throttle.admit(start + WINDOW), Some(1000 - u64::from(LINES_PER_WINDOW)));
        assert_eq!(throttle.admit(start + WINDOW), Some(0));
    }
}
