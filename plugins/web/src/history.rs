//! The last quarter of an hour of the broker's sums, one value for each second. Owns their memory; asks
//! nobody.

use serde::Serialize;
use std::{collections::VecDeque, time::Duration};

use crate::figures::Totals;

/// Time between two values.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
/// Values that are kept: a quarter of an hour.
pub(crate) const MAX_VALUES: usize = 900;

/// The values of one second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Values {
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    refused: u64,
    missed: u64,
    held_seconds: f64,
    queued_bytes: u64,
    clients: u64,
}

/// The history.
#[derive(Default)]
pub(crate) struct History {
    last: Option<Totals>,
    /// `None` for a second in which nothing was measured.
    values: VecDeque<Option<Values>>,
    /// The number of values since the start.
    newest: u64,
    newest_ms: u64,
}

/// The result of `web.history`.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    interval_ms: u64,
    /// Number and Unix time of the last value.
    newest: u64,
    newest_ms: u64,
    series: Series,
}

/// Values by name, the oldest first.
#[derive(Debug, Serialize)]
struct Series {
    messages_in: Vec<Option<u64>>,
    messages_out: Vec<Option<u64>>,
    bytes_in: Vec<Option<u64>>,
    bytes_out: Vec<Option<u64>>,
    refused: Vec<Option<u64>>,
    missed: Vec<Option<u64>>,
    held_seconds: Vec<Option<f64>>,
    queued_bytes: Vec<Option<u64>>,
    clients: Vec<Option<u64>>,
}

impl History {
    /// Adds the values of a second, which ends at `unix_ms`: what the sums have grown by, since they were
    /// last added. The first sums are only the beginning.
    pub(crate) fn add(&mut self, totals: Totals, unix_ms: u64) {
        let Some(last) = self.last.replace(totals) else { return };
        let values = Values {
            messages_in: totals.messages_in.saturating_sub(last.messages_in),
            messages_out: totals.messages_out.saturating_sub(last.messages_out),
            bytes_in: totals.bytes_in.saturating_sub(last.bytes_in),
            bytes_out: totals.bytes_out.saturating_sub(last.bytes_out),
            refused: totals.refused.saturating_sub(last.refused),
            missed: totals.missed.saturating_sub(last.missed),
            held_seconds: (totals.held_seconds - last.held_seconds).max(0.0),
            queued_bytes: totals.queued_bytes,
            clients: totals.clients,
        };
        self.push(Some(values));
        self.newest_ms = unix_ms;
    }

    /// Adds seconds in which nothing was measured.
    pub(crate) fn skip(&mut self, seconds: u64) {
        if self.last.is_some() {
            let kept = seconds.min(MAX_VALUES as u64);
            (0..kept).for_each(|_| self.push(None));
            self.newest += seconds - kept;
            self.newest_ms += seconds * INTERVAL.as_millis() as u64;
        }
    }

    fn push(&mut self, values: Option<Values>) {
        if self.values.len() >= MAX_VALUES {
            self.values.pop_front();
        }
        self.values.push_back(values);
        self.newest += 1;
    }

    /// Returns the values after the one with the number `after`.
    pub(crate) fn answer(&self, after: u64) -> Answer {
        let count = self.newest.saturating_sub(after).min(self.values.len() as u64) as usize;
        let values = || self.values.iter().skip(self.values.len() - count);
        let each = |of: fn(&Values) -> u64| values().map(|values| values.as_ref().map(of)).collect();
        Answer {
            interval_ms: INTERVAL.as_millis() as u64,
            newest: self.newest,
            newest_ms: self.newest_ms,
            series: Series {
                messages_in: each(|it| it.messages_in),
                messages_out: each(|it| it.messages_out),
                bytes_in: each(|it| it.bytes_in),
                bytes_out: each(|it| it.bytes_out),
                refused: each(|it| it.refused),
                missed: each(|it| it.missed),
                held_seconds: values().map(|values| values.as_ref().map(|it| it.held_seconds)).collect(),
                queued_bytes: each(|it| it.queued_bytes),
                clients: each(|it| it.clients),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(messages_in: u64, clients: u64) -> Totals {
        Totals { messages_in, clients, held_seconds: messages_in as f64 / 10.0, ..Totals::default() }
    }

    #[test]
    fn values_are_what_sums_have_grown_by_and_gauges_as_they_are() {
        let mut history = History::default();
        history.add(totals(1000, 5), 1_000);
        assert_eq!((history.answer(0).newest, history.answer(0).series.clients.len()), (0, 0));
        history.add(totals(1010, 6), 2_000);
        history.skip(2);
        history.add(totals(1040, 4), 5_000);
        let Answer { newest, newest_ms, series, .. } = history.answer(0);
        assert_eq!((newest, newest_ms), (4, 5_000));
        assert_eq!(series.messages_in, [Some(10), None, None, Some(30)], "nothing is lost");
        assert_eq!(series.clients, [Some(6), None, None, Some(4)]);
        assert_eq!(series.held_seconds, [Some(1.0), None, None, Some(3.0)]);
        assert_eq!(history.answer(3).series.messages_in, [Some(30)]);
        assert!(
            history.answer(4).series.messages_in.is_empty() && history.answer(99).series.clients.is_empty()
        );
    }

    #[test]
    fn a_quarter_of_an_hour_is_kept() {
        let mut history = History::default();
        (0..=MAX_VALUES as u64 + 7).for_each(|second| history.add(totals(second * second, 1), second));
        let Answer { newest, series, .. } = history.answer(0);
        assert_eq!((newest, series.messages_in.len()), (MAX_VALUES as u64 + 7, MAX_VALUES));
        assert_eq!(series.messages_in[0], Some(2 * 7 + 1));
        history.skip(u64::from(u32::MAX));
        let Answer { newest, series, .. } = history.answer(0);
        assert_eq!(newest, MAX_VALUES as u64 + 7 + u64::from(u32::MAX));
        assert!(series.messages_in.len() == MAX_VALUES && series.messages_in.iter().all(Option::is_none));
    }
}
