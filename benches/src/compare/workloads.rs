//! The loads that brokers are compared by. Owns their names and what each measures.

use std::time::Duration;

use super::{cpu_latency::Awake, metrics::Metric};
use crate::{
    Failure,
    load::{Bound, Over, Plan, Scenario},
};

/// Idle clients are looked at for at least so long: some rounds of whatever is done every few seconds.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// A load with a name.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) scenario: Scenario,
    pairs: usize,
    subscribers: usize,
    bytes: usize,
    pub(super) tcp: bool,
    /// Processors are kept awake meanwhile, where that is possible.
    pub(super) awake: bool,
    /// It is looked at what is left of the burst.
    pub(super) afterwards: bool,
    /// Part of a quick comparison.
    main: bool,
    /// What it is about.
    pub(super) metric: Metric,
}

const PLAIN: Load = Load {
    name: "1-1",
    title: "one client to another",
    scenario: Scenario::Pairs,
    pairs: 1,
    subscribers: 8,
    bytes: 100,
    tcp: false,
    awake: false,
    afterwards: false,
    main: true,
    metric: Metric::Messages,
};

const LOADS: [Load; 16] = [
    PLAIN,
    Load { name: "8-8", title: "eight clients to eight others", pairs: 8, ..PLAIN },
    Load {
        name: "topic-8",
        title: "a topic with 8 subscribers",
        scenario: Scenario::Topic,
        afterwards: true,
        ..PLAIN
    },
    Load {
        name: "request-reply",
        title: "request and reply between two clients",
        scenario: Scenario::Echo,
        metric: Metric::P50,
        ..PLAIN
    },
    Load {
        name: "awake-request-reply",
        title: "request and reply, processors kept awake",
        scenario: Scenario::Echo,
        awake: true,
        main: false,
        metric: Metric::P50,
        ..PLAIN
    },
    Load {
        name: "topic-100",
        title: "a topic with 100 subscribers",
        scenario: Scenario::Topic,
        subscribers: 100,
        main: false,
        ..PLAIN
    },
    Load { name: "fan-in-4", title: "four clients to one", scenario: Scenario::FanIn, main: false, ..PLAIN },
    Load {
        name: "broadcast-8",
        title: "a broadcast to 8 clients",
        scenario: Scenario::Broadcast,
        main: false,
        ..PLAIN
    },
    Load {
        name: "call",
        title: "a call to the broker itself",
        scenario: Scenario::Call,
        main: false,
        metric: Metric::P50,
        ..PLAIN
    },
    Load { name: "1-1-1k", title: "one to another, 1 KiB each", bytes: 1 << 10, main: false, ..PLAIN },
    Load {
        name: "1-1-64k",
        title: "one to another, 64 KiB each",
        bytes: 64 << 10,
        main: false,
        metric: Metric::Bytes,
        ..PLAIN
    },
    Load {
        name: "1-1-1m",
        title: "one to another, 1 MiB each",
        bytes: 1 << 20,
        main: false,
        metric: Metric::Bytes,
        ..PLAIN
    },
    Load { name: "tcp-1-1", title: "one to another, over TCP", tcp: true, main: false, ..PLAIN },
    Load {
        name: "tcp-topic-8",
        title: "a topic with 8 subscribers, over TCP",
        scenario: Scenario::Topic,
        tcp: true,
        main: false,
        ..PLAIN
    },
    Load {
        name: "idle-10000",
        title: "10,000 clients that only ping",
        scenario: Scenario::Idle,
        main: false,
        metric: Metric::ClientMemory,
        ..PLAIN
    },
    Load {
        name: "tcp-request-reply",
        title: "request and reply, over TCP",
        scenario: Scenario::Echo,
        tcp: true,
        main: false,
        metric: Metric::P50,
        ..PLAIN
    },
];

impl Load {
    pub(super) fn plan(&self, over: Over, address: &str, time: Duration) -> Plan {
        let mut plan = Plan::new(over, address, self.scenario, self.bytes);
        plan.pairs = self.pairs;
        plan.subscribers = self.subscribers;
        plan.afterwards = self.afterwards;
        plan.bound = Bound::Time(match self.scenario {
            Scenario::Idle => time.max(IDLE_TIME),
            _ => time,
        });
        plan
    }
}

/// The loads of these names.
pub(super) fn choose(names: &[String], quick: bool) -> Result<Vec<Load>, Failure> {
    for name in names {
        if !LOADS.iter().any(|load| load.name == name) {
            let known: Vec<_> = LOADS.iter().map(|load| load.name).collect();
            return Err(format!("there is no load {name}; there are {}", known.join(", ")).into());
        }
    }
    let wanted = |load: &Load| match names {
        [] => load.main || !quick,
        names => names.iter().any(|name| name == load.name),
    };
    let mut loads: Vec<_> = LOADS.into_iter().filter(wanted).collect();
    if loads.iter().any(|load| load.awake)
        && let Err(error) = Awake::keep()
    {
        eprintln!("processors cannot be kept awake, so what needs that is left out: {error}");
        loads.retain(|load| !load.awake);
    }
    Ok(loads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_loads() {
        let names = |wanted: &[&str], quick| {
            let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
            choose(&wanted, quick).map(|loads| loads.iter().map(|load| load.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["call", "1-1"], true).ok(), Some(vec!["1-1", "call"]));
        assert_eq!(names(&[], true).ok().map(|loads| loads.len()), Some(4));
        assert_eq!(
            names(&[], false).ok().map(|loads| loads.len()),
            Some(LOADS.iter().filter(|load| !load.awake || Awake::keep().is_ok()).count())
        );
        assert!(names(&["nonsense"], false).is_err());
        for load in LOADS {
            assert_eq!(LOADS.iter().filter(|other| other.name == load.name).count(), 1);
            assert!(load.plan(Over::Elbus, "x", Duration::ZERO).check().is_ok());
        }
    }
}
