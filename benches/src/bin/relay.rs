//! `elbus-relay`: passes on bytes between the clients of the load generator, as the limit that a broker can reach.

use clap::Parser;
use elbus_benches::{Failure, relay};
use std::process::ExitCode;

/// A byte relay for `elbus-load --over relay`
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen: a UNIX socket or host:port
    address: String,
    /// Threads, as many as a transport of the broker has
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

fn main() -> ExitCode {
    elbus_benches::end("elbus-relay", run())
}

fn run() -> Result<ExitCode, Failure> {
    let arguments = Arguments::parse();
    relay::serve(&arguments.address, arguments.workers.max(1))?;
    Ok(ExitCode::SUCCESS)
}
