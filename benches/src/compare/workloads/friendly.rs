//! Workloads in which all messages of a sender have one target or topic, and those that measure something
//! else than messages.

use super::{ACKNOWLEDGED, BASE, TOPICS, Workload};
use crate::{compare::metrics::Metric, load::Scenario};

pub(super) const WORKLOADS: [Workload; 19] = [
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
        name: "1-1-unbatched",
        title: "one client to another, a write for each message",
        batch: Some(1),
        quick: false,
        ..BASE
    },
    Workload {
        name: "topics-1",
        title: "one topic, one subscriber of all",
        real: false,
        topics: Some(1),
        ..TOPICS
    },
    Workload {
        name: "1-1-qos1",
        title: "one client to another, acknowledged",
        qos: ACKNOWLEDGED,
        quick: false,
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
