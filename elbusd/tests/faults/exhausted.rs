//! A broker that may open no more descriptors.

use std::time::{Duration, Instant};

use crate::support::{daemon::Daemon, level::Level, load::Load, wait_until, wire::Wire};

const LIMIT: u32 = 64;
const SAID: &str = "cannot accept connections for now";

/// With a limit of descriptors, and one of time that none of these tests comes near.
fn limited() -> Daemon {
    let binds = ["--plugins", "builtin", "--bind", "./bus.sock", "--bind", "127.0.0.1:0"];
    Daemon::start_with_descriptors(LIMIT, &[&binds[..], &["--timeout", "120"]].concat())
}

/// More than there is room for: the others wait in the queues of the listening sockets, until the oldest of those that
/// have been accepted are evicted.
fn crowd(daemon: &Daemon, addresses: &[String]) -> Vec<Wire> {
    (0..LIMIT as usize * 2).map(|n| Wire::raw(daemon, &addresses[n % addresses.len()])).collect()
}

#[test]
fn a_broker_without_descriptors_says_so_serves_on_and_accepts_again() {
    let daemon = limited();
    let load = Load::start(&daemon);
    let mut witness = daemon.client("witness");
    let (addresses, level) = (daemon.addresses(), Level::of(&daemon));
    for _ in 0..2 {
        let before = daemon.log().len();
        let crowd = crowd(&daemon, &addresses);
        wait_until("both listeners say so", || {
            daemon.log()[before..].matches(SAID).count() >= addresses.len()
        });
        load.wait_for_more();
        assert_eq!(witness.send("witness", b"x"), 0x01);
        assert_eq!(witness.frame().payload(), b"x");

        drop(crowd);
        for address in &addresses {
            let mut late = Wire::connect(&daemon, address, "late");
            assert_eq!(late.send("late", b"x"), 0x01);
        }
        level.wait_for(&daemon);
    }
    load.stop();
}

#[test]
fn a_broker_without_descriptors_does_not_spin() {
    let daemon = limited();
    let addresses = daemon.addresses();
    let _crowd = crowd(&daemon, &addresses);
    wait_until("both listeners say so", || daemon.log().matches(SAID).count() == addresses.len());
    // a task that spins uses all the time it can have; on a busy machine that is less, and never more
    let (begin, before) = (Instant::now(), daemon.cpu_time());
    std::thread::sleep(Duration::from_secs(1));
    let used = daemon.cpu_time() - before;
    assert!(used * 5 < begin.elapsed(), "{used:?} of {:?}", begin.elapsed());
    assert_eq!(daemon.log().matches(SAID).count(), addresses.len(), "said once: {}", daemon.log());
}
