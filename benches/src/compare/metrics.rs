//! The figures of all runs, and what is computed from them: medians, spreads, and ratios within a round.

use serde_json::{Value, json};
use std::fmt;

use crate::load::Outcome;

/// One run.
pub(super) struct Sample {
    pub(super) round: usize,
    pub(super) workload: &'static str,
    pub(super) broker: &'static str,
    /// The figures, or the reason why there are none.
    pub(super) result: Result<Outcome, String>,
}

/// A figure of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Metric {
    Messages,
    Bytes,
    P50,
    P99,
    P999,
    BrokerCpu,
    PeakMemory,
    /// The growth from before the run until some time after it.
    MemoryAfter,
    Connects,
    ConnectCpu,
    IdleCpu,
    ClientMemory,
}

impl Metric {
    pub(super) fn of(self, outcome: &Outcome) -> Option<f64> {
        Some(match self {
            Metric::Messages => outcome.traffic()?.messages_per_second(),
            Metric::Bytes => outcome.traffic()?.bytes_per_second(),
            Metric::P50 => outcome.traffic()?.latency.p50 as f64,
            Metric::P99 => outcome.traffic()?.latency.p99 as f64,
            Metric::P999 => outcome.traffic()?.latency.p999 as f64,
            Metric::BrokerCpu => outcome.traffic()?.broker_nanos()?,
            Metric::PeakMemory => outcome.broker_peak_memory()? as f64,
            Metric::MemoryAfter => outcome.broker_memory_after()? as f64,
            Metric::Connects => outcome.idle_clients()?.connects_per_second(),
            Metric::ConnectCpu => outcome.idle_clients()?.connect_nanos()?,
            Metric::IdleCpu => outcome.idle_clients()?.idle_percent()?,
            Metric::ClientMemory => outcome.idle_clients()?.bytes_per_client()?,
        })
    }

    pub(super) fn more_is_better(self) -> bool {
        matches!(self, Metric::Messages | Metric::Bytes | Metric::Connects)
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Metric::Messages => "messages/s",
            Metric::Bytes => "bytes/s",
            Metric::P50 => "latency p50",
            Metric::P99 => "latency p99",
            Metric::P999 => "latency p99.9",
            Metric::BrokerCpu => "broker CPU per message",
            Metric::PeakMemory => "peak memory",
            Metric::MemoryAfter => "memory growth 2 s after the run",
            Metric::Connects => "connects/s",
            Metric::ConnectCpu => "broker CPU per connect",
            Metric::IdleCpu => "broker CPU while idle",
            Metric::ClientMemory => "memory per client",
        }
    }

    /// A value with a suitable unit.
    pub(super) fn format(self, value: f64) -> String {
        let (factor, unit) = self.unit(value);
        format!("{} {unit}", three_digits(value / factor)).trim_end().to_owned()
    }

    /// A spread in the unit of its median.
    pub(super) fn format_spread(self, spread: Spread) -> String {
        let (factor, _) = self.unit(spread.median);
        let [min, max] = [spread.min, spread.max].map(|value| three_digits(value / factor));
        format!("{} ({min} to {max})", self.format(spread.median))
    }

    fn unit(self, value: f64) -> (f64, &'static str) {
        let units: &[_] = match self {
            Metric::Messages | Metric::Connects => &[(1e6, "M"), (1e3, "k"), (1.0, "")],
            Metric::Bytes => &[(1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")],
            Metric::PeakMemory | Metric::MemoryAfter => &[(1_048_576.0, "MiB")],
            Metric::ClientMemory => &[(1.0, "B")],
            Metric::IdleCpu => &[(1.0, "%")],
            _ => &[(1e6, "ms"), (1e3, "us"), (1.0, "ns")],
        };
        units.iter().find(|(factor, _)| value >= *factor).or(units.last()).copied().unwrap_or((1.0, ""))
    }
}

/// Formats a value with three significant digits.
fn three_digits(value: f64) -> String {
    let decimals = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

/// A figure over all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// `None` if there are no values.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = if values.len() % 2 == 1 { upper } else { (upper + values.get(middle - 1)?) / 2.0 };
        Some(Spread { median, min, max })
    }
}

/// The spread of a figure of one broker under one workload.
pub(super) fn spread(samples: &[Sample], workload: &str, broker: &str, metric: Metric) -> Option<Spread> {
    let of_run = |sample: &Sample| value(sample, workload, broker, metric);
    Spread::of(samples.iter().filter_map(of_run).collect())
}

/// The spread of the ratios of one figure to another of the same round. Each is of a workload and a broker.
pub(super) fn ratio(
    samples: &[Sample],
    metric: Metric,
    (workload, broker): (&str, &str),
    (reference_workload, reference_broker): (&str, &str),
) -> Option<Spread> {
    let mut ratios = Vec::new();
    for sample in samples {
        let Some(figure) = value(sample, workload, broker, metric) else { continue };
        let reference = samples
            .iter()
            .filter(|other| other.round == sample.round)
            .find_map(|other| value(other, reference_workload, reference_broker, metric));
        ratios.extend(reference.filter(|reference| *reference > 0.0).map(|reference| figure / reference));
    }
    Spread::of(ratios)
}

fn value(sample: &Sample, workload: &str, broker: &str, metric: Metric) -> Option<f64> {
    if sample.workload != workload || sample.broker != broker {
        return None;
    }
    sample.result.as_ref().ok().and_then(|outcome| metric.of(outcome))
}

impl Sample {
    pub(super) fn to_json(&self) -> Value {
        let mut line = json!({ "round": self.round, "load": self.workload, "broker": self.broker });
        match &self.result {
            Ok(outcome) => line["figures"] = outcome.to_json(),
            Err(error) => line["error"] = error.as_str().into(),
        }
        line
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {} {:25} {:13} ", self.round + 1, self.workload, self.broker)?;
        let outcome = match &self.result {
            Ok(outcome) => outcome,
            Err(error) => return write!(f, "FAILED: {error}"),
        };
        use Metric::{BrokerCpu, ClientMemory, Connects, IdleCpu, MemoryAfter, Messages, P50, P99};
        for metric in [Messages, P50, P99, BrokerCpu, Connects, IdleCpu, ClientMemory, MemoryAfter] {
            if let Some(value) = metric.of(outcome) {
                write!(f, " {} {};", metric.title(), metric.format(value))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_is_the_mean_of_the_middle() {
        let of = |values: &[f64]| Spread::of(values.to_vec());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    }

    #[test]
    fn units_fit_the_value() {
        assert_eq!(Metric::Messages.format(14_210_000.0), "14.2 M");
        assert_eq!(Metric::Messages.format(900.0), "900");
        assert_eq!(Metric::Bytes.format(2.5e9), "2.50 GB/s");
        assert_eq!(Metric::P50.format(56_400.0), "56.4 us");
        assert_eq!(Metric::BrokerCpu.format(54.0), "54.0 ns");
        let spread = Spread { median: 1.2e6, min: 9e5, max: 12e6 };
        assert_eq!(Metric::Messages.format_spread(spread), "1.20 M (0.90 to 12.0)");
        assert_eq!(Metric::PeakMemory.format(5.5 * 1048576.0), "5.50 MiB");
    }
}
