//! Lines of the log that a stranger can cause as often as he likes. Owns how many of a kind appear in a minute, of one
//! source and of all, and counts the others.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::Source;

/// So many lines of a kind about one source appear in each [`WINDOW`]...
const LINES: u32 = 10;
/// ...and so many about all sources. The second half is for sources about which none has appeared, so that noisy ones, however
/// many they are, hide no quiet one before there are as many.
const ALL_LINES: u32 = 100;
const FIRST_HALF: u32 = ALL_LINES / 2;
const WINDOW: Duration = Duration::from_secs(60);
/// Sources that are told apart in a window; those beyond are one.
const MAX_SOURCES: usize = 1024;

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

/// Lines of one kind in a window.
#[derive(Default)]
struct Tally {
    /// When the first line of this window appeared.
    since: Option<Instant>,
    shown: u32,
    hidden: u64,
    /// `None` stands for all that are not told apart.
    sources: HashMap<Option<Source>, Lines>,
}

/// Those about one source.
#[derive(Default)]
struct Lines {
    shown: u32,
    hidden: u64,
}

/// Lines of one kind that did not appear in a window.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hidden {
    pub(crate) notice: Notice,
    pub(crate) count: u64,
    /// About how many sources they were.
    pub(crate) sources: usize,
    /// About which most were, and how many; unless that is not known.
    pub(crate) most: Option<(Source, u64)>,
}

impl Tally {
    fn is_over(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= WINDOW)
    }

    fn begin(&mut self, now: Instant) {
        *self = Tally { since: Some(now), ..Tally::default() };
    }

    fn admit(&mut self, source: Source) -> bool {
        let is_known = self.sources.contains_key(&Some(source));
        let key = (is_known || self.sources.len() < MAX_SOURCES).then_some(source);
        let lines = self.sources.entry(key).or_default();
        let may_appear = match self.shown {
            0..FIRST_HALF => lines.shown < LINES,
            FIRST_HALF..ALL_LINES => lines.shown == 0,
            _ => false,
        };
        if may_appear {
            lines.shown += 1;
            self.shown += 1;
        } else {
            lines.hidden += 1;
            self.hidden += 1;
        }
        may_appear
    }
}

impl Notices {
    /// Whether another line about a source may appear; where not, it is counted.
    pub(crate) fn admit(&self, notice: Notice, source: Source, now: Instant) -> bool {
        let mut tallies = self.0.lock();
        let Some(tally) = tallies.get_mut(notice as usize) else { return false };
        if tally.since.is_none() || (tally.is_over(now) && tally.hidden == 0) {
            tally.begin(now);
        }
        tally.admit(source)
    }

    /// How many lines of which kinds did not appear in the windows that are over; new ones begin.
    pub(crate) fn take_hidden(&self, now: Instant) -> Vec<Hidden> {
        let mut all = vec![];
        for (notice, tally) in Notice::ALL.into_iter().zip(&mut *self.0.lock()) {
            if tally.is_over(now) && tally.hidden > 0 {
                let hidden = || tally.sources.iter().filter(|(_, lines)| lines.hidden > 0);
                let most = hidden().max_by_key(|(_, lines)| lines.hidden);
                let most = most.and_then(|(source, lines)| Some(((*source)?, lines.hidden)));
                all.push(Hidden { notice, count: tally.hidden, sources: hidden().count(), most });
                tally.begin(now);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Source = Source::User(1);
    const B: Source = Source::User(2);

    #[test]
    fn a_flood_is_ten_lines_a_minute_and_one_that_counts_the_rest() {
        let (notices, start) = (Notices::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut shown = 0;
        let mut summaries = vec![];
        // ten a second, for three minutes
        for second in 0..180 {
            summaries.extend(notices.take_hidden(at(second)));
            shown += (0..10).filter(|_| notices.admit(Notice::Protocol, A, at(second))).count();
        }
        summaries.extend(notices.take_hidden(at(180)));
        assert_eq!(shown, 30);
        let each = || Hidden { notice: Notice::Protocol, count: 590, sources: 1, most: Some((A, 590)) };
        assert_eq!(summaries, [each(), each(), each()]);
        assert_eq!(notices.take_hidden(at(1000)), [], "nothing happened");
    }

    #[test]
    fn a_kind_does_not_hide_another_and_a_rare_one_is_never_hidden() {
        let (notices, start) = (Notices::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!((0..50).filter(|_| notices.admit(Notice::Tls, A, at(0))).count(), 10);
        assert!(notices.admit(Notice::Refused, A, at(0)));
        for minute in 0..100 {
            assert!(notices.admit(Notice::Late, A, at(60 * minute)), "{minute}");
        }
        // the count of those that were hidden is told, however late
        assert!(!notices.admit(Notice::Tls, A, at(500)));
        let hidden = notices.take_hidden(at(500));
        assert_eq!(hidden, [Hidden { notice: Notice::Tls, count: 41, sources: 1, most: Some((A, 41)) }]);
        assert!(notices.admit(Notice::Tls, A, at(501)));
    }

    #[test]
    fn a_noisy_source_hides_no_other() {
        let (notices, now) = (Notices::default(), Instant::now());
        let shown = |source| (0..1000).filter(|_| notices.admit(Notice::Protocol, source, now)).count();
        assert_eq!((shown(A), shown(B)), (10, 10));
        let hidden = notices.take_hidden(now + WINDOW);
        assert_eq!((hidden[0].count, hidden[0].sources), (1980, 2));
    }

    #[test]
    fn noisy_sources_together_hide_no_quiet_one() {
        let (notices, now) = (Notices::default(), Instant::now());
        let noisy = 0..20;
        let mut shown = 0;
        for _ in 0..1000 {
            shown += noisy.clone().filter(|n| notices.admit(Notice::Late, Source::User(*n), now)).count();
        }
        assert_eq!(shown, 50, "half of what may appear");
        let quiet = (100..150).filter(|n| notices.admit(Notice::Late, Source::User(*n), now)).count();
        assert_eq!(quiet, 50, "the other half");
        assert!(!notices.admit(Notice::Late, Source::User(200), now), "there is a bound to all of them");
    }

    #[test]
    fn sources_are_remembered_within_bounds() {
        let (notices, now) = (Notices::default(), Instant::now());
        let shown = (0..100_000).filter(|n| notices.admit(Notice::Tls, Source::User(*n), now)).count();
        assert_eq!(shown, 100);
        assert_eq!(notices.0.lock()[Notice::Tls as usize].sources.len(), MAX_SOURCES + 1);
        let hidden = notices.take_hidden(now + WINDOW);
        assert_eq!((hidden[0].count, hidden[0].most), (99_900, None), "most are not told apart");
        assert!(notices.0.lock()[Notice::Tls as usize].sources.is_empty());
    }
}
