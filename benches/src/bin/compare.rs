//! `elbus-compare`: compares brokers side by side with one command.

use clap::Parser;
use elbus_benches::{
    BoxError,
    compare::{self, Plan},
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Compares ELBUS with a byte relay and with the other brokers that are installed
///
/// Programs of other brokers are searched in PATH; ELBUS_BUSRTD, ELBUS_NATS, ELBUS_REDIS and ELBUS_MOSQUITTO
/// set their paths.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Rounds; each broker runs each workload once per round [default: 5, with --quick: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Duration of each run in seconds [default: 2, with --quick: 0.5]
    #[arg(long)]
    seconds: Option<f64>,
    /// Run only the six main workloads, with fewer and shorter runs
    #[arg(long)]
    quick: bool,
    /// Run only these workloads, separated by commas; may be repeated; real selects those in which topics or
    /// targets take turns, friendly the others
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',')]
    only: Vec<String>,
    /// Run only these brokers, separated by commas; may be repeated
    #[arg(long, value_name = "BROKER", value_delimiter = ',')]
    brokers: Vec<String>,
    /// Folder of elbusd and elbus-relay [default: the folder of this program]
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// Folder for the results [default: benches/results, or results if there is no folder benches]
    #[arg(long, value_name = "FOLDER")]
    results: Option<PathBuf>,
}

fn main() -> ExitCode {
    elbus_benches::exit_code("elbus-compare", run())
}

fn run() -> Result<ExitCode, BoxError> {
    let arguments = Arguments::parse();
    let own_folder = || -> Result<PathBuf, BoxError> {
        let program = std::env::current_exe()?;
        Ok(program.parent().ok_or("the path of this program has no folder (--programs)")?.to_owned())
    };
    let (rounds, seconds) = if arguments.quick { (3, 0.5) } else { (5, 2.0) };
    let seconds = arguments.seconds.unwrap_or(seconds);
    let default_results = if Path::new("benches").is_dir() { "benches/results" } else { "results" };
    let folder = compare::run(&Plan {
        rounds: arguments.rounds.unwrap_or(rounds) as usize,
        time: Duration::try_from_secs_f64(seconds)
            .map_err(|error| format!("invalid --seconds {seconds}: {error}"))?,
        workloads: arguments.only,
        brokers: arguments.brokers,
        quick: arguments.quick,
        programs: arguments.programs.map_or_else(own_folder, Ok)?,
        results: arguments.results.unwrap_or_else(|| default_results.into()),
    })?;
    println!("{}", folder.join("README.md").display());
    Ok(ExitCode::SUCCESS)
}
