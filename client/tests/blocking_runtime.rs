//! The runtime of the blocking clients ends with the last of them, with its threads and file descriptors.
//! Alone in its program, because other tests would use the runtime as well.
#![cfg(feature = "in-process")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::blocking::Client;
use std::time::{Duration, Instant};
use support::{BrokerKind, TestBroker};

/// Counts the threads of the runtime.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // a thread can end meanwhile
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "elbus client").count()
}

fn file_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < end, "timed out waiting for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_runtime_ends_with_the_last_blocking_client() {
    let broker = TestBroker::start(BrokerKind::Elbus);
    let before = file_descriptors();
    for round in 0..3 {
        let (first, frames) = Client::connect(broker.path(), "first").unwrap();
        let (second, _) = Client::connect(broker.path(), "second").unwrap();
        assert!(threads() > 0);
        drop(first);
        second.send("first", "x", elbus_client::Qos::PROCESSED).unwrap();
        let mut frames = frames;
        assert_eq!(frames.next().unwrap().payload(), b"x", "the frames keep the client connected");
        drop(frames);
        assert!(second.round_trip().is_ok());
        second.close().unwrap();
        drop(second);
        wait_until("the end of its threads", || threads() == 0);
        wait_until("the end of its file descriptors", || file_descriptors() <= before);
        assert_eq!(threads(), 0, "{round}");
    }
    assert!(Client::connect("/nowhere/bus.sock", "nobody").is_err());
    wait_until("the end of its threads after a failed connection", || threads() == 0);
}
