//! The load generator with a relay and with brokers in this process: every scenario, and every message
//! counted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_benches::{
    load::{self, Outcome, Plan, Protocol, RunLength, Scenario},
    relay,
};
use elbus_broker::{Broker, PluginDeclaration};
use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    time::Duration,
};

fn plan(protocol: Protocol, address: &Path, scenario: Scenario, bytes: usize, messages: u64) -> Plan {
    let mut plan = Plan::new(protocol, address.display().to_string(), scenario, bytes);
    plan.length = RunLength::Messages(messages);
    plan
}

/// Idle clients, each of which pings a few times.
fn idle(protocol: Protocol, address: &Path, clients: usize) -> Plan {
    let mut plan = Plan::new(protocol, address.display().to_string(), Scenario::Idle, 100);
    plan.length = RunLength::Time(Duration::from_millis(300));
    Plan { clients, ping_interval: Duration::from_millis(100), ..plan }
}

/// Loads in which consecutive messages have different topics or targets, each with the number of deliveries
/// for every message of one sender.
fn mixed_loads(plan: impl Fn(Scenario) -> Plan) -> Vec<(Plan, u64)> {
    let topics = Plan { topics: Some(128), subscribers: 1, ..plan(Scenario::Topic) };
    let targets = plan(Scenario::Pairs);
    vec![
        (topics.clone(), 1),
        (Plan { topics: Some(1000), ..topics.clone() }, 1),
        (Plan { subscribers: 8, ..topics.clone() }, 8),
        (Plan { repeat: 5, ..topics.clone() }, 1),
        (Plan { topics: Some(24), subscribers: 12, own_subscribers: true, ..topics.clone() }, 1),
        (Plan { senders: 3, subscribers: 2, ..topics.clone() }, 6),
        (Plan { senders: 2, subscribers: 4, own_subscribers: true, ..topics.clone() }, 2),
        (Plan { senders: 3, topics: None, ..topics }, 3),
        (Plan { targets: 2, ..targets.clone() }, 1),
        (Plan { targets: 11, repeat: 3, pairs: 2, ..targets }, 2),
    ]
}

fn deliveries(outcome: &Outcome) -> u64 {
    let traffic = outcome.traffic().unwrap();
    assert!(traffic.latency.samples > 0 && traffic.latency.p50 <= traffic.latency.max);
    traffic.messages
}

#[test]
fn every_scenario_delivers_all_messages_through_a_broker() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus.sock");
    let broker = Broker::builder()
        .plugin(
            PluginDeclaration::linked("local", elbus_unix::plugin()).set("path", path.display().to_string()),
        )
        .plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin()))
        .start()
        .unwrap();
    let run = |scenario, bytes, messages| plan(Protocol::Elbus, &path, scenario, bytes, messages);
    let count = |plan: Plan| {
        let delivered = deliveries(&load::run(&plan).unwrap());
        // the next run uses the same names
        while broker.client_count() > 0 {
            std::thread::yield_now();
        }
        delivered
    };
    assert_eq!(count(run(Scenario::Pairs, 100, 10_000)), 10_000);
    assert_eq!(count(Plan { pairs: 3, qos: 1, ..run(Scenario::Pairs, 16, 5_000) }), 15_000);
    assert_eq!(count(Plan { qos: 3, ..run(Scenario::Pairs, 100, 5_000) }), 5_000);
    assert_eq!(count(run(Scenario::Pairs, 300_000, 20)), 20);
    assert_eq!(count(run(Scenario::FanIn, 100, 3_000)), 12_000);
    assert_eq!(count(Plan { subscribers: 5, ..run(Scenario::Topic, 100, 3_000) }), 15_000);
    assert_eq!(count(Plan { subscribers: 5, ..run(Scenario::Broadcast, 100, 3_000) }), 15_000);
    assert_eq!(count(Plan { pairs: 2, ..run(Scenario::Echo, 100, 50) }), 100);
    assert_eq!(count(run(Scenario::Call, 100, 50)), 50);
    for qos in [0, 1] {
        for (plan, copies) in mixed_loads(|scenario| run(scenario, 100, 3_000)) {
            let plan = Plan { qos, batch: 32, ..plan };
            assert_eq!(count(plan.clone()), 3_000 * copies, "{plan:?}");
        }
    }
    let broker_pid = Some(std::process::id());
    let plan = Plan { broker_pid, memory_after: true, ..run(Scenario::Pairs, 100, 100) };
    assert!(load::run(&plan).unwrap().broker_memory_after().is_some());

    let outcome = load::run(&Plan { broker_pid, ..idle(Protocol::Elbus, &path, 300) }).unwrap();
    let clients = outcome.idle_clients().unwrap();
    assert_eq!(clients.count, 300);
    assert!(clients.idle_percent().is_some() && clients.bytes_per_client().is_some(), "{clients}");
    assert!(clients.broker_memory_after.is_some());
    broker.stop(Duration::from_secs(1)).wait();
}

#[test]
fn every_scenario_delivers_all_messages_in_process() {
    let run = |scenario| plan(Protocol::InProcess, Path::new(""), scenario, 100, 500);
    for (scenario, expected) in [
        (Scenario::Pairs, 500),
        (Scenario::FanIn, 2_000),
        (Scenario::Topic, 4_000),
        (Scenario::Broadcast, 4_000),
        (Scenario::Echo, 500),
        (Scenario::Call, 500),
    ] {
        assert_eq!(deliveries(&load::run(&run(scenario)).unwrap()), expected, "{scenario:?}");
    }
    for (plan, copies) in mixed_loads(run) {
        assert_eq!(deliveries(&load::run(&plan).unwrap()), 500 * copies, "{plan:?}");
    }
}

#[test]
fn a_relay_passes_on_all_messages() {
    let folder = tempfile::tempdir().unwrap();
    // each run has a relay of its own, because all use the same names
    let count = |number: u32, pairs: usize, scenario, bytes, messages| {
        let path = folder.path().join(format!("relay-{number}.sock"));
        let address = path.display().to_string();
        std::thread::spawn(move || relay::serve(&address, 2)); // ends with the process
        while std::os::unix::net::UnixStream::connect(&path).is_err() {
            std::thread::yield_now();
        }
        let plan = Plan { pairs, ..plan(Protocol::Relay, &path, scenario, bytes, messages) };
        deliveries(&load::run(&plan).unwrap())
    };
    assert_eq!(count(1, 4, Scenario::Pairs, 100, 20_000), 80_000);
    assert_eq!(count(2, 1, Scenario::Topic, 1000, 5_000), 40_000);
    assert_eq!(count(3, 1, Scenario::Pairs, 2 << 20, 10), 10);
    let path = folder.path().join("relay-5.sock");
    let address = path.display().to_string();
    std::thread::spawn(move || relay::serve(&address, 2)); // ends with the process
    while std::os::unix::net::UnixStream::connect(&path).is_err() {
        std::thread::yield_now();
    }
    let topics =
        Plan { topics: Some(128), repeat: 2, ..plan(Protocol::Relay, &path, Scenario::Topic, 100, 5_000) };
    assert_eq!(deliveries(&load::run(&topics).unwrap()), 40_000);
    let path = folder.path().join("relay-1.sock");
    let outcome = load::run(&idle(Protocol::Relay, &path, 20)).unwrap();
    assert_eq!(outcome.idle_clients().unwrap().count, 20);
    assert_eq!(count(4, 1, Scenario::Echo, 100, 100), 100);
}

#[test]
fn a_refused_or_disconnected_idle_client_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    // accepts two clients: the reply to the second, and the index of the one that is disconnected
    let serve = |file: &str, second_reply: &'static [u8], disconnected: usize| {
        let path = folder.path().join(file);
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let replies = [b"\xEB\x01\x00\x01\x01".as_slice(), second_reply].into_iter();
            let mut streams: Vec<_> = replies
                .map(|reply| {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.write_all(reply).unwrap();
                    stream
                })
                .collect();
            drop(streams.remove(disconnected));
            streams.remove(0).read_to_end(&mut vec![])
        });
        load::run(&idle(Protocol::Elbus, &path, 2)).unwrap_err().to_string()
    };
    let disconnected = serve("disconnected.sock", b"\xEB\x01\x00\x01\x01", 0);
    assert!(disconnected.contains("client 0 "), "{disconnected}");
    let refused = serve("refused.sock", b"\xEB\x01\x00\x01\x76", 1);
    assert!(refused.contains("client 1 "), "{refused}");
}

#[test]
fn an_unreachable_broker_is_an_error_with_its_address() {
    let plan = plan(Protocol::Elbus, Path::new("/nonexistent/bus.sock"), Scenario::Pairs, 100, 1);
    let error = load::run(&plan).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/bus.sock"), "{error}");
}
