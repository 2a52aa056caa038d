//! Mixed runs: frames with different targets that are dispatched together.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use elbus_broker::{Broker, BrokerSettings};
use elbus_plugin_api::{
    Call, ClientInfo, Code, DeliveryStatus, Locality, Op, Qos,
    access::{AccessRules, ClientRules},
};
use std::sync::atomic::Ordering::SeqCst;
use support::{Peer, broker};

/// A client that takes mixed runs.
fn peer(broker: &Broker, name: &str) -> Peer {
    let peer = Peer::new(broker, name);
    peer.record.takes_mixed.store(true, SeqCst);
    peer
}

const OK: u8 = Code::Ok as u8;

#[test]
fn each_recipient_gets_its_frames_of_a_mixed_run_together() {
    let broker = broker();
    let (mut sender, mut one, other) = (peer(&broker, "s"), peer(&broker, "one"), peer(&broker, "other"));
    one.subscribe(&["t/#"]);
    let frames = [
        (Op::Message, "one", &b"1"[..]),
        (Op::Message, "other", b"2"),
        (Op::Publish, "t/a", b"3"),
        (Op::Publish, "nobody", b"4"),
        (Op::Message, "missing", b"5"),
        (Op::Message, "one", b"6"),
    ];
    let missing = Code::NotRegistered as u8;
    assert_eq!(sender.mixed(&frames), [OK, OK, OK, OK, missing, OK]);
    assert_eq!(
        (one.payloads(), other.payloads()),
        (vec!["1".into(), "3".into(), "6".into()], vec!["2".into()])
    );
    assert_eq!([&one, &other].map(|peer| peer.record.mixed_runs.load(SeqCst)), [1, 1]);
    let id = sender.client.id();
    assert_eq!(one.take_ids(), [id; 3]);
}

#[test]
fn a_subscription_applies_to_the_next_mixed_run() {
    let broker = broker();
    let (mut sender, mut one, mut other) = (peer(&broker, "s"), peer(&broker, "one"), peer(&broker, "other"));
    one.subscribe(&["a"]);
    let frames = [(Op::Publish, "a", &b"1"[..]), (Op::Publish, "b", b"2"), (Op::Publish, "a", b"3")];
    for _ in 0..2 {
        assert_eq!(sender.mixed(&frames), [OK; 3]);
        assert_eq!((one.payloads().len(), other.payloads().len()), (2, 0));
    }
    other.subscribe(&["b", "a"]);
    for _ in 0..2 {
        assert_eq!(sender.mixed(&frames), [OK; 3]);
        assert_eq!((one.payloads().len(), other.payloads().len()), (2, 3));
    }
    one.filters(Op::Unsubscribe, &["a"]);
    assert_eq!(sender.mixed(&frames), [OK; 3]);
    assert_eq!((one.payloads().len(), other.payloads().len()), (0, 3));
}

#[test]
fn a_name_that_another_client_has_taken_leads_to_that_client() {
    let broker = broker();
    let (mut sender, first) = (peer(&broker, "s"), peer(&broker, "x"));
    let frames = [(Op::Message, "x", &b"1"[..]), (Op::Message, "s", b"2"), (Op::Message, "x", b"3")];
    assert_eq!(sender.mixed(&frames), [OK; 3]);
    drop(first);
    let missing = Code::NotRegistered as u8;
    assert_eq!(sender.mixed(&frames), [missing, OK, missing]);
    let second = peer(&broker, "x");
    assert_eq!(sender.mixed(&frames), [OK; 3]);
    assert_eq!(second.payloads(), ["1", "3"]);
}

#[test]
fn a_mixed_run_stops_before_the_first_frame_to_a_full_receiver() {
    let broker = broker();
    let (mut sender, one) = (peer(&broker, "s"), peer(&broker, "one"));
    let mut full = peer(&broker, "full");
    full.subscribe(&["t"]);
    full.record.answer.store(DeliveryStatus::FULL.bits(), SeqCst);
    let frames = [
        (Op::Message, "one", &b"1"[..]),
        (Op::Message, "full", b"2"),
        (Op::Message, "one", b"3"),
        (Op::Publish, "t", b"4"),
    ];
    assert_eq!(sender.mixed(&frames), [OK; 4], "a run is taken as a whole");
    assert_eq!(sender.mixed(&frames), [OK], "then the sender waits");
    assert_eq!(sender.mixed(&frames[2..]), [OK], "for publications as well");
    assert_eq!((one.payloads().len(), full.payloads().len()), (4, 2));
}

#[test]
fn each_frame_that_does_not_fit_is_refused_by_itself() {
    let broker = broker();
    let (mut sender, mut small, mut other) =
        (peer(&broker, "s"), peer(&broker, "small"), peer(&broker, "other"));
    small.subscribe(&["both", "small"]);
    other.subscribe(&["both"]);
    *small.record.room.lock().unwrap() = Some(2);
    let frames = [
        (Op::Publish, "both", &b"1"[..]),
        (Op::Message, "small", b"2"),
        (Op::Message, "small", b"3"),
        (Op::Publish, "both", b"4"),
        (Op::Publish, "small", b"5"),
    ];
    let refused = Code::NotDelivered as u8;
    assert_eq!(sender.mixed(&frames), [OK, OK, refused, OK, refused]);
    assert_eq!(
        (small.payloads(), other.payloads()),
        (vec!["1".into(), "2".into()], vec!["1".into(), "4".into()])
    );
}

#[test]
fn a_recipient_never_gets_the_wire_form_of_others() {
    let broker = broker();
    let (mut sender, mut one, other) = (peer(&broker, "s"), peer(&broker, "one"), peer(&broker, "other"));
    let mut plain = Peer::new(&broker, "plain");
    one.subscribe(&["t"]);
    plain.subscribe(&["t"]);
    let frames = [(Op::Publish, "t", &b"for one"[..]), (Op::Message, "other", b"for other")];
    for _ in 0..3 {
        assert_eq!(sender.mixed(&frames), [OK; 2]);
        assert_eq!([&one, &plain].map(|peer| peer.payloads()), [["for one"], ["for one"]]);
        assert_eq!(other.payloads(), ["for other"]);
    }
}

#[test]
fn a_sender_of_mixed_runs_has_the_rights_of_one_with_other_receivers() {
    let sent = [true, false].map(|mixed| {
        let broker = broker();
        let (mut sender, full, _other) = (peer(&broker, "s"), peer(&broker, "full"), peer(&broker, "other"));
        let info = ClientInfo::new("tcp", Locality::Remote).with_source("10.0.0.9:5");
        let mut flood = Peer::of(&broker, "flood", info).unwrap();
        let frames = [(Op::Message, "full", &b"1"[..]), (Op::Message, "other", b"2")];
        let mut send = |frames: &[(Op, &str, &[u8])]| match mixed {
            true => sender.mixed(frames).len(),
            false => frames.iter().filter(|(op, to, _)| !sender.blocking(*op, to, "").is_blocked()).count(),
        };
        assert_eq!((send(&frames), send(&frames)), (2, 2));
        full.record.queued.store(8 << 20, SeqCst);
        full.record.answer.store(DeliveryStatus::FULL.bits(), SeqCst);
        flood.send("full", b"x");
        full.take();
        // a queue that others have filled takes a quota of this sender
        let many: Vec<_> = (0..256).map(|_| (Op::Message, "full", &[7; 1000][..])).collect();
        (send(&frames), send(&many), full.take().len())
    });
    assert_eq!(sent[0], sent[1]);
    assert_eq!(sent[0].0, 2, "it is not held");
}

#[test]
fn a_publication_that_nobody_took_is_not_acknowledged_as_delivered() {
    let broker = broker();
    let (mut sender, mut closed, mut small) =
        (peer(&broker, "s"), peer(&broker, "closed"), peer(&broker, "small"));
    closed.subscribe(&["t"]);
    small.subscribe(&["t"]);
    closed.record.answer.store(DeliveryStatus::CLOSED.bits(), SeqCst);
    *small.record.room.lock().unwrap() = Some(1);
    let frames = [(Op::Publish, "t", &b"1"[..]), (Op::Message, "closed", b"2"), (Op::Publish, "t", b"3")];
    let codes = [OK, Code::NotRegistered as u8, Code::NotDelivered as u8];
    assert_eq!(sender.mixed(&frames), codes);
}

#[test]
fn a_frame_with_many_recipients_is_dispatched_alone() {
    let broker = broker();
    let mut sender = peer(&broker, "s");
    let mut all: Vec<_> = (0..300).map(|number| peer(&broker, &format!("all.{number}"))).collect();
    all.iter_mut().for_each(|peer| peer.subscribe(&["all"]));
    all[0].subscribe(&["one"]);
    let frames = [(Op::Publish, "one", &b"1"[..]), (Op::Publish, "all", b"2"), (Op::Publish, "one", b"3")];
    assert_eq!(sender.mixed(&frames), [OK; 3]);
    assert_eq!(
        (all[0].payloads(), all[299].payloads()),
        (vec!["1".into(), "2".into(), "3".into()], vec!["2".into()])
    );
    assert_eq!(all[299].record.mixed_runs.load(SeqCst), 0);
}

/// Publishes to these topics in turn, in mixed runs, and returns the frames that `receiver` got in one.
fn mixed_frames(sender: &mut Peer, topics: &[String], receiver: &Peer) -> usize {
    let frames: Vec<_> = topics.iter().map(|topic| (Op::Publish, topic.as_str(), &b"x"[..])).collect();
    let before = receiver.record.mixed_frames.load(SeqCst);
    frames.chunks(256).for_each(|frames| assert!(sender.mixed(frames).iter().all(|code| *code == OK)));
    receiver.record.mixed_frames.load(SeqCst) - before
}

#[test]
fn senders_that_use_up_the_shared_cache_memory_leave_mixed_runs_to_others() {
    let broker = broker();
    let hogs: Vec<_> = (0..5)
        .map(|number| {
            let mut hog = peer(&broker, &format!("hog.{number}"));
            (0..9000).for_each(|topic| _ = hog.publish(&format!("{topic}{}", "/x".repeat(500)), b""));
            hog
        })
        .collect();
    let mut sender = peer(&broker, "s");
    let mut receivers: Vec<_> = (0..20).map(|number| peer(&broker, &format!("r.{number}"))).collect();
    receivers.iter_mut().for_each(|receiver| receiver.subscribe(&["plant/#"]));
    let topics: Vec<_> = (0..4000).map(|number| format!("plant/{number}")).collect();
    for _ in 0..2 {
        assert!(mixed_frames(&mut sender, &topics, &receivers[0]) > 3900);
    }
    drop(hogs);
}

#[test]
fn more_recipients_than_one_mixed_run_can_have_take_another_one() {
    let broker = broker();
    let mut sender = peer(&broker, "s");
    let mut receivers: Vec<_> = (0..512).map(|number| peer(&broker, &format!("r.{number}"))).collect();
    for (number, receiver) in receivers.iter_mut().enumerate() {
        receiver.subscribe(&[&format!("plant/{}", number % 128)]);
    }
    let topics: Vec<_> = (0..1280).map(|number| format!("plant/{}", number % 128)).collect();
    assert_eq!(mixed_frames(&mut sender, &topics, &receivers[0]), 10);
    assert_eq!(receivers[511].record.mixed_frames.load(SeqCst), 10);
}

#[test]
fn denied_frames_of_a_mixed_run_have_their_own_code() {
    let broker = broker();
    let sender = ClientRules {
        name: "s".into(),
        send: vec!["allow one".parse().unwrap()],
        publish: vec!["allow t/#".parse().unwrap()],
        ..ClientRules::default()
    };
    let receiver = ClientRules { name: "one".into(), ..ClientRules::default() };
    let rules = AccessRules { clients: vec![sender, receiver], ..Default::default() };
    broker.host().set_access_rules(&rules).unwrap();
    let (mut sender, one) = (peer(&broker, "s"), peer(&broker, "one"));
    let frames = [
        (Op::Message, "one", &b"1"[..]),
        (Op::Message, "other", b"2"),
        (Op::Publish, "secret", b"3"),
        (Op::Publish, "t/a", b"4"),
        (Op::Publish, "secret", b"5"),
    ];
    let denied = Code::AccessDenied as u8;
    for _ in 0..3 {
        assert_eq!(sender.mixed(&frames), [OK, denied, denied, OK, denied]);
    }
    assert_eq!(one.payloads(), ["1"; 3]);
}

#[test]
fn what_no_mixed_run_can_have_is_left_to_its_caller() {
    let mut settings = BrokerSettings::default();
    settings.max_topic_bytes = 20;
    let broker = Broker::builder().settings(settings).start().unwrap();
    let (mut sender, mut one) = (peer(&broker, "s"), peer(&broker, "one"));
    one.subscribe(&["#"]);
    let long = "t".repeat(21);
    let frames = [
        (Op::Publish, "t", &b"1"[..]),
        (Op::Publish, &long, b"2"),
        (Op::Message, ".broker", b"3"),
        (Op::Broadcast, "one", b"4"),
        (Op::Publish, "t", b"5"),
    ];
    let missing = Code::NotRegistered as u8;
    let codes = sender.mixed(&frames[..3]);
    assert_eq!(codes, [OK, Code::BadData as u8, missing], "there is no RPC plugin");
    assert_eq!(sender.mixed(&frames[4..]), [OK]);
    assert_eq!(one.payloads(), ["1", "5"]);
}

#[test]
fn frames_of_a_mixed_run_are_counted_as_those_of_runs() {
    let stats = [true, false].map(|mixed| {
        let broker = broker();
        let (mut sender, _one) = (peer(&broker, "s"), peer(&broker, "one"));
        let frames = [(Op::Message, "one", &b"12"[..]), (Op::Message, "s", b"3")];
        if mixed {
            assert_eq!(sender.mixed(&frames), [OK; 2]);
        } else {
            frames.iter().for_each(|(op, target, payload)| {
                sender.dispatch(*op, Qos::PROCESSED, target, "", &[*payload]);
            });
        }
        let stats = broker.host().call(&Call::by_broker("stats", b"")).unwrap();
        let stats = rmpv::decode::read_value(&mut &stats[..]).unwrap();
        let counters = stats.as_map().unwrap().iter().filter(|(key, _)| key.as_str() != Some("uptime"));
        counters.map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>()
    });
    assert_eq!(stats[0], stats[1]);
    assert!(stats[0].iter().any(|counter| counter == "\"w_frames\" 4"), "{:?}", stats[0]);
}
