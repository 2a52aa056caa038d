//! The workloads of a comparison. Owns their names and what each measures.

mod friendly;
mod real;

use std::time::Duration;

use super::{cpu_latency::CpuLatencyRequest, metrics::Metric};
use crate::{
    BoxError,
    load::{Plan, Protocol, RunLength, Scenario},
};

/// The minimum idle time: several periods of all that is done every few seconds.
const MIN_IDLE_TIME: Duration = Duration::from_secs(10);

/// QoS 1.
const ACKNOWLEDGED: u8 = 1;
/// Names that select the loads of one sort.
const SORTS: [(&str, bool); 2] = [("friendly", false), ("real", true)];

/// A named load.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) scenario: Scenario,
    /// Whether consecutive messages of a sender differ in topic or target, as those of a plant do.
    pub(super) real: bool,
    pairs: usize,
    senders: Option<usize>,
    subscribers: usize,
    topics: Option<usize>,
    targets: usize,
    repeat: usize,
    pub(super) own_subscribers: bool,
    bytes: usize,
    /// Messages per write, instead of the default.
    batch: Option<usize>,
    pub(super) qos: u8,
    pub(super) tcp: bool,
    /// Whether processors are kept from sleeping during a run.
    pub(super) no_cpu_sleep: bool,
    /// Whether the memory growth after a run is measured.
    pub(super) memory_after: bool,
    /// Whether it is part of a quick comparison.
    quick: bool,
    /// The main figure.
    pub(super) metric: Metric,
}

const BASE: Workload = Workload {
    name: "1-1",
    title: "one client to another",
    scenario: Scenario::Pairs,
    real: false,
    pairs: 1,
    senders: None,
    subscribers: 8,
    topics: None,
    targets: 1,
    repeat: 1,
    own_subscribers: false,
    bytes: 100,
    batch: None,
    qos: 0,
    tcp: false,
    no_cpu_sleep: false,
    memory_after: false,
    quick: true,
    metric: Metric::Messages,
};

/// Topics in turn, and one subscriber of all.
const TOPICS: Workload = Workload {
    name: "topics-128",
    title: "128 topics in turn, one subscriber of all",
    scenario: Scenario::Topic,
    real: true,
    subscribers: 1,
    topics: Some(128),
    quick: false,
    ..BASE
};

/// Targets in turn.
const TARGETS: Workload = Workload {
    name: "targets-8",
    title: "one client to 8 others in turn",
    real: true,
    targets: 8,
    quick: false,
    ..BASE
};

impl Workload {
    pub(super) fn plan(&self, protocol: Protocol, address: &str, time: Duration) -> Plan {
        let mut plan = Plan::new(protocol, address, self.scenario, self.bytes);
        plan.pairs = self.pairs;
        plan.senders = self.senders.unwrap_or(plan.senders);
        plan.subscribers = self.subscribers;
        plan.topics = self.topics;
        plan.targets = self.targets;
        plan.repeat = self.repeat;
        plan.own_subscribers = self.own_subscribers;
        plan.batch = self.batch.unwrap_or(plan.batch);
        plan.qos = self.qos;
        plan.memory_after = self.memory_after;
        plan.length = RunLength::Time(match self.scenario {
            Scenario::Idle => time.max(MIN_IDLE_TIME),
            _ => time,
        });
        plan
    }
}

/// All workloads: the friendly ones, then the real ones.
fn all() -> impl Iterator<Item = Workload> {
    friendly::WORKLOADS.into_iter().chain(real::WORKLOADS)
}

/// Selects the workloads of these names, or all, or those of a quick comparison. `real` and `friendly` select
/// the workloads in which consecutive messages differ in topic or target, and the others.
pub(super) fn select(names: &[String], quick: bool) -> Result<Vec<Workload>, BoxError> {
    let sorts = SORTS.iter().map(|(name, _)| *name);
    let known: Vec<_> = sorts.chain(all().map(|workload| workload.name)).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("unknown workload {name}: expected one of {}", known.join(", ")).into());
    }
    let selects =
        |name: &str, workload: &Workload| name == workload.name || SORTS.contains(&(name, workload.real));
    let selected = |workload: &Workload| match names {
        [] => workload.quick || !quick,
        names => names.iter().any(|name| selects(name, workload)),
    };
    let mut workloads: Vec<_> = all().filter(selected).collect();
    if workloads.iter().any(|workload| workload.no_cpu_sleep)
        && let Err(error) = CpuLatencyRequest::zero()
    {
        eprintln!(
            "skipped workloads without sleeping processors: cannot write /dev/cpu_dma_latency: {error}"
        );
        workloads.retain(|workload| !workload.no_cpu_sleep);
    }
    Ok(workloads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_select_workloads() {
        let names = |selected: &[&str], quick| {
            let selected: Vec<_> = selected.iter().map(|name| (*name).to_owned()).collect();
            select(&selected, quick)
                .map(|workloads| workloads.iter().map(|workload| workload.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["call", "1-1"], true).ok(), Some(vec!["1-1", "call"]));
        assert_eq!(
            names(&[], true).ok(),
            Some(vec!["1-1", "8-8", "topic-8", "request-reply", "topics-128", "targets-8"])
        );
        let real: Vec<_> = real::WORKLOADS.iter().map(|workload| workload.name).collect();
        assert_eq!(names(&["real"], false).ok(), Some(real));
        assert!(names(&["friendly"], false).is_ok_and(|names| !names.contains(&"targets-2")));
        let available = |workload: &&Workload| !workload.no_cpu_sleep || CpuLatencyRequest::zero().is_ok();
        assert_eq!(
            names(&[], false).ok().map(|workloads| workloads.len()),
            Some(all().filter(|workload| available(&workload)).count())
        );
        assert!(names(&["nonsense"], false).is_err());
        for workload in all() {
            assert_eq!(all().filter(|other| other.name == workload.name).count(), 1);
            assert!(workload.plan(Protocol::Elbus, "x", Duration::ZERO).validate().is_ok());
        }
    }
}
