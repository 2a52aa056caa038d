//! Limits log lines that peers can cause, per category, source and minute, and counts suppressed ones.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::server::source::Source;

/// Lines of a category about one source in a [`WINDOW`].
const LINES: u32 = 10;
/// Lines of a category about all sources. The second half is for sources that have none yet, so that noisy
/// sources do not hide quiet ones.
const ALL_LINES: u32 = 100;
const FIRST_HALF: u32 = ALL_LINES / 2;
const WINDOW: Duration = Duration::from_secs(60);
/// Sources counted separately in a window; the others count as one.
const MAX_SOURCES: usize = 1024;

/// What a log line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogCategory {
    /// A protocol error.
    Protocol,
    /// A client exceeded a time limit.
    Late,
    /// A connection was refused because of a limit.
    Refused,
    /// A connection was evicted for another one.
    Evicted,
    /// A connection could not be accepted.
    Accept,
    /// A TLS handshake failed, or was tried at a port without TLS.
    Tls,
}

impl LogCategory {
    pub(crate) const ALL: [LogCategory; 6] = [
        LogCategory::Protocol,
        LogCategory::Late,
        LogCategory::Refused,
        LogCategory::Evicted,
        LogCategory::Accept,
        LogCategory::Tls,
    ];

    /// Returns the name in figures.
    pub(crate) fn key(self) -> &'static str {
        match self {
            LogCategory::Protocol => "protocol",
            LogCategory::Late => "late",
            LogCategory::Refused => "limit",
            LogCategory::Evicted => "evicted",
            LogCategory::Accept => "accept",
            LogCategory::Tls => "tls",
        }
    }

    /// Returns the plural noun for log lines.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            LogCategory::Protocol => "protocol errors",
            LogCategory::Late => "clients that were too slow",
            LogCategory::Refused => "refused connections",
            LogCategory::Evicted => "evicted connections",
            LogCategory::Accept => "failures to accept connections",
            LogCategory::Tls => "failed TLS handshakes",
        }
    }
}

/// Log lines of an instance in the current windows.
#[derive(Default)]
pub(crate) struct SourceLogThrottle(Mutex<[CategoryWindow; LogCategory::ALL.len()]>);

/// Lines of one category in a window.
#[derive(Default)]
struct CategoryWindow {
    /// When the first line of this window was logged.
    since: Option<Instant>,
    shown: u32,
    hidden: u64,
    /// `None` stands for all sources that are not counted separately.
    sources: HashMap<Option<Source>, Lines>,
}

/// Lines about one source.
#[derive(Default)]
struct Lines {
    shown: u32,
    hidden: u64,
}

/// Suppressed lines of one category in a window.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SuppressedLines {
    pub(crate) category: LogCategory,
    pub(crate) count: u64,
    /// Number of their sources.
    pub(crate) sources: usize,
    /// The source with the most lines and their number, if known.
    pub(crate) most: Option<(Source, u64)>,
}

impl CategoryWindow {
    fn is_over(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= WINDOW)
    }

    fn begin(&mut self, now: Instant) {
        *self = CategoryWindow { since: Some(now), ..CategoryWindow::default() };
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

impl SourceLogThrottle {
    /// Returns whether another line about a source can be logged; counts it as suppressed if not.
    pub(crate) fn admit(&self, category: LogCategory, source: Source, now: Instant) -> bool {
        let mut tallies = self.0.lock();
        let Some(tally) = tallies.get_mut(category as usize) else { return false };
        if tally.since.is_none() || (tally.is_over(now) && tally.hidden == 0) {
            tally.begin(now);
        }
        tally.admit(source)
    }

    /// Takes the suppressed lines of the windows that have ended, and begins new windows.
    pub(crate) fn take_suppressed(&self, now: Instant) -> Vec<SuppressedLines> {
        let mut all = vec![];
        for (category, tally) in LogCategory::ALL.into_iter().zip(&mut *self.0.lock()) {
            if tally.is_over(now) && tally.hidden > 0 {
                let hidden = || tally.sources.iter().filter(|(_, lines)| lines.hidden > 0);
                let most = hidden().max_by_key(|(_, lines)| lines.hidden);
                let most = most.and_then(|(source, lines)| Some(((*source)?, lines.hidden)));
                all.push(SuppressedLines { category, count: tally.hidden, sources: hidden().count(), most });
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
        let (log_throttle, start) = (SourceLogThrottle::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut shown = 0;
        let mut summaries = vec![];
        // ten a second, for three minutes
        for second in 0..180 {
            summaries.extend(log_throttle.take_suppressed(at(second)));
            shown += (0..10).filter(|_| log_throttle.admit(LogCategory::Protocol, A, at(second))).count();
        }
        summaries.extend(log_throttle.take_suppressed(at(180)));
        assert_eq!(shown, 30);
        let each = || SuppressedLines {
            category: LogCategory::Protocol,
            count: 590,
            sources: 1,
            most: Some((A, 590)),
        };
        assert_eq!(summaries, [each(), each(), each()]);
        assert_eq!(log_throttle.take_suppressed(at(1000)), [], "nothing happened");
    }

    #[test]
    fn categories_do_not_suppress_each_other_and_rare_ones_are_never_suppressed() {
        let (log_throttle, start) = (SourceLogThrottle::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!((0..50).filter(|_| log_throttle.admit(LogCategory::Tls, A, at(0))).count(), 10);
        assert!(log_throttle.admit(LogCategory::Refused, A, at(0)));
        for minute in 0..100 {
            assert!(log_throttle.admit(LogCategory::Late, A, at(60 * minute)), "{minute}");
        }
        // the count of suppressed lines is reported, however late
        assert!(!log_throttle.admit(LogCategory::Tls, A, at(500)));
        let hidden = log_throttle.take_suppressed(at(500));
        assert_eq!(
            hidden,
            [SuppressedLines { category: LogCategory::Tls, count: 41, sources: 1, most: Some((A, 41)) }]
        );
        assert!(log_throttle.admit(LogCategory::Tls, A, at(501)));
    }

    #[test]
    fn a_noisy_source_suppresses_no_other() {
        let (log_throttle, now) = (SourceLogThrottle::default(), Instant::now());
        let shown =
            |source| (0..1000).filter(|_| log_throttle.admit(LogCategory::Protocol, source, now)).count();
        assert_eq!((shown(A), shown(B)), (10, 10));
        let hidden = log_throttle.take_suppressed(now + WINDOW);
        assert_eq!((hidden[0].count, hidden[0].sources), (1980, 2));
    }

    #[test]
    fn noisy_sources_together_suppress_no_quiet_one() {
        let (log_throttle, now) = (SourceLogThrottle::default(), Instant::now());
        let noisy = 0..20;
        let mut shown = 0;
        for _ in 0..1000 {
            shown += noisy
                .clone()
                .filter(|n| log_throttle.admit(LogCategory::Late, Source::User(*n), now))
                .count();
        }
        assert_eq!(shown, 50, "half of what may appear");
        let quiet =
            (100..150).filter(|n| log_throttle.admit(LogCategory::Late, Source::User(*n), now)).count();
        assert_eq!(quiet, 50, "the other half");
        assert!(
            !log_throttle.admit(LogCategory::Late, Source::User(200), now),
            "there is a bound to all of them"
        );
    }

    #[test]
    fn the_number_of_counted_sources_is_bounded() {
        let (log_throttle, now) = (SourceLogThrottle::default(), Instant::now());
        let shown =
            (0..100_000).filter(|n| log_throttle.admit(LogCategory::Tls, Source::User(*n), now)).count();
        assert_eq!(shown, 100);
        assert_eq!(log_throttle.0.lock()[LogCategory::Tls as usize].sources.len(), MAX_SOURCES + 1);
        let hidden = log_throttle.take_suppressed(now + WINDOW);
        assert_eq!((hidden[0].count, hidden[0].most), (99_900, None), "most are not told apart");
        assert!(log_throttle.0.lock()[LogCategory::Tls as usize].sources.is_empty());
    }
}
