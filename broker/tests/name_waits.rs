//! Messages to names that are not registered: name resolvers have them wait, and they arrive in order.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::Broker;
use elbus_plugin_api::{
    Code, DeliveryStatus, Frame, Notifier, Op, Payload, PendingResult, Qos, Request,
    access::{AccessRules, ClientRules, Verdict},
    hooks::{
        Hook, HookScope, InterceptedFrame, OnFailure, Resolution, UnresolvedMessage, Verdict as Interception,
    },
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use support::{Peer, broker};

const LONG: Resolution = Resolution::WaitUpTo(Duration::from_secs(60));

/// Has messages to `late.*` wait.
fn resolve(broker: &Broker, resolution: Resolution) -> Hook {
    broker.host().add_resolver(["late.*"], move |_: &UnresolvedMessage<'_>| resolution).unwrap()
}

/// Sends messages as a transport does that can wait for their results.
fn send(peer: &mut Peer, target: &str, payloads: &[&str]) -> Result<Code, PendingResult> {
    let payloads: Vec<_> = payloads.iter().map(|payload| Payload::from(payload.as_bytes())).collect();
    let request = Request::new(Op::Message, Qos::PROCESSED, target, &payloads).deferrable();
    let result = peer.client.dispatch(&request);
    peer.client.end_batch();
    match result.is_pending() {
        true => Err(peer.client.take_pending().unwrap()),
        false => Ok(result.code()),
    }
}

/// Sends a message until it is taken, as a transport does.
fn send_blocking(peer: &mut Peer, target: &str, payload: &str) {
    loop {
        let payloads = [Payload::from(payload.as_bytes())];
        let request = Request::new(Op::Message, Qos::PROCESSED, target, &payloads).deferrable().blocking();
        let result = peer.client.dispatch(&request);
        peer.client.end_batch();
        if !result.is_blocked() {
            return assert_eq!(result.code(), Code::Ok, "{payload}");
        }
        let (ready, waits) = std::sync::mpsc::channel();
        peer.client.when_ready(Notifier::new(move || _ = ready.send(())));
        waits.recv().unwrap();
    }
}

#[test]
fn messages_wait_for_their_name_and_arrive_in_order() {
    let broker = broker();
    let (mut one, mut other) = (Peer::new(&broker, "one"), Peer::new(&broker, "other"));
    assert_eq!(send(&mut one, "late.x", &["0"]).unwrap(), Code::NotRegistered);
    let _hook = resolve(&broker, LONG);
    let first = send(&mut one, "late.x", &["1", "2"]).unwrap_err();
    assert_eq!(one.dispatch(Op::Message, Qos::NO, "late.x", "", &[b"3"]).code(), Code::Ok);
    let second = send(&mut other, "late.x", &["4"]).unwrap_err();
    // in a mixed run
    assert_eq!(one.mixed(&[(Op::Message, "other", b"x"), (Op::Message, "late.x", b"5")]), [1, 0x71]);
    assert_eq!(send(&mut one, "early.x", &["x"]).unwrap(), Code::NotRegistered);
    assert_eq!(send(&mut one, ".late", &["x"]).unwrap(), Code::NotRegistered);
    assert!(!first.is_complete());
    let late = Peer::new(&broker, "late.x");
    assert_eq!(
        (first.code(0), first.code(1), second.code(0)),
        (Some(Code::Ok), Some(Code::Ok), Some(Code::Ok))
    );
    assert_eq!(late.payloads(), ["1", "2", "3", "4"]);
    assert!(*late.record.flushes.lock().unwrap() > 0);
    assert_eq!(late.take_ids(), [one.client.id(), one.client.id(), one.client.id(), other.client.id()]);
    assert_eq!(send(&mut one, "late.x", &["6"]).unwrap(), Code::Ok);
    assert_eq!(late.payloads(), ["6"]);
    // nothing is left for the next owner of the name
    drop(late);
    assert!(Peer::new(&broker, "late.x").payloads().is_empty());
}

#[test]
fn frames_of_an_intercepted_mixed_run_wait_each_for_its_name() {
    let broker = broker();
    let _resolver = resolve(&broker, LONG);
    let pass = |frame: &InterceptedFrame<'_>| match frame.payload() {
        b"consumed" => Interception::Consume,
        _ => Interception::Continue,
    };
    let host = broker.host();
    let _hook = host.add_interceptor(&HookScope::everything(), OnFailure::Closed, pass).unwrap();
    let (mut sender, other) = (Peer::new(&broker, "s"), Peer::new(&broker, "o"));
    let messages = [
        ("o", "1"),
        ("late.a", "2"),
        ("late.b", "consumed"),
        ("late.b", "3"),
        ("o", "4"),
        ("late.a", "5"),
        ("none", "6"),
    ];
    let bodies = messages.map(|(name, payload)| [name, "\0", payload].concat());
    let frames: Vec<_> = (messages.iter().zip(&bodies))
        .map(|((name, _), body)| Frame::new(Op::Message, Qos::PROCESSED, body.as_bytes(), name.len() as u32))
        .collect();
    let mut codes = [0xEE; 7];
    let result = sender.client.dispatch_mixed(&frames, &mut codes);
    sender.client.end_batch();
    let (ok, none) = (Code::Ok as u8, Code::NotRegistered as u8);
    assert!(result.is_pending() && result.dispatched() == 7);
    assert_eq!((codes, other.payloads()), ([ok, 0, ok, 0, ok, 0, none], vec!["1".into(), "4".into()]));
    let pending = sender.client.take_pending().unwrap();
    let late = Peer::new(&broker, "late.a");
    assert_eq!((late.payloads(), pending.is_complete()), (vec!["2".to_owned(), "5".to_owned()], false));
    assert_eq!(Peer::new(&broker, "late.b").payloads(), ["3"]);
    let codes: Vec<_> = (0..7).map(|frame| pending.code(frame).unwrap() as u8).collect();
    assert_eq!(codes, [ok, ok, ok, ok, ok, ok, none]);
}

#[test]
fn messages_are_refused_when_the_time_is_over() {
    let broker = broker();
    let _hook = resolve(&broker, Resolution::WaitUpTo(Duration::from_millis(50)));
    let mut sender = Peer::new(&broker, "s");
    let begin = Instant::now();
    let waiting: Vec<_> =
        ["late.a", "late.b"].map(|name| send(&mut sender, name, &["1"]).unwrap_err()).into();
    while !waiting.iter().all(PendingResult::is_complete) {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert!(waiting.iter().all(|pending| pending.code(0) == Some(Code::NotRegistered)));
    assert!(Peer::new(&broker, "late.a").payloads().is_empty());
}

#[test]
fn messages_are_refused_when_the_resolver_gives_up_or_ends() {
    let broker = broker();
    let hook = resolve(&broker, LONG);
    let mut sender = Peer::new(&broker, "s");
    let [given_up, ended] = ["late.a", "late.b"].map(|name| send(&mut sender, name, &["1"]).unwrap_err());
    hook.end_wait("late.a");
    hook.end_wait("late.c");
    assert_eq!((given_up.code(0), ended.code(0)), (Some(Code::NotRegistered), None));
    drop(hook);
    assert_eq!(ended.code(0), Some(Code::NotRegistered));
    assert_eq!(send(&mut sender, "late.b", &["1"]).unwrap(), Code::NotRegistered);
}

#[test]
fn a_sender_that_cannot_wait_for_its_result_is_answered_at_once_and_the_resolver_is_asked() {
    let broker = broker();
    let asked = Arc::<AtomicUsize>::default();
    let counted = asked.clone();
    let resolver = move |message: &UnresolvedMessage<'_>| {
        assert_eq!((message.target(), message.sender(), message.qos()), ("late.x", "s", Qos::PROCESSED));
        counted.fetch_add(1, SeqCst);
        LONG
    };
    let _hook = broker.host().add_resolver(["late.*"], resolver).unwrap();
    let mut sender = Peer::new(&broker, "s");
    assert_eq!(sender.send("late.x", b"1"), Code::NotRegistered);
    assert_eq!(sender.send("late.x", b"1"), Code::NotRegistered);
    assert_eq!(asked.load(SeqCst), 1, "once for a name");
    let late = Peer::new(&broker, "late.x");
    assert_eq!((sender.send("late.x", b"2"), late.payloads()), (Code::Ok, vec!["2".to_owned()]));
}

#[test]
fn access_rules_decide_before_the_resolver_and_again_before_the_delivery() {
    let broker = broker();
    let _hook = resolve(&broker, LONG);
    let rules = |send: &str| {
        let send = vec![send.parse().unwrap(), "deny *".parse().unwrap()];
        let clients = vec![ClientRules { name: "s".into(), send, ..ClientRules::default() }];
        AccessRules { default: Verdict::Allow, clients, ..AccessRules::default() }
    };
    broker.host().set_access_rules(&rules("allow late.a")).unwrap();
    let mut sender = Peer::new(&broker, "s");
    assert_eq!(send(&mut sender, "late.b", &["1"]).unwrap(), Code::AccessDenied);
    let waiting = send(&mut sender, "late.a", &["1"]).unwrap_err();
    broker.host().set_access_rules(&rules("allow late.b")).unwrap();
    let late = Peer::new(&broker, "late.a");
    assert_eq!((waiting.code(0), late.payloads().len()), (Some(Code::AccessDenied), 0));
}

#[test]
fn messages_of_a_sender_that_has_left_arrive() {
    let broker = broker();
    let _hook = resolve(&broker, LONG);
    let mut sender = Peer::new(&broker, "s");
    let waiting = send(&mut sender, "late.x", &["1"]).unwrap_err();
    drop(sender);
    let late = Peer::new(&broker, "late.x");
    assert_eq!((late.payloads(), waiting.code(0)), (vec!["1".to_owned()], Some(Code::Ok)));
}

#[test]
fn a_resolver_that_registers_the_name_itself_is_fine() {
    let broker = Arc::new(broker());
    let made = Arc::<Mutex<Vec<Peer>>>::default();
    let (host, making) = (Arc::downgrade(&broker), made.clone());
    let resolver = move |message: &UnresolvedMessage<'_>| {
        if let Some(broker) = host.upgrade() {
            // and sends: to a name that nobody is asked about
            let mut peer = Peer::new(&broker, message.target());
            assert_eq!(peer.send("late.other", b"x"), Code::NotRegistered);
            making.lock().unwrap().push(peer);
        }
        if message.target() == "late.unknown" { Resolution::Unknown } else { LONG }
    };
    let _hook = broker.host().add_resolver(["late.*"], resolver).unwrap();
    let mut sender = Peer::new(&broker, "s");
    for name in ["late.x", "late.unknown"] {
        assert_eq!(
            send(&mut sender, name, &["1"]).unwrap_or_else(|pending| pending.code(0).unwrap()),
            Code::Ok
        );
        assert_eq!(made.lock().unwrap().pop().unwrap().payloads(), ["1"]);
    }
}

#[test]
fn a_client_that_is_full_with_what_has_waited_holds_its_senders() {
    let broker = broker();
    let _hook = resolve(&broker, LONG);
    let mut sender = Peer::new(&broker, "s");
    let waiting = send(&mut sender, "late.x", &["1"]).unwrap_err();
    let record = Arc::<support::Record>::default();
    record.answer.store(DeliveryStatus::FULL.bits(), SeqCst);
    let late = Peer::with_record(&broker, "late.x", record);
    assert_eq!(waiting.code(0), Some(Code::Ok));
    assert!(sender.blocking(Op::Message, "late.x", "").is_blocked());
    late.record.answer.store(0, SeqCst);
    let drained = std::mem::take(&mut *late.record.drained.lock().unwrap());
    assert_eq!(drained.len(), 1);
    drained.iter().for_each(|notifier| notifier.notify());
    assert!(!sender.blocking(Op::Message, "late.x", "").is_blocked());
    assert_eq!(late.payloads(), ["1", "x"]);
}

#[test]
fn an_intercepted_message_waits_with_what_replaced_it() {
    use elbus_plugin_api::hooks::{InterceptedFrame, OnFailure, Verdict};
    let broker = broker();
    let _hook = resolve(&broker, LONG);
    let decide = |frame: &InterceptedFrame<'_>| match frame.payload() {
        b"2" => Verdict::replace_payload(*b"two"),
        b"3" => Verdict::Reject(Code::BadData),
        b"4" => Verdict::redirect("late.y"),
        _ => Verdict::Continue,
    };
    let _interceptor =
        broker.host().add_interceptor(&HookScope::everything(), OnFailure::Open, decide).unwrap();
    let mut sender = Peer::new(&broker, "s");
    let waiting = send(&mut sender, "late.x", &["1", "2", "3", "4", "5"]).unwrap_err();
    let late = Peer::new(&broker, "late.x");
    assert_eq!(late.payloads(), ["1", "two", "5"]);
    let codes = |waiting: &PendingResult| [0, 1, 2, 3, 4].map(|frame| waiting.code(frame));
    let (ok, bad) = (Some(Code::Ok), Some(Code::BadData));
    assert_eq!((codes(&waiting), waiting.is_complete()), ([ok, ok, bad, None, ok], false));
    let other = Peer::new(&broker, "late.y");
    assert_eq!((other.payloads(), codes(&waiting)), (vec!["4".to_owned()], [ok, ok, bad, ok, ok]));
    assert!(waiting.is_complete());
}

#[test]
fn senders_never_overtake_themselves_while_their_receiver_registers() {
    for _ in 0..200 {
        let broker = broker();
        let _hook = resolve(&broker, LONG);
        let sending: Vec<_> = (0..3)
            .map(|number| {
                let mut peer = Peer::new(&broker, &format!("s{number}"));
                std::thread::spawn(move || {
                    for at in 0..200 {
                        let payload = format!("{number} {at}");
                        send_blocking(&mut peer, "late.x", &payload);
                    }
                    peer
                })
            })
            .collect();
        let late = Peer::new(&broker, "late.x");
        let _peers: Vec<_> = sending.into_iter().map(|thread| thread.join().unwrap()).collect();
        let payloads = late.payloads();
        for number in 0..3 {
            let prefix = format!("{number} ");
            let of: Vec<usize> =
                payloads.iter().filter_map(|text| text.strip_prefix(&prefix)?.parse().ok()).collect();
            assert_eq!(of, (0..200).collect::<Vec<_>>(), "of sender {number}");
        }
    }
}
