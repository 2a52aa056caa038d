//! `elbus-features`: measures what hooks, options of subscriptions and retained values cost.

use clap::Parser;
use elbus_benches::{
    BoxError,
    features::{self, Settings},
};
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// Measures what interceptors, monitors, options of subscriptions and retained values cost: pairs of runs,
/// one with the feature and one without, in turn
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Rounds of each figure
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Duration of a run in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Figures to measure [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Folder of elbusd, elbus and the libraries of the plugins [default: the one of this program]
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

fn main() -> ExitCode {
    elbus_benches::exit_code("elbus-features", run())
}

fn run() -> Result<ExitCode, BoxError> {
    let arguments = Arguments::parse();
    if !(1..=1000).contains(&arguments.rounds) {
        return Err(format!("invalid --rounds {}: expected 1 to 1000", arguments.rounds).into());
    }
    if !(0.1..=600.0).contains(&arguments.seconds) {
        return Err(format!("invalid --seconds {}: expected 0.1 to 600", arguments.seconds).into());
    }
    let own_folder = || Ok::<_, BoxError>(std::env::current_exe()?.with_file_name(""));
    features::run(&Settings {
        rounds: arguments.rounds,
        time: Duration::try_from_secs_f64(arguments.seconds)?,
        only: arguments.only,
        programs: arguments.programs.map_or_else(own_folder, Ok)?,
    })?;
    Ok(ExitCode::SUCCESS)
}
