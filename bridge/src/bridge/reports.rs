//! Counts what happens, and limits how often it is reported.

use crate::report::{Counters, KINDS, Report, ReportKind};
use std::{sync::Arc, time::Duration};

/// Time between two reports of a kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counters, and occurrences that are not reported yet.
#[derive(Debug, Default)]
pub(super) struct Reports {
    pub(super) counters: Counters,
    pending: [Pending; KINDS],
    has_pending: bool,
}

#[derive(Debug, Default, Clone)]
struct Pending {
    report: Option<Report>,
    due: Duration,
}

impl Reports {
    /// Counts occurrences. Reports have the node of the first one.
    pub(super) fn add(&mut self, kind: ReportKind, node: Option<&Arc<str>>, count: u64) {
        if count == 0 {
            return;
        }
        self.counters.add(kind, count);
        self.has_pending = true;
        if let Some(pending) = self.pending.get_mut(kind as usize) {
            let report = pending.report.get_or_insert(Report { kind, node: node.cloned(), count: 0 });
            report.count = report.count.saturating_add(count);
        }
    }

    /// Returns a report that is due.
    pub(super) fn next(&mut self, now: Duration) -> Option<Report> {
        if !self.has_pending {
            return None;
        }
        for pending in &mut self.pending {
            if now >= pending.due
                && let Some(report) = pending.report.take()
            {
                pending.due = now + INTERVAL;
                return Some(report);
            }
        }
        self.has_pending = self.pending.iter().any(|pending| pending.report.is_some());
        None
    }

    /// Returns when the next report is due.
    pub(super) fn deadline(&self) -> Duration {
        if !self.has_pending {
            return Duration::MAX;
        }
        let due = self.pending.iter().filter(|pending| pending.report.is_some()).map(|pending| pending.due);
        due.min().unwrap_or(Duration::MAX)
    }
}
