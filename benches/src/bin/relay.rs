//! `elbus-relay`: passes on bytes between the clients of the load generator; the upper limit for a broker.

use clap::Parser;
use elbus_benches::{BoxError, relay};
use std::process::ExitCode;

/// Passes on bytes between the clients of `elbus-load --protocol relay`
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on: a UNIX socket or host:port
    address: String,
    /// Worker threads; the default is that of the broker's transports
    #[arg(long, value_name = "N", default_value_t = 2)]
    workers: usize,
}

fn main() -> ExitCode {
    elbus_benches::exit_code("elbus-relay", run())
}

fn run() -> Result<ExitCode, BoxError> {
    let arguments = Arguments::parse();
    relay::serve(&arguments.address, arguments.workers.max(1))?;
    Ok(ExitCode::SUCCESS)
}
