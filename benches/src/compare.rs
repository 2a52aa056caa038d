//! Brokers side by side: the same loads, a fresh process for each run, all brokers in turn in every round, so that a change of
//! the machine's mood hits all of them. Writes what came out and how it was measured.

mod broker;
mod charts;
mod cpu_latency;
mod environment;
mod metrics;
mod report;
mod targets;
mod workloads;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Failure,
    load::{self, Outcome},
};
use broker::Contestant;
use cpu_latency::Awake;
use environment::Machine;
use metrics::Sample;
use workloads::Load;

/// What to compare.
#[derive(Debug, Clone)]
pub struct Options {
    /// How often each pair of load and broker runs.
    pub rounds: usize,
    /// How long each run is.
    pub time: Duration,
    /// Names of loads; empty means all, or the main ones where it is to be quick.
    pub loads: Vec<String>,
    /// Names of brokers; empty means all that are installed.
    pub brokers: Vec<String>,
    /// The main loads only.
    pub quick: bool,
    /// The folder with `elbusd` and `elbus-relay`.
    pub programs: PathBuf,
    /// Where a folder with the results is made.
    pub results: PathBuf,
}

/// Runs everything and writes the results; tells where they are.
///
/// # Errors
/// Names that are not known, nothing to compare, a folder that cannot be written. A run that fails is a result.
pub fn run(options: &Options) -> Result<PathBuf, Failure> {
    let loads = workloads::choose(&options.loads, options.quick)?;
    let contestants = broker::choose(&options.brokers, &options.programs)?;
    let machine = Machine::look(options, &contestants);
    // a part of a comparison must not replace a whole one of the same day
    let part = match (options.quick, options.loads.is_empty() && options.brokers.is_empty()) {
        (_, false) => "-part",
        (true, true) => "-quick",
        (false, true) => "",
    };
    let folder = options.results.join(format!("{}{part}", machine.date()));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut lines = fs::File::create(folder.join("runs.jsonl"))?;
    writeln!(lines, "{}", machine.to_json())?;

    let mut samples = Vec::new();
    for round in 0..options.rounds {
        for load in &loads {
            // who begins changes, so that nobody is always measured behind the same other one
            let shift = round % contestants.len();
            let (last, first) = contestants.split_at(shift);
            for contestant in first.iter().chain(last).filter(|c| c.can_take(load)) {
                let result = measure(contestant, load, options.time).map_err(|error| error.to_string());
                let sample = Sample { round, load: load.name, broker: contestant.name(), result };
                writeln!(lines, "{}", sample.to_json())?;
                eprintln!("{sample}");
                samples.push(sample);
            }
        }
    }
    let report = report::write(&machine, &loads, &contestants, &samples);
    fs::write(folder.join("README.md"), report)?;
    charts::write(&folder, &loads, &contestants, &samples)?;
    Ok(folder)
}

/// One run with a broker of its own.
fn measure(contestant: &Contestant, load: &Load, time: Duration) -> Result<Outcome, Failure> {
    let _awake = load.awake.then(Awake::keep).transpose()?;
    let broker = contestant.start(load.tcp)?;
    let mut plan = load.plan(contestant.over(), broker.address(), time);
    plan.broker = Some(broker.pid());
    load::run(&plan)
}

/// Finds a program: by a variable of the environment, else where programs are.
fn find_program(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    // Debian has servers where the PATH of users has not
    let folders = std::env::split_paths(&folders).chain([PathBuf::from("/usr/sbin")]).collect::<Vec<_>>();
    folders.iter().map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file()
}
