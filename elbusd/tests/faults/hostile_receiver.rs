//! Hostile receivers beside other clients: they subscribe to the same topics, read little or nothing, and
//! reconnect under a new name when they are disconnected.

use elbus_protocol::Op;
use elbus_testing::attempts::three_times_at_most;
use std::time::{Duration, Instant};

use crate::support::{daemon::Daemon, load::Load, wire::Wire};

/// Maximum time that all clients of one user may hold others in this test, with a margin for a busy machine.
const BUDGET: Duration = Duration::from_millis(2500);
const SLACK: Duration = Duration::from_millis(1500);

/// Until `end`: subscribes, reads `bytes` every 20 ms, if any, and reconnects under a new name.
fn attack(daemon: &Daemon, number: usize, bytes: usize, end: Instant) {
    let mut again = 0;
    while Instant::now() < end {
        let address = &daemon.addresses()[again % 2];
        let mut hostile = Wire::connect(daemon, address, &format!("hostile.{number}.{again}"));
        hostile.filters(Op::Subscribe, &["load/#"]);
        hostile.read_in_pieces(bytes.max(1));
        let mut pinging = hostile.writer();
        while Instant::now() < end && pinging.try_write(&[0; 9]) {
            if bytes > 0 {
                hostile.frame_within(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        again += 1;
    }
}

#[test]
fn hostile_receivers_cost_other_clients_no_more_than_their_hold_budget() {
    three_times_at_most(receive_hostilely);
}

fn receive_hostilely() {
    let text = r#"
        broker.hold_budget_seconds = 1.0
        [[plugin]]
        name = "local"
        library = "elbus_unix"
        config = { path = "bus.sock", queue_bytes = 5000, stall_seconds = 0.5, timeout_seconds = 2.0 }
        [[plugin]]
        name = "network"
        library = "elbus_tcp"
        config = { bind = "127.0.0.1:0", queue_bytes = 5000, stall_seconds = 0.5, timeout_seconds = 2.0 }
        [[plugin]]
        name = "rpc"
        library = "elbus_rpc"
    "#;
    let daemon = Daemon::start_config(text);
    let load = Load::start(&daemon);
    let end = Instant::now() + Duration::from_secs(8);
    let stood_still = std::thread::scope(|scope| {
        for (number, bytes) in [0, 0, 0, 20, 20, 200].into_iter().enumerate() {
            let daemon = &daemon;
            scope.spawn(move || attack(daemon, number, bytes, end));
        }
        let mut stood_still = Duration::ZERO;
        while Instant::now() < end {
            let began = Instant::now();
            load.wait_for_more();
            // batches arrive every few milliseconds
            let took = began.elapsed();
            if took > Duration::from_millis(200) {
                stood_still += took;
            }
        }
        stood_still
    });
    assert!(stood_still <= BUDGET + SLACK, "{stood_still:?}: {}", daemon.log());
    let counts = load.stop();
    assert!(counts.arrived > 1000, "{counts:?}");
}
