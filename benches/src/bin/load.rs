//! `elbus-load`: loads one broker and prints the figures.

use clap::Parser;
use elbus_benches::{
    BoxError,
    load::{self, FarNode, Plan, Protocol, RunLength, Scenario},
};
use std::{process::ExitCode, time::Duration};

/// Loads a running broker and checks that every message arrives once and in order
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address of the broker: a UNIX socket, with ?rings to ask for rings of shared memory, or host:port
    #[arg(required_unless_present = "in_process")]
    address: Option<String>,
    /// Address of the broker of the receivers, another node of a bridged bus
    #[arg(long, value_name = "ADDRESS", requires_all = ["far_node", "near_node"])]
    far: Option<String>,
    /// Name of the node of the receivers
    #[arg(long, value_name = "NODE", requires = "far")]
    far_node: Option<String>,
    /// Name of the node of the senders
    #[arg(long, value_name = "NODE", requires = "far")]
    near_node: Option<String>,
    /// What to measure
    #[arg(long, value_enum, default_value_t = Scenario::Pairs)]
    scenario: Scenario,
    /// Protocol of the broker
    #[arg(long, alias = "over", value_enum, default_value_t = Protocol::Elbus)]
    protocol: Protocol,
    /// Load a broker inside this process, without sockets
    #[arg(long, conflicts_with_all = ["address", "protocol", "pid"])]
    in_process: bool,
    /// Independent groups of clients
    #[arg(long, value_name = "N", default_value_t = 1)]
    pairs: usize,
    /// Senders of fan-in [default: 4] and topic [default: 1]
    #[arg(long, value_name = "N", alias = "writers")]
    senders: Option<usize>,
    /// Receivers of topic and broadcast
    #[arg(long, value_name = "N", default_value_t = 8)]
    subscribers: usize,
    /// Targets of each sender of pairs, in turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    targets: usize,
    /// Topics of each sender of topic, in turn; receivers subscribe to a wildcard filter [default: one topic,
    /// to which they subscribe]
    #[arg(long, value_name = "N")]
    topics: Option<usize>,
    /// Consecutive messages to each of --topics or --targets
    #[arg(long, value_name = "N", default_value_t = 1)]
    repeat: usize,
    /// Share --topics among --subscribers, so that each topic has one subscriber
    #[arg(long)]
    own_subscribers: bool,
    /// Clients of idle
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    clients: usize,
    /// Interval at which each client of idle pings, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.5)]
    ping: f64,
    /// Payload size in bytes, at least 16
    #[arg(long, value_name = "N", default_value_t = 100)]
    bytes: usize,
    /// Messages per write [default: 128, at most 64 KiB]; 1 is a system call for each message
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Limit of messages in flight per sender [default: 4096, at most 4 MiB]
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// Quality of service: 0 plain, 1 acknowledged, 2 real-time, 3 both
    #[arg(long, default_value_t = 0)]
    qos: u8,
    /// Duration of the run in seconds
    #[arg(long, default_value_t = 3.0, conflicts_with = "messages")]
    seconds: f64,
    /// Messages per sender, or round trips, instead of a duration
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
    /// Messages per second and sender instead of as many as the window allows; latency is then measured from
    /// the time at which each message was due
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Process id of the broker, to report its CPU time and memory
    #[arg(long)]
    pid: Option<u32>,
    /// Also report how much the broker's memory has grown 2 s after the clients left; idle always does
    #[arg(long, alias = "afterwards", requires = "pid")]
    memory_after: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    elbus_benches::exit_code("elbus-load", run())
}

fn run() -> Result<ExitCode, BoxError> {
    let arguments = Arguments::parse();
    let protocol = if arguments.in_process { Protocol::InProcess } else { arguments.protocol };
    let address = arguments.address.unwrap_or_default();
    let defaults = Plan::new(protocol, address, arguments.scenario, arguments.bytes);
    let batch = arguments.batch.unwrap_or(defaults.batch.min(arguments.window.unwrap_or(usize::MAX)));
    let far = arguments.far.map(|address| FarNode {
        address,
        node: arguments.far_node.unwrap_or_default(),
        near: arguments.near_node.unwrap_or_default(),
    });
    let outcome = load::run(&Plan {
        far,
        pairs: arguments.pairs,
        senders: arguments.senders.unwrap_or(defaults.senders),
        subscribers: arguments.subscribers,
        targets: arguments.targets,
        topics: arguments.topics,
        repeat: arguments.repeat,
        own_subscribers: arguments.own_subscribers,
        clients: arguments.clients,
        ping_interval: seconds("--ping", arguments.ping)?,
        batch,
        window: arguments.window.unwrap_or(defaults.window.max(batch)),
        qos: arguments.qos,
        length: match arguments.messages {
            Some(messages) => RunLength::Messages(messages),
            None => RunLength::Time(seconds("--seconds", arguments.seconds)?),
        },
        rate: arguments.rate,
        broker_pid: arguments.pid,
        memory_after: arguments.memory_after,
        ..defaults
    })?;
    if arguments.json {
        println!("{}", outcome.to_json());
    } else {
        println!("{outcome}");
    }
    Ok(ExitCode::SUCCESS)
}

fn seconds(option: &str, value: f64) -> Result<Duration, BoxError> {
    Duration::try_from_secs_f64(value).map_err(|error| format!("invalid {option} {value}: {error}").into())
}
