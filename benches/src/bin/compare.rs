//! `elbus-compare`: brokers side by side, in one command.

use clap::Parser;
use elbus_benches::{
    Failure,
    compare::{self, Options},
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Compares ELBUS with a byte relay and with other brokers that are installed
///
/// Programs of other brokers are looked for in PATH; ELBUS_BUSRTD, ELBUS_NATS, ELBUS_REDIS and ELBUS_MOSQUITTO name them
/// elsewhere.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How often each broker takes each load [default: 5, quick: 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Seconds of each run [default: 2, quick: 0.5]
    #[arg(long)]
    seconds: Option<f64>,
    /// The four main loads, shorter and less often
    #[arg(long)]
    quick: bool,
    /// Only this load; may be repeated, or several with commas between them
    #[arg(long, value_name = "LOAD", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these brokers
    #[arg(long, value_name = "BROKER", value_delimiter = ',')]
    brokers: Vec<String>,
    /// The folder of elbusd and elbus-relay [default: that of this program]
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Where the results go [default: benches/results, or results where there is no folder benches]
    #[arg(long, value_name = "FOLDER")]
    results: Option<PathBuf>,
}

fn main() -> ExitCode {
    elbus_benches::end("elbus-compare", run())
}

fn run() -> Result<ExitCode, Failure> {
    let arguments = Arguments::parse();
    let own_folder = || -> Result<PathBuf, Failure> {
        let program = std::env::current_exe()?;
        Ok(program.parent().ok_or("this program is in no folder")?.to_owned())
    };
    let (rounds, seconds) = if arguments.quick { (3, 0.5) } else { (5, 2.0) };
    let default_results = if Path::new("benches").is_dir() { "benches/results" } else { "results" };
    let folder = compare::run(&Options {
        rounds: arguments.rounds.unwrap_or(rounds) as usize,
        time: Duration::try_from_secs_f64(arguments.seconds.unwrap_or(seconds))?,
        loads: arguments.only,
        brokers: arguments.brokers,
        quick: arguments.quick,
        programs: arguments.programs.map_or_else(own_folder, Ok)?,
        results: arguments.results.unwrap_or_else(|| default_results.into()),
    })?;
    println!("{}", folder.join("README.md").display());
    Ok(ExitCode::SUCCESS)
}
