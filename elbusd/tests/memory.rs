//! Memory comes back when what needed it is over.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use elbus_protocol::{Op, Qos, request::encode_request};
use support::{
    daemon::{BOTH, Daemon},
    wait_until,
};

/// What may stay, in KiB.
const STAYS: u64 = 4 * 1024;

#[test]
fn a_crowd_and_a_burst_leave_little_behind() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &[]);
        // what every broker needs from its first client on
        let mut first = daemon.client("first");
        first.send("first", b"hello");
        let before = daemon.memory();

        let mut crowd: Vec<_> = (0..400).map(|n| daemon.client(&format!("crowd.{n}"))).collect();
        for (n, client) in crowd.iter_mut().enumerate() {
            client.subscribe(&[&format!("some/topic/of/its/own/{n}/#")]);
        }
        // each of them has a burst waiting that it does not read: 16 MiB in all
        let mut burst = Vec::new();
        for n in 0..400 {
            encode_request(&mut burst, n, Op::Message, Qos::NO, &format!("crowd.{n}"), "", &[7; 300_000])
                .unwrap();
            if burst.len() > 1 << 20 {
                first.write(&burst);
                burst.clear();
            }
        }
        first.write(&burst);
        wait_until("the burst to be held", || daemon.memory() > before + 4 * STAYS);
        drop(crowd);
        wait_until("memory to come back", || daemon.memory() <= before + STAYS);
    }
}
