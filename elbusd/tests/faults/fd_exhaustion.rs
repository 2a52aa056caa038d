//! A broker that has used all its file descriptors.

use std::time::{Duration, Instant};

use crate::support::{daemon::Daemon, level::Level, load::Load, wait_until, wire::Wire};

const LIMIT: u32 = 64;
const MESSAGE: &str = "cannot accept connections for now";

/// Starts a broker with few file descriptors, and a timeout that no test reaches.
fn limited() -> Daemon {
    let binds = ["--plugins", "builtin", "--bind", "./bus.sock", "--bind", "127.0.0.1:0"];
    Daemon::start_with_descriptors(LIMIT, &[&binds[..], &["--timeout", "120"]].concat())
}

/// Opens more connections than the broker has descriptors. The others stay in the listen queues until the
/// oldest accepted ones are evicted.
fn open_connections(daemon: &Daemon, addresses: &[String]) -> Vec<Wire> {
    (0..LIMIT as usize * 2).map(|n| Wire::raw(daemon, &addresses[n % addresses.len()])).collect()
}

#[test]
fn a_broker_out_of_file_descriptors_keeps_serving_and_accepts_again() {
    let daemon = limited();
    let load = Load::start(&daemon);
    let mut witness = daemon.client("witness");
    let (addresses, level) = (daemon.addresses(), Level::of(&daemon));
    for _ in 0..2 {
        let before = daemon.log().len();
        let connections = open_connections(&daemon, &addresses);
        wait_until("both listeners report it", || {
            daemon.log()[before..].matches(MESSAGE).count() >= addresses.len()
        });
        load.wait_for_more();
        assert_eq!(witness.send("witness", b"x"), 0x01);
        assert_eq!(witness.frame().payload(), b"x");

        drop(connections);
        for address in &addresses {
            let mut late = Wire::connect(&daemon, address, "late");
            assert_eq!(late.send("late", b"x"), 0x01);
        }
        level.wait_for(&daemon);
    }
    load.stop();
}

#[test]
fn a_broker_out_of_file_descriptors_does_not_spin() {
    let daemon = limited();
    let addresses = daemon.addresses();
    let _connections = open_connections(&daemon, &addresses);
    daemon.wait_for_log_times(MESSAGE, addresses.len());
    // a spinning task uses all CPU time it can get, on a busy machine less, never more
    let (begin, before) = (Instant::now(), daemon.cpu_time());
    std::thread::sleep(Duration::from_secs(1));
    let used = daemon.cpu_time() - before;
    assert!(used * 5 < begin.elapsed(), "{used:?} of {:?}", begin.elapsed());
    assert_eq!(daemon.log().matches(MESSAGE).count(), addresses.len(), "logged once: {}", daemon.log());
}
