//! `elbus-guard`: counts the instructions per message in the core and compares them with recorded figures.
//! Exit code 1 means that the core has become slower.

use clap::Parser;
use elbus_benches::{
    BoxError,
    guard::{self, Case, Comparison},
};
use std::{path::PathBuf, process::ExitCode};

/// Compares the instructions per message with recorded figures; needs valgrind
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// File of recorded figures
    #[arg(default_value = "benches/guard/figures.json")]
    figures: PathBuf,
    /// Record the figures instead of comparing them
    #[arg(long)]
    update: bool,
    /// Fail also if the figures could not be measured or compared
    #[arg(long)]
    strict: bool,
    /// Run one case; this is what valgrind executes
    #[arg(long, value_name = "CASE", hide = true)]
    measure: Option<String>,
}

fn main() -> ExitCode {
    elbus_benches::exit_code("elbus-guard", run())
}

fn run() -> Result<ExitCode, BoxError> {
    let arguments = Arguments::parse();
    if let Some(name) = arguments.measure {
        let case = Case::ALL.into_iter().find(|case| case.name() == name);
        guard::measure(case.ok_or_else(|| format!("unknown case {name}"))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(match guard::compare(&arguments.figures, arguments.update)? {
        Comparison::WithinMargin => ExitCode::SUCCESS,
        Comparison::NotComparable | Comparison::NotMeasured if !arguments.strict => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
