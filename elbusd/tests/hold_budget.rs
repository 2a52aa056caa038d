//! How long a receiver can hold senders that have other receivers: no longer than its hold budget. The only
//! receiver of a sender, and an exempt one, lose nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos, request::encode_request};
use elbus_testing::attempts::three_times_at_most;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use support::{
    PATIENCE,
    daemon::Daemon,
    field, wait_until,
    wire::{Frame, Wire},
};

const BUDGET: Duration = Duration::from_millis(600);
/// The hold budget of one identity. All clients of these tests have the same user.
const OF_IDENTITY: Duration = Duration::from_millis(1500);
/// How much longer the reader may wait on a busy machine. Without a budget it would wait nearly all of the
/// time.
const SLACK: Duration = Duration::from_millis(1500);

fn start(stall_seconds: f64, more: &str) -> Daemon {
    Daemon::start_config(&format!(
        r#"
        [broker]
        hold_budget_seconds = {}
        hold_window_seconds = 600
        {more}
        [[plugin]]
        name = "local"
        library = "elbus_unix"
        config = {{ path = "bus.sock", queue_bytes = 100000, stall_seconds = {stall_seconds:?}, timeout_seconds = 4.0 }}
        [[plugin]]
        name = "rpc"
        library = "elbus_rpc"
        "#,
        BUDGET.as_secs_f64()
    ))
}

/// Publishes to `t` continuously, for a receiver that reads everything, and measures how long that receiver
/// waits in total.
struct OtherClients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

/// A longer wait for the next publication is not caused by the scheduler.
const NOTICED: Duration = Duration::from_millis(100);

impl OtherClients {
    fn start(daemon: &Daemon) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let mut reader = daemon.client("other");
        reader.subscribe(&["t"]);
        let mut publisher = daemon.client("publisher");
        let stopped = stop.clone();
        let publishing = std::thread::spawn(move || {
            let mut out = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                out.clear();
                for number in 0..20 {
                    encode_request(&mut out, number, Op::Publish, Qos::NO, "t", "", &[7; 1000]).unwrap();
                }
                publisher.write(&out);
                publisher.ping();
                std::thread::sleep(Duration::from_millis(2));
            }
            Duration::ZERO
        });
        let stopped = stop.clone();
        let reading = std::thread::spawn(move || {
            let (mut waited, mut pinged) = (Duration::ZERO, Instant::now());
            while !stopped.load(Ordering::SeqCst) {
                let began = Instant::now();
                let frame = reader.frame_within(Duration::from_millis(500));
                let took = began.elapsed();
                if took > NOTICED && !stopped.load(Ordering::SeqCst) {
                    waited += took;
                }
                assert!(frame.is_none_or(|frame| frame.payload().len() == 1000));
                if pinged.elapsed() > Duration::from_millis(300) {
                    pinged = Instant::now();
                    reader.ping();
                }
            }
            waited
        });
        OtherClients { stop, threads: vec![publishing, reading] }
    }

    /// Returns the total time that the reader waited.
    fn waited(self) -> Duration {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    }
}

/// Subscribes and reads nothing until it is disconnected, then reconnects as `name(again)`, repeatedly.
fn reconnect_repeatedly(daemon: &Daemon, until: Instant, name: impl Fn(usize) -> String) {
    let mut again = 0;
    while Instant::now() < until {
        let mut hostile = daemon.client(&name(again));
        hostile.filters(Op::Subscribe, &["t"]);
        let mut pinging = hostile.writer();
        while Instant::now() < until && pinging.try_write(&[0; 9]) {
            std::thread::sleep(Duration::from_millis(20));
        }
        again += 1;
    }
    assert!(again > 1, "it was disconnected several times");
}

#[test]
fn a_receiver_that_stalls_and_reconnects_costs_no_more_than_its_hold_budget() {
    three_times_at_most(stall_and_reconnect);
}

fn stall_and_reconnect() {
    let daemon = start(0.25, "");
    let others = OtherClients::start(&daemon);
    reconnect_repeatedly(&daemon, Instant::now() + Duration::from_secs(6), |_| "hostile".to_owned());
    let waited = others.waited();
    assert!(waited <= BUDGET + SLACK, "{waited:?}\n{}", daemon.log());
    daemon.wait_for_log("hold budget spent");
}

#[test]
fn other_names_of_an_identity_do_not_renew_its_hold_budget() {
    three_times_at_most(reconnect_under_other_names);
}

fn reconnect_under_other_names() {
    let daemon = start(0.25, "");
    let others = OtherClients::start(&daemon);
    reconnect_repeatedly(&daemon, Instant::now() + Duration::from_secs(8), |again| format!("hostile{again}"));
    let waited = others.waited();
    assert!(waited <= OF_IDENTITY + SLACK, "{waited:?}\n{}", daemon.log());
}

/// Subscribes and reads a little at a time, so that it is never disconnected.
fn trickle(mut hostile: Wire, until: Instant) {
    hostile.subscribe(&["t"]);
    hostile.read_in_pieces(8000);
    let mut pinging = hostile.writer();
    while Instant::now() < until {
        (0..8).for_each(|_| _ = hostile.frame_within(Duration::from_millis(1)));
        assert!(pinging.try_write(&[0; 9]), "it is not disconnected");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_trickling_receiver_costs_no_more_than_its_hold_budget_and_the_loss_is_reported() {
    three_times_at_most(trickle_beyond_the_budget);
}

fn trickle_beyond_the_budget() {
    let daemon = start(3.0, "");
    let others = OtherClients::start(&daemon);
    let (hostile, until) = (daemon.client("hostile"), Instant::now() + Duration::from_secs(8));
    let trickling = std::thread::spawn(move || trickle(hostile, until));
    daemon.wait_for_log("hold budget spent");
    let mut witness = daemon.client("witness");
    witness.filters(Op::Exclude, &["#"]);
    wait_until("dropped frames are counted", || {
        let info = witness.control("client.info", &[("name", "hostile")]).unwrap();
        field(&info, "may_hold").as_bool() == Some(false) && field(&info, "dropped_frames").as_u64() > Some(0)
    });
    // another sender with other receivers has its own budget; until it is spent, a full queue refuses
    // messages
    assert_eq!(witness.send("other", &[7; 1000]), 0x01);
    assert_eq!(witness.send("hostile", b"x"), 0x01);
    wait_until("a message is refused", || witness.send("hostile", &[7; 5000]) == 0x77);
    let health = witness.control("health", &[]).unwrap();
    assert!(field(&health, "refused_frames").as_u64() > Some(0));
    trickling.join().unwrap();
    let waited = others.waited();
    assert!(waited <= BUDGET + SLACK, "{waited:?}");
    daemon.wait_for_log_times("hold budget spent", 1);
}

#[test]
fn ten_stalled_receivers_cost_no_more_than_the_hold_budget_of_their_user() {
    three_times_at_most(ten_stall);
}

fn ten_stall() {
    let daemon = start(3.0, "");
    let others = OtherClients::start(&daemon);
    let until = Instant::now() + Duration::from_secs(6);
    let trickling: Vec<_> = (0..10)
        .map(|at| {
            let hostile = daemon.client(&format!("hostile{at}"));
            std::thread::spawn(move || trickle(hostile, until))
        })
        .collect();
    trickling.into_iter().for_each(|trickling| trickling.join().unwrap());
    let waited = others.waited();
    assert!(waited <= OF_IDENTITY + SLACK, "{waited:?}");
}

/// Sends numbered messages to a slow receiver, which must receive them all.
fn lossless(daemon: &Daemon, mut sender: Wire, op: Op, target: &str, mut receiver: Wire) {
    const COUNT: u32 = 1500;
    let target = target.to_owned();
    let writing = std::thread::spawn(move || {
        for number in 0..COUNT {
            let (mut out, mut payload) = (Vec::new(), [0; 1000]);
            payload[..4].copy_from_slice(&number.to_le_bytes());
            encode_request(&mut out, number, op, Qos::NO, &target, "", &payload).unwrap();
            sender.write(&out);
        }
        sender
    });
    receiver.read_in_pieces(1000);
    let mut pinging = receiver.writer();
    for number in 0..COUNT {
        let frame = receiver.frame();
        assert_eq!(frame.payload()[..4], number.to_le_bytes(), "none missing: {}", daemon.log());
        if number % 10 == 0 {
            pinging.ping();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    drop(writing.join().unwrap());
}

#[test]
fn the_only_receiver_of_a_sender_loses_nothing() {
    let daemon = start(3.0, "");
    let (sender, receiver) = (daemon.client("sender"), daemon.client("receiver"));
    lossless(&daemon, sender, Op::Message, "receiver", receiver);
    assert!(!daemon.log().contains("hold budget spent"));
}

#[test]
fn an_exempt_receiver_loses_nothing() {
    let daemon = start(3.0, "may_hold = [\"plant.*\"]");
    let mut idle = daemon.client("idle");
    idle.subscribe(&["t"]);
    let mut pinging = idle.writer();
    let reading = std::thread::spawn(move || while idle.frame_within(PATIENCE).is_some() {});
    let stop = Arc::<AtomicBool>::default();
    let stopped = stop.clone();
    let alive = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) && pinging.try_write(&[0; 9]) {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let (sender, mut receiver) = (daemon.client("sender"), daemon.client("plant.slow"));
    receiver.subscribe(&["t"]);
    lossless(&daemon, sender, Op::Publish, "t", receiver);
    assert!(!daemon.log().contains("hold budget spent"));
    stop.store(true, Ordering::SeqCst);
    alive.join().unwrap();
    drop(daemon);
    reading.join().unwrap();
}

/// Reads and pings on a thread until nothing arrives any more. Returns the number of frames from `sender`.
fn reading(mut client: Wire, pause: Duration, sender: &'static str) -> JoinHandle<u32> {
    std::thread::spawn(move || {
        let (mut pinging, mut count) = (client.writer(), 0);
        let mut pinged = Instant::now();
        while let Some(frame) = client.frame_within(Duration::from_secs(3)) {
            count += u32::from(matches!(&frame, Frame::Data(_, from, ..) if from == sender));
            if pinged.elapsed() > Duration::from_millis(100) {
                pinged = Instant::now();
                pinging.try_write(&[0; 9]);
            }
            std::thread::sleep(pause);
        }
        count
    })
}

#[test]
fn a_flooding_sender_spends_the_hold_budget_only_for_itself() {
    three_times_at_most(flood);
}

fn flood() {
    const COUNT: u32 = 300;
    let daemon = start(3.0, "");
    let mut target = daemon.client("target");
    target.read_in_pieces(8000);
    // about half a megabyte per second
    let target = reading(target, Duration::from_millis(2), "sender");
    let idle = reading(daemon.client("idle"), Duration::ZERO, "sender");
    let stop = Arc::<AtomicBool>::default();
    let (stopped, mut flooder) = (stop.clone(), daemon.client("flooder"));
    let flooding = std::thread::spawn(move || {
        let mut out = Vec::new();
        encode_request(&mut out, 0, Op::Message, Qos::NO, "idle", "", b"x").unwrap();
        for number in 0..100 {
            encode_request(&mut out, number, Op::Message, Qos::NO, "target", "", &[7; 1000]).unwrap();
        }
        while !stopped.load(Ordering::SeqCst) {
            flooder.write(&out);
        }
    });
    // from the first full queue on, and after the flooding sender has spent the budget
    let mut sender = daemon.client("sender");
    let mut witness = daemon.client("witness");
    let mut sent = 0;
    let mut dropped_frames = 0;
    while sent < COUNT || dropped_frames == 0 {
        assert_eq!(sender.send("idle", b"for another client"), 0x01);
        assert_eq!(sender.send("target", &[3; 50]), 0x01, "number {sent}: {}", daemon.log());
        sent += 1;
        std::thread::sleep(Duration::from_millis(10));
        if sent % 20 == 0 {
            let info = witness.control("client.info", &[("name", "target")]).unwrap();
            dropped_frames = field(&info, "dropped_frames").as_u64().unwrap();
        }
        assert!(sent < 10 * COUNT, "the flooding sender has spent the budget: {}", daemon.log());
    }
    daemon.wait_for_log("hold budget spent");
    stop.store(true, Ordering::SeqCst);
    flooding.join().unwrap();
    assert_eq!(target.join().unwrap(), sent, "no frame is lost");
    assert_eq!(idle.join().unwrap(), sent);
}
