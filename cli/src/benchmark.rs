//! `elbus benchmark`: loads a broker in stages and reports its speed. Owns the options and the order of
//! stages; `runner` runs a stage, `tasks` does its work on the bus, `report` formats the results.

mod flow_control;
mod payload;
mod report;
mod runner;
mod stage;
mod tasks;
mod topics;

use std::{io::Write, time::Duration};

use crate::{context::Context, error::CliError};
use report::StageResult;
use runner::Runner;
use stage::Stage;

const AFTER_HELP: &str = "\
Stages (the first seven match those of `busrt benchmark`; acknowledged frames are real-time):
  rpc.call                 calls to the broker's method benchmark.test
  rpc.call+handle          calls to the worker itself, which answers them; its replies are not acknowledged
  rpc.call0                calls without a reply to an unregistered name, acknowledged
  send.qos.no              messages to an unregistered name, not acknowledged
  send.qos.processed       the same, acknowledged
  send+recv.qos.no         messages to the worker itself, not acknowledged
  send+recv.qos.processed  the same, acknowledged
  publish                  publications to --subscribers clients; each delivery is one iteration
  publish.topics-128       the same, to 128 topics in turn, all of which match the subscribers' filter

The workers are the clients NAME-1, NAME-2, ... and share the iterations. A worker runs one iteration at a
time. If an iteration has an acknowledgement or a reply, the worker waits for it, and the percentiles are
those of this round trip.

Only completed work is counted: send.qos.no ends when the broker has answered a final message, send+recv and
the publish stages end when every message has arrived. Replies and messages are checked; with a
--payload-size of at least 9 each carries its number. The exit code is 1 if one is missing, changed or out of
order.";

/// The options of `elbus benchmark`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct BenchmarkArguments {
    /// Number of clients that send
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    workers: u16,
    /// Iterations per stage, shared by all workers
    #[arg(short, long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    iters: u64,
    /// Payload size in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(0..=16 * 1024 * 1024))]
    payload_size: u32,
    /// Stages to run, separated by commas [default: all]
    #[arg(long, value_name = "STAGE", value_delimiter = ',', value_parser = Stage::parse, hide_default_value = true,
        default_values_t = Stage::ALL)]
    stages: Vec<Stage>,
    /// Warm-up before the first stage: seconds of unmeasured round trips, as an idle processor starts slowly
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=60))]
    warm_up: u8,
    /// Microseconds for which clients poll after a frame has arrived, before they sleep; waking up takes time
    #[arg(long, value_name = "US", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    busy_poll: u32,
    /// Number of subscribers in the publish stages
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    subscribers: u16,
    /// Maximum messages in flight to a receiver; some brokers disconnect a client with too many queued frames
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(2..))]
    window: u64,
}

/// Runs the stages and prints their results.
pub(crate) async fn run(context: &Context, arguments: BenchmarkArguments) -> Result<(), CliError> {
    let mut outcomes = Vec::new();
    let result = tokio::select! {
        result = all(context, &arguments, &mut outcomes) => result,
        _ = tokio::signal::ctrl_c() => Err(CliError::runtime("interrupted")),
    };
    if !context.output.json && !outcomes.is_empty() {
        // results of completed stages are printed even if a later stage failed
        print(&report::table(&outcomes))?;
    }
    result
}

async fn all(
    context: &Context,
    arguments: &BenchmarkArguments,
    outcomes: &mut Vec<StageResult>,
) -> Result<(), CliError> {
    let mut runner = Runner::connect(context, arguments).await?;
    runner.warm_up(Duration::from_secs(arguments.warm_up.into())).await?;
    for &stage in &arguments.stages {
        let outcome = runner.run(stage).await?;
        if context.output.json {
            print(&format!("{}\n", outcome.json()))?;
        }
        outcomes.push(outcome);
    }
    runner.close().await;
    Ok(())
}

fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CliError::output)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
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
    fn stages_are_selected_by_name() {
        let arguments = parse("-w 2 -i 10 --stages send.qos.no,rpc.call+handle").unwrap();
        assert_eq!((arguments.workers, arguments.iters), (2, 10));
        assert_eq!(arguments.stages, [Stage::Send, Stage::CallHandled]);
        assert!(parse("--stages send").unwrap_err().contains("send+recv.qos.processed"));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for line in ["-w 0", "-i 0", "--subscribers 0", "--window 1", "--payload-size 16777217", "-w 1001"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
