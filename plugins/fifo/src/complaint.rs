//! How often the log may hear of wrong lines, so that who writes into the FIFO cannot flood it. No clock of its
//! own.

use std::time::{Duration, Instant};

/// So many complaints in a window are logged; the others are counted.
const IN_A_WINDOW: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Complaints {
    since: Instant,
    logged: u32,
    suppressed: u64,
}

impl Complaints {
    pub(crate) fn new(now: Instant) -> Self {
        Complaints { since: now, logged: 0, suppressed: 0 }
    }

    /// How many complaints have not been logged.
    pub(crate) fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Whether a complaint of this moment should be logged, and how many before it were not.
    pub(crate) fn may_log(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= WINDOW {
            self.since = now;
            self.logged = 0;
        }
        if self.logged == IN_A_WINDOW {
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
    fn a_flood_is_counted() {
        let start = Instant::now();
        let mut complaints = Complaints::new(start);
        let logged = (0..1000).filter(|_| complaints.may_log(start).is_some()).count();
        assert_eq!(logged, IN_A_WINDOW as usize);
        assert_eq!(complaints.may_log(start + WINDOW), Some(1000 - u64::from(IN_A_WINDOW)));
        assert_eq!(complaints.may_log(start + WINDOW), Some(0));
    }
}
