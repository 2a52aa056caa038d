//! Clients that write everything to each other before they read: the broker detects the cycle and lets one
//! client exceed its limit. That overdraft is limited; if it does not suffice, one client is disconnected and
//! the cycle is reported.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread::{JoinHandle, spawn},
};
use support::{
    daemon::{BOTH, Daemon},
    queued_bytes, wait_until,
    wire::{Frame, Wire, numbered_frames},
};

const MIB: usize = 1 << 20;
const PAYLOAD: usize = 16 * 1024;
const FOUND: &str = "clients wait for each other in a cycle: more than queue_bytes may wait for one";
const NOT_GIVEN: &str = "clients wait for each other in a cycle: one will be disconnected";

/// Returns numbered messages of `bytes` bytes in total.
fn messages(target: &str, qos: Qos, bytes: usize, payload: usize) -> Vec<u8> {
    numbered_frames(Op::Message, qos, target, (bytes / payload) as u32, payload)
}

/// Writes `bytes` bytes to the next client, and only then reads as much.
fn write_then_read(
    mut client: Wire,
    target: &str,
    qos: Qos,
    bytes: usize,
    payload: usize,
) -> JoinHandle<Wire> {
    let all = messages(target, qos, bytes, payload);
    spawn(move || {
        client.write(&all);
        drop(all);
        let (mut received, mut acknowledged) = (0, 0);
        let count = (bytes / payload) as u32;
        let wanted = if qos == Qos::NO { 0 } else { count };
        while received < count || acknowledged < wanted {
            match client.frame() {
                Frame::Ack(_, code) => {
                    assert_eq!(code, 0x01);
                    acknowledged += 1;
                }
                frame => {
                    assert_eq!(frame.payload()[..4], received.to_le_bytes(), "in order, none missing");
                    received += 1;
                }
            }
        }
        client
    })
}

/// Lets each of `names` write to the next one, and the last to the first.
fn ring(daemon: &Daemon, address: &str, names: &[&str], qos: Qos, bytes: usize, payload: usize) {
    let clients: Vec<_> = names.iter().map(|name| Wire::connect(daemon, address, name)).collect();
    let next = names.iter().cycle().skip(1);
    let threads: Vec<_> = clients
        .into_iter()
        .zip(next)
        .map(|(client, target)| write_then_read(client, target, qos, bytes, payload))
        .collect();
    for mut client in threads.into_iter().map(|thread| thread.join().unwrap()) {
        assert_eq!(
            client.send("nobody", b""),
            0x71,
            "the client is still connected after everything has arrived"
        );
    }
}

#[test]
fn two_clients_that_write_before_they_read_lose_nothing() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &[]);
        for address in daemon.addresses() {
            ring(&daemon, &address, &["one", "two"], Qos::NO, 40 * MIB, PAYLOAD);
        }
        daemon.wait_for_log(FOUND);
        assert!(!daemon.log().contains("stall_seconds"), "{}", daemon.log());
    }
}

#[test]
fn three_clients_in_a_cycle_and_one_alone_lose_nothing() {
    let daemon = Daemon::start("library", &[]);
    let address = daemon.address();
    ring(&daemon, &address, &["one", "two", "three"], Qos::NO, 40 * MIB, PAYLOAD);
    ring(&daemon, &address, &["self"], Qos::NO, 40 * MIB, PAYLOAD);
    daemon.wait_for_log("self -> self");
    assert!(!daemon.log().contains("stall_seconds"), "{}", daemon.log());
}

#[test]
fn unread_acknowledgements_do_not_block_a_cycle() {
    let daemon = Daemon::start("library", &[]);
    ring(&daemon, &daemon.address(), &["one", "two"], Qos::PROCESSED, 20 * MIB, 200);
    daemon.wait_for_log(FOUND);
    assert!(!daemon.log().contains("stall_seconds"), "{}", daemon.log());
}

/// Writes without reading, until everything is written or the connection has ended.
fn only_write(mut client: Wire, target: &str, bytes: usize) -> JoinHandle<(bool, Wire)> {
    let all = messages(target, Qos::NO, bytes, PAYLOAD);
    spawn(move || (client.try_write(&all), client))
}

#[test]
fn beyond_the_overdraft_limit_one_client_is_disconnected_and_the_cycle_is_reported() {
    let daemon = Daemon::start("library", &[]);
    let one = only_write(daemon.client("one"), "two", 120 * MIB);
    let two = only_write(daemon.client("two"), "one", 120 * MIB);
    let (one, two) = (one.join().unwrap(), two.join().unwrap());
    assert!(one.0 != two.0, "only one is disconnected: {} {}", one.0, two.0);
    wait_until("the reason is logged", || daemon.log().contains("stall_seconds"));
    let log = daemon.log();
    let reason = log.lines().find(|line| line.contains("stall_seconds")).unwrap();
    let cycles = ["(one -> two -> one)", "(two -> one -> two)"];
    assert!(cycles.iter().any(|cycle| reason.contains(cycle)), "{reason}");
    let bytes = "with 67108864 bytes more than queue_bytes: no more is given to one cycle";
    assert!(reason.contains(bytes), "{reason}");
}

#[test]
fn a_used_queue_budget_allows_no_overdraft() {
    let daemon = Daemon::start_config(
        r#"
        broker.max_queued_bytes = 25165824
        [[plugin]]
        name = "local"
        library = "elbus_unix"
        config = { path = "bus.sock", stall_seconds = 1.0 }
        [[plugin]]
        name = "rpc"
        library = "elbus_rpc"
        "#,
    );
    let mut witness = daemon.client("witness");
    let writing = [
        only_write(daemon.client("one"), "two", 40 * MIB),
        only_write(daemon.client("two"), "one", 40 * MIB),
    ];
    let mut most = 0;
    wait_until("one client is disconnected", || {
        most = most.max(queued_bytes(&mut witness) as usize);
        daemon.log().contains("stall_seconds")
    });
    drop(writing.map(|writing| writing.join().unwrap()));
    assert!(most <= 24 * MIB, "{most} bytes");
    daemon.wait_for_log(NOT_GIVEN);
    daemon.wait_for_log("queue_bytes: half of max_queued_bytes is used");
    assert!(!daemon.log().contains(FOUND), "{}", daemon.log());
}

#[test]
fn all_cycles_of_one_identity_share_one_overdraft_even_after_reconnecting() {
    const PAIRS: usize = 6;
    let daemon = Daemon::start_config(
        r#"
        [[plugin]]
        name = "local"
        library = "elbus_unix"
        config = { path = "bus.sock", stall_seconds = 1.0 }
        [[plugin]]
        name = "rpc"
        library = "elbus_rpc"
        "#,
    );
    let (mut witness, stop) = (daemon.client("witness"), AtomicBool::new(false));
    let mut most = 0;
    std::thread::scope(|scope| {
        for pair in 0..PAIRS {
            for (own, target) in [(2 * pair, 2 * pair + 1), (2 * pair + 1, 2 * pair)] {
                let (daemon, stop) = (&daemon, &stop);
                let (name, target) = (format!("c{own}"), format!("c{target}"));
                scope.spawn(move || {
                    let some = messages(&target, Qos::NO, MIB, PAYLOAD);
                    while !stop.load(Ordering::Relaxed) {
                        let mut client = Wire::connect(daemon, &daemon.address(), &name);
                        while client.try_write(&some) && !stop.load(Ordering::Relaxed) {}
                    }
                });
            }
        }
        wait_until("many clients have reconnected", || {
            most = most.max(queued_bytes(&mut witness) as usize);
            daemon.log().matches("stall_seconds").count() >= 3 * PAIRS
        });
        stop.store(true, Ordering::Relaxed);
    });
    // every queue, a run beyond each, the rest of a read for each, and one overdraft
    let limit = 2 * PAIRS * (8 * MIB + 512 * 1024) + 64 * MIB;
    assert!(most > 2 * PAIRS * 4 * MIB && most <= limit, "{most} bytes of {limit}");
}
