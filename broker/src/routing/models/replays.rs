//! A plugin that keeps publications replays to a client while others publish: the client gets each
//! publication of a topic once and in order, from the first one that it gets.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{ROption, RSlice, RSliceMut},
};
use elbus_plugin_api::{
    Code, Frame, Op, Payload, Qos, Request,
    abi::{
        RawClient, RawInterceptor, RawInterceptor_TO, RawSubscriptionListener, RawSubscriptionListener_TO,
        ReplayObject,
    },
    hooks::{EarlierPublication, HookScope, InterceptedRun, OnFailure, Replayed, SubscriptionChange},
};
use shuttle::{sync::Mutex, thread};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex as Plain, Weak},
};

use super::{dispatch, explore, register, router};
use crate::{
    hooks::HookOwner,
    routing::{Router, sender::Sender},
};

/// The last publication of each topic and its mark.
type Kept = Arc<Mutex<BTreeMap<String, (Vec<u8>, u64)>>>;

struct Store {
    router: Weak<Router>,
    kept: Kept,
}

impl RawInterceptor for Store {
    fn intercept(&self, run: &mut InterceptedRun<'_>) -> bool {
        let mut kept = self.kept.lock().unwrap();
        for index in 0..run.len() {
            let frame = run.frame(index).unwrap();
            let mark = self.router.upgrade().unwrap().next_mark();
            kept.insert(frame.target().to_owned(), (frame.payload().to_vec(), mark));
            run.set_mark(index, mark);
        }
        true
    }
}

struct Listener(Arc<Plain<Option<ReplayObject>>>);

impl RawSubscriptionListener for Listener {
    fn on_change(&self, _: &SubscriptionChange<'_>, replay: ROption<ReplayObject>) {
        if let ROption::RSome(replay) = replay {
            *self.0.lock().unwrap() = Some(replay);
        }
    }
}

/// A topic that is too long to be cached: it is resolved for each publication.
static TOPIC: LazyLock<String> = LazyLock::new(|| "t".repeat(1025));

/// A router with a plugin that keeps publications, and the last replay of a client.
fn keeping() -> (Arc<Router>, Kept, Arc<Plain<Option<ReplayObject>>>) {
    let (router, _) = router(false);
    let (kept, replay) = (Kept::default(), Arc::<Plain<Option<ReplayObject>>>::default());
    let store = Store { router: Arc::downgrade(&router), kept: kept.clone() };
    let store = RawInterceptor_TO::from_value(store, TD_Opaque);
    let (scope, owner) = (HookScope::new().publications([&TOPIC, "u"]), HookOwner::default());
    router.add_interceptor(owner, scope, OnFailure::Open, store).unwrap();
    let listener = RawSubscriptionListener_TO::from_value(Listener(replay.clone()), TD_Opaque);
    router.add_subscription_listener(HookOwner { owner: 1, ..HookOwner::default() }, listener).unwrap();
    (router, kept, replay)
}

/// Sends what is kept of the topic now.
fn send_kept(kept: &Kept, replay: &ReplayObject) {
    let (payload, mark) = kept.lock().unwrap()[&*TOPIC].clone();
    thread::yield_now();
    let replayed = replay.send(&EarlierPublication::new("sender", &TOPIC, &payload, mark));
    assert!([Replayed::Sent as u8, Replayed::Skipped as u8].contains(&replayed));
}

#[test]
fn replays_and_live_publications_meet_exactly_once() {
    explore(|| {
        let (router, kept, replay) = keeping();
        let (mut sender, _) = register(&router, "sender").unwrap();
        dispatch(&mut sender, Op::Publish, &TOPIC, &[1]);
        let publisher = thread::spawn(move || {
            for number in 2..6 {
                thread::yield_now();
                assert_eq!(dispatch(&mut sender, Op::Publish, &TOPIC, &[number]).code(), Code::Ok);
            }
            sender
        });
        let (mut client, record) = register(&router, "client").unwrap();
        assert_eq!(dispatch(&mut client, Op::Subscribe, &TOPIC, &[]).code(), Code::Ok);
        thread::yield_now();
        let replay = replay.lock().unwrap().take().unwrap();
        send_kept(&kept, &replay);
        drop(publisher.join().unwrap());
        drop(replay);
        let got: Vec<u8> = record.got.lock().unwrap().iter().map(|payload| payload[0]).collect();
        let expected: Vec<u8> = (got[0]..6).collect();
        assert_eq!(got, expected, "from the first that it got, each once and in order");
    });
}

/// Two senders publish to the same topic: the plugin keeps what one of them has sent before the other has
/// delivered what it sent earlier.
#[test]
fn publications_of_several_senders_are_delivered_before_a_replay_goes_on() {
    explore(|| {
        let (router, kept, replay) = keeping();
        let senders = ["one", "other"].map(|name| register(&router, name).unwrap().0);
        let publishers = senders.into_iter().zip([0, 100]).map(|(mut sender, first)| {
            dispatch(&mut sender, Op::Publish, &TOPIC, &[first]);
            thread::spawn(move || {
                for number in 1..4 {
                    thread::yield_now();
                    assert_eq!(
                        dispatch(&mut sender, Op::Publish, &TOPIC, &[first + number]).code(),
                        Code::Ok
                    );
                }
                sender
            })
        });
        let publishers: Vec<_> = publishers.collect();
        let (mut client, record) = register(&router, "client").unwrap();
        assert_eq!(dispatch(&mut client, Op::Subscribe, &TOPIC, &[]).code(), Code::Ok);
        thread::yield_now();
        let replay = replay.lock().unwrap().take().unwrap();
        send_kept(&kept, &replay);
        publishers.into_iter().for_each(|publisher| drop(publisher.join().unwrap()));
        drop(replay);
        let got: Vec<u8> = record.got.lock().unwrap().iter().map(|payload| payload[0]).collect();
        let (one, other): (Vec<u8>, Vec<u8>) = got.iter().partition(|number| **number < 100);
        for (of_sender, end) in [(one, 4), (other, 104)] {
            let expected: Vec<u8> = of_sender.first().map_or(vec![], |first| (*first..end).collect());
            assert_eq!(of_sender, expected, "each once and in order: {got:?}");
        }
    });
}

/// Publishes these numbers, even ones to `u` and odd ones to the topic, in a mixed run as far as possible.
fn publish_mixed(sender: &mut Sender, numbers: &[u8]) {
    let topic_of = |number: u8| if number % 2 == 0 { "u" } else { &**TOPIC };
    let body = |number: &u8| [topic_of(*number).as_bytes(), &[0, *number]].concat();
    let bodies: Vec<_> = numbers.iter().map(body).collect();
    let frames: Vec<_> =
        bodies.iter().map(|body| Frame::new(Op::Publish, Qos::NO, body, body.len() as u32 - 2)).collect();
    let mut left = &frames[..];
    while !left.is_empty() {
        let mut codes = [0; 8];
        let result = RawClient::dispatch_mixed(
            sender,
            RSlice::from_slice(left),
            RSliceMut::from_mut_slice(&mut codes[..left.len()]),
        );
        assert!(codes[..result.dispatched()].iter().all(|code| *code == Code::Ok as u8));
        left = &left[result.dispatched()..];
        if result.is_next_alone() {
            let payloads = [Payload::from(left[0].payload())];
            sender.dispatch(&Request::new(Op::Publish, Qos::NO, left[0].target(), &payloads));
            left = &left[1..];
        }
    }
}

#[test]
fn replays_and_publications_of_mixed_runs_meet_exactly_once() {
    explore(|| {
        let (router, kept, replay) = keeping();
        let (mut sender, _) = register(&router, "sender").unwrap();
        let (mut client, record) = register(&router, "client").unwrap();
        dispatch(&mut client, Op::Subscribe, "u", &[]);
        drop(replay.lock().unwrap().take());
        publish_mixed(&mut sender, &[0, 1]);
        let publisher = thread::spawn(move || {
            for numbers in [[2, 3, 5], [4, 7, 9], [11, 6, 13]] {
                thread::yield_now();
                publish_mixed(&mut sender, &numbers);
            }
            sender
        });
        assert_eq!(dispatch(&mut client, Op::Subscribe, &TOPIC, &[]).code(), Code::Ok);
        thread::yield_now();
        let replay = replay.lock().unwrap().take().unwrap();
        send_kept(&kept, &replay);
        drop(publisher.join().unwrap());
        drop(replay);
        let got: Vec<u8> = record.got.lock().unwrap().iter().map(|payload| payload[0]).collect();
        let (even, odd): (Vec<u8>, Vec<u8>) = got.iter().partition(|number| *number % 2 == 0);
        assert_eq!(even, [0, 2, 4, 6], "the topic that it was subscribed to: {got:?}");
        let expected: Vec<u8> = (odd[0]..14).step_by(2).collect();
        assert_eq!(odd, expected, "from the first that it got, each once and in order: {got:?}");
    });
}
