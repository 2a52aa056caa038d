//! Clients that flood `.broker` with the slowest calls, beside an administrator and another client.

use elbus_protocol::{Op, Qos, request::encode_request, rpc};
use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use crate::support::{
    PATIENCE,
    daemon::Daemon,
    level::Level,
    load::Load,
    rounds, wait_until,
    wire::{Frame, Wire},
};

const FLOODERS: usize = 4;
/// More calls than can be queued for one client.
const AHEAD: u32 = 80;
/// Maximum number of calls of the flood that run while another client's call is queued, independent of the
/// machine's speed: one per flooding client, and those whose replies are in flight. Up to 256 are queued.
const BEFORE: u32 = 48;
/// Memory that the broker may need for the flood, in KiB.
const MEMORY: u64 = 64 * 1024;

/// Encodes a call of `client.list` with an expression.
fn list(id: u32, filter: &str) -> Vec<u8> {
    let map = rmpv::Value::Map(vec![("filter".into(), filter.into())]);
    let (mut params, mut out) = (Vec::new(), Vec::new());
    rmpv::encode::write_value(&mut params, &map).unwrap();
    let call = rpc::encode_request(id, "client.list", &params).unwrap();
    encode_request(&mut out, id, Op::Message, Qos::NO, ".broker", "", &call).unwrap();
    out
}

/// The counts of the flood.
#[derive(Default)]
struct Flood {
    stopping: AtomicBool,
    carried_out: AtomicU32,
    refused: AtomicU32,
}

/// Ends the flood even if the test fails, which would otherwise wait for it.
struct Ending<'a>(&'a Flood);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }
}

/// Keeps many calls queued.
fn flood(mut client: Wire, flood: &Flood) {
    // slow to compile: all letters, case-folded many times
    let filter = format!("(?i){}", r"\pL".repeat(20));
    (1..=AHEAD).for_each(|id| client.write(&list(id, &filter)));
    let mut id = AHEAD;
    while !flood.stopping.load(Ordering::Relaxed) {
        let Some(Frame::Data(_, _, _, payload, _)) = client.frame_within(PATIENCE) else { return };
        match rpc::decode_rpc(&payload).unwrap() {
            rpc::RpcFrame::Error { code: -32118, .. } => {
                flood.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
            _ => _ = flood.carried_out.fetch_add(1, Ordering::Relaxed),
        }
        id += 1;
        client.write(&list(id, &filter));
    }
}

#[test]
fn a_flood_of_slow_calls_delays_neither_administrators_nor_other_clients() {
    let daemon = Daemon::start("library", &[]);
    let load = Load::start(&daemon);
    let (mut administrator, mut other) = (daemon.client("administrator"), daemon.client("other"));
    let level = Level::of(&daemon);
    let floods = Flood::default();
    let carried_out = || floods.carried_out.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let _ending = Ending(&floods);
        for n in 0..FLOODERS {
            let client = daemon.client(&format!("flood.{n}"));
            scope.spawn(|| flood(client, &floods));
        }
        let is_flooded = || floods.refused.load(Ordering::Relaxed) > 0 && carried_out() > 0;
        wait_until("the queue limit is exceeded", is_flooded);
        for round in 0..rounds(10, 1000) {
            let mut target = daemon.client("target");
            let before = carried_out();
            administrator.control("client.kick", &[("name", "target")]).unwrap();
            target.wait_closed();
            let kicked = carried_out() - before;
            let before = carried_out();
            other.control("client.info", &[("name", "other")]).unwrap();
            let completed = carried_out() - before;
            assert!(
                kicked < BEFORE && completed < BEFORE,
                "{kicked} and {completed} calls before it in round {round}"
            );
            assert!(daemon.memory() < level.memory + MEMORY, "{} KiB", daemon.memory());
        }
    });
    load.stop();
}

/// More registrations than calls can be queued.
const REGISTRATIONS: usize = 300;
/// Concurrent calls of each registration: in total more than can be queued, at any write speed.
const CALLS: usize = 4;

#[test]
fn a_flood_from_hundreds_of_registrations_of_one_user_does_not_starve_others() {
    let daemon = Daemon::start("library", &[]);
    // by user and by address: two identities
    let addresses = daemon.addresses();
    let mut other = Wire::connect(&daemon, &addresses[1], "other");
    let filter = format!("(?i){}", r"\pL".repeat(20));
    let floods = Flood::default();
    let mut flooding: Vec<_> =
        (0..REGISTRATIONS).map(|n| Wire::connect(&daemon, &addresses[0], &format!("flood.{n}"))).collect();
    std::thread::scope(|scope| {
        let _ending = Ending(&floods);
        for some in flooding.chunks_mut(REGISTRATIONS / 4) {
            let (filter, floods) = (&filter, &floods);
            scope.spawn(move || {
                for id in 1.. {
                    for client in &mut *some {
                        client.write(&list(id, filter).repeat(CALLS));
                    }
                    // the calls of each are answered or refused
                    for call in 0..some.len() * CALLS {
                        let Some(client) = some.get_mut(call / CALLS) else { return };
                        if floods.stopping.load(Ordering::Relaxed) {
                            return;
                        }
                        let Some(Frame::Data(_, _, _, payload, _)) = client.frame_within(PATIENCE) else {
                            return;
                        };
                        let is_refused = matches!(
                            rpc::decode_rpc(&payload),
                            Ok(rpc::RpcFrame::Error { code: -32118, .. })
                        );
                        let count = if is_refused { &floods.refused } else { &floods.carried_out };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        wait_until("the queue limit is exceeded", || floods.refused.load(Ordering::Relaxed) > 0);
        for _ in 0..rounds(10, 1000) {
            other.control("client.info", &[("name", "other")]).unwrap();
        }
    });
}

#[test]
fn too_long_or_too_large_expressions_are_refused_immediately() {
    let daemon = Daemon::start("library", &[]);
    let mut client = daemon.client("hostile");
    client.control("client.list", &[("filter", "x")]).unwrap();
    let level = Level::of(&daemon);
    for _ in 0..rounds(3, 100) {
        let (code, why) = client.control("client.list", &[("filter", &r"\w".repeat(400_000))]).unwrap_err();
        assert_eq!((code, why.as_str()), (-32602, "filter has 800000 bytes, the limit is 1024"));
        let (code, why) = client.control("client.list", &[("filter", &r"\w".repeat(512))]).unwrap_err();
        assert_eq!(code, -32700);
        assert!(why.ends_with("the limit is 1048576"), "{why}");
        let question = [("action", "broadcast"), ("name", "a"), ("target", &"x.".repeat(1000))];
        let (_, why) = client.control("explain", &question).unwrap_err();
        assert_eq!(why, "target has 2000 bytes, the limit is 1024");
        // more than can be queued for one client: refused without echoing it
        let (code, why) = client.control("client.list", &[("filter", &r"\w".repeat(2_000_000))]).unwrap_err();
        assert_eq!(code, -32118);
        assert!(why.ends_with("the limit is 1048576"), "{why}");
    }
    level.wait_for(&daemon);
}
