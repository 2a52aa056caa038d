//! What ELBUS is meant to reach against the others, and whether a comparison shows it.

use std::fmt::Write;

use super::{
    broker::OURS,
    metrics::{Metric, Sample, ratio, spread},
};

struct Target {
    load: &'static str,
    metric: Metric,
    against: &'static str,
    /// Ours divided by theirs: at least this where more is better, else at most.
    bound: f64,
}

const fn target(load: &'static str, metric: Metric, against: &'static str, bound: f64) -> Target {
    Target { load, metric, against, bound }
}

const TARGETS: [Target; 21] = [
    target("1-1", Metric::Messages, "busrt", 11.0),
    target("1-1", Metric::Messages, "nats", 5.0),
    target("1-1", Metric::Messages, "relay", 0.85),
    target("8-8", Metric::Messages, "busrt", 11.0),
    target("8-8", Metric::Messages, "nats", 5.0),
    target("8-8", Metric::Messages, "relay", 0.85),
    target("topic-8", Metric::Messages, "busrt", 14.0),
    target("topic-8", Metric::Messages, "nats", 6.0),
    target("topic-8", Metric::Messages, "relay", 0.85),
    target("1-1", Metric::BrokerCpu, "relay", 1.2),
    target("1-1", Metric::BrokerCpu, "busrt", 0.05),
    target("request-reply", Metric::P50, "redis", 1.0),
    target("request-reply", Metric::P50, "busrt", 1.0 / 3.0),
    target("request-reply", Metric::P99, "relay", 0.85),
    target("awake-request-reply", Metric::P50, "redis", 1.0),
    target("awake-request-reply", Metric::P50, "busrt", 1.0 / 3.0),
    target("1-1", Metric::Messages, "elbus-builtin", 0.97),
    target("8-8", Metric::Messages, "elbus-builtin", 0.97),
    target("topic-8", Metric::Messages, "elbus-builtin", 0.97),
    target("1-1-64k", Metric::Bytes, "relay", 0.8),
    target("1-1-1m", Metric::Bytes, "relay", 0.8),
];

/// What is reached whoever else does what: at least, or at most, in the unit of the figure.
const BOUNDS: [(&str, Metric, f64); 5] = [
    ("idle-10000", Metric::ClientMemory, 2048.0),
    ("idle-10000", Metric::IdleCpu, 1.0),
    ("idle-10000", Metric::Connects, 5000.0),
    ("idle-10000", Metric::MemoryAfter, 4.0 * 1_048_576.0),
    ("topic-8", Metric::MemoryAfter, 4.0 * 1_048_576.0),
];

/// A table of those targets for which there are figures.
pub(super) fn table(samples: &[Sample]) -> String {
    let mut rows = String::new();
    for target in TARGETS {
        let Target { load, metric, against, bound } = target;
        let Some(got) = ratio(samples, load, OURS, against, metric) else { continue };
        let (word, verdict) = judge(metric, got.median, bound);
        let _ = writeln!(
            rows,
            "| {load} | {} | {against} | {word} {bound:.2} | {:.2} ({:.2} to {:.2}) | {verdict} |",
            metric.title(),
            got.median,
            got.min,
            got.max
        );
    }
    for (load, metric, bound) in BOUNDS {
        let Some(got) = spread(samples, load, OURS, metric) else { continue };
        let (word, verdict) = judge(metric, got.median, bound);
        let _ = writeln!(
            rows,
            "| {load} | {} | - | {word} {} | {} | {verdict} |",
            metric.title(),
            metric.format(bound),
            metric.format_spread(got)
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n## Targets\n\nOurs divided by theirs, round by round: the median, and the least and most of a round. Where there is nobody to \
         compare with, the figure itself.\n\n\
         | load | figure | against | target | measured | met |\n|---|---|---|---|---|---|\n{rows}"
    )
}

/// The word for the bound, and whether it is met.
fn judge(metric: Metric, median: f64, bound: f64) -> (&'static str, &'static str) {
    let (word, met) = match metric.more_is_better() {
        true => ("at least", median >= bound),
        false => ("at most", median <= bound),
    };
    (word, if met { "yes" } else { "**no**" })
}
