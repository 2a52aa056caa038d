//! Clients that flood `.broker` with calls that take as long as a call may, beside an administrator and an
//! innocent client.

use elbus_protocol::{Op, Qos, request::encode_request, rpc};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::support::{
    daemon::Daemon,
    level::Level,
    load::Load,
    rounds,
    wire::{Frame, Wire},
};

const FLOODERS: usize = 4;
/// More calls than one client may have waiting.
const AHEAD: u32 = 80;
/// What an administrative and another call may take on a busy machine, in a build without optimisation. The
/// calls of the flood together would take ten times as long.
const LATENCY: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];
/// What the broker may need for all of it, in KiB.
const MEMORY: u64 = 64 * 1024;

/// A call of `client.list` with an expression.
fn list(id: u32, filter: &str) -> Vec<u8> {
    let map = rmpv::Value::Map(vec![("filter".into(), filter.into())]);
    let (mut params, mut out) = (Vec::new(), Vec::new());
    rmpv::encode::write_value(&mut params, &map).unwrap();
    let call = rpc::encode_request(id, "client.list", &params).unwrap();
    encode_request(&mut out, id, Op::Message, Qos::NO, ".broker", "", &call).unwrap();
    out
}

/// Keeps many calls waiting; how many were carried out, and how many refused.
fn flood(mut client: Wire, stopping: &AtomicBool) -> (u32, u32) {
    // as slow as an expression can be within its limits: folding the case of every letter there is
    let filter = format!("(?i){}", r"\pL".repeat(300));
    (1..=AHEAD).for_each(|id| client.write(&list(id, &filter)));
    let (mut carried_out, mut refused, mut id) = (0, 0, AHEAD);
    while !stopping.load(Ordering::Relaxed) {
        let Frame::Data(_, _, _, payload, _) = client.frame() else { continue };
        match rpc::decode_rpc(&payload).unwrap() {
            rpc::RpcFrame::Error { code: -32118, .. } => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            _ => carried_out += 1,
        }
        id += 1;
        client.write(&list(id, &filter));
    }
    (carried_out, refused)
}

#[test]
fn a_flood_of_slow_calls_delays_neither_administrators_nor_others() {
    let daemon = Daemon::start("library", &[]);
    let load = Load::start(&daemon);
    let (mut administrator, mut innocent) = (daemon.client("administrator"), daemon.client("innocent"));
    let level = Level::of(&daemon);
    let stopping = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flooders: Vec<_> = (0..FLOODERS).map(|n| daemon.client(&format!("flood.{n}"))).collect();
        let flooders: Vec<_> =
            flooders.into_iter().map(|client| scope.spawn(|| flood(client, &stopping))).collect();
        let mut slowest = [Duration::ZERO; 2];
        for round in 0..rounds(10, 100) {
            let mut victim = daemon.client("victim");
            let begin = Instant::now();
            administrator.control("client.kick", &[("name", "victim")]).unwrap();
            victim.wait_closed();
            slowest[0] = slowest[0].max(begin.elapsed());
            let begin = Instant::now();
            innocent.control("client.info", &[("name", "innocent")]).unwrap();
            slowest[1] = slowest[1].max(begin.elapsed());
            assert!(slowest[0] < LATENCY[0] && slowest[1] < LATENCY[1], "round {round}: {slowest:?}");
            assert!(daemon.memory() < level.memory + MEMORY, "{} KiB", daemon.memory());
        }
        stopping.store(true, Ordering::Relaxed);
        let (mut carried_out, mut refused) = (0, 0);
        for flooder in flooders {
            let (more_carried_out, more_refused) = flooder.join().unwrap();
            carried_out += more_carried_out;
            refused += more_refused;
        }
        assert!(refused > 0, "there was a flood: {carried_out} carried out");
        println!(
            "kick {:?}, info {:?}, {carried_out} calls of the flood, {refused} refused",
            slowest[0], slowest[1]
        );
    });
    load.stop();
}

#[test]
fn an_expression_that_is_too_long_or_too_large_is_refused_at_once() {
    let daemon = Daemon::start("library", &[]);
    let mut client = daemon.client("evil");
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
        // more than one client may have waiting: refused without an answer that repeats it
        let (code, why) = client.control("client.list", &[("filter", &r"\w".repeat(2_000_000))]).unwrap_err();
        assert_eq!(code, -32118);
        assert!(why.ends_with("the limit is 1048576"), "{why}");
    }
    level.wait_for(&daemon);
}
