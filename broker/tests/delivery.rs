//! Recipients (protocol section 6), acknowledgements, counters, and back-pressure.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::Broker;
use elbus_plugin_api::{
    BROKER_NAME, Call, ClientInfo, Code, DeliveryStatus, FrameKind, Notifier, Op, Payload, Qos, Request,
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use support::{Peer, broker};

#[test]
fn messages_are_delivered_to_exact_names() {
    let broker = broker();
    let (mut a, b, star) = (Peer::new(&broker, "a.b"), Peer::new(&broker, "b"), Peer::new(&broker, "*"));
    assert_eq!(a.send("b", b"1"), Code::Ok);
    assert_eq!(a.send("*", b"2"), Code::Ok);
    assert_eq!(a.send("a.b", b"3"), Code::Ok, "to itself");
    assert_eq!(a.send("c", b"4"), Code::NotRegistered);
    assert_eq!(a.send(BROKER_NAME, b"5"), Code::NotRegistered, "no plugin serves this name");
    assert_eq!(b.take(), [(FrameKind::Message, "a.b".into(), String::new(), b"1".to_vec())]);
    assert_eq!(star.payloads(), ["2"]);
    assert_eq!(a.payloads(), ["3"]);
    drop(b);
    assert_eq!(a.send("b", b"6"), Code::NotRegistered, "the cache ends with the registration");
    let b = Peer::new(&broker, "b");
    assert_eq!(a.send("b", b"7"), Code::Ok);
    assert_eq!(b.payloads(), ["7"]);
}

#[test]
fn broadcasts_are_delivered_by_mask() {
    let broker = broker();
    let names = ["a", "a.b", "a.b.c", "a.c", "ab", "a.b%%0"];
    let peers: Vec<_> = names.iter().map(|name| Peer::new(&broker, name)).collect();
    let mut sender = Peer::new(&broker, "s");
    for (mask, expected) in [
        ("*", &names[..]),
        ("a.*", &["a.b", "a.b.c", "a.c", "a.b%%0"]),
        ("a.?", &["a.b", "a.c", "a.b%%0"]),
        ("?", &["a", "ab"]),
        ("a.b", &["a.b"]),
        ("a.*.x", &["a.b", "a.b.c", "a.c", "a.b%%0"]),
        ("b.*", &[]),
    ] {
        let reached = sender.broadcast(mask, mask.as_bytes()) as usize;
        let own = sender.take().len();
        let got: Vec<_> = peers.iter().filter(|p| p.payloads() == [mask]).map(|p| p.name.as_str()).collect();
        assert_eq!(got, expected, "{mask}");
        assert_eq!(reached, expected.len() + own, "{mask}");
    }
    let late = Peer::new(&broker, "a.z");
    sender.broadcast("a.?", b"late");
    assert_eq!(late.payloads(), ["late"], "a cached mask matches new clients");
}

#[test]
fn publications_are_delivered_once_to_each_subscriber() {
    let broker = broker();
    let mut subscriber = Peer::new(&broker, "sub");
    let mut sender = Peer::new(&broker, "pub");
    subscriber.subscribe(&["a/+", "a/#", "a/b", "#"]);
    assert_eq!(sender.publish("a/b", b"1"), 1);
    assert_eq!(subscriber.take(), [(FrameKind::Publish, "pub".into(), "a/b".into(), b"1".to_vec())]);
    for filter in ["a/+", "a/b", "#"] {
        subscriber.filters(Op::Unsubscribe, &[filter]);
        assert_eq!(sender.publish("a/b", b"2"), 1, "only a/# is left");
    }
    assert_eq!(subscriber.filters(Op::Unsubscribe, &["never", "a/#"]), Code::Ok);
    assert_eq!(sender.publish("a/b", b"3"), 0);
    subscriber.subscribe(&[""]);
    assert_eq!(sender.publish("", b"4"), 1, "the empty topic");
    sender.subscribe(&["own"]);
    assert_eq!(sender.publish("own", b"5"), 1, "a client receives its own publications");
    assert_eq!(sender.payloads(), ["5"]);
}

#[test]
fn exclusions_withhold_publications() {
    let broker = broker();
    let (mut subscriber, mut sender) = (Peer::new(&broker, "sub"), Peer::new(&broker, "pub"));
    subscriber.filters(Op::Exclude, &["a/secret", "x/#"]);
    subscriber.subscribe(&["a/#", "x/y"]);
    assert_eq!(sender.publish("a/open", b"1"), 1);
    assert_eq!(sender.publish("a/secret", b"2"), 0);
    assert_eq!(sender.publish("x/y", b"3"), 0);
    assert_eq!(sender.send("sub", b"4"), Code::Ok, "exclusions do not affect messages");
    assert_eq!(sender.broadcast("sub", b"5"), 1, "or broadcasts");
    subscriber.filters(Op::Unexclude, &["a/+"]);
    assert_eq!(sender.publish("a/secret", b"6"), 0, "only the exact filter is removed");
    subscriber.filters(Op::Unexclude, &["a/secret"]);
    assert_eq!(sender.publish("a/secret", b"7"), 1);
}

#[test]
fn publications_can_be_limited_to_one_primary() {
    let broker = broker();
    let mut sender = Peer::new(&broker, "pub");
    let mut peers: Vec<_> = ["a", "a%%0", "b"].iter().map(|name| Peer::new(&broker, name)).collect();
    peers.iter_mut().for_each(|peer| peer.subscribe(&["t"]));
    assert_eq!(sender.publish_for("t", "a", b"x"), 2);
    assert_eq!(peers.iter().map(|p| p.take().len()).collect::<Vec<_>>(), [1, 1, 0]);
    for nobody in ["*", "a%%0", "c"] {
        let result = sender.dispatch(Op::PublishFor, Qos::PROCESSED, "t", nobody, &[b"x"]);
        assert_eq!((result.code(), result.reached()), (Code::Ok, 0), "{nobody}");
    }
}

#[test]
fn all_clients_receive_warnings_unless_they_unsubscribe() {
    let broker = broker();
    let (mut a, mut b, mut c) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"), Peer::new(&broker, "c"));
    b.filters(Op::Unsubscribe, &[".broker/warn"]);
    c.filters(Op::Exclude, &["#"]);
    assert_eq!(a.publish(".broker/warn", b"x"), 1);
    let late = Peer::new(&broker, "late");
    assert_eq!(a.publish(".broker/warn", b"y"), 2, "new clients receive it at once");
    assert_eq!(late.payloads(), ["y"]);
}

#[test]
fn in_process_clients_have_no_initial_subscription() {
    let broker = broker();
    let mut a = Peer::new(&broker, "a");
    let inside = Peer::of(&broker, "plugin", ClientInfo::in_process()).unwrap();
    assert_eq!(a.publish(".broker/warn", b"x"), 1, "only `a` itself");
    assert!(inside.payloads().is_empty());
}

#[test]
fn a_run_is_delivered_whole_and_flushed_once() {
    let broker = broker();
    let (mut a, b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    let numbers: Vec<_> = (0..200).map(|n: i32| n.to_string()).collect();
    let payloads: Vec<_> = numbers.iter().map(|n| n.as_bytes()).collect();
    a.dispatch(Op::Message, Qos::NO, "b", "", &payloads);
    assert_eq!(b.payloads(), numbers);
    assert_eq!(*b.record.flushes.lock().unwrap(), 1);
}

#[test]
fn acknowledgements_report_refusals() {
    let broker = broker();
    let (mut a, mut b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    b.subscribe(&["t"]);
    b.record.answer.store(DeliveryStatus::REFUSED.bits(), Ordering::SeqCst);
    assert_eq!(a.send("b", b"x"), Code::NotDelivered);
    assert_eq!(a.dispatch(Op::Publish, Qos::PROCESSED, "t", "", &[b"x"]).code(), Code::NotDelivered);
    let mut c = Peer::new(&broker, "c");
    c.subscribe(&["t"]);
    let result = a.dispatch(Op::Publish, Qos::PROCESSED, "t", "", &[b"x"]);
    assert_eq!((result.code(), result.reached()), (Code::Ok, 1), "delivered to one of them");
    b.record.answer.store(DeliveryStatus::CLOSED.bits(), Ordering::SeqCst);
    assert_eq!(a.send("b", b"x"), Code::NotRegistered);
}

#[test]
fn senders_wait_for_all_full_receivers() {
    let broker = broker();
    let mut a = Peer::new(&broker, "a");
    let peers: Vec<_> = ["x.1", "x.2", "x.3"].iter().map(|name| Peer::new(&broker, name)).collect();
    for peer in &peers[..2] {
        peer.record.answer.store(DeliveryStatus::FULL.bits(), Ordering::SeqCst);
    }
    assert_eq!(a.broadcast("x.*", b"1"), 3, "the run that fills a queue is accepted");
    assert_eq!(a.broadcast("x.*", b"2"), 3);
    assert!(a.client.end_batch());
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = woken.clone();
    a.client.when_ready(Notifier::new(move || _ = counter.fetch_add(1, Ordering::SeqCst)));
    for peer in &peers[..2] {
        assert_eq!(woken.load(Ordering::SeqCst), 0);
        let notifiers = std::mem::take(&mut *peer.record.drained.lock().unwrap());
        assert_eq!(notifiers.len(), 1, "one notification is requested");
        notifiers[0].notify();
    }
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    assert!(!a.client.end_batch(), "nothing left to wait for");
}

#[test]
fn a_request_that_may_block_has_no_recipients_while_one_is_full() {
    let broker = broker();
    let mut a = Peer::new(&broker, "a");
    let (full, other) = (Peer::new(&broker, "x.full"), Peer::new(&broker, "x.other"));
    let mut subscriber = Peer::new(&broker, "sub");
    subscriber.subscribe(&["t"]);
    let ask = |a: &mut Peer, op, qos, target: &str| {
        let payloads = [Payload::from(&b"y"[..])];
        a.client.dispatch(&Request::new(op, qos, target, &payloads).blocking())
    };
    full.record.answer.store(DeliveryStatus::FULL.bits(), Ordering::SeqCst);
    let first = ask(&mut a, Op::Message, Qos::NO, "x.full");
    assert!(first.is_congested() && !first.is_blocked(), "an empty queue accepts a run that fills it");
    full.record.answer.store(DeliveryStatus::TAKEN.bits(), Ordering::SeqCst);
    assert!(a.client.end_batch());
    for (op, target) in [(Op::Message, "x.full"), (Op::Broadcast, "x.*")] {
        let blocked = ask(&mut a, op, Qos::PROCESSED, target);
        assert!(blocked.is_blocked() && blocked.is_congested(), "{op:?}");
        assert_eq!(blocked.reached(), 0);
    }
    assert_eq!((full.take().len(), other.take().len()), (1, 0), "no recipient gets the broadcast");
    assert!(!ask(&mut a, Op::Publish, Qos::NO, "t").is_blocked(), "other recipients are not affected");
    assert!(!ask(&mut a, Op::Message, Qos::REALTIME, "x.full").is_blocked(), "real-time never waits");
    assert!(
        !a.dispatch(Op::Message, Qos::NO, "x.full", "", &[b"z"]).is_blocked(),
        "a request that may not block is accepted"
    );
    assert_eq!(full.take().len(), 2);
    // another sender is blocked too, although it has never sent to it
    let mut b = Peer::new(&broker, "b");
    assert!(ask(&mut b, Op::Message, Qos::NO, "x.full").is_blocked());
    let woken = Arc::new(AtomicUsize::new(0));
    for sender in [&mut a, &mut b] {
        assert!(sender.client.end_batch());
        let counter = woken.clone();
        sender.client.when_ready(Notifier::new(move || _ = counter.fetch_add(1, Ordering::SeqCst)));
    }
    let notifiers = std::mem::take(&mut *full.record.drained.lock().unwrap());
    assert_eq!(
        (notifiers.len(), woken.load(Ordering::SeqCst)),
        (1, 0),
        "one notification is requested from the sink"
    );
    notifiers[0].notify();
    assert_eq!(woken.load(Ordering::SeqCst), 2);
    for sender in [&mut a, &mut b] {
        assert!(!ask(sender, Op::Broadcast, Qos::NO, "x.*").is_blocked());
    }
    assert_eq!((full.take().len(), other.take().len()), (2, 2));
    // a receiver that leaves releases its senders
    full.record.answer.store(DeliveryStatus::FULL.bits(), Ordering::SeqCst);
    ask(&mut a, Op::Message, Qos::NO, "x.full");
    assert!(ask(&mut b, Op::Message, Qos::NO, "x.full").is_blocked());
    let counter = woken.clone();
    b.client.when_ready(Notifier::new(move || _ = counter.fetch_add(1, Ordering::SeqCst)));
    drop(full);
    assert_eq!(woken.load(Ordering::SeqCst), 3);
    assert_eq!(ask(&mut b, Op::Message, Qos::NO, "x.full").code(), Code::NotRegistered);
}

#[test]
fn a_sender_that_ignores_back_pressure_is_refused_before_memory_runs_out() {
    let broker = broker();
    let mut a = Peer::new(&broker, "a");
    let (slow, healthy) = (Peer::new(&broker, "slow"), Peer::new(&broker, "healthy"));
    let mebibyte = vec![0; 1 << 20];
    let hold = |bytes: u64| slow.record.queued.store(bytes, Ordering::SeqCst);
    slow.record.answer.store(DeliveryStatus::FULL.bits(), Ordering::SeqCst);
    // a plugin that never waits
    let mut flood = || (0..200).take_while(|_| a.send("slow", &mebibyte) == Code::Ok).count() as u64;
    hold(u64::MAX);
    let taken = flood();
    assert!((64..=66).contains(&taken), "{taken} MiB");
    let taken = flood();
    assert_eq!(taken, 0, "refused until the queue has drained");
    hold(1 << 20);
    let taken = flood();
    assert_eq!(taken, 200, "drained messages do not count");
    hold(u64::MAX);
    let taken = flood();
    assert!(taken < 66, "{taken} MiB");
    assert_eq!(a.send("healthy", b"x"), Code::Ok, "other recipients are not affected");
    assert_eq!(healthy.payloads(), ["x"]);
    assert_eq!(a.broadcast("*", b"x"), 2, "the sender itself and `healthy`");
    let health = broker.host().call(&Call::by_broker("health", b"")).unwrap();
    let health = rmpv::decode::read_value(&mut &health[..]).unwrap().to_string();
    assert!(health.contains("\"refused_frames\": 4"), "counted: {health}");
    // after it has waited, its count starts again
    a.client.when_ready(Notifier::new(|| ()));
    assert_eq!(a.send("slow", &mebibyte), Code::Ok);
}

#[test]
fn filters_have_limits() {
    let mut settings = elbus_broker::BrokerSettings::default();
    settings.max_filters = 3;
    let broker = Broker::builder().settings(settings).start().unwrap();
    let mut a = Peer::new(&broker, "a");
    // one is .broker/warn
    assert_eq!(a.filters(Op::Subscribe, &["1", "2"]), Code::Ok);
    assert_eq!(a.filters(Op::Subscribe, &["3"]), Code::Other);
    assert_eq!(a.filters(Op::Exclude, &["1", "2", "3"]), Code::Ok, "exclusions are counted separately");
    a.filters(Op::Unsubscribe, &["1"]);
    assert_eq!(a.filters(Op::Subscribe, &["3"]), Code::Ok);
    let long = "x".repeat(65_536);
    assert_eq!(a.filters(Op::Subscribe, &[&long]), Code::BadData);
    assert_eq!(a.filters(Op::Unsubscribe, &["2", &long]), Code::BadData);
    assert_eq!(a.publish("2", b"still there"), 0, "the topic is excluded");
}

#[test]
fn counters_and_control_methods() {
    let broker = broker();
    let (mut a, b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    let _secondary = Peer::new(&broker, "a%%0");
    a.send("b", b"12345");
    drop(b);
    let call = |method: &str, params: &[u8]| broker.host().call(&Call::by_broker(method, params));
    assert_eq!(call("test", b"").unwrap(), [0x81, 0xA2, 0x6F, 0x6B, 0xC3]);
    assert_eq!(call("test", b"x").unwrap_err().code, -32602);
    assert_eq!(call("nothing", b"").unwrap_err().code, -32601);
    assert_eq!(call("benchmark.test", b"any").unwrap(), b"any");
    let decode = |bytes: Vec<u8>| rmpv::decode::read_value(&mut &bytes[..]).unwrap();
    let stats = decode(call("stats", b"").unwrap());
    let number = |map: &rmpv::Value, key: &str| {
        let found = map.as_map().unwrap().iter().find(|(k, _)| k.as_str() == Some(key));
        found.unwrap_or_else(|| panic!("no {key} in {map}")).1.as_u64().unwrap()
    };
    // "b", NUL, payload: 7 bytes, and an acknowledgement of 6 for the sender; clients that have left are
    // included
    assert_eq!((number(&stats, "r_frames"), number(&stats, "r_bytes")), (1, 7));
    assert_eq!((number(&stats, "w_frames"), number(&stats, "w_bytes")), (2, 13));
    let clients = decode(call("client.list", b"").unwrap());
    let list = clients.as_map().unwrap()[0].1.as_array().unwrap().clone();
    assert_eq!(list.len(), 1, "secondaries are not listed: {clients}");
    assert_eq!(number(&list[0], "instances"), 2);
    let bad = rmp_serde::to_vec_named(&std::collections::BTreeMap::from([("filter", "(")])).unwrap();
    assert_eq!(call("client.list", &bad).unwrap_err().code, -32700);
    assert_eq!(call("client.list", &[0xC1]).unwrap_err().code, -32700);
    let name = rmp_serde::to_vec_named(&std::collections::BTreeMap::from([("name", "a")])).unwrap();
    let remote = broker.host().call(&Call {
        caller: "a",
        caller_id: a.client.id(),
        method: "client.kick",
        params: &name,
    });
    assert_eq!(remote.unwrap_err().code, Code::AccessDenied.rpc_code(), "the caller is remote");
    call("client.kick", &name).unwrap();
    assert_eq!(a.closed(), ["kicked by .broker"]);
    assert_eq!(call("client.kick", &name).unwrap_err().code, Code::NotRegistered.rpc_code());
}

#[test]
fn nothing_starts_after_the_broker_has_stopped() {
    let broker = broker();
    broker.stop(std::time::Duration::ZERO).wait();
    let name = rmp_serde::to_vec_named(&std::collections::BTreeMap::from([("name", "any")])).unwrap();
    let call = Call::by_broker("plugin.start", &name);
    assert_eq!(broker.host().call(&call).unwrap_err().text, "the broker is ending");
}
