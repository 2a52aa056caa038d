//! Lines of the log that a stranger can cause as often as he likes. Owns how many of a kind appear in a minute, and
//! counts the others.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// So many lines of a kind appear in each [`WINDOW`].
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// A client broke the protocol.
    Protocol,
    /// A client did not say in time what it had to.
    Late,
    /// A connection was refused since there are too many.
    Refused,
    /// A connection was evicted to make room for another one.
    Evicted,
    /// A connection could not be accepted.
    Accept,
    /// A TLS handshake failed, or was tried with a port that has no TLS.
    Tls,
}

impl Notice {
    const ALL: [Notice; 6] =
        [Notice::Protocol, Notice::Late, Notice::Refused, Notice::Evicted, Notice::Accept, Notice::Tls];

    /// What several of them are called.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Notice::Protocol => "protocol errors",
            Notice::Late => "clients that were too slow",
            Notice::Refused => "refused connections",
            Notice::Evicted => "evicted connections",
            Notice::Accept => "failures to accept connections",
            Notice::Tls => "failed TLS handshakes",
        }
    }
}

/// The lines of an instance in the last minute.
#[derive(Default)]
pub(crate) struct Notices(Mutex<[Tally; Notice::ALL.len()]>);

#[derive(Default)]
struct Tally {
    /// When the first line of this window appeared.
    since: Option<Instant>,
    shown: u32,
    hidden: u64,
}

impl Notices {
    /// Whether another line may appear; where not, it is counted.
    pub(crate) fn admit(&self, notice: Notice, now: Instant) -> bool {
        let mut tallies = self.0.lock();
        let Some(tally) = tallies.get_mut(notice as usize) else { return false };
        let is_over = tally.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW);
        if is_over && tally.hidden == 0 {
            *tally = Tally { since: Some(now), ..Tally::default() };
        }
        if tally.shown < LINES {
            tally.shown += 1;
            return true;
        }
        tally.hidden += 1;
        false
    }

    /// How many lines of which kinds did not appear in the windows that are over; new ones begin.
    pub(crate) fn take_hidden(&self, now: Instant) -> Vec<(Notice, u64)> {
        let mut hidden = vec![];
        for (notice, tally) in Notice::ALL.into_iter().zip(&mut *self.0.lock()) {
            let is_over = tally.since.is_some_and(|since| now.saturating_duration_since(since) >= WINDOW);
            if is_over && tally.hidden > 0 {
                hidden.push((notice, std::mem::take(&mut tally.hidden)));
                *tally = Tally { since: Some(now), ..Tally::default() };
            }
        }
        hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_ten_lines_a_minute_and_one_that_counts_the_rest() {
        let (notices, start) = (Notices::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut shown = 0;
        let mut summaries = vec![];
        // ten a second, for three minutes
        for second in 0..180 {
            summaries.extend(notices.take_hidden(at(second)));
            shown += (0..10).filter(|_| notices.admit(Notice::Protocol, at(second))).count();
        }
        summaries.extend(notices.take_hidden(at(180)));
        assert_eq!(shown, 30);
        assert_eq!(summaries, [(Notice::Protocol, 590); 3]);
        assert_eq!(notices.take_hidden(at(1000)), [], "nothing happened");
    }

    #[test]
    fn a_kind_does_not_hide_another_and_a_rare_one_is_never_hidden() {
        let (notices, start) = (Notices::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!((0..50).filter(|_| notices.admit(Notice::Tls, at(0))).count(), 10);
        assert!(notices.admit(Notice::Refused, at(0)));
        for minute in 0..100 {
            assert!(notices.admit(Notice::Late, at(60 * minute)), "{minute}");
        }
        // the count of those that were hidden is told, however late
        assert!(!notices.admit(Notice::Tls, at(500)));
        assert_eq!(notices.take_hidden(at(500)), [(Notice::Tls, 41)]);
        assert!(notices.admit(Notice::Tls, at(501)));
    }
}
