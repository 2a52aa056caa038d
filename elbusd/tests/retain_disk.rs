//! Retained values on disk: brokers that are killed, restarted and reloaded, and disks that do not work.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{FrameKind, Op, Qos, request::encode_request};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use support::{
    daemon::{BOTH, Daemon, folder},
    field, plugin, plugin_source, rounds, wait_until,
    wire::{Frame, Wire},
};
use tempfile::TempDir;

fn config(source: &str, path: &str, more: &str) -> String {
    format!(
        "[broker]\n\
         [[plugin]]\nname = \"local\"\n{}\nconfig = {{ path = \"bus.sock\", workers = 2, timeout_seconds = 600.0 }}\n\
         [[plugin]]\nname = \"rpc\"\n{}\n\
         [[plugin]]\nname = \"retain\"\n{}\n[plugin.config]\npath = \"{path}\"\ncommit_ms = 5\n{more}\
         [[plugin.config.topic]]\nfilter = \"k/#\"\nstore = \"disk\"\n\
         [[plugin.config.topic]]\nfilter = \"m/#\"\n",
        plugin_source(source, "unix"),
        plugin_source(source, "rpc"),
        plugin_source(source, "retain"),
    )
}

fn start(home: &Arc<TempDir>, text: &str) -> Daemon {
    std::fs::write(home.path().join("broker.toml"), text).unwrap();
    Daemon::start_in(home.clone(), &["--config", "broker.toml"])
}

fn publish(client: &mut Wire, topic: &str, payload: &str) {
    assert_eq!(client.acked(Op::Publish, topic, payload.as_bytes()), 0x01);
}

/// Returns the next `count` publications by topic.
fn values(client: &mut Wire, count: usize) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    while values.len() < count {
        let frame = client.frame();
        let Frame::Data(FrameKind::Publish, _, topic, ..) = &frame else { continue };
        let before = values.insert(topic.clone(), String::from_utf8(frame.payload().to_vec()).unwrap());
        assert_eq!(before, None, "{topic}");
    }
    values
}

fn of(expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    expected.iter().map(|(topic, payload)| ((*topic).to_owned(), (*payload).to_owned())).collect()
}

fn detail(operator: &mut Wire) -> String {
    field(&plugin(operator, "retain").unwrap(), "detail").as_str().unwrap().to_owned()
}

/// Returns the number of commits so far.
fn commits(operator: &mut Wire) -> u64 {
    let detail = detail(operator);
    let (_, rest) = detail.split_once("written in ").unwrap();
    rest.split_once(' ').unwrap().0.parse().unwrap()
}

#[test]
fn values_on_disk_are_there_after_restarts_and_reloads() {
    for source in BOTH {
        let home = folder();
        let text = config(source, "retain.redb", "");
        let daemon = start(&home, &text);
        let mut sender = daemon.client("sender");
        for (topic, payload) in [("k/a", "1"), ("k/a", "2"), ("k/b", "3"), ("k/b", ""), ("m/a", "4")] {
            publish(&mut sender, topic, payload);
        }
        assert!(daemon.stop().0.success());
        let daemon = start(&home, &text);
        let (mut sender, mut operator) = (daemon.client("other"), daemon.client("operator"));
        let mut panel = daemon.client("panel");
        panel.subscribe(&["#"]);
        let frame = panel.frame();
        let Frame::Data(_, from, topic, payload, _) = &frame else { panic!("{frame:?}") };
        assert_eq!((&**from, &**topic, &**payload), ("sender", "k/a", &b"2"[..]), "from its original sender");
        publish(&mut sender, "k/c", "5");
        for method in ["plugin.reload", "plugin.stop", "plugin.start"] {
            operator.control(method, &[("name", "retain")]).unwrap();
        }
        let mut late = daemon.client("late");
        late.subscribe(&["k/#"]);
        assert_eq!(values(&mut late, 2), of(&[("k/a", "2"), ("k/c", "5")]));
        assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    }
}

#[test]
fn a_disk_that_does_not_work_delays_nobody_and_is_reported_once() {
    let home = folder();
    let daemon = start(&home, &config("builtin", "missing/retain.redb", ""));
    let (mut sender, mut operator) = (daemon.client("sender"), daemon.client("operator"));
    publish(&mut sender, "k/a", "1");
    let mut panel = daemon.client("panel");
    panel.subscribe(&["k/#"]);
    assert_eq!(values(&mut panel, 1), of(&[("k/a", "1")]));
    assert!(detail(&mut operator).ends_with("the disk fails"));
    std::fs::create_dir(daemon.path("missing")).unwrap();
    daemon.wait_for_log("works again");
    publish(&mut sender, "k/b", "2");
    let before = commits(&mut operator);
    assert_eq!(daemon.log().matches("cannot be written").count(), 1, "{}", daemon.log());
    wait_until("everything is written", || commits(&mut operator) > before.min(1));
    assert!(daemon.stop().0.success());
    let daemon = start(&home, &config("builtin", "missing/retain.redb", ""));
    let mut panel = daemon.client("panel");
    panel.subscribe(&["k/#"]);
    assert_eq!(values(&mut panel, 2), of(&[("k/a", "1"), ("k/b", "2")]));
}

#[test]
fn a_damaged_file_does_not_keep_the_broker_from_starting() {
    let home = folder();
    let damaged = b"redb\x1a\x0a\xa9\x0d\x0a, and then nothing that it should be";
    std::fs::write(home.path().join("retain.redb"), damaged).unwrap();
    let daemon = start(&home, &config("builtin", "retain.redb", ""));
    daemon.wait_for_log("damaged: moved aside");
    assert_eq!(std::fs::read(daemon.path("retain.redb.damaged")).unwrap(), damaged);
    let mut sender = daemon.client("sender");
    publish(&mut sender, "k/a", "1");
}

/// Writes `count` rounds of numbers to all topics, and returns the next number. A broker that was killed
/// takes some of them.
fn write_numbers(sender: &mut Wire, topics: usize, next: &mut u64, count: usize) -> bool {
    let mut out = Vec::new();
    for _ in 0..count {
        *next += 1;
        for topic in 0..topics {
            let payload = next.to_string();
            encode_request(&mut out, 1, Op::Publish, Qos::NO, &format!("k/{topic}"), "", payload.as_bytes())
                .unwrap();
        }
    }
    sender.try_write(&out)
}

/// What was committed before a broker is killed is there afterwards, or newer values are.
#[test]
fn no_value_is_older_than_the_last_commit_when_a_broker_is_killed() {
    const TOPICS: usize = 20;
    let home = folder();
    let text = config("builtin", "retain.redb", "");
    let (mut next, mut committed) = (0_u64, 0_u64);
    for round in 0..rounds(6, 1000) {
        let daemon = start(&home, &text);
        let (mut sender, mut operator) = (daemon.client("sender"), daemon.client("operator"));
        let mut panel = daemon.client("panel");
        panel.subscribe(&["k/#"]);
        if round > 0 {
            for (topic, payload) in values(&mut panel, TOPICS) {
                let number: u64 = payload.parse().unwrap();
                assert!(
                    (committed..=next).contains(&number),
                    "round {round}: {topic} has {number}, committed was {committed}, sent {next}"
                );
            }
        }
        drop(panel);
        assert!(write_numbers(&mut sender, TOPICS, &mut next, 5));
        assert_eq!(sender.acked(Op::Publish, "end", b""), 0x01);
        committed = next;
        // one that is in progress, and one that begins after it
        let before = commits(&mut operator);
        let mut written = before;
        while written < before + 2 {
            // the values are the same, so what is committed stays at least what it was
            assert!(write_numbers(&mut sender, TOPICS, &mut next, 1));
            assert_eq!(sender.acked(Op::Publish, "end", b""), 0x01);
            written = commits(&mut operator);
        }
        // killed at full speed, at another time each round
        let mut writer = sender.writer();
        let start = next;
        let writing = std::thread::spawn(move || {
            let mut next = start;
            while write_numbers(&mut writer, TOPICS, &mut next, 50) {}
            next
        });
        std::thread::sleep(Duration::from_millis(5 + 7 * round as u64 % 60));
        daemon.signal(rustix::process::Signal::KILL);
        daemon.wait_end();
        next = writing.join().unwrap();
    }
}
