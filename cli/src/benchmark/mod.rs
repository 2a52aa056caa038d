//! `elbus benchmark`: loads a broker in stages and says how fast it was. Owns the options and what is
//! printed; stages are run by `run`, what they do on the bus is in `work`, how results look in `report`.

mod flow;
mod payload;
mod report;
mod run;
mod stage;
mod work;

use std::{io::Write, time::Duration};

use crate::{failure::Failure, link::Link};
use report::Outcome;
use run::Stages;
use stage::Stage;

const AFTER_HELP: &str = "\
Stages (the first seven are those of the field's own benchmark, and send the same, real-time wherever acknowledged):
  rpc.call                 calls of the broker's method benchmark.test
  rpc.call+handle          calls of the caller itself, which answers them; the answers are not acknowledged
  rpc.call0                calls with id 0 of a name nobody has, acknowledged
  send.qos.no              messages to a name nobody has, not acknowledged
  send.qos.processed       the same, acknowledged
  send+recv.qos.no         messages to the sender itself, not acknowledged
  send+recv.qos.processed  the same, acknowledged
  publish                  publications to --subscribers clients; each delivery is an iteration

The workers are clients NAME-1, NAME-2, .. which share the iterations; each does one after the other. Where there is an
acknowledgement or a reply it is awaited each time, and the percentiles are those of this round trip.

Nothing is counted that only waits to be sent: send.qos.no ends when the broker has answered a message behind the last
one, send+recv and publish when everything has arrived. Replies and whatever arrives are checked, number by number where
--payload-size is at least 9; the exit code is 1 if anything is missing, changed or out of order.";

/// Options of `elbus benchmark`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct BenchmarkArguments {
    /// Clients at work
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    workers: u16,
    /// Iterations of each stage, all workers together
    #[arg(short, long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    iters: u64,
    /// Bytes of each payload
    #[arg(long, value_name = "BYTES", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(0..=16 * 1024 * 1024))]
    payload_size: u32,
    /// Stages, separated by commas [default: all]
    #[arg(long, value_name = "STAGE", value_delimiter = ',', value_parser = Stage::parse, hide_default_value = true,
        default_values_t = Stage::ALL)]
    stages: Vec<Stage>,
    /// Seconds of round trips before the first stage: a processor that was idle is slow at first
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=60))]
    warm_up: u8,
    /// Microseconds the clients stay awake after something has arrived: a client that sleeps measures its own waking
    #[arg(long, value_name = "US", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    busy_poll: u32,
    /// Subscribers of the publish stage
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    subscribers: u16,
    /// Messages that may be under way to a receiver; brokers that count frames disconnect a client with too many
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(2..))]
    window: u64,
}

/// Runs the stages and reports.
pub(crate) async fn run(link: &Link, arguments: BenchmarkArguments) -> Result<(), Failure> {
    let mut outcomes = Vec::new();
    let result = tokio::select! {
        result = all(link, &arguments, &mut outcomes) => result,
        _ = tokio::signal::ctrl_c() => Err(Failure::bus("interrupted")),
    };
    if !link.json() && !outcomes.is_empty() {
        // what was measured is worth showing, also if a later stage failed
        print(&report::table(&outcomes))?;
    }
    result
}

async fn all(
    link: &Link,
    arguments: &BenchmarkArguments,
    outcomes: &mut Vec<Outcome>,
) -> Result<(), Failure> {
    let mut stages = Stages::connect(link, arguments).await?;
    stages.warm_up(Duration::from_secs(arguments.warm_up.into())).await?;
    for &stage in &arguments.stages {
        let outcome = stages.run(stage).await?;
        if link.json() {
            print(&format!("{}\n", outcome.json()))?;
        }
        outcomes.push(outcome);
    }
    stages.close().await;
    Ok(())
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::output)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "options that are refused end the test")]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        benchmark: BenchmarkArguments,
    }

    fn parse(line: &str) -> Result<BenchmarkArguments, String> {
        let words = std::iter::once("benchmark").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.benchmark).map_err(|error| error.to_string())
    }

    #[test]
    fn without_options_one_client_runs_all_stages() {
        let arguments = parse("").unwrap();
        assert_eq!((arguments.workers, arguments.payload_size, arguments.subscribers), (1, 100, 8));
        assert_eq!(arguments.stages, Stage::ALL);
    }

    #[test]
    fn stages_are_picked_by_name() {
        let arguments = parse("-w 2 -i 10 --stages send.qos.no,rpc.call+handle").unwrap();
        assert_eq!((arguments.workers, arguments.iters), (2, 10));
        assert_eq!(arguments.stages, [Stage::Send, Stage::CallHandled]);
        assert!(parse("--stages send").unwrap_err().contains("send+recv.qos.processed"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["-w 0", "-i 0", "--subscribers 0", "--window 1", "--payload-size 16777217", "-w 1001"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
