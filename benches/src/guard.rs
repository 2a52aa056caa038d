//! The guard against getting slower: how many instructions a message takes on its way through the core, counted by valgrind
//! and compared with figures that are checked in. It measures no time, so a busy machine does not matter; another
//! compiler or C library does.

mod core_path;

use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::Failure;
pub use core_path::Case;

/// A figure may be so much above the one that is checked in.
const MARGIN: f64 = 0.01;

const COPY_BY_VECTORS: &str =
    "glibc.cpu.x86_rep_movsb_threshold=0x10000000:glibc.cpu.x86_rep_stosb_threshold=0x10000000";

/// What the comparison came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is above its margin.
    Good,
    /// Something is.
    Slower,
    /// The figures are those of another compiler: they were shown, and prove nothing.
    NotComparable,
    /// There is no valgrind here.
    NotMeasured,
}

/// Does the work of a case, for valgrind to count.
///
/// # Errors
/// A message that did not arrive.
pub fn measure(case: Case) -> Result<(), Failure> {
    core_path::run(case)
}

/// Counts all cases and compares them with the file, or writes it.
///
/// # Errors
/// A file that cannot be read or written, valgrind that does not run.
pub fn compare(file: &Path, update: bool) -> Result<Verdict, Failure> {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("NOT MEASURED: valgrind is not installed (Debian: apt-get install valgrind)");
        return Ok(Verdict::NotMeasured);
    }
    let compiler = compiler();
    let mut counted = serde_json::Map::new();
    for case in Case::ALL {
        counted.insert(case.name().to_owned(), json!((count(case)? * 10.0).round() / 10.0));
    }
    if update {
        let text = json!({ "rustc": compiler, "instructions_per_message": counted });
        std::fs::write(file, format!("{text:#}\n"))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        println!("{} written", file.display());
        return Ok(Verdict::Good);
    }
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{}: {error}; --update makes it", file.display()))?;
    let recorded: Value = serde_json::from_str(&text)?;
    Ok(judge(&recorded, &compiler, &counted))
}

fn judge(recorded: &Value, compiler: &str, counted: &serde_json::Map<String, Value>) -> Verdict {
    let mut verdict = Verdict::Good;
    println!("{:<18} {:>10} {:>10} {:>8}", "instructions", "recorded", "now", "change");
    for (name, now) in counted {
        let now = now.as_f64().unwrap_or_default();
        let Some(before) = recorded["instructions_per_message"][name].as_f64() else {
            println!("{name:<18} {:>10} {now:>10.1}   not recorded: run with --update", "-");
            verdict = Verdict::Slower;
            continue;
        };
        let change = now / before - 1.0;
        let remark = match change {
            change if change > MARGIN => "  SLOWER",
            change if change < -MARGIN => "  faster: record it with --update",
            _ => "",
        };
        println!("{name:<18} {before:>10.1} {now:>10.1} {:>+7.1}%{remark}", change * 100.0);
        if change > MARGIN {
            verdict = Verdict::Slower;
        }
    }
    let recorded_with = recorded["rustc"].as_str().unwrap_or_default();
    if recorded_with != compiler {
        println!(
            "NOT COMPARABLE: the figures are of {recorded_with}, this is {compiler}. Check out the last commit that was \
             measured, run with --update there, come back and run again; commit the new file with the new compiler."
        );
        return Verdict::NotComparable;
    }
    verdict
}

/// Instructions of a case for each message.
fn count(case: Case) -> Result<f64, Failure> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect=*{}*", core_path::COUNTED))
        // valgrind counts `rep movsb` once for each byte, which the C library uses for long copies: vectors instead
        .env("GLIBC_TUNABLES", COPY_BY_VECTORS)
        .arg(std::env::current_exe()?)
        .args(["--measure", case.name()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected =
        said.lines().find_map(|line| line.split_once("Collected :")).map(|(_, number)| number.trim());
    match collected.and_then(|number| number.parse::<f64>().ok()) {
        Some(number) if output.status.success() && number > 0.0 => Ok(number / core_path::MESSAGES as f64),
        _ => Err(format!("{}: valgrind counted nothing: {said}", case.name()).into()),
    }
}

/// What built this, as far as the compiler that is here tells.
fn compiler() -> String {
    let said = Command::new("rustc").arg("--version").output().ok();
    said.map_or_else(String::new, |said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_percent_more_fails_and_another_compiler_proves_nothing() {
        let recorded = json!({ "rustc": "rustc 1", "instructions_per_message": { "message": 100.0 } });
        let judge = |compiler: &str, name: &str, now: f64| {
            let counted = serde_json::Map::from_iter([(name.to_owned(), json!(now))]);
            judge(&recorded, compiler, &counted)
        };
        assert_eq!(judge("rustc 1", "message", 100.9), Verdict::Good);
        assert_eq!(judge("rustc 1", "message", 50.0), Verdict::Good);
        assert_eq!(judge("rustc 1", "message", 101.1), Verdict::Slower);
        assert_eq!(judge("rustc 1", "new", 1.0), Verdict::Slower);
        assert_eq!(judge("rustc 2", "message", 200.0), Verdict::NotComparable);
    }

    #[test]
    fn every_case_does_its_work() {
        for case in Case::ALL {
            assert!(measure(case).is_ok(), "{}", case.name());
        }
    }
}
