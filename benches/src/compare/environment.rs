//! Where and how a comparison was measured, for the readers of the report.

use serde_json::{Value, json};
use std::{fmt, fs, process::Command};

use super::{Plan, broker::Broker};

pub(super) struct Environment {
    date: String,
    cpu: String,
    cores: usize,
    kernel: String,
    memory: String,
    rounds: usize,
    seconds: f64,
    commit: String,
    /// Name, version and settings.
    brokers: Vec<(&'static str, String, &'static str)>,
}

impl Environment {
    pub(super) fn detect(plan: &Plan, brokers: &[Broker]) -> Self {
        let field = |file: &str, key: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.map_or("unknown", |line| line.trim_start_matches([' ', '\t', ':'])).trim().to_owned()
        };
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Environment {
            date: jiff::Timestamp::now().strftime("%F").to_string(),
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            kernel: format!("Linux {}", release.trim()),
            memory: field("/proc/meminfo", "MemTotal"),
            rounds: plan.rounds,
            seconds: plan.time.as_secs_f64(),
            commit: commit(),
            brokers: brokers
                .iter()
                .map(|broker| (broker.name(), broker.version(), broker.settings()))
                .collect(),
        }
    }

    pub(super) fn date(&self) -> &str {
        &self.date
    }

    pub(super) fn to_json(&self) -> Value {
        let brokers: serde_json::Map<_, _> = self
            .brokers
            .iter()
            .map(|(name, version, settings)| {
                ((*name).to_owned(), json!({ "version": version, "how": settings }))
            })
            .collect();
        json!({
            "date": self.date,
            "cpu": self.cpu,
            "cores": self.cores,
            "kernel": self.kernel,
            "memory": self.memory,
            "rounds": self.rounds,
            "seconds": self.seconds,
            "commit": self.commit,
            "brokers": brokers,
        })
    }
}

/// The commit of ELBUS that was measured, if git is available.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".into() };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit} with changes"),
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| | |\n|---|---|")?;
        writeln!(f, "| date | {} |", self.date)?;
        writeln!(f, "| machine | {}, {} cores, {} |", self.cpu, self.cores, self.memory)?;
        writeln!(f, "| kernel | {} |", self.kernel)?;
        writeln!(f, "| commit | {} |", self.commit)?;
        writeln!(
            f,
            "| method | rounds: {}, seconds per run: {}, a fresh broker for each run |",
            self.rounds, self.seconds
        )?;
        for (name, version, settings) in &self.brokers {
            writeln!(f, "| {name} | {version}; {settings} |")?;
        }
        Ok(())
    }
}
