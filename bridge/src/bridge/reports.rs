//! Counts what happens, and limits how often it is reported.

use crate::report::{Counters, KINDS, Report, ReportKind};
use std::{sync::Arc, time::Duration};

/// Time between two reports of a kind for a node.
const INTERVAL: Duration = Duration::from_secs(1);
/// Nodes with reports of their own at a time. What concerns further ones is reported without a node.
const MAX_NODES: usize = 64;

/// Counters, and occurrences that are not reported yet.
#[derive(Debug, Default)]
pub(super) struct Reports {
    pub(super) counters: Counters,
    pending: [Pending; KINDS],
    has_pending: bool,
}

#[derive(Debug, Default, Clone)]
struct Pending {
    /// One for each node, and one for what belongs to none.
    reports: Vec<Report>,
    due: Duration,
}

impl Reports {
    /// Counts occurrences.
    pub(super) fn add(&mut self, kind: ReportKind, node: Option<&Arc<str>>, count: u64) {
        if count == 0 {
            return;
        }
        self.counters.add(kind, count);
        self.has_pending = true;
        if let Some(pending) = self.pending.get_mut(kind as usize) {
            pending.add(kind, node, count);
        }
    }

    /// Returns a report that is due.
    pub(super) fn next(&mut self, now: Duration) -> Option<Report> {
        if !self.has_pending {
            return None;
        }
        for pending in &mut self.pending {
            if now >= pending.due
                && let Some(report) = pending.reports.pop()
            {
                if pending.reports.is_empty() {
                    pending.due = now + INTERVAL;
                }
                return Some(report);
            }
        }
        self.has_pending = self.pending.iter().any(|pending| !pending.reports.is_empty());
        None
    }

    /// Returns when the next report is due.
    pub(super) fn deadline(&self) -> Duration {
        if !self.has_pending {
            return Duration::MAX;
        }
        let due =
            self.pending.iter().filter(|pending| !pending.reports.is_empty()).map(|pending| pending.due);
        due.min().unwrap_or(Duration::MAX)
    }
}

impl Pending {
    fn add(&mut self, kind: ReportKind, node: Option<&Arc<str>>, count: u64) {
        let is_known = self.reports.iter().any(|report| report.node.as_ref() == node);
        let node = node.filter(|_| is_known || self.reports.len() < MAX_NODES);
        match self.reports.iter_mut().find(|report| report.node.as_ref() == node) {
            Some(report) => report.count = report.count.saturating_add(count),
            None => self.reports.push(Report { kind, node: node.cloned(), count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_own_reports_and_their_number_is_limited() {
        let mut reports = Reports::default();
        let kind = ReportKind::NamesOverLimit;
        let nodes: Vec<Arc<str>> = (0..MAX_NODES + 10).map(|number| number.to_string().into()).collect();
        for _ in 0..3 {
            reports.add(kind, None, 2);
            nodes.iter().for_each(|node| reports.add(kind, Some(node), 1));
        }
        let now = Duration::from_secs(1);
        let all: Vec<_> = std::iter::from_fn(|| reports.next(now)).collect();
        assert_eq!(all.len(), MAX_NODES);
        for report in &all {
            let expected = if report.node.is_some() { 3 } else { 3 * (2 + 11) };
            assert_eq!(report.count, expected, "{report:?}");
        }
        reports.add(kind, None, 1);
        assert_eq!(reports.next(now), None, "not more often than the interval");
        assert_eq!(reports.next(now + INTERVAL), Some(Report { kind, node: None, count: 1 }));
    }
}
