//! How long calls take, as a histogram. Recording takes no lock.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// The upper bounds of the buckets, in microseconds. A last bucket has everything above.
pub(crate) const BOUNDS_MICROS: [u64; 14] =
    [1, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 5_000_000];

/// Durations of one kind of call.
#[derive(Default)]
pub(crate) struct Durations {
    /// Calls, by the first bound that they do not exceed.
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    nanos: AtomicU64,
}

/// A copy of [`Durations`].
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DurationSummary {
    /// Upper bounds in seconds with the number of calls that took longer than the previous bound; the last
    /// bound is infinite.
    pub(crate) buckets: Vec<(f64, u64)>,
    /// The sum of all durations.
    pub(crate) total: Duration,
}

impl Durations {
    /// Makes a call and records how long it takes.
    #[inline]
    pub(crate) fn time<R>(&self, call: impl FnOnce() -> R) -> R {
        let begun = Instant::now();
        let result = call();
        self.record(begun.elapsed());
        result
    }

    fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| bound.saturating_mul(1000) < nanos);
        if let Some(count) = self.buckets.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// Returns a copy; `None` if there was no call.
    pub(crate) fn summary(&self) -> Option<DurationSummary> {
        let bounds = BOUNDS_MICROS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(|count| count.load(Relaxed))).collect();
        let total = Duration::from_nanos(self.nanos.load(Relaxed));
        buckets.iter().any(|(_, count)| *count > 0).then_some(DurationSummary { buckets, total })
    }
}

#[cfg(all(test, not(elbus_model)))]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_bucket_whose_bound_it_does_not_exceed() {
        let durations = Durations::default();
        assert_eq!(durations.summary(), None);
        for nanos in [0, 1_000, 1_001, 5_000_000_000, 5_000_000_001] {
            durations.record(Duration::from_nanos(nanos));
        }
        durations.time(|| ());
        let DurationSummary { buckets, total } = durations.summary().unwrap();
        assert!(total >= Duration::from_nanos(10_000_002_002));
        let count = |bound: f64| buckets.iter().find(|(other, _)| *other == bound).unwrap().1;
        assert!(count(1e-6) >= 2 && count(5e-6) >= 1, "{buckets:?}");
        assert_eq!((count(5.0), count(f64::INFINITY)), (1, 1));
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 6);
    }
}
