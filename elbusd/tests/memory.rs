//! Memory is returned to the system once it is no longer used.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos, request::encode_request};
use support::{
    daemon::{BOTH, Daemon},
    wait_until,
};

/// Memory that may stay in use, in KiB.
const STAYS: u64 = 4 * 1024;

#[test]
fn memory_is_returned_after_many_clients_and_a_burst() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &[]);
        // allocates the memory that every broker needs once it has a client
        let mut first = daemon.client("first");
        first.send("first", b"hello");
        let before = daemon.memory();

        let mut clients: Vec<_> = (0..400).map(|n| daemon.client(&format!("clients.{n}"))).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            client.subscribe(&[&format!("some/topic/of/its/own/{n}/#")]);
        }
        // each has an unread burst queued: 16 MiB in total
        let mut burst = Vec::new();
        for n in 0..400 {
            encode_request(&mut burst, n, Op::Message, Qos::NO, &format!("clients.{n}"), "", &[7; 300_000])
                .unwrap();
            if burst.len() > 1 << 20 {
                first.write(&burst);
                burst.clear();
            }
        }
        first.write(&burst);
        wait_until("the burst is queued", || daemon.memory() > before + 4 * STAYS);
        drop(clients);
        wait_until("memory is returned", || daemon.memory() <= before + STAYS);
    }
}
