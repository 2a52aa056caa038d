//! Compares brokers side by side: the same workloads, a fresh process per run, and all brokers in turn in
//! every round, so that a change in the machine's speed affects all of them. Writes the results and how they
//! were measured.

mod broker;
mod charts;
mod cpu_latency;
mod environment;
mod metrics;
mod report;
mod targets;
mod workloads;

use std::{fs, io::Write, path::PathBuf, time::Duration};

use crate::{
    BoxError,
    load::{self, Outcome},
};
use broker::Broker;
use cpu_latency::CpuLatencyRequest;
use environment::Environment;
use metrics::Sample;
use workloads::Workload;

/// What to compare.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many times each broker runs each workload.
    pub rounds: usize,
    /// The duration of each run.
    pub time: Duration,
    /// Names of workloads; empty means all, or the main ones if `quick`.
    pub workloads: Vec<String>,
    /// Names of brokers; empty means all that are installed.
    pub brokers: Vec<String>,
    /// Whether to run only the main workloads.
    pub quick: bool,
    /// The folder with `elbusd` and `elbus-relay`.
    pub programs: PathBuf,
    /// The folder in which a folder with the results is created.
    pub results: PathBuf,
}

/// Runs everything, writes the results and returns their folder. A run that fails is a result.
///
/// # Errors
/// An unknown workload or broker, a broker that is not installed, a folder that cannot be written.
pub fn run(plan: &Plan) -> Result<PathBuf, BoxError> {
    let workloads = workloads::select(&plan.workloads, plan.quick)?;
    let brokers = broker::select(&plan.brokers, &plan.programs)?;
    let environment = Environment::detect(plan, &brokers);
    // a partial comparison must not replace a complete one of the same day
    let suffix = match (plan.quick, plan.workloads.is_empty() && plan.brokers.is_empty()) {
        (_, false) => "-part",
        (true, true) => "-quick",
        (false, true) => "",
    };
    let folder = plan.results.join(format!("{}{suffix}", environment.date()));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut lines = fs::File::create(folder.join("runs.jsonl"))?;
    writeln!(lines, "{}", environment.to_json())?;

    let mut samples = Vec::new();
    for round in 0..plan.rounds {
        for workload in &workloads {
            // the order rotates, so that no broker always runs after the same other one
            let (last, first) = brokers.split_at(round % brokers.len());
            for broker in first.iter().chain(last).filter(|broker| broker.supports(workload)) {
                let result = measure(broker, workload, plan.time).map_err(|error| error.to_string());
                let sample = Sample { round, workload: workload.name, broker: broker.name(), result };
                writeln!(lines, "{}", sample.to_json())?;
                eprintln!("{sample}");
                samples.push(sample);
            }
        }
    }
    let report = report::format(&environment, &workloads, &brokers, &samples);
    fs::write(folder.join("README.md"), report)?;
    charts::write(&folder, &workloads, &brokers, &samples)?;
    Ok(folder)
}

/// Starts a broker and runs a workload with it.
fn measure(broker: &Broker, workload: &Workload, time: Duration) -> Result<Outcome, BoxError> {
    let _no_cpu_sleep = workload.no_cpu_sleep.then(CpuLatencyRequest::zero).transpose()?;
    let running = broker.start(workload.tcp)?;
    let mut plan = workload.plan(broker.protocol(), running.address(), time);
    plan.broker_pid = Some(running.pid());
    load::run(&plan)
}
