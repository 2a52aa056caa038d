//! The performance targets of ELBUS, and whether a comparison meets them.

use std::fmt::Write;

use super::{
    broker::{ELBUS, LARGE_RINGS, RELAY, RINGS},
    metrics::{Metric, Sample, Spread, ratio, spread},
};

/// A target relative to another broker, or to another workload of ELBUS.
struct Target {
    workload: &'static str,
    metric: Metric,
    /// ELBUS, or ELBUS with rings.
    broker: &'static str,
    reference: Reference,
    /// The limit of the ratio of that broker to the reference: a minimum if more is better, else a maximum.
    limit: f64,
}

/// What a figure of ELBUS is divided by.
#[derive(Clone, Copy)]
enum Reference {
    /// The same workload with this broker.
    Broker(&'static str),
    /// This workload with ELBUS.
    Workload(&'static str),
}

const fn target(workload: &'static str, metric: Metric, broker: &'static str, limit: f64) -> Target {
    Target { workload, metric, broker: ELBUS, reference: Reference::Broker(broker), limit }
}

/// A target relative to another workload.
const fn relative(workload: &'static str, metric: Metric, reference: &'static str, limit: f64) -> Target {
    Target { workload, metric, broker: ELBUS, reference: Reference::Workload(reference), limit }
}

/// A target of ELBUS with rings relative to ELBUS without.
const fn rings(workload: &'static str, metric: Metric, broker: &'static str, limit: f64) -> Target {
    Target { workload, metric, broker, reference: Reference::Broker(ELBUS), limit }
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

/// Targets of the workloads in which consecutive messages differ in topic or target.
const REAL_TARGETS: [Target; 30] = [
    relative("topics-128", Metric::Messages, "topics-1", 0.75),
    relative("topics-128", Metric::BrokerCpu, "topics-1", 1.45),
    target("topics-128", Metric::Messages, "busrt", 8.0),
    target("topics-128", Metric::Messages, "nats", 5.0),
    target("topics-128", Metric::Messages, "redis", 5.0),
    relative("topics-4096", Metric::Messages, "topics-1", 0.6),
    relative("topics-4096", Metric::BrokerCpu, "topics-1", 1.7),
    target("topics-4096", Metric::Messages, "busrt", 6.0),
    target("topics-4096", Metric::Messages, "nats", 9.0),
    target("topics-4096", Metric::Messages, "redis", 4.0),
    relative("topics-10000", Metric::Messages, "topics-1", 0.55),
    relative("topics-100000", Metric::Messages, "topics-1", 0.3),
    target("topics-128-own", Metric::Messages, "busrt", 5.0),
    target("topics-128-own", Metric::Messages, "nats", 3.0),
    relative("targets-2", Metric::Messages, "1-1", 0.7),
    relative("targets-8", Metric::Messages, "1-1", 0.75),
    relative("targets-64", Metric::Messages, "1-1", 0.5),
    target("targets-2", Metric::Messages, "busrt", 6.0),
    target("targets-8", Metric::Messages, "busrt", 6.0),
    target("targets-64", Metric::Messages, "busrt", 6.0),
    target("topics-128-to-8", Metric::Messages, "busrt", 6.0),
    target("8-writers-128-topics", Metric::Messages, "busrt", 6.0),
    target("8-writers-128-topics", Metric::Messages, "nats", 4.0),
    relative("1-1-qos1", Metric::Messages, "1-1", 0.6),
    relative("topics-128-qos1", Metric::Messages, "topics-128", 0.6),
    relative("topics-4096-qos1", Metric::Messages, "topics-4096", 0.6),
    relative("topics-128-own-qos1", Metric::Messages, "topics-128-own", 0.6),
    relative("targets-8-qos1", Metric::Messages, "targets-8", 0.6),
    relative("topics-128-to-8-qos1", Metric::Messages, "topics-128-to-8", 0.6),
    relative("8-writers-128-topics-qos1", Metric::Messages, "8-writers-128-topics", 0.6),
];

/// Targets of rings of shared memory.
const RING_TARGETS: [Target; 13] = [
    rings("1-1", Metric::Messages, RINGS, 1.7),
    rings("1-1", Metric::BrokerCpu, RINGS, 0.55),
    Target { reference: Reference::Broker(RELAY), ..rings("1-1", Metric::Messages, RINGS, 1.3) },
    rings("8-8", Metric::Messages, RINGS, 1.8),
    rings("8-8", Metric::BrokerCpu, RINGS, 0.55),
    rings("topic-8", Metric::Messages, RINGS, 2.3),
    rings("topic-8", Metric::BrokerCpu, RINGS, 0.4),
    rings("1-1-unbatched", Metric::Messages, RINGS, 9.0),
    rings("1-1-64k", Metric::Bytes, RINGS, 1.4),
    rings("1-1-64k", Metric::Bytes, LARGE_RINGS, 1.8),
    rings("1-1-qos1", Metric::Messages, RINGS, 1.7),
    rings("awake-request-reply", Metric::P50, RINGS, 0.75),
    rings("request-reply", Metric::P50, RINGS, 1.05),
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
    for Target { workload, metric, broker, reference, limit } in
        TARGETS.into_iter().chain(REAL_TARGETS).chain(RING_TARGETS)
    {
        let (denominator, reference) = match reference {
            Reference::Broker(other) => ((workload, other), other),
            Reference::Workload(other) => ((other, ELBUS), other),
        };
        let Some(ratio) = ratio(samples, metric, (workload, broker), denominator) else { continue };
        let Spread { median, min, max } = ratio;
        let measured = format!("{median:.2} ({min:.2} to {max:.2})");
        push_row(
            &mut rows,
            (workload, broker),
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
            (workload, ELBUS),
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
         The ratio of ELBUS to the other broker, or to its own other workload, within each round: the \
         median, with minimum and maximum in parentheses. Targets of rings are ratios of these.\n\
         A target without either is the figure itself.\n\n\
         | workload | broker | figure | compared with | target | measured | met |\n|---|---|---|---|---|---|---|\n{rows}"
    )
}

/// Appends a row; limit and measurement are given as a value and as text.
fn push_row(
    rows: &mut String,
    (workload, broker): (&str, &str),
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
        "| {workload} | {broker} | {} | {reference} | {bound} {limit_text} | {measured_text} | {met} |",
        metric.title()
    );
}
