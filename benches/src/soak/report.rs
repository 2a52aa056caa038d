//! What came of a soak: the tables, and the verdict.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    churn::Counts,
    ledger::Account,
    resource_usage::{Course, Samples},
};

/// Descriptors and threads come and go with clients; a leak shows in all of them.
const TOLERATED_COUNT: i64 = 12;

/// What came of a soak.
pub struct Report {
    pub(super) accounts: Vec<Arc<Account>>,
    pub(super) unrest: Arc<Counts>,
    pub(super) samples: Samples,
    pub(super) tolerance_bytes: u64,
}

impl Report {
    /// Whether nothing was lost or reordered, and nothing grew beyond the tolerance.
    pub fn is_good(&self) -> bool {
        self.accounts.iter().all(|account| account.wrong() == 0)
            && self.memory().growth <= self.tolerance_bytes as i64
            && self.descriptors().growth <= TOLERATED_COUNT
            && self.threads().growth <= TOLERATED_COUNT
    }

    fn memory(&self) -> Course {
        self.samples.course(|sample| sample.memory)
    }

    fn descriptors(&self) -> Course {
        self.samples.course(|sample| sample.descriptors)
    }

    fn threads(&self) -> Course {
        self.samples.course(|sample| sample.threads)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:26}{:>12}{:>11}{:>13}{:>6}{:>11}{:>9}",
            "messages", "sent", "receivers", "received", "lost", "reordered", "refused"
        )?;
        for account in &self.accounts {
            let of = |count: &std::sync::atomic::AtomicU64| count.load(Relaxed);
            writeln!(
                f,
                "{:26}{:>12}{:>11}{:>13}{:>6}{:>11}{:>9}",
                account.kind,
                of(&account.sent),
                account.receivers,
                of(&account.received),
                of(&account.lost),
                of(&account.reordered),
                of(&account.refused)
            )?;
        }
        writeln!(f, "\n{}\n", self.unrest)?;
        writeln!(
            f,
            "{:26}{:>12}{:>11}{:>13}{:>11}{:>11}",
            "the broker, once warm", "first", "median", "last", "peak", "growth"
        )?;
        let line = |f: &mut fmt::Formatter<'_>, what: &str, course: Course, unit: f64, digits: usize| {
            let of = |value: u64| format!("{:.digits$}", value as f64 / unit);
            writeln!(
                f,
                "{:26}{:>12}{:>11}{:>13}{:>11}{:>11}",
                what,
                of(course.first),
                of(course.median),
                of(course.last),
                of(course.peak),
                format!("{:+.digits$}", course.growth as f64 / unit)
            )
        };
        line(f, "memory, MiB", self.memory(), 1024.0 * 1024.0, 1)?;
        line(f, "descriptors", self.descriptors(), 1.0, 0)?;
        line(f, "threads", self.threads(), 1.0, 0)?;
        let verdict = if self.is_good() { "nothing lost, nothing grown" } else { "NOT GOOD" };
        write!(f, "\n{verdict}; {} samples, growth from the first quarter to the last", self.samples.count())
    }
}
