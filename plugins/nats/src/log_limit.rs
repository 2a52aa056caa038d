//! Limits how often messages are logged that other nodes, NATS programs or the server can cause in any
//! number.

use std::time::{Duration, Instant};

/// Errors of the server that are logged per second, for each connection.
pub(crate) const LOGGED_PROBLEMS: u32 = 5;
/// The time that a limit is for.
const PERIOD: Duration = Duration::from_secs(1);

/// A limit for messages of one kind.
#[derive(Debug)]
pub(crate) struct LogLimit {
    /// Messages per second.
    most: u32,
    since: Option<Instant>,
    logged: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Creates a limit of `most` messages per second.
    pub(crate) fn new(most: u32) -> Self {
        LogLimit { most, since: None, logged: 0, suppressed: 0 }
    }

    /// Returns whether a message should be logged now: if so, how many were not since the last one.
    pub(crate) fn permit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now >= since + PERIOD) {
            (self.since, self.logged) = (Some(now), 0);
        }
        if self.logged >= self.most {
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
    fn messages_beyond_the_limit_are_counted() {
        let (mut limit, now) = (LogLimit::new(2), Instant::now());
        assert_eq!([now; 4].map(|now| limit.permit(now)), [Some(0), Some(0), None, None]);
        assert_eq!(limit.permit(now + PERIOD), Some(2));
        assert_eq!(limit.permit(now + PERIOD), Some(0));
        assert_eq!(limit.permit(now + PERIOD), None);
    }
}
