//! The performance targets of ELBUS, and whether a comparison meets them.

use std::fmt::Write;

use super::{
    broker::ELBUS,
    metrics::{Metric, Sample, Spread, ratio, spread},
};

/// A target relative to another broker.
struct Target {
    workload: &'static str,
    metric: Metric,
    reference: &'static str,
    /// The limit of the ratio of ELBUS to the reference: a minimum if more is better, else a maximum.
    limit: f64,
}

const fn target(workload: &'static str, metric: Metric, reference: &'static str, limit: f64) -> Target {
    Target { workload, metric, reference, limit }
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

/// Targets in the unit of the metric: minimums if more is better, else maximums.
const ABSOLUTE_TARGETS: [(&str, Metric, f64); 5] = [
    ("idle-10000", Metric::ClientMemory, 2048.0),
    ("idle-10000", Metric::IdleCpu, 1.0),
    ("idle-10000", Metric::Connects, 5000.0),
    ("idle-10000", Metric::MemoryAfter, 4.0 * 1_048_576.0),
    ("topic-8", Metric::MemoryAfter, 4.0 * 1_048_576.0),
];

/// A table of the targets for which there are figures.
pub(super) fn table(samples: &[Sample]) -> String {
    let mut rows = String::new();
    for Target { workload, metric, reference, limit } in TARGETS {
        let Some(ratio) = ratio(samples, workload, ELBUS, reference, metric) else { continue };
        let Spread { median, min, max } = ratio;
        let measured = format!("{median:.2} ({min:.2} to {max:.2})");
        push_row(
            &mut rows,
            workload,
            metric,
            reference,
            (limit, &format!("{limit:.2}")),
            (median, &measured),
        );
    }
    for (workload, metric, limit) in ABSOLUTE_TARGETS {
        let Some(spread) = spread(samples, workload, ELBUS, metric) else { continue };
        let measured = metric.format_spread(spread);
        push_row(
            &mut rows,
            workload,
            metric,
            "-",
            (limit, &metric.format(limit)),
            (spread.median, &measured),
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n## Targets\n\n\
         The ratio of ELBUS to the other broker within each round: the median, with minimum and maximum \
         in parentheses.\n\
         A target without another broker is the figure itself.\n\n\
         | workload | figure | compared with | target | measured | met |\n|---|---|---|---|---|---|\n{rows}"
    )
}

/// Appends a row; limit and measurement are given as a value and as text.
fn push_row(
    rows: &mut String,
    workload: &str,
    metric: Metric,
    reference: &str,
    (limit, limit_text): (f64, &str),
    (measured, measured_text): (f64, &str),
) {
    let (bound, met) = match metric.more_is_better() {
        true => ("at least", measured >= limit),
        false => ("at most", measured <= limit),
    };
    let met = if met { "yes" } else { "**no**" };
    let _ = writeln!(
        rows,
        "| {workload} | {} | {reference} | {bound} {limit_text} | {measured_text} | {met} |",
        metric.title()
    );
}
