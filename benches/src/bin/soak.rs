//! `elbus-soak`: keeps a broker busy for long and looks at what it loses and what it grows by.

use clap::Parser;
use elbus_benches::{
    Failure,
    soak::{self, Plan},
};
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// Starts an elbusd, loads it with everything at once for a long time, and checks that no message is lost and that memory,
/// descriptors and threads stay level
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Minutes to go on
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// What chance begins with: who leaves and comes when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds between two calls of config.reload, where the broker has it; 0: none
    #[arg(long, default_value_t = 10.0)]
    reload_every: f64,
    /// The broker [default: elbusd beside this program]
    #[arg(long)]
    elbusd: Option<PathBuf>,
    /// Use what is linked into elbusd instead of libraries
    #[arg(long)]
    builtin: bool,
    /// MiB that the broker's memory may grow by from the first quarter to the last
    #[arg(long, default_value_t = 8.0)]
    tolerance: f64,
}

fn main() -> ExitCode {
    elbus_benches::end("elbus-soak", run())
}

fn run() -> Result<ExitCode, Failure> {
    let arguments = Arguments::parse();
    if !(0.1..=24.0 * 60.0).contains(&arguments.minutes) {
        return Err(format!("--minutes {}: must be between 0.1 and 1440", arguments.minutes).into());
    }
    if !(0.0..=3600.0).contains(&arguments.reload_every) {
        return Err(format!("--reload-every {}: must be between 0 and 3600", arguments.reload_every).into());
    }
    let beside = || std::env::current_exe().map(|own| own.with_file_name("elbusd"));
    let report = soak::run(&Plan {
        time: Duration::try_from_secs_f64(arguments.minutes * 60.0)?,
        seed: arguments.seed,
        reload_every: Duration::try_from_secs_f64(arguments.reload_every)?,
        elbusd: arguments.elbusd.map_or_else(beside, Ok)?,
        builtin: arguments.builtin,
        tolerance_bytes: (arguments.tolerance.max(0.0) * 1024.0 * 1024.0) as u64,
    })?;
    println!("{report}");
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
