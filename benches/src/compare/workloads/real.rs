//! Workloads in which consecutive messages of a sender have different topics or targets. A plant publishes
//! each value to a topic of its own, and sends each command to another client.

use super::{ACKNOWLEDGED, TARGETS, TOPICS, Workload};

pub(super) const WORKLOADS: [Workload; 21] = [
    Workload { quick: true, ..TOPICS },
    Workload {
        name: "topics-4096",
        title: "4,096 topics in turn, one subscriber of all",
        topics: Some(4096),
        ..TOPICS
    },
    Workload {
        name: "topics-10000",
        title: "10,000 topics in turn, one subscriber of all",
        topics: Some(10_000),
        ..TOPICS
    },
    Workload {
        name: "topics-100000",
        title: "100,000 topics in turn, one subscriber of all",
        topics: Some(100_000),
        ..TOPICS
    },
    Workload {
        name: "topics-128-own",
        title: "128 topics in turn, each with its own subscriber, over 64 connections",
        subscribers: 64,
        own_subscribers: true,
        ..TOPICS
    },
    Workload { name: "targets-2", title: "one client to 2 others in turn", targets: 2, ..TARGETS },
    Workload { quick: true, ..TARGETS },
    Workload { name: "targets-64", title: "one client to 64 others in turn", targets: 64, ..TARGETS },
    Workload {
        name: "topics-128-to-8",
        title: "128 topics in turn, 8 subscribers of all",
        subscribers: 8,
        ..TOPICS
    },
    Workload { name: "repeated-2", title: "128 topics in turn, each 2 times", repeat: 2, ..TOPICS },
    Workload { name: "repeated-5", title: "128 topics in turn, each 5 times", repeat: 5, ..TOPICS },
    Workload { name: "repeated-8", title: "128 topics in turn, each 8 times", repeat: 8, ..TOPICS },
    Workload { name: "repeated-16", title: "128 topics in turn, each 16 times", repeat: 16, ..TOPICS },
    Workload {
        name: "8-writers-128-topics",
        title: "8 clients with 128 topics each, 8 subscribers of all",
        senders: Some(8),
        subscribers: 8,
        ..TOPICS
    },
    Workload {
        name: "one-write-per-message",
        title: "128 topics in turn, a write for each message",
        batch: Some(1),
        ..TOPICS
    },
    Workload {
        name: "topics-128-qos1",
        title: "128 topics in turn, one subscriber of all, acknowledged",
        qos: ACKNOWLEDGED,
        ..TOPICS
    },
    Workload {
        name: "topics-4096-qos1",
        title: "4,096 topics in turn, one subscriber of all, acknowledged",
        topics: Some(4096),
        qos: ACKNOWLEDGED,
        ..TOPICS
    },
    Workload {
        name: "topics-128-own-qos1",
        title: "128 topics in turn, each with its own subscriber, acknowledged",
        subscribers: 64,
        own_subscribers: true,
        qos: ACKNOWLEDGED,
        ..TOPICS
    },
    Workload {
        name: "targets-8-qos1",
        title: "one client to 8 others in turn, acknowledged",
        qos: ACKNOWLEDGED,
        ..TARGETS
    },
    Workload {
        name: "topics-128-to-8-qos1",
        title: "128 topics in turn, 8 subscribers of all, acknowledged",
        subscribers: 8,
        qos: ACKNOWLEDGED,
        ..TOPICS
    },
    Workload {
        name: "8-writers-128-topics-qos1",
        title: "8 clients with 128 topics each, 8 subscribers of all, acknowledged",
        senders: Some(8),
        subscribers: 8,
        qos: ACKNOWLEDGED,
        ..TOPICS
    },
];
