//! `elbus-load`: loads one broker and says what came through.

use clap::Parser;
use elbus_benches::{
    Failure,
    load::{self, Bound, Over, Plan, Scenario},
};
use std::{process::ExitCode, time::Duration};

/// Loads a running broker and checks that every message arrives, once and in order
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where the broker is: a UNIX socket or host:port
    #[arg(required_unless_present = "in_process")]
    address: Option<String>,
    /// What to measure
    #[arg(long, value_enum, default_value_t = Scenario::Pairs)]
    scenario: Scenario,
    /// How to speak to the broker
    #[arg(long, value_enum, default_value_t = Over::Elbus)]
    over: Over,
    /// Run a broker in this process, without a socket
    #[arg(long, conflicts_with_all = ["address", "over", "pid"])]
    in_process: bool,
    /// Groups of clients side by side
    #[arg(long, default_value_t = 1)]
    pairs: usize,
    /// Clients that send to the one of fan-in
    #[arg(long, default_value_t = 4)]
    writers: usize,
    /// Clients that receive of topic and broadcast
    #[arg(long, default_value_t = 8)]
    subscribers: usize,
    /// Clients of idle
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// Seconds between two pings of a client of idle
    #[arg(long, default_value_t = 2.5)]
    ping: f64,
    /// Bytes of a payload, at least 16
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Messages of one write [default: 128, at most 64 KiB]
    #[arg(long)]
    batch: Option<usize>,
    /// Messages of a writer that may be under way [default: 4096, at most 4 MiB]
    #[arg(long)]
    window: Option<usize>,
    /// Quality of service: 0 plain, 1 acknowledged, 2 real-time, 3 both
    #[arg(long, default_value_t = 0)]
    qos: u8,
    /// Seconds to go on
    #[arg(long, default_value_t = 3.0, conflicts_with = "messages")]
    seconds: f64,
    /// Messages of each writer, or round trips, instead of a time
    #[arg(long)]
    messages: Option<u64>,
    /// Messages a second of each writer instead of as many as the window allows; latency then counts from when a message was
    /// due
    #[arg(long)]
    rate: Option<f64>,
    /// The process id of the broker, to tell its CPU time and memory
    #[arg(long)]
    pid: Option<u32>,
    /// Tell, too, how much more memory the broker holds 2 s after the end than before; of idle that is always told
    #[arg(long, requires = "pid")]
    afterwards: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    elbus_benches::end("elbus-load", run())
}

fn run() -> Result<ExitCode, Failure> {
    let arguments = Arguments::parse();
    let over = if arguments.in_process { Over::InProcess } else { arguments.over };
    let address = arguments.address.unwrap_or_default();
    let defaults = Plan::new(over, address, arguments.scenario, arguments.bytes);
    let batch = arguments.batch.unwrap_or(defaults.batch.min(arguments.window.unwrap_or(usize::MAX)));
    let bound = match arguments.messages {
        Some(messages) => Bound::Messages(messages),
        None => Bound::Time(Duration::try_from_secs_f64(arguments.seconds)?),
    };
    let outcome = load::run(&Plan {
        pairs: arguments.pairs,
        writers: arguments.writers,
        subscribers: arguments.subscribers,
        clients: arguments.clients,
        ping: Duration::try_from_secs_f64(arguments.ping)?,
        batch,
        window: arguments.window.unwrap_or(defaults.window.max(batch)),
        qos: arguments.qos,
        bound,
        rate: arguments.rate,
        broker: arguments.pid,
        afterwards: arguments.afterwards,
        ..defaults
    })?;
    if arguments.json {
        println!("{}", outcome.to_json());
    } else {
        println!("{outcome}");
    }
    Ok(ExitCode::SUCCESS)
}
