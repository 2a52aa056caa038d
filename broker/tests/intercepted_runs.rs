//! Mixed runs in a broker with interceptors: each interceptor gets the frames together, and each frame has
//! its own verdict, code and place.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::Broker;
use elbus_plugin_api::{
    Code, DeliveryStatus, Frame, Notified, Op, Qos,
    access::{AccessRules, ClientRules},
    hooks::{Hook, HookScope, InterceptedFrame, InterceptedRun, Interceptor, OnFailure, Verdict},
};
use std::sync::{Arc, Mutex, atomic::Ordering::SeqCst};
use support::{Peer, broker};

const OK: u8 = Code::Ok as u8;
const REFUSED: u8 = Code::BadData as u8;

/// The runs that an interceptor has got, each message as its target and payload.
type Runs = Arc<Mutex<Vec<Vec<String>>>>;

/// Decides by the first word of the payload.
fn by_payload(frame: &InterceptedFrame<'_>) -> Verdict {
    let payload = String::from_utf8_lossy(frame.payload());
    match payload.split_once(' ').unwrap_or((&payload, "")) {
        ("reject", _) => Verdict::Reject(Code::BadData),
        ("consume", _) => Verdict::Consume,
        ("replace", payload) => Verdict::replace_payload(payload.as_bytes()),
        ("redirect", target) => Verdict::redirect(target),
        _ => Verdict::Continue,
    }
}

/// Records what it gets, and decides.
struct Recorder {
    runs: Runs,
    decide: fn(&InterceptedFrame<'_>) -> Verdict,
}

impl Interceptor for Recorder {
    fn intercept(&self, frame: &InterceptedFrame<'_>) -> Verdict {
        (self.decide)(frame)
    }

    fn intercept_run(&self, run: &mut InterceptedRun<'_>) {
        let text = |frame: InterceptedFrame<'_>| {
            format!("{} {}", frame.target(), String::from_utf8_lossy(frame.payload()))
        };
        self.runs.lock().unwrap().push(run.frames().map(text).collect());
        for index in 0..run.len() {
            let frame = run.frame(index).unwrap();
            run.set_verdict(index, self.intercept(&frame));
        }
    }
}

fn intercept(
    broker: &Broker,
    scope: &HookScope,
    decide: fn(&InterceptedFrame<'_>) -> Verdict,
) -> (Hook, Runs) {
    let runs = Runs::default();
    let recorder = Recorder { runs: runs.clone(), decide };
    (broker.host().add_interceptor(scope, OnFailure::Closed, recorder).unwrap(), runs)
}

fn take(runs: &Runs) -> Vec<Vec<String>> {
    std::mem::take(&mut *runs.lock().unwrap())
}

fn peer(broker: &Broker, name: &str) -> Peer {
    let peer = Peer::new(broker, name);
    peer.record.takes_mixed.store(true, SeqCst);
    peer
}

#[test]
fn a_mixed_run_reaches_each_interceptor_in_one_call_and_its_recipients_in_one() {
    let broker = broker();
    let (_first, first) = intercept(&broker, &HookScope::everything(), by_payload);
    let (_second, second) = intercept(&broker, &HookScope::new().publications(["t/#"]), by_payload);
    let (mut sender, mut a, mut b) = (peer(&broker, "s"), peer(&broker, "a"), peer(&broker, "b"));
    a.subscribe(&["t/#"]);
    b.subscribe(&["t/1"]);
    let topics: Vec<_> = (0..100).map(|number| format!("t/{}", number % 7)).collect();
    let frames: Vec<_> = topics.iter().map(|topic| (Op::Publish, topic.as_str(), &b"x"[..])).collect();
    for round in 1..=3 {
        assert_eq!(sender.mixed(&frames), [OK; 100]);
        assert_eq!((take(&first)[0].len(), take(&second)[0].len()), (100, 100));
        assert_eq!((a.payloads().len(), b.payloads().len()), (100, 15));
        if round > 1 {
            assert_eq!(a.record.mixed_runs.swap(0, SeqCst), 1, "all of them are collected");
        }
        a.record.mixed_runs.store(0, SeqCst);
        assert!(first.lock().unwrap().is_empty());
    }
    assert_eq!(a.record.pauses.load(SeqCst), 0);
}

#[test]
fn frames_of_other_kinds_and_with_other_interceptors_are_passed_apart() {
    let broker = broker();
    let scope = HookScope::new().publications(["t/#"]).messages(["a"]);
    let (_hook, runs) = intercept(&broker, &scope, by_payload);
    let (_other, other) = intercept(&broker, &HookScope::new().publications(["t/3"]), by_payload);
    let (mut sender, mut a) = (peer(&broker, "s"), peer(&broker, "a"));
    a.subscribe(&["#"]);
    let frames = [
        (Op::Publish, "t/1", &b"1"[..]),
        (Op::Publish, "t/2", b"2"),
        (Op::Publish, "t/3", b"3"),
        (Op::Message, "a", b"4"),
        (Op::Message, "a", b"5"),
        (Op::Publish, "x", b"6"),
        (Op::Message, "s", b"7"),
        (Op::Publish, "t/2", b"8"),
        (Op::Publish, ".broker/x", b"9"),
        (Op::Publish, "$share/x", b"10"),
        (Op::Message, "none", b"11"),
    ];
    let none = Code::NotRegistered as u8;
    for _ in 0..2 {
        assert_eq!(sender.mixed(&frames), [OK, OK, OK, OK, OK, OK, OK, OK, OK, REFUSED, none]);
        let expected = [&["t/1 1", "t/2 2"][..], &["t/3 3"], &["a 4", "a 5"], &["t/2 8"]];
        assert_eq!(take(&runs), expected);
        assert_eq!(take(&other), [["t/3 3"]]);
        assert_eq!(a.payloads(), ["1", "2", "3", "4", "5", "6", "8", "9"]);
        assert_eq!(sender.payloads(), ["7"]);
    }
    // of another quality of service
    let body = |topic: &str, payload: &str| [topic.as_bytes(), b"\0", payload.as_bytes()].concat();
    let (one, two) = (body("t/1", "1"), body("t/2", "2"));
    let frames =
        [Frame::new(Op::Publish, Qos::NO, &one, 3), Frame::new(Op::Publish, Qos::PROCESSED, &two, 3)];
    let mut codes = [0; 2];
    assert_eq!(sender.client.dispatch_mixed(&frames, &mut codes).dispatched(), 1);
    assert_eq!(sender.client.dispatch_mixed(&frames[1..], &mut codes[1..]).dispatched(), 1);
    sender.client.end_batch();
    assert_eq!((take(&runs), codes), (vec![vec!["t/1 1".to_owned()], vec!["t/2 2".to_owned()]], [OK; 2]));
    assert_eq!(sender.client.dispatch_mixed(&frames, &mut []).dispatched(), 0);
    assert!(take(&runs).is_empty(), "what has no place for its code is not intercepted");
}

#[test]
fn each_frame_has_its_own_verdict_code_and_place() {
    for is_mixed in [true, false] {
        let broker = broker();
        let (_hook, runs) = intercept(&broker, &HookScope::everything(), by_payload);
        let (_seen, mut observer) = broker.host().add_observer(&HookScope::everything(), 1 << 20).unwrap();
        let (mut sender, mut a, mut b) = (peer(&broker, "s"), peer(&broker, "a"), peer(&broker, "b"));
        b.record.takes_mixed.store(is_mixed, SeqCst);
        a.subscribe(&["t/#"]);
        b.subscribe(&["t/1", "u"]);
        let frames = [
            (Op::Publish, "t/1", &b"reject"[..]),
            (Op::Publish, "t/1", b"1"),
            (Op::Publish, "t/2", b"2"),
            (Op::Publish, "t/2", b"replace 3"),
            (Op::Publish, "t/2", b"4"),
            (Op::Publish, "t/1", b"redirect u"),
            (Op::Publish, "t/1", b"redirect .broker/x"),
            (Op::Publish, "none", b"consume"),
            (Op::Publish, "t/1", b"5"),
            (Op::Publish, "t/1", b"consume"),
            (Op::Publish, "t/3", b"reject"),
        ];
        for _ in 0..3 {
            let codes = [REFUSED, OK, OK, OK, OK, OK, REFUSED, OK, OK, OK, REFUSED];
            assert_eq!(sender.mixed(&frames), codes);
            assert_eq!(
                (take(&runs).len(), a.payloads()),
                (1, ["1", "2", "3", "4", "5"].map(String::from).into())
            );
            assert_eq!(b.payloads(), ["1", "redirect u", "5"]);
            let seen = std::iter::from_fn(|| observer.try_receive()).map(|seen| {
                let payload = String::from_utf8_lossy(seen.payload()).into_owned();
                format!("{} {payload} {:?} {}", seen.target(), seen.code(), seen.recipients())
            });
            let expected = [
                "t/1 reject BadData 0",
                "t/1 1 Ok 2",
                "t/2 2 Ok 1",
                "t/2 3 Ok 1",
                "t/2 4 Ok 1",
                "u redirect u Ok 1",
                "t/1 redirect .broker/x BadData 0",
                "none consume Ok 0",
                "t/1 5 Ok 2",
                "t/1 consume Ok 0",
                "t/3 reject BadData 0",
            ];
            assert_eq!(seen.collect::<Vec<_>>(), expected);
        }
        assert_eq!((a.record.pauses.load(SeqCst), b.record.pauses.load(SeqCst)), (0, 0));
    }
}

#[test]
fn an_interceptor_gets_replaced_frames_in_their_place() {
    let broker = broker();
    let (_first, _) = intercept(&broker, &HookScope::everything(), by_payload);
    let pass = |_: &InterceptedFrame<'_>| Verdict::Continue;
    let (_second, second) = intercept(&broker, &HookScope::everything(), pass);
    let (mut sender, mut a) = (peer(&broker, "s"), peer(&broker, "a"));
    a.subscribe(&["t"]);
    let frames = [
        (Op::Publish, "t", &b"1"[..]),
        (Op::Publish, "v", b"2"),
        (Op::Publish, "v", b"redirect t"),
        (Op::Publish, "v", b"consume"),
        (Op::Publish, "t", b"replace 3"),
        (Op::Publish, "t", b"4"),
    ];
    assert_eq!(sender.mixed(&frames), [OK; 6]);
    assert_eq!(a.payloads(), ["1", "redirect t", "3", "4"]);
    let got: Vec<_> = take(&second).into_iter().flatten().collect();
    assert_eq!(got, ["t 1", "v 2", "t redirect t", "t 3", "t 4"]);
}

#[test]
fn a_replaced_target_needs_the_senders_right() {
    let broker = broker();
    let (_hook, runs) = intercept(&broker, &HookScope::everything(), by_payload);
    let allowed = |text: &str| vec![text.parse().unwrap()];
    let sender = ClientRules {
        name: "s".into(),
        send: allowed("allow a"),
        publish: allowed("allow t/#"),
        ..ClientRules::default()
    };
    let others = ClientRules { name: "*".into(), subscribe: allowed("allow #"), ..ClientRules::default() };
    let rules = AccessRules { clients: vec![sender, others], ..AccessRules::default() };
    broker.host().set_access_rules(&rules).unwrap();
    let (mut sender, mut a) = (peer(&broker, "s"), peer(&broker, "a"));
    a.subscribe(&["#"]);
    let frames = [
        (Op::Publish, "t/1", &b"1"[..]),
        (Op::Publish, "t/2", b"redirect u"),
        (Op::Publish, "u", b"2"),
        (Op::Publish, "t/2", b"redirect t/9"),
        (Op::Message, "a", b"redirect s"),
        (Op::Message, "b", b"3"),
    ];
    let denied = Code::AccessDenied as u8;
    for _ in 0..2 {
        assert_eq!(sender.mixed(&frames), [OK, denied, denied, OK, denied, denied]);
        assert_eq!(take(&runs).concat().len(), 4, "denied frames reach no interceptor");
        assert_eq!((a.payloads().len(), sender.payloads().len()), (2, 0));
    }
}

#[test]
fn frames_of_mixed_runs_are_intercepted_once_also_if_a_recipient_is_full() {
    let broker = broker();
    let (_hook, runs) = intercept(&broker, &HookScope::everything(), by_payload);
    let (mut sender, mut full, mut other) = (peer(&broker, "s"), peer(&broker, "full"), peer(&broker, "o"));
    full.subscribe(&["t/1"]);
    other.subscribe(&["t/#"]);
    let frames =
        [(Op::Publish, "t/2", &b"1"[..]), (Op::Publish, "t/1", b"2"), (Op::Publish, "t/3", b"replace 3")];
    sender.mixed(&frames);
    assert_eq!((take(&runs).len(), full.payloads().len(), other.payloads().len()), (1, 1, 3));
    full.answer(DeliveryStatus::FULL);
    assert_eq!(sender.mixed(&frames), [OK; 3], "it is full now");
    assert_eq!((take(&runs).concat().len(), full.payloads().len(), other.payloads().len()), (3, 1, 3));
    for _ in 0..2 {
        let (notifier, _ready) = Notified::pair();
        sender.client.when_ready(notifier);
        let before = (sender.mixed(&frames), take(&runs).concat());
        assert!(before.0.is_empty() || before.0 == [OK], "{before:?}");
        assert_eq!(before.0.len(), before.1.len(), "intercepted as it is dispatched");
        assert_eq!(other.payloads().len(), before.0.len());
        assert!(full.payloads().is_empty());
    }
    let (notifier, _ready) = Notified::pair();
    sender.client.when_ready(notifier);
    full.drain();
    assert_eq!(sender.mixed(&frames), [OK; 3]);
    assert_eq!((take(&runs).concat().len(), full.payloads().len(), other.payloads().len()), (3, 1, 3));
    // a recipient that is filled by the frames themselves, one by one
    full.record.takes_mixed.store(false, SeqCst);
    full.answer(DeliveryStatus::FULL);
    let same =
        [(Op::Publish, "t/1", &b"x"[..]), (Op::Publish, "t/2", b"y"), (Op::Publish, "t/1", b"replace z")];
    assert_eq!(sender.mixed(&same), [OK; 3], "what was intercepted does not wait");
    assert_eq!((take(&runs).concat().len(), full.payloads()), (3, vec!["x".to_owned(), "z".to_owned()]));
}
