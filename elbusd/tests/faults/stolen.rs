//! A name that is taken over by one client after another while messages to it are under way.

use elbus_protocol::{Op, Qos, request::encode_request};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{
    PATIENCE,
    daemon::Daemon,
    level::Level,
    load::Load,
    wait_until,
    wire::{Frame, Wire},
};

const THEFTS: usize = 1000;
const WINDOW: u32 = 16;
/// Messages that may be under way: what the broker holds of a client it evicts goes to the socket if there is room, so
/// there must be.
const UNDER_WAY: usize = 500;

/// What all in the test know of each other.
#[derive(Default)]
struct Progress {
    arrived: AtomicUsize,
    stopping: AtomicBool,
}

/// What a client is sent until it is evicted.
fn receive(mut client: Wire, progress: &Progress) -> Vec<u32> {
    let mut arrived = Vec::new();
    while let Some(frame) = client.frame_within(PATIENCE) {
        let Frame::Data(_, sender, _, payload, _) = frame else { panic!("{frame:?}") };
        if sender == "sender" {
            arrived.push(u32::from_le_bytes(payload.try_into().unwrap()));
            progress.arrived.fetch_add(1, Ordering::Relaxed);
        }
    }
    arrived
}

/// Sends until it is stopped; which numbers were acknowledged as delivered. The others are nobody's.
fn send(mut sender: Wire, progress: &Progress) -> Vec<u32> {
    let (mut acknowledged, mut number) = (Vec::new(), 0);
    while !progress.stopping.load(Ordering::Relaxed) {
        let mut out = Vec::new();
        for n in number..number + WINDOW {
            encode_request(&mut out, n, Op::Message, Qos::PROCESSED, "stolen", "", &n.to_le_bytes()).unwrap();
        }
        sender.write(&out);
        for n in number..number + WINDOW {
            match sender.expect_ack(n) {
                0x01 => acknowledged.push(n),
                code => assert_eq!(code, 0x71),
            }
        }
        number += WINDOW;
        wait_until("what was acknowledged arrives", || {
            acknowledged.len() <= progress.arrived.load(Ordering::Relaxed) + UNDER_WAY
        });
    }
    acknowledged
}

#[test]
fn a_name_stolen_a_thousand_times_loses_and_repeats_nothing() {
    let daemon = Daemon::start("library", &["--force-register", "--log", "warn"]);
    let load = Load::start(&daemon);
    let addresses = daemon.addresses();
    let thief = |theft: usize| Wire::connect(&daemon, &addresses[theft % addresses.len()], "stolen");
    let holder = thief(0);
    let sender = daemon.client("sender");
    let level = Level::of(&daemon);
    let progress = &Progress::default();
    let mut arrived = Vec::new();
    let acknowledged = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(sender, progress));
        let mut holding = scope.spawn(|| receive(holder, progress));
        for theft in 1..=THEFTS {
            if theft % 10 == 0 {
                let more = progress.arrived.load(Ordering::Relaxed) + 10 * WINDOW as usize;
                wait_until("it is used for a moment", || progress.arrived.load(Ordering::Relaxed) >= more);
            }
            let next = thief(theft);
            let next = scope.spawn(|| receive(next, progress));
            arrived.extend(std::mem::replace(&mut holding, next).join().unwrap());
        }
        progress.stopping.store(true, Ordering::Relaxed);
        let acknowledged = sending.join().unwrap();
        level.wait_for(&daemon);
        drop(thief(0));
        arrived.extend(holding.join().unwrap());
        acknowledged
    });
    assert!(acknowledged.len() > THEFTS, "{} messages only", acknowledged.len());
    let apart = arrived.iter().zip(&acknowledged).position(|(arrived, acknowledged)| arrived != acknowledged);
    let around = |numbers: &[u32]| numbers[apart.unwrap_or(0).saturating_sub(40)..][..80].to_vec();
    assert_eq!(apart, None, "{:?} arrived, {:?} acknowledged", around(&arrived), around(&acknowledged));
    assert_eq!(arrived.len(), acknowledged.len(), "all that was acknowledged, and nothing else");
    load.stop();
}
