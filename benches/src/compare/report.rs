//! The results as a Markdown page.

use std::fmt::Write;

use super::{
    broker::{Broker, ELBUS},
    charts,
    environment::Environment,
    metrics::{Metric, Sample, ratio, spread},
    targets,
    workloads::Workload,
};

const METHOD: &str = "\
Each figure is the median of all rounds, with the minimum and the maximum in parentheses.
*ELBUS : broker* compares the figure of the first column within each round; above 1 ELBUS is ahead.
Messages are counted at their receivers.
Clients, broker and kernel share the processors, so the CPU time of the broker per message says more about a
broker than the messages per second.
The latency of a stream is that of a full window, most of which is time in queues.
Compare figures within this page only, not with those of another machine or day.
";

/// Title, introduction, and whether the workloads are real.
const SECTIONS: [(&str, &str, bool); 2] = [
    (
        "Friendly loads",
        "All messages of a sender have one target or topic, so that a broker can handle them together.\n",
        false,
    ),
    (
        "Real loads",
        "Consecutive messages of a sender have different topics or targets, as in a plant that publishes each \
         value to a topic of its own.\n",
        true,
    ),
];

pub(super) fn format(
    environment: &Environment,
    workloads: &[Workload],
    brokers: &[Broker],
    samples: &[Sample],
) -> String {
    let mut page = format!("# Brokers side by side\n\n{environment}\n{METHOD}");
    page.push_str(&targets::table(samples));
    for chart in charts::drawn(workloads, brokers, samples) {
        let _ = write!(page, "\n![{}]({})\n", chart.title, chart.file);
    }
    for (title, text, real) in SECTIONS {
        if workloads.iter().any(|workload| workload.real == real) {
            let _ = write!(page, "\n## {title}\n\n{text}");
        }
        for workload in workloads.iter().filter(|workload| workload.real == real) {
            push_workload(&mut page, workload, brokers, samples);
        }
    }
    page
}

/// Appends the table of a workload, and the runs that failed.
fn push_workload(page: &mut String, workload: &Workload, brokers: &[Broker], samples: &[Sample]) {
    let _ = write!(page, "\n### {}: {}\n\n", workload.name, workload.title);
    let columns = columns(workload);
    let _ = write!(page, "| broker | {} | ELBUS : broker |", columns.map(Metric::title).join(" | "));
    let _ = writeln!(page, "\n|---|{}---|", "---|".repeat(columns.len()));
    for broker in brokers.iter().filter(|broker| broker.supports(workload)) {
        let _ = writeln!(page, "{}", row(workload, broker.name(), columns, samples));
    }
    for sample in samples.iter().filter(|sample| sample.workload == workload.name) {
        if let Err(error) = &sample.result {
            let _ = writeln!(page, "\nRound {} of {} failed: {error}", sample.round + 1, sample.broker);
        }
    }
}

fn columns(workload: &Workload) -> [Metric; 6] {
    use Metric::{
        BrokerCpu, Bytes, ClientMemory, ConnectCpu, Connects, IdleCpu, MemoryAfter, Messages, P50, P99, P999,
        PeakMemory,
    };
    match workload.metric {
        P50 => [P50, P99, P999, Messages, BrokerCpu, PeakMemory],
        Bytes => [Bytes, Messages, BrokerCpu, P50, P99, PeakMemory],
        ClientMemory => [ClientMemory, IdleCpu, Connects, ConnectCpu, PeakMemory, MemoryAfter],
        _ if workload.memory_after => [Messages, BrokerCpu, P50, P99, PeakMemory, MemoryAfter],
        _ => [Messages, BrokerCpu, P50, P99, P999, PeakMemory],
    }
}

fn row(workload: &Workload, broker: &str, columns: [Metric; 6], samples: &[Sample]) -> String {
    let mut row = format!("| {broker} |");
    for metric in columns {
        let cell = spread(samples, workload.name, broker, metric)
            .map_or("-".into(), |spread| metric.format_spread(spread));
        let _ = write!(row, " {cell} |");
    }
    let [first, ..] = columns;
    // if less is better, the ratio is inverted: above 1 ELBUS is always ahead
    let ratio = match first.more_is_better() {
        true => ratio(samples, first, (workload.name, ELBUS), (workload.name, broker)),
        false => ratio(samples, first, (workload.name, broker), (workload.name, ELBUS)),
    };
    let ratio = ratio.map_or("-".into(), |r| format!("{:.2} ({:.2} to {:.2})", r.median, r.min, r.max));
    let _ = write!(row, " {ratio} |");
    row
}
