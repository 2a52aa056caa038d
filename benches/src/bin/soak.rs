//! `elbus-soak`: loads a broker for a long time and checks that it loses nothing and does not grow.

use clap::Parser;
use elbus_benches::{
    BoxError,
    soak::{self, Plan},
};
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// Starts an elbusd, puts every kind of load on it for a long time, and checks that no message is lost and
/// that its memory, file descriptors and threads do not grow
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Duration in minutes
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Seed of the random numbers that decide which clients come and go
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Interval between calls of config.reload in seconds, if the broker has it; 0 for none
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    reload_every: f64,
    /// Path of elbusd [default: the one in the folder of this program]
    #[arg(long, value_name = "PROGRAM")]
    elbusd: Option<PathBuf>,
    /// Use the plugins linked into elbusd instead of libraries
    #[arg(long)]
    builtin: bool,
    /// How much the broker's memory may grow from the first quarter to the last, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 8.0)]
    tolerance: f64,
}

fn main() -> ExitCode {
    elbus_benches::exit_code("elbus-soak", run())
}

fn run() -> Result<ExitCode, BoxError> {
    let arguments = Arguments::parse();
    if !(0.1..=24.0 * 60.0).contains(&arguments.minutes) {
        return Err(format!("invalid --minutes {}: expected 0.1 to 1440", arguments.minutes).into());
    }
    if !(0.0..=3600.0).contains(&arguments.reload_every) {
        return Err(format!("invalid --reload-every {}: expected 0 to 3600", arguments.reload_every).into());
    }
    let own_folder = || std::env::current_exe().map(|program| program.with_file_name("elbusd"));
    let report = soak::run(&Plan {
        time: Duration::try_from_secs_f64(arguments.minutes * 60.0)?,
        seed: arguments.seed,
        reload_interval: Duration::try_from_secs_f64(arguments.reload_every)?,
        elbusd: arguments.elbusd.map_or_else(own_folder, Ok)?,
        builtin: arguments.builtin,
        tolerance_bytes: (arguments.tolerance.max(0.0) * 1024.0 * 1024.0) as u64,
    })?;
    println!("{report}");
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
