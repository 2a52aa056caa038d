//! `elbus-guard`: counts instructions of the core for each message and compares them with recorded figures. Exit code 1 means
//! slower.

use clap::Parser;
use elbus_benches::{
    Failure,
    guard::{self, Case, Verdict},
};
use std::{path::PathBuf, process::ExitCode};

/// Compares instructions a message with recorded figures; needs valgrind
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The file of figures
    #[arg(default_value = "benches/guard/figures.json")]
    figures: PathBuf,
    /// Write the file instead of comparing with it
    #[arg(long)]
    update: bool,
    /// Fail also where nothing could be measured or compared
    #[arg(long)]
    strict: bool,
    /// Do the work of one case; what valgrind runs
    #[arg(long, value_name = "CASE", hide = true)]
    measure: Option<String>,
}

fn main() -> ExitCode {
    elbus_benches::end("elbus-guard", run())
}

fn run() -> Result<ExitCode, Failure> {
    let arguments = Arguments::parse();
    if let Some(name) = arguments.measure {
        let case = Case::ALL.into_iter().find(|case| case.name() == name);
        guard::measure(case.ok_or_else(|| format!("there is no case {name}"))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(match guard::compare(&arguments.figures, arguments.update)? {
        Verdict::Good => ExitCode::SUCCESS,
        Verdict::NotComparable | Verdict::NotMeasured if !arguments.strict => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
