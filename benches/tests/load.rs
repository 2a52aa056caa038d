//! The generator against a relay and against brokers of this process: every scenario, and every message counted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

use elbus_benches::{
    load::{self, Bound, Outcome, Over, Plan, Scenario},
    relay,
};
use elbus_broker::{Broker, PluginDeclaration};
use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    time::Duration,
};

fn plan(over: Over, address: &Path, scenario: Scenario, bytes: usize, messages: u64) -> Plan {
    let mut plan = Plan::new(over, address.display().to_string(), scenario, bytes);
    plan.bound = Bound::Messages(messages);
    plan
}

/// Clients that are idle for a moment, in which each pings some times.
fn idle(over: Over, address: &Path, clients: usize) -> Plan {
    let mut plan = Plan::new(over, address.display().to_string(), Scenario::Idle, 100);
    plan.bound = Bound::Time(Duration::from_millis(300));
    Plan { clients, ping: Duration::from_millis(100), ..plan }
}

fn deliveries(outcome: Outcome) -> u64 {
    let Outcome::Traffic(outcome) = outcome else { panic!("no messages: {outcome}") };
    assert!(outcome.latency.samples > 0 && outcome.latency.p50 <= outcome.latency.max);
    outcome.messages
}

#[test]
fn every_scenario_arrives_at_a_broker_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus.sock");
    let broker = Broker::builder()
        .plugin(
            PluginDeclaration::linked("local", elbus_unix::plugin()).set("path", path.display().to_string()),
        )
        .plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin()))
        .start()
        .unwrap();
    let run = |scenario, bytes, messages| plan(Over::Elbus, &path, scenario, bytes, messages);
    let count = |plan: Plan| {
        let delivered = deliveries(load::run(&plan).unwrap());
        // the next run takes the same names
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
    let own = Some(std::process::id());
    let afterwards = Plan { broker: own, afterwards: true, ..run(Scenario::Pairs, 100, 100) };
    assert!(load::run(&afterwards).unwrap().broker_memory_after().is_some());

    let crowd = load::run(&Plan { broker: own, ..idle(Over::Elbus, &path, 300) }).unwrap();
    let crowd = crowd.crowd().unwrap();
    assert_eq!(crowd.clients, 300);
    assert!(crowd.idle_percent().is_some() && crowd.bytes_per_client().is_some(), "{crowd}");
    assert!(crowd.broker_memory_after.is_some());
    broker.stop(Duration::from_secs(1)).wait();
}

#[test]
fn every_scenario_arrives_inside_the_process_whole() {
    let run = |scenario| plan(Over::InProcess, Path::new(""), scenario, 100, 500);
    for (scenario, arrive) in [
        (Scenario::Pairs, 500),
        (Scenario::FanIn, 2_000),
        (Scenario::Topic, 4_000),
        (Scenario::Broadcast, 4_000),
        (Scenario::Echo, 500),
        (Scenario::Call, 500),
    ] {
        assert_eq!(deliveries(load::run(&run(scenario)).unwrap()), arrive, "{scenario:?}");
    }
}

#[test]
fn a_relay_passes_everything_on() {
    let folder = tempfile::tempdir().unwrap();
    // each run has a relay of its own, since all take the same names
    let count = |number: u32, pairs: usize, scenario, bytes, messages| {
        let path = folder.path().join(format!("relay-{number}.sock"));
        let address = path.display().to_string();
        std::thread::spawn(move || relay::serve(&address, 2)); // ends with the process
        while std::os::unix::net::UnixStream::connect(&path).is_err() {
            std::thread::yield_now();
        }
        let plan = Plan { pairs, ..plan(Over::Relay, &path, scenario, bytes, messages) };
        deliveries(load::run(&plan).unwrap())
    };
    assert_eq!(count(1, 4, Scenario::Pairs, 100, 20_000), 80_000);
    assert_eq!(count(2, 1, Scenario::Topic, 1000, 5_000), 40_000);
    assert_eq!(count(3, 1, Scenario::Pairs, 2 << 20, 10), 10);
    let path = folder.path().join("relay-1.sock");
    assert_eq!(load::run(&idle(Over::Relay, &path, 20)).unwrap().crowd().unwrap().clients, 20);
    assert_eq!(count(4, 1, Scenario::Echo, 100, 100), 100);
}

#[test]
fn idle_clients_that_are_refused_or_dropped_are_missed() {
    let folder = tempfile::tempdir().unwrap();
    // two clients: what the second is told, and which of them is sent away
    let serve = |file: &str, second: &'static [u8], leaves: usize| {
        let path = folder.path().join(file);
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let answers = [b"\xEB\x01\x00\x01\x01".as_slice(), second].into_iter();
            let mut streams: Vec<_> = answers
                .map(|answer| {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.write_all(answer).unwrap();
                    stream
                })
                .collect();
            drop(streams.remove(leaves));
            streams.remove(0).read_to_end(&mut vec![])
        });
        load::run(&idle(Over::Elbus, &path, 2)).unwrap_err().to_string()
    };
    let dropped = serve("dropped.sock", b"\xEB\x01\x00\x01\x01", 0);
    assert!(dropped.contains("client 0 "), "{dropped}");
    let refused = serve("refused.sock", b"\xEB\x01\x00\x01\x76", 1);
    assert!(refused.contains("client 1 "), "{refused}");
}

#[test]
fn a_broker_that_is_not_there_is_said() {
    let plan = plan(Over::Elbus, Path::new("/nonexistent/bus.sock"), Scenario::Pairs, 100, 1);
    let error = load::run(&plan).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/bus.sock"), "{error}");
}
