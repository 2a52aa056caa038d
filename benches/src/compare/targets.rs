//! What ELBUS is meant to reach against the others, and whether a comparison shows it.

use std::fmt::Write;

use super::{
    contestant::OURS,
    figures::{Metric, Sample, ratio},
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

const TARGETS: [Target; 19] = [
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
    target("1-1", Metric::Messages, "elbus-builtin", 0.97),
    target("8-8", Metric::Messages, "elbus-builtin", 0.97),
    target("topic-8", Metric::Messages, "elbus-builtin", 0.97),
    target("1-1-64k", Metric::Bytes, "relay", 0.8),
    target("1-1-1m", Metric::Bytes, "relay", 0.8),
];

/// A table of those targets for which there are figures.
pub(super) fn table(samples: &[Sample]) -> String {
    let mut rows = String::new();
    for target in TARGETS {
        let Target { load, metric, against, bound } = target;
        let Some(got) = ratio(samples, load, OURS, against, metric) else { continue };
        let (word, met) = match metric.more_is_better() {
            true => ("at least", got.median >= bound),
            false => ("at most", got.median <= bound),
        };
        let verdict = if met { "yes" } else { "**no**" };
        let _ = writeln!(
            rows,
            "| {load} | {} | {against} | {word} {bound:.2} | {:.2} ({:.2} to {:.2}) | {verdict} |",
            metric.title(),
            got.median,
            got.min,
            got.max
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n## Targets\n\nOurs divided by theirs, round by round: the median, and the least and most of a round.\n\n\
         | load | figure | against | target | measured | met |\n|---|---|---|---|---|---|\n{rows}"
    )
}
