//! Latencies: the histogram that records them, and the quantiles that are reported.

use hdrhistogram::Histogram;
use std::{fmt, time::Duration};

use serde_json::{Value, json};

use crate::BoxError;

/// A longer latency is counted as this.
const MAX: Duration = Duration::from_secs(3600);
const SIGNIFICANT_DIGITS: u8 = 3;

/// Counts of latencies in nanoseconds. A reported value is at most 0.1 % above the recorded one.
pub(crate) struct LatencyHistogram(Histogram<u64>);

impl LatencyHistogram {
    pub(crate) fn new() -> Result<Self, BoxError> {
        Ok(LatencyHistogram(Histogram::new_with_max(MAX.as_nanos() as u64, SIGNIFICANT_DIGITS)?))
    }

    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    pub(crate) fn merge(&mut self, other: &LatencyHistogram) -> Result<(), BoxError> {
        Ok(self.0.add(&other.0)?)
    }

    pub(crate) fn samples(&self) -> u64 {
        self.0.len()
    }

    /// The quantiles. Each is the smallest latency that at least this share of all samples does not exceed; 0
    /// without samples.
    pub(crate) fn summary(&self) -> Latency {
        Latency {
            p50: self.0.value_at_quantile(0.5),
            p99: self.0.value_at_quantile(0.99),
            p999: self.0.value_at_quantile(0.999),
            max: self.0.max(),
            samples: self.0.len(),
        }
    }
}

/// Latency quantiles in nanoseconds. Of a stream: from before the write that contained the message until
/// after the read that did. Of a request: until its reply.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// The median.
    pub p50: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p999: u64,
    /// The maximum.
    pub max: u64,
    /// How many latencies were recorded.
    pub samples: u64,
}

impl Latency {
    pub(crate) fn to_json(self) -> Value {
        json!({
            "p50": self.p50,
            "p99": self.p99,
            "p99.9": self.p999,
            "max": self.max,
            "samples": self.samples,
        })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, p999, max] = [self.p50, self.p99, self.p999, self.max].map(|nanos| nanos as f64 / 1e3);
        write!(
            f,
            "latency p50 {p50:.1} us, p99 {p99:.1} us, p99.9 {p999:.1} us, max {max:.1} us ({} samples)",
            self.samples
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_merged_histograms_are_within_a_thousandth() {
        let mut all = LatencyHistogram::new().unwrap();
        for half in [1..=500u64, 501..=1000] {
            let mut part = LatencyHistogram::new().unwrap();
            half.for_each(|value| part.record(value * 1_000_000));
            all.merge(&part).unwrap();
        }
        let Latency { p50, p99, p999, max, samples } = all.summary();
        assert_eq!(samples, 1000);
        for (value, exact) in [(p50, 500), (p99, 990), (p999, 999), (max, 1000)] {
            let exact = exact * 1_000_000;
            assert!((exact..=exact + exact / 1000).contains(&value), "{value}, expected {exact}");
        }
    }

    #[test]
    fn an_empty_histogram_is_zero_and_a_value_beyond_the_maximum_counts() {
        let mut histogram = LatencyHistogram::new().unwrap();
        assert_eq!((histogram.summary().p50, histogram.summary().max), (0, 0));
        histogram.record(u64::MAX);
        assert_eq!(histogram.samples(), 1);
        assert!(histogram.summary().p50 >= MAX.as_nanos() as u64);
    }
}
