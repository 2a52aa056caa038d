//! The runtime behind the blocking clients ends with the last of them: a program that no longer uses any has neither its
//! threads nor its descriptors. Alone in its program, since others would use it as well.
#![cfg(feature = "in-process")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use elbus_client::blocking::Client;
use std::time::{Duration, Instant};
use support::{Kind, TestBroker};

/// Threads of the runtime.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // a thread may end in between
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "elbus client").count()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn the_runtime_ends_with_the_last_blocking_client() {
    let broker = TestBroker::start(Kind::Elbus);
    let before = descriptors();
    for round in 0..3 {
        let (first, frames) = Client::connect(broker.path(), "first").unwrap();
        let (second, _) = Client::connect(broker.path(), "second").unwrap();
        assert!(threads() > 0);
        drop(first);
        second.send("first", "x", elbus_client::Qos::PROCESSED).unwrap();
        let mut frames = frames;
        assert_eq!(frames.next().unwrap().payload(), b"x", "frames keep it as well");
        drop(frames);
        assert!(second.round_trip().is_ok());
        second.close().unwrap();
        drop(second);
        wait_until("no thread of it is left", || threads() == 0);
        wait_until("no descriptor of it is left", || descriptors() <= before);
        assert_eq!(threads(), 0, "{round}");
    }
    assert!(Client::connect("/nowhere/bus.sock", "nobody").is_err());
    wait_until("a connection that failed leaves none either", || threads() == 0);
}
