//! The report of a soak test: its tables, and whether it has passed.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    churn::ChurnCounts,
    ledger::Ledger,
    resource_usage::{Trend, UsageSamples},
};

/// The tolerated growth of file descriptors and threads, which vary with the clients.
const COUNT_TOLERANCE: i64 = 12;

/// The report of a soak test.
pub struct Report {
    pub(super) ledgers: Vec<Arc<Ledger>>,
    pub(super) churn: Arc<ChurnCounts>,
    pub(super) usage: UsageSamples,
    pub(super) tolerance_bytes: u64,
}

impl Report {
    /// Whether nothing was lost or reordered, and nothing grew beyond its tolerance.
    pub fn passed(&self) -> bool {
        self.ledgers.iter().all(|ledger| ledger.errors() == 0)
            && self.memory().growth <= self.tolerance_bytes as i64
            && self.fds().growth <= COUNT_TOLERANCE
            && self.threads().growth <= COUNT_TOLERANCE
    }

    fn memory(&self) -> Trend {
        self.usage.trend(|sample| sample.memory)
    }

    fn fds(&self) -> Trend {
        self.usage.trend(|sample| sample.fds)
    }

    fn threads(&self) -> Trend {
        self.usage.trend(|sample| sample.threads)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:26}{:>12}{:>11}{:>13}{:>6}{:>11}{:>9}",
            "stream", "sent", "receivers", "received", "lost", "reordered", "refused"
        )?;
        for ledger in &self.ledgers {
            writeln!(
                f,
                "{:26}{:>12}{:>11}{:>13}{:>6}{:>11}{:>9}",
                ledger.stream,
                ledger.sent.load(Relaxed),
                ledger.receivers,
                ledger.received.load(Relaxed),
                ledger.lost.load(Relaxed),
                ledger.reordered.load(Relaxed),
                ledger.refused.load(Relaxed)
            )?;
        }
        writeln!(f, "\n{}\n", self.churn)?;
        writeln!(
            f,
            "{:26}{:>12}{:>11}{:>13}{:>11}{:>11}",
            "broker after the warm-up", "first", "median", "last", "peak", "growth"
        )?;
        let row = |f: &mut fmt::Formatter<'_>, figure: &str, trend: Trend, unit: f64, decimals: usize| {
            let cell = |value: u64| format!("{:.decimals$}", value as f64 / unit);
            writeln!(
                f,
                "{:26}{:>12}{:>11}{:>13}{:>11}{:>11}",
                figure,
                cell(trend.first),
                cell(trend.median),
                cell(trend.last),
                cell(trend.peak),
                format!("{:+.decimals$}", trend.growth as f64 / unit)
            )
        };
        row(f, "memory, MiB", self.memory(), 1024.0 * 1024.0, 1)?;
        row(f, "file descriptors", self.fds(), 1.0, 0)?;
        row(f, "threads", self.threads(), 1.0, 0)?;
        let result = if self.passed() { "PASSED: nothing lost, no growth" } else { "FAILED" };
        write!(f, "\n{result} ({} samples; growth from the first quarter to the last)", self.usage.count())
    }
}
