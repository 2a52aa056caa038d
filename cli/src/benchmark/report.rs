//! Formats the results of stages as a table and as JSON. Measures nothing.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::{fmt::Write as _, time::Duration};

use super::stage::Stage;

/// A histogram of latencies in nanoseconds.
pub(super) type Latency = Histogram<u64>;

/// The result of one stage.
pub(super) struct StageResult {
    pub(super) stage: Stage,
    pub(super) workers: usize,
    pub(super) payload_size: usize,
    /// In the publish stages only.
    pub(super) subscribers: Option<usize>,
    /// Calls, messages, or deliveries of publications.
    pub(super) iterations: u64,
    pub(super) elapsed: Duration,
    /// In stages whose iterations wait for an answer.
    pub(super) latency: Option<Latency>,
}

/// The latency percentiles reported, with their names.
const PERCENTILES: [(&str, f64); 3] = [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)];

impl StageResult {
    fn per_second(&self) -> f64 {
        self.iterations as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn label(&self) -> String {
        match self.subscribers {
            Some(subscribers) => format!("{} 1->{subscribers}", self.stage),
            None => self.stage.to_string(),
        }
    }

    /// Returns a JSON object. Its keys are the same for all stages.
    pub(super) fn json(&self) -> Value {
        let latency = self.latency.as_ref().map(|latency| {
            let micros = |share| latency.value_at_percentile(share) as f64 / 1e3;
            Value::Object(
                PERCENTILES.iter().map(|(name, share)| ((*name).to_owned(), micros(*share).into())).collect(),
            )
        });
        json!({
            "stage": self.stage.name(),
            "iterations": self.iterations,
            "seconds": self.elapsed.as_secs_f64(),
            "per_second": self.per_second(),
            "latency_us": latency,
            "workers": self.workers,
            "payload_size": self.payload_size,
            "subscribers": self.subscribers,
        })
    }
}

/// Formats all stages as a table.
pub(super) fn table(outcomes: &[StageResult]) -> String {
    let mut text = format!("{:<24} {:>11} {:>11}", "stage", "iterations", "it/s");
    for (name, _) in PERCENTILES {
        let _ = write!(text, " {name:>9}");
    }
    text.push('\n');
    for outcome in outcomes {
        let (iterations, rate) = (grouped(outcome.iterations), grouped(outcome.per_second().round() as u64));
        let _ = write!(text, "{:<24} {iterations:>11} {rate:>11}", outcome.label());
        for (_, share) in PERCENTILES {
            let latency = outcome.latency.as_ref().map(|latency| latency.value_at_percentile(share));
            let _ = write!(text, " {:>9}", latency.map_or_else(|| "-".to_owned(), duration));
        }
        text.push('\n');
    }
    text
}

/// Formats a number with a comma every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats nanoseconds in a suitable unit, with up to four digits.
fn duration(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000_000 => (nanos as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    if value < 100.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn outcome(stage: Stage, latency: Option<Latency>) -> StageResult {
        StageResult {
            stage,
            workers: 2,
            payload_size: 100,
            subscribers: (stage == Stage::Publish).then_some(8),
            iterations: 1_500_000,
            elapsed: Duration::from_millis(500),
            latency,
        }
    }

    fn measured() -> Latency {
        let mut latency = Latency::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        latency.record_n(20_000, 985).unwrap();
        latency.record_n(150_000, 10).unwrap();
        latency.record_n(2_500_000, 5).unwrap();
        latency
    }

    #[test]
    fn the_table_has_a_row_per_stage_in_columns() {
        let rows = [outcome(Stage::Call, Some(measured())), outcome(Stage::Publish, None)];
        assert_eq!(
            table(&rows),
            "stage                     iterations        it/s       p50       p99     p99.9\n\
             rpc.call                   1,500,000   3,000,000   20.0 us    150 us    2.5 ms\n\
             publish 1->8               1,500,000   3,000,000         -         -         -\n"
        );
    }

    #[test]
    fn the_table_fits_a_terminal_of_80_columns() {
        let rows = [outcome(Stage::SendReceiveProcessed, Some(measured()))];
        assert!(table(&rows).lines().all(|line| line.len() <= 80));
    }

    #[test]
    fn every_stage_has_the_same_keys_in_json() {
        let (call, publish) =
            (outcome(Stage::Call, Some(measured())).json(), outcome(Stage::Publish, None).json());
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&call), keys(&publish));
        assert_eq!(call["per_second"], 3_000_000.0);
        assert_eq!(call["subscribers"], Value::Null);
        assert_eq!(publish["subscribers"], 8);
        assert_eq!(publish["latency_us"], Value::Null);
        let p50 = call["latency_us"]["p50"].as_f64().unwrap();
        assert!((p50 - 20.0).abs() < 0.1, "{p50}");
    }

    #[test]
    fn numbers_are_grouped_and_durations_have_units() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 1_550, 99_900, 250_000, 1_200_000, 2_000_000_000].map(duration),
            ["0.0 us", "1.6 us", "99.9 us", "250 us", "1.2 ms", "2.0 s"]
        );
    }
}
