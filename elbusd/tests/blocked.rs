//! Plugins that block a thread of the broker: others are served meanwhile, and it is said who blocks whom.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use elbus_protocol::{Op, Qos};
use support::daemon::{BOTH, Daemon};

/// A broker with `workers` threads for its clients and a plugin that never returns from `place`.
fn hanging(origin: &str, workers: u32, place: &str, more: &str) -> Daemon {
    Daemon::start_config(&format!(
        "{more}\n[[plugin]]\nname = \"local\"\n{origin} = \"{}\"\n[plugin.config]\npath = \"bus.sock\"\n\
         workers = {workers}\n[[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n\
         [[plugin]]\nname = \"bad\"\nlibrary = \"elbus_faulty\"\n[plugin.config]\nclient = \"bad.client\"\n\
         hang_in = \"{place}\"\n",
        if origin == "library" { "elbus_unix" } else { "unix" }
    ))
}

#[test]
fn with_one_worker_blocked_the_others_go_on() {
    for origin in BOTH {
        // linked in, the workers are those of the program
        let daemon = hanging(origin, 4, "deliver", "");
        let mut clients: Vec<_> = (0..3).map(|number| daemon.client(&format!("c{number}"))).collect();
        let blocked = if origin == "library" { 3 } else { 1 };
        let mut held = vec![];
        for number in 0..blocked {
            let mut victim = daemon.client(&format!("victim{number}"));
            victim.request(Op::Message, Qos::NO, "bad.client", "", b"x");
            held.push(victim);
            // asked for one at a time, each by a single event, so that whoever polls for it runs it
            for client in &mut clients {
                assert_eq!(client.send("c0", b"x"), 0x01, "{origin}, {number} blocked");
            }
        }
        drop(daemon.client("new"));
    }
}
