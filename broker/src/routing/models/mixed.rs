//! Models of the delivery of mixed runs: several senders of them, while clients come and go, filters change,
//! sinks refuse mixed runs or are full.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RSlice, RSliceMut},
};
use elbus_plugin_api::{
    Code, Frame, Op, Payload, Qos, Request,
    abi::{RawClient, RawNotifier_TO},
};
use shuttle::{
    rand::Rng,
    thread::{self, JoinHandle},
};
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use super::{
    CountingWake, dispatch, explore, router,
    send_queue::{Destination, SendQueue, World},
};
use crate::routing::{Router, sender::Sender};

/// The most frames of a mixed run: a batch has several.
const FRAMES_OF_RUN: usize = 4;

/// Codes by the number of their frames.
type Codes = Vec<(u8, u8)>;

/// Waits until the receivers that hold a sender have drained.
fn wait(sender: &mut Sender) {
    let woken = Arc::<AtomicUsize>::default();
    sender.when_ready(RawNotifier_TO::from_ptr(RArc::new(CountingWake(woken.clone())), TD_Opaque));
    while woken.load(SeqCst) == 0 {
        thread::yield_now();
    }
}

/// Sends frames as a reader does: in mixed runs, and alone what must be. Returns their codes.
fn send(world: &World, sender: &mut Sender, id: u8, numbers: Range<u8>) -> Codes {
    let destinations: Vec<_> = numbers.clone().map(|number| world.destination(number)).collect();
    let body = |(number, (_, target, _)): (u8, &Destination)| [target.as_bytes(), &[0, id, number]].concat();
    let bodies: Vec<_> = numbers.clone().zip(&destinations).map(body).collect();
    let frames: Vec<_> = destinations
        .iter()
        .zip(&bodies)
        .map(|((op, target, _), body)| Frame::new(*op, Qos::PROCESSED, body, target.len() as u32))
        .collect();
    let mut codes = vec![u8::MAX; frames.len()];
    let mut at = 0;
    while at < frames.len() {
        let (left, codes) = (&frames[at..frames.len().min(at + FRAMES_OF_RUN)], &mut codes[at..]);
        let codes_of_run = RSliceMut::from_mut_slice(codes);
        let result = RawClient::dispatch_mixed(sender, RSlice::from_slice(left), codes_of_run);
        assert!(!result.is_gone() && (result.dispatched() > 0 || result.is_next_alone()));
        at += result.dispatched();
        if result.is_next_alone() {
            codes[result.dispatched()] = send_alone(sender, &left[result.dispatched()]) as u8;
            at += 1;
        }
    }
    if sender.end_batch() {
        wait(sender);
    }
    assert!(!codes.contains(&u8::MAX), "each frame has a code");
    numbers.zip(codes).collect()
}

fn send_alone(sender: &mut Sender, frame: &Frame<'_>) -> Code {
    let payloads = [Payload::from(frame.payload())];
    let request = Request::new(frame.op().unwrap(), frame.qos(), frame.target(), &payloads).blocking();
    loop {
        let result = sender.dispatch(&request);
        if !result.is_blocked() {
            return result.code();
        }
        if sender.end_batch() {
            wait(sender);
        }
    }
}

/// Lets the other threads go on for a while.
fn some_time() {
    let turns = shuttle::rand::thread_rng().gen_range(0..100);
    (0..turns).for_each(|_| thread::yield_now());
}

/// Sends all frames twice, in two batches.
fn send_twice(world: &Arc<World>, router: &Arc<Router>, id: u8) -> JoinHandle<(Sender, Codes)> {
    let (world, router) = (world.clone(), router.clone());
    thread::spawn(move || {
        let name = if id == 1 { "sender.1" } else { "sender.2" };
        let (mut sender, _) = world.register(&router, world.queue(name));
        let frames = world.destinations.len() as u8;
        let mut codes = send(&world, &mut sender, id, 0..frames);
        codes.extend(send(&world, &mut sender, id, frames..2 * frames));
        (sender, codes)
    })
}

/// Checks that clients that were registered and subscribed all the time have what was sent to them.
fn check_complete(world: &World, names: &[&str]) {
    for name in names {
        let goes_there = |number: &u8| world.destination(*number).2.contains(name);
        let expected: Vec<_> =
            (0..2 * world.destinations.len() as u8).filter(|number| goes_there(number)).collect();
        for sender in [1, 2] {
            assert_eq!(world.got(name, sender), expected, "{name}, of sender {sender}");
        }
    }
}

#[test]
fn frames_of_mixed_runs_arrive_in_order_while_clients_and_filters_change() {
    const FRAMES: &[Destination] = &[
        (Op::Publish, "t/1", &["a", "single"]),
        (Op::Message, "b", &["b"]),
        (Op::Message, "a", &["a"]),
        (Op::Message, "leaves", &[]),
        (Op::Publish, "t/2", &["a", "single"]),
        (Op::Message, "single", &["single"]),
        (Op::Message, "b", &["b"]),
    ];
    const COUNT: u8 = FRAMES.len() as u8;
    explore(|| {
        let (router, _) = router(false);
        let world = World::new(FRAMES);
        let (mut a, _) = world.register(&router, SendQueue { most_pauses: 1, ..world.queue("a") });
        let (_b, _) = world.register(&router, world.queue("b"));
        let single = SendQueue { takes_mixed_runs: false, ..world.queue("single") };
        let (mut single, _) = world.register(&router, single);
        let (mut changing, _) = world.register(&router, world.queue("changing"));
        for subscriber in [&mut a, &mut single] {
            dispatch(subscriber, Op::Subscribe, "t/#", &[]);
        }
        dispatch(&mut changing, Op::Subscribe, "t/2", &[]);
        let (leaves, queue) = world.register(&router, world.queue("leaves"));
        let senders = [1, 2].map(|id| send_twice(&world, &router, id));
        let leaving = {
            let (world, router) = (world.clone(), router.clone());
            thread::spawn(move || {
                some_time();
                // as that of a connection: its sink is closed first
                queue.state.lock().unwrap().is_closed = true;
                some_time();
                drop(leaves);
                some_time();
                world.register(&router, world.queue("leaves")).0
            })
        };
        let changing = thread::spawn(move || {
            some_time();
            dispatch(&mut changing, Op::Subscribe, "t/1", &[]);
            some_time();
            dispatch(&mut changing, Op::Unsubscribe, "t/2", &[]);
            changing
        });
        let senders = senders.map(|sender| sender.join().unwrap());
        let (_leaves, _changing) = (leaving.join().unwrap(), changing.join().unwrap());
        check_complete(&world, &["a", "b", "single"]);
        for (id, (mut sender, codes)) in (1..).zip(senders) {
            let is_taken =
                |number: u8, code: u8| world.destination(number).1 == "leaves" && code == Code::Ok as u8;
            let taken = codes.iter().filter(|(number, code)| is_taken(*number, *code));
            let taken: Vec<_> = taken.map(|(number, _)| *number).collect();
            assert_eq!(world.got("leaves", id), taken, "what is acknowledged has arrived, and nothing else");
            send(&world, &mut sender, id, 2 * COUNT..3 * COUNT);
            let got = world.got("changing", id);
            assert!(got.contains(&(2 * COUNT)) && !got.contains(&(2 * COUNT + 4)), "its filters: {got:?}");
        }
        world.check_end();
    });
}

#[test]
fn a_full_receiver_of_mixed_runs_loses_nothing_and_ends_every_pause() {
    const FRAMES: &[Destination] = &[
        (Op::Message, "a", &["a"]),
        (Op::Message, "slow", &["slow"]),
        (Op::Publish, "t/1", &["a", "slow"]),
        (Op::Publish, "t/2", &["a", "slow"]),
        (Op::Message, "a", &["a"]),
        (Op::Message, "slow", &["slow"]),
    ];
    explore(|| {
        let (router, _) = router(false);
        let world = World::new(FRAMES);
        let (mut a, _) = world.register(&router, world.queue("a"));
        let (mut slow, queue) = world.register(&router, world.queue("slow"));
        queue.state.lock().unwrap().full_at = Some(3);
        for subscriber in [&mut a, &mut slow] {
            dispatch(subscriber, Op::Subscribe, "t/#", &[]);
        }
        let senders = [1, 2].map(|id| send_twice(&world, &router, id));
        let draining = {
            let queue = queue.clone();
            thread::spawn(move || {
                while !queue.has_reported_full() {
                    thread::yield_now();
                }
                some_time();
                queue.drain();
            })
        };
        let senders = senders.map(|sender| sender.join().unwrap());
        draining.join().unwrap();
        check_complete(&world, &["a", "slow"]);
        for (_, codes) in &senders {
            assert!(codes.iter().all(|(_, code)| *code == Code::Ok as u8), "{codes:?}");
        }
        let runs = queue.state.lock().unwrap().mixed_runs_while_full;
        assert!(runs <= 1, "one at most, which the other sender had collected: {runs}");
        assert!(!router.holds.any(), "none is full any more");
        world.check_end();
    });
}
