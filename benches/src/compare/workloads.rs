//! The workloads of a comparison. Owns their names and what each measures.

use std::time::Duration;

use super::{cpu_latency::CpuLatencyRequest, metrics::Metric};
use crate::{
    BoxError,
    load::{Plan, Protocol, RunLength, Scenario},
};

/// The minimum idle time: several periods of all that is done every few seconds.
const MIN_IDLE_TIME: Duration = Duration::from_secs(10);

/// A named load.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) scenario: Scenario,
    pairs: usize,
    subscribers: usize,
    bytes: usize,
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
    pairs: 1,
    subscribers: 8,
    bytes: 100,
    tcp: false,
    no_cpu_sleep: false,
    memory_after: false,
    quick: true,
    metric: Metric::Messages,
};

const WORKLOADS: [Workload; 16] = [
    BASE,
    Workload { name: "8-8", title: "eight clients to eight others", pairs: 8, ..BASE },
    Workload {
        name: "topic-8",
        title: "a topic with 8 subscribers",
        scenario: Scenario::Topic,
        memory_after: true,
        ..BASE
    },
    Workload {
        name: "request-reply",
        title: "request and reply between two clients",
        scenario: Scenario::Echo,
        metric: Metric::P50,
        ..BASE
    },
    Workload {
        name: "awake-request-reply",
        title: "request and reply without sleeping processors",
        scenario: Scenario::Echo,
        no_cpu_sleep: true,
        quick: false,
        metric: Metric::P50,
        ..BASE
    },
    Workload {
        name: "topic-100",
        title: "a topic with 100 subscribers",
        scenario: Scenario::Topic,
        subscribers: 100,
        quick: false,
        ..BASE
    },
    Workload {
        name: "fan-in-4",
        title: "four clients to one",
        scenario: Scenario::FanIn,
        quick: false,
        ..BASE
    },
    Workload {
        name: "broadcast-8",
        title: "a broadcast to 8 clients",
        scenario: Scenario::Broadcast,
        quick: false,
        ..BASE
    },
    Workload {
        name: "call",
        title: "a call to the broker",
        scenario: Scenario::Call,
        quick: false,
        metric: Metric::P50,
        ..BASE
    },
    Workload {
        name: "1-1-1k",
        title: "one client to another, 1 KiB payloads",
        bytes: 1 << 10,
        quick: false,
        ..BASE
    },
    Workload {
        name: "1-1-64k",
        title: "one client to another, 64 KiB payloads",
        bytes: 64 << 10,
        quick: false,
        metric: Metric::Bytes,
        ..BASE
    },
    Workload {
        name: "1-1-1m",
        title: "one client to another, 1 MiB payloads",
        bytes: 1 << 20,
        quick: false,
        metric: Metric::Bytes,
        ..BASE
    },
    Workload { name: "tcp-1-1", title: "one client to another over TCP", tcp: true, quick: false, ..BASE },
    Workload {
        name: "tcp-topic-8",
        title: "a topic with 8 subscribers over TCP",
        scenario: Scenario::Topic,
        tcp: true,
        quick: false,
        ..BASE
    },
    Workload {
        name: "idle-10000",
        title: "10,000 idle clients",
        scenario: Scenario::Idle,
        quick: false,
        metric: Metric::ClientMemory,
        ..BASE
    },
    Workload {
        name: "tcp-request-reply",
        title: "request and reply over TCP",
        scenario: Scenario::Echo,
        tcp: true,
        quick: false,
        metric: Metric::P50,
        ..BASE
    },
];

impl Workload {
    pub(super) fn plan(&self, protocol: Protocol, address: &str, time: Duration) -> Plan {
        let mut plan = Plan::new(protocol, address, self.scenario, self.bytes);
        plan.pairs = self.pairs;
        plan.subscribers = self.subscribers;
        plan.memory_after = self.memory_after;
        plan.length = RunLength::Time(match self.scenario {
            Scenario::Idle => time.max(MIN_IDLE_TIME),
            _ => time,
        });
        plan
    }
}

/// Selects the workloads of these names, or all, or those of a quick comparison.
pub(super) fn select(names: &[String], quick: bool) -> Result<Vec<Workload>, BoxError> {
    if let Some(name) = names.iter().find(|name| !WORKLOADS.iter().any(|workload| workload.name == **name)) {
        let known: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        return Err(format!("unknown workload {name}: expected one of {}", known.join(", ")).into());
    }
    let selected = |workload: &Workload| match names {
        [] => workload.quick || !quick,
        names => names.iter().any(|name| name == workload.name),
    };
    let mut workloads: Vec<_> = WORKLOADS.into_iter().filter(selected).collect();
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
        assert_eq!(names(&[], true).ok().map(|workloads| workloads.len()), Some(4));
        let available = |workload: &&Workload| !workload.no_cpu_sleep || CpuLatencyRequest::zero().is_ok();
        assert_eq!(
            names(&[], false).ok().map(|workloads| workloads.len()),
            Some(WORKLOADS.iter().filter(available).count())
        );
        assert!(names(&["nonsense"], false).is_err());
        for workload in WORKLOADS {
            assert_eq!(WORKLOADS.iter().filter(|other| other.name == workload.name).count(), 1);
            assert!(workload.plan(Protocol::Elbus, "x", Duration::ZERO).validate().is_ok());
        }
    }
}
