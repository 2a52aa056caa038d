//! A guard against performance regressions: valgrind counts the instructions that a message takes in the
//! core, and the count is compared with recorded figures. It measures no time, so the load of the machine
//! does not matter; the compiler and the C library do.

mod core_path;

use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::BoxError;
pub use core_path::Case;

/// How far a figure may be above the recorded one, relative to it.
const MARGIN: f64 = 0.01;
/// Runs of each case. Tables are hashed with random seeds, and collisions cost up to 2 %: the lowest count
/// has the fewest of them.
const RUNS: usize = 5;

const COPY_WITH_VECTORS: &str =
    "glibc.cpu.x86_rep_movsb_threshold=0x10000000:glibc.cpu.x86_rep_stosb_threshold=0x10000000";

/// The result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// No figure is above its margin.
    WithinMargin,
    /// A figure is above its margin, or is not recorded.
    Slower,
    /// The recorded figures are those of another compiler.
    NotComparable,
    /// valgrind is not installed.
    NotMeasured,
}

/// Runs a case, for valgrind to count its instructions.
///
/// # Errors
/// A message that did not arrive.
pub fn measure(case: Case) -> Result<(), BoxError> {
    core_path::run(case)
}

/// Counts the instructions of all cases and compares them with the recorded figures, or records them.
///
/// # Errors
/// A file that cannot be read or written, a valgrind that does not run.
pub fn compare(file: &Path, update: bool) -> Result<Comparison, BoxError> {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("NOT MEASURED: valgrind is not installed (Debian: apt-get install valgrind)");
        return Ok(Comparison::NotMeasured);
    }
    let compiler = compiler();
    let mut counted = serde_json::Map::new();
    for case in Case::ALL {
        counted.insert(case.name(), json!((count(case)? * 10.0).round() / 10.0));
    }
    if update {
        let text = json!({ "rustc": compiler, "instructions_per_message": counted });
        std::fs::write(file, format!("{text:#}\n"))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        println!("recorded in {}", file.display());
        return Ok(Comparison::WithinMargin);
    }
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{}: {error}; --update creates it", file.display()))?;
    let recorded: Value = serde_json::from_str(&text)?;
    Ok(compare_figures(&recorded, &compiler, &counted))
}

/// Prints a table of the figures and returns the result.
fn compare_figures(recorded: &Value, compiler: &str, counted: &serde_json::Map<String, Value>) -> Comparison {
    let mut result = Comparison::WithinMargin;
    println!("{:<18} {:>10} {:>10} {:>8}", "instructions/msg", "recorded", "current", "change");
    for (name, current) in counted {
        let current = current.as_f64().unwrap_or_default();
        let Some(previous) = recorded["instructions_per_message"][name].as_f64() else {
            println!("{name:<18} {:>10} {current:>10.1}   not recorded: run with --update", "-");
            result = Comparison::Slower;
            continue;
        };
        let change = current / previous - 1.0;
        let remark = match change {
            change if change > MARGIN => "  SLOWER",
            change if change < -MARGIN => "  faster: record with --update",
            _ => "",
        };
        println!("{name:<18} {previous:>10.1} {current:>10.1} {:>+7.1}%{remark}", change * 100.0);
        if change > MARGIN {
            result = Comparison::Slower;
        }
    }
    let recorded_with = recorded["rustc"].as_str().unwrap_or_default();
    if recorded_with != compiler {
        println!(
            "NOT COMPARABLE: the figures were recorded with {recorded_with}, this is {compiler}. \
             Check out the last measured commit, run with --update, return to this commit and compare; \
             commit the new figures together with the new compiler."
        );
        return Comparison::NotComparable;
    }
    result
}

/// Counts the instructions of a case per message: the lowest count of several runs.
fn count(case: Case) -> Result<f64, BoxError> {
    let mut lowest = f64::INFINITY;
    for _ in 0..RUNS {
        lowest = lowest.min(count_once(case)?);
    }
    Ok(lowest)
}

fn count_once(case: Case) -> Result<f64, BoxError> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect=*{}*", core_path::COUNTED_FUNCTION))
        // valgrind counts `rep movsb`, which the C library uses for long copies, once per byte
        .env("GLIBC_TUNABLES", COPY_WITH_VECTORS)
        .arg(std::env::current_exe()?)
        .args(["--measure", &case.name()])
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let collected =
        stderr.lines().find_map(|line| line.split_once("Collected :")).map(|(_, number)| number.trim());
    match collected.and_then(|number| number.parse::<f64>().ok()) {
        Some(number) if output.status.success() && number > 0.0 => Ok(number / core_path::MESSAGES as f64),
        _ => Err(format!("{}: valgrind counted no instructions: {stderr}", case.name()).into()),
    }
}

/// The version of the installed compiler, which is assumed to have built this program.
fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().ok();
    output.map_or_else(String::new, |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_one_percent_is_slower_unless_the_compiler_differs() {
        let recorded = json!({ "rustc": "rustc 1", "instructions_per_message": { "message": 100.0 } });
        let compare = |compiler: &str, name: &str, current: f64| {
            let counted = serde_json::Map::from_iter([(name.to_owned(), json!(current))]);
            compare_figures(&recorded, compiler, &counted)
        };
        assert_eq!(compare("rustc 1", "message", 100.9), Comparison::WithinMargin);
        assert_eq!(compare("rustc 1", "message", 50.0), Comparison::WithinMargin);
        assert_eq!(compare("rustc 1", "message", 101.1), Comparison::Slower);
        assert_eq!(compare("rustc 1", "new", 1.0), Comparison::Slower);
        assert_eq!(compare("rustc 2", "message", 200.0), Comparison::NotComparable);
    }

    #[test]
    fn every_case_delivers_all_messages() {
        for case in Case::ALL {
            assert!(measure(case).is_ok(), "{}", case.name());
        }
    }
}
