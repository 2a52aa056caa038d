//! A name that one client after another takes over while messages to it are in flight.

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

const TAKEOVERS: usize = 1000;
const WINDOW: u32 = 16;
/// Maximum messages in flight. The broker writes an evicted client's queue only as far as the socket has
/// room, so they must fit into it.
const UNDER_WAY: usize = 500;

/// State shared by sender and receivers.
#[derive(Default)]
struct Progress {
    arrived: AtomicUsize,
    stopping: AtomicBool,
}

/// Returns what a client receives until it is evicted.
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

/// Sends until it is stopped. Returns the numbers acknowledged as delivered; the others had no recipient.
fn send(mut sender: Wire, progress: &Progress) -> Vec<u32> {
    let (mut acknowledged, mut number) = (Vec::new(), 0);
    while !progress.stopping.load(Ordering::Relaxed) {
        let mut out = Vec::new();
        for n in number..number + WINDOW {
            encode_request(&mut out, n, Op::Message, Qos::PROCESSED, "shared", "", &n.to_le_bytes()).unwrap();
        }
        sender.write(&out);
        for n in number..number + WINDOW {
            match sender.expect_ack(n) {
                0x01 => acknowledged.push(n),
                code => assert_eq!(code, 0x71),
            }
        }
        number += WINDOW;
        wait_until("all acknowledged messages have arrived", || {
            acknowledged.len() <= progress.arrived.load(Ordering::Relaxed) + UNDER_WAY
        });
    }
    acknowledged
}

#[test]
fn a_thousand_takeovers_of_a_name_lose_and_repeat_nothing() {
    let daemon = Daemon::start("library", &["--force-register", "--log", "warn"]);
    let load = Load::start(&daemon);
    let addresses = daemon.addresses();
    let take_over =
        |takeover: usize| Wire::connect(&daemon, &addresses[takeover % addresses.len()], "shared");
    let first_owner = take_over(0);
    let sender = daemon.client("sender");
    let level = Level::of(&daemon);
    let progress = &Progress::default();
    let mut arrived = Vec::new();
    let acknowledged = std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(sender, progress));
        let mut receiving = scope.spawn(|| receive(first_owner, progress));
        for takeover in 1..=TAKEOVERS {
            if takeover % 10 == 0 {
                let more = progress.arrived.load(Ordering::Relaxed) + 10 * WINDOW as usize;
                wait_until("some messages have arrived", || progress.arrived.load(Ordering::Relaxed) >= more);
            }
            let next = take_over(takeover);
            let next = scope.spawn(|| receive(next, progress));
            arrived.extend(std::mem::replace(&mut receiving, next).join().unwrap());
        }
        progress.stopping.store(true, Ordering::Relaxed);
        let acknowledged = sending.join().unwrap();
        level.wait_for(&daemon);
        drop(take_over(0));
        arrived.extend(receiving.join().unwrap());
        acknowledged
    });
    assert!(acknowledged.len() > TAKEOVERS, "{} messages only", acknowledged.len());
    let apart = arrived.iter().zip(&acknowledged).position(|(arrived, acknowledged)| arrived != acknowledged);
    let around = |numbers: &[u32]| numbers[apart.unwrap_or(0).saturating_sub(40)..][..80].to_vec();
    assert_eq!(apart, None, "{:?} arrived, {:?} acknowledged", around(&arrived), around(&acknowledged));
    assert_eq!(arrived.len(), acknowledged.len(), "exactly the acknowledged messages have arrived");
    load.stop();
}
