//! The results as a page of Markdown.

use std::fmt::Write;

use super::{
    broker::{Contestant, OURS},
    charts,
    environment::Machine,
    metrics::{Metric, Sample, ratio, spread},
    targets,
    workloads::Load,
};

const METHOD: &str = "\
Medians over all rounds, in brackets the least and the most. *ours : theirs* compares the figure in the first column within each
round; above 1 ours is ahead. Messages are counted where they arrive. Clients, broker and kernel share the processors, so the
CPU time of the broker for each message says more about a broker than messages a second. Latency of a stream is that of
a full window: what waits in queues. Figures of one page compare with each other, not with those of another machine or day.
";

pub(super) fn write(
    machine: &Machine,
    loads: &[Load],
    contestants: &[Contestant],
    samples: &[Sample],
) -> String {
    let mut page = format!("# Brokers side by side\n\n{machine}\n{METHOD}");
    page.push_str(&targets::table(samples));
    for figure in &charts::FIGURES {
        if charts::has(figure, loads, contestants, samples) {
            let _ = write!(page, "\n![{}]({})\n", figure.title, figure.file);
        }
    }
    for load in loads {
        let _ = write!(page, "\n## {}: {}\n\n", load.name, load.title);
        let columns = columns(load);
        let _ = write!(page, "| broker | {} | ours : theirs |", columns.map(Metric::title).join(" | "));
        let _ = writeln!(page, "\n|---|{}---|", "---|".repeat(columns.len()));
        for contestant in contestants.iter().filter(|contestant| contestant.can_take(load)) {
            let _ = writeln!(page, "{}", row(load, contestant.name(), columns, samples));
        }
        for sample in samples.iter().filter(|sample| sample.load == load.name) {
            if let Err(error) = &sample.result {
                let _ = writeln!(page, "\nRound {} of {} failed: {error}", sample.round + 1, sample.broker);
            }
        }
    }
    page
}

fn columns(load: &Load) -> [Metric; 6] {
    use Metric::{
        BrokerCpu, Bytes, ClientMemory, ConnectCpu, Connects, IdleCpu, Memory, MemoryAfter, Messages, P50,
        P99, P999,
    };
    match load.metric {
        P50 => [P50, P99, P999, Messages, BrokerCpu, Memory],
        Bytes => [Bytes, Messages, BrokerCpu, P50, P99, Memory],
        ClientMemory => [ClientMemory, IdleCpu, Connects, ConnectCpu, Memory, MemoryAfter],
        _ if load.afterwards => [Messages, BrokerCpu, P50, P99, Memory, MemoryAfter],
        _ => [Messages, BrokerCpu, P50, P99, P999, Memory],
    }
}

fn row(load: &Load, broker: &str, columns: [Metric; 6], samples: &[Sample]) -> String {
    let mut row = format!("| {broker} |");
    for metric in columns {
        let cell = spread(samples, load.name, broker, metric)
            .map_or("-".into(), |spread| metric.format_spread(spread));
        let _ = write!(row, " {cell} |");
    }
    let [first, ..] = columns;
    // of times, theirs divided by ours: above 1 ours is ahead everywhere
    let ahead = match first.more_is_better() {
        true => ratio(samples, load.name, OURS, broker, first),
        false => ratio(samples, load.name, broker, OURS, first),
    };
    let ahead = ahead.map_or("-".into(), |r| format!("{:.2} ({:.2} to {:.2})", r.median, r.min, r.max));
    let _ = write!(row, " {ahead} |");
    row
}
