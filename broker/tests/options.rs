//! Subscriptions with options: which client gets a publication, and what becomes of those that it cannot
//! take.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::Broker;
use elbus_plugin_api::{Call, ClientInfo, Code, DeliveryStatus, Op, Qos};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use support::{Got, Peer, broker};

const FULL: DeliveryStatus = DeliveryStatus::FULL;

/// Publishes and returns the code.
fn publish_code(sender: &mut Peer, topic: &str) -> Code {
    sender.dispatch(Op::Publish, Qos::PROCESSED, topic, "", &[b"x"]).code()
}

/// Publishes a run.
fn publish_all(sender: &mut Peer, topic: &str, payloads: &[&[u8]]) -> u32 {
    sender.dispatch(Op::Publish, Qos::NO, topic, "", payloads).reached()
}

fn numbers(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| number.to_string().into_bytes()).collect()
}

/// Fills the queue of a client: it is over its limit until it is drained.
fn fill(sender: &mut Peer, client: &Peer) {
    client.answer(FULL);
    assert_eq!(sender.send(&client.name, b"fill"), Code::Ok);
    client.answer(DeliveryStatus::TAKEN);
    assert_eq!(client.take().len(), 1);
}

fn wait_for<T>(mut get: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = get() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn malformed_options_are_refused_and_change_nothing() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    let long = format!("$share/{}/f", "g".repeat(65_000));
    for filter in
        ["$share//f", "$share/g", "$share/g+/f", &long, "$key/g/0/f", "$latest/$share/g/f", "$every/x/f"]
    {
        for op in [Op::Subscribe, Op::Unsubscribe, Op::Exclude, Op::Unexclude] {
            assert_eq!(a.filters(op, &["ok", filter]), Code::BadData, "{op:?} {filter}");
        }
    }
    for filter in ["$latest/f", "$share/g/f", "$lossy/f"] {
        assert_eq!(a.filters(Op::Exclude, &[filter]), Code::BadData);
        assert_eq!(a.filters(Op::Unexclude, &[filter]), Code::BadData);
        assert_eq!(publish_code(&mut sender, filter), Code::BadData);
        assert_eq!(sender.mixed(&[(Op::Publish, filter, b"x")]), [Code::BadData as u8]);
    }
    assert_eq!(
        sender.dispatch(Op::PublishFor, Qos::PROCESSED, "$latest/f", "a", &[b"x"]).code(),
        Code::BadData
    );
    sender.publish("ok", b"1");
    assert!(a.take().is_empty(), "no filter of the requests was added");
    // an unknown option is an ordinary topic
    a.subscribe(&["$newest/f"]);
    assert_eq!(sender.publish("$newest/f", b"1"), 1);
    assert_eq!(a.payloads(), ["1"]);
}

#[test]
fn a_subscription_ends_by_its_only_spelling() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["$share/g/$latest/f/#"]);
    for other in ["f/#", "$share/g/f/#", "$latest/f/#", "$share/h/$latest/f/#", "$share/g/$latest/f/+"] {
        assert_eq!(a.filters(Op::Unsubscribe, &[other]), Code::Ok, "{other} was not there");
        assert_eq!(sender.publish("f/x", b"1"), 1);
    }
    // what follows a `#` has no meaning
    assert_eq!(a.filters(Op::Unsubscribe, &["$share/g/$latest/f/#/behind"]), Code::Ok);
    assert_eq!(sender.publish("f/x", b"1"), 0);
}

/// What a client with these filters gets of a publication to `t` while it is full, and while it is not: the
/// filter that decides is the one of the third column.
const DECIDING: &[(&[&str], &str)] = &[
    (&["t", "$lossy/t"], "plain"),
    (&["$latest/t", "#"], "plain"),
    (&["$share/g/t", "t"], "plain"),
    (&["$key/g/1/#", "+"], "plain"),
    (&["$latest/t", "$lossy/#"], "lossy"),
    (&["$every/5/t", "$lossy/t"], "lossy"),
    (&["$share/g/t", "$lossy/t"], "lossy"),
    (&["$every/86400000/t", "$latest/+"], "latest"),
    (&["$share/g/t", "$latest/t"], "latest"),
    (&["$share/g/$lossy/t", "$share/g/t"], "plain"),
    (&["$share/g/$latest/t", "$share/g/$lossy/#"], "lossy"),
    (&["$share/g/$latest/t", "$share/h/t"], "plain"),
    (&["$share/g/$latest/t", "$key/h/1/$lossy/t"], "lossy"),
    (&["$share/g/t", "$share/h/t", "$key/g/1/t", "$key/g/2/t"], "plain"),
];

#[test]
fn a_client_gets_a_publication_once_and_the_filter_that_keeps_most_decides() {
    for (filters, deciding) in DECIDING {
        let mut orders = vec![filters.to_vec(), filters.iter().rev().copied().collect()];
        for filters in &mut orders {
            let broker = broker();
            let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
            a.subscribe(filters);
            assert_eq!(sender.publish("t", b"1"), 1, "{filters:?}");
            assert_eq!(a.payloads(), ["1"], "{filters:?}");
            fill(&mut sender, &a);
            let result = sender.blocking(Op::Publish, "t", "");
            assert_eq!(result.is_blocked(), *deciding == "plain", "{filters:?}");
            assert!(a.take().is_empty(), "{filters:?}");
            a.drain();
            let later = if *deciding == "latest" { 1 } else { 0 };
            assert_eq!(a.take().len(), later, "{filters:?}");
        }
    }
}

#[test]
fn shorter_intervals_decide() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["$every/86400000/t", "$every/1/#"]);
    for number in 0..3 {
        sender.publish("t", number.to_string().as_bytes());
        wait_for(|| (a.payloads() == [number.to_string()]).then_some(()));
    }
}

#[test]
fn exclusions_and_publications_for_one_primary_concern_options_too() {
    let broker = broker();
    let (mut a, mut b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    let mut second = Peer::new(&broker, "b%%2");
    let mut sender = Peer::new(&broker, "sender");
    a.subscribe(&["$lossy/#"]);
    b.subscribe(&["$share/g/#"]);
    second.subscribe(&["$share/g/#"]);
    assert_eq!(a.filters(Op::Exclude, &["x/#"]), Code::Ok);
    assert_eq!((sender.publish("x/1", b"1"), a.take().len()), (1, 0));
    assert_eq!((sender.publish("y", b"2"), a.take().len()), (2, 1));
    assert_eq!(sender.publish_for("y", "a", b"3"), 1);
    assert_eq!(a.payloads(), ["3"]);
    b.take();
    second.take();
    for _ in 0..4 {
        assert_eq!(sender.publish_for("y", "b", b"4"), 1, "one member of the group");
    }
    assert_eq!((b.take().len(), second.take().len()), (2, 2), "a secondary is a member of its own");
    assert_eq!(sender.publish_for("y", "b%%2", b"5"), 0);
    assert_eq!(b.filters(Op::Exclude, &["y"]), Code::Ok);
    (0..3).for_each(|_| assert_eq!(sender.publish("y", b"6"), 2));
    assert_eq!((b.take().len(), second.take().len()), (0, 3));
}

fn members(broker: &Broker, count: usize, filter: &str) -> Vec<Peer> {
    let mut members: Vec<_> = (0..count).map(|number| Peer::new(broker, &format!("m.{number}"))).collect();
    members.iter_mut().for_each(|member| member.subscribe(&[filter]));
    members
}

fn counts(members: &[Peer]) -> Vec<usize> {
    members.iter().map(|member| member.take().len()).collect()
}

#[test]
fn a_group_takes_publications_in_turn() {
    let broker = broker();
    let members = members(&broker, 4, "$share/g/t/#");
    let mut sender = Peer::new(&broker, "sender");
    for number in 0..40 {
        assert_eq!(sender.publish(&format!("t/{number}"), b"x"), 1);
    }
    assert_eq!(counts(&members), [10; 4]);
    // the frames of one run as well, each of them to one member
    let payloads = numbers(256);
    let payloads: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
    assert_eq!(publish_all(&mut sender, "t/run", &payloads), 1);
    let got: Vec<_> = members.iter().map(Peer::payloads).collect();
    assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [64; 4]);
    for own in &got {
        assert!(own.is_sorted_by_key(|number| number.parse::<u32>().unwrap()), "in order");
    }
    let mut all: Vec<usize> = got.concat().iter().map(|number| number.parse().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..256).collect::<Vec<_>>());
    for (run, most) in [(3, 1), (10, 3), (5, 2), (1, 1)] {
        publish_all(&mut sender, "t/short", &payloads[..run]);
        assert!(counts(&members).iter().all(|count| *count <= most), "{run}");
    }
}

#[test]
fn groups_are_apart_and_a_client_can_be_in_several() {
    let broker = broker();
    let mut sender = Peer::new(&broker, "sender");
    let (mut a, mut b, mut c) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"), Peer::new(&broker, "c"));
    a.subscribe(&["$share/g/t", "$share/h/t"]);
    b.subscribe(&["$share/g/t"]);
    c.subscribe(&["$share/h/#"]);
    let (mut total, mut together) = (0, 0);
    for _ in 0..40 {
        let reached = sender.publish("t", b"x");
        let got = [a.take().len(), b.take().len(), c.take().len()];
        assert!(got.iter().all(|count| *count <= 1), "each once: {got:?}");
        assert_eq!(got.iter().sum::<usize>(), reached as usize);
        match got {
            // chosen for both groups
            [1, 0, 0] => together += 1,
            [1, 1, 0] | [1, 0, 1] | [0, 1, 1] => {}
            _ => panic!("a group got nothing: {got:?}"),
        }
        total += reached;
    }
    assert!(total >= 40 && together <= 40);
}

#[test]
fn the_member_with_less_in_its_queue_is_chosen_and_full_ones_are_left_out() {
    let broker = broker();
    let members = members(&broker, 3, "$share/g/t");
    let mut sender = Peer::new(&broker, "sender");
    members[1].set_queued(1000);
    (0..30).for_each(|_| _ = sender.publish("t", b"x"));
    let got = counts(&members);
    assert!(got[1] == 0 && got[0] + got[2] == 30, "{got:?}");
    members[1].set_queued(0);
    fill(&mut sender, &members[0]);
    fill(&mut sender, &members[1]);
    (0..30).for_each(|_| assert!(!sender.blocking(Op::Publish, "t", "").is_blocked()));
    assert_eq!(counts(&members), [0, 0, 30]);
    fill(&mut sender, &members[2]);
    assert!(sender.blocking(Op::Publish, "t", "").is_blocked(), "all are over their limit");
    assert_eq!(counts(&members), [0, 0, 0]);
    members[1].drain();
    (0..10).for_each(|_| assert!(!sender.blocking(Op::Publish, "t", "").is_blocked()));
    assert_eq!(counts(&members), [0, 10, 0]);
    members[0].drain();
    members[2].drain();
    (0..30).for_each(|_| _ = sender.blocking(Op::Publish, "t", ""));
    let got = counts(&members);
    assert!(got.iter().all(|count| (8..=12).contains(count)), "{got:?}");
}

#[test]
fn another_full_receiver_does_not_change_the_turns() {
    let broker = broker();
    let members = members(&broker, 2, "$share/g/t");
    let (mut sender, other) = (Peer::new(&broker, "sender"), Peer::new(&broker, "other"));
    fill(&mut sender, &other);
    (0..20).for_each(|_| assert!(!sender.blocking(Op::Publish, "t", "").is_blocked()));
    assert_eq!(counts(&members), [10, 10]);
    // nor do runs that cannot be split evenly
    (0..10).for_each(|_| _ = publish_all(&mut sender, "t", &[b"1", b"2", b"3"]));
    assert_eq!(counts(&members), [15, 15]);
}

#[test]
fn a_member_that_loses_publications_by_choice_holds_nobody() {
    let broker = broker();
    let (mut a, mut b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    let mut sender = Peer::new(&broker, "sender");
    a.subscribe(&["$share/g/t"]);
    b.subscribe(&["$share/g/$lossy/t"]);
    fill(&mut sender, &a);
    fill(&mut sender, &b);
    let result = sender.blocking(Op::Publish, "t", "");
    assert!(!result.is_blocked() && result.code() == Code::Ok);
    assert!(a.take().is_empty() && b.take().is_empty());
}

#[test]
fn a_key_goes_to_one_member_until_the_membership_changes() {
    let broker = broker();
    let mut members = members(&broker, 5, "$key/g/2/plant/+/#");
    let mut sender = Peer::new(&broker, "sender");
    let owners = |sender: &mut Peer, members: &[Peer]| -> Vec<usize> {
        let mut owners = vec![];
        for device in 0..200 {
            for topic in ["state", "load/1"] {
                sender.publish(&format!("plant/{device}/{topic}"), b"x");
            }
            let got = counts(members);
            assert_eq!(got.iter().sum::<usize>(), 2);
            owners.push(got.iter().position(|count| *count == 2).expect("both at one member"));
        }
        owners
    };
    let before = owners(&mut sender, &members);
    assert_eq!(owners(&mut sender, &members), before);
    assert!((0..5).all(|member| before.contains(&member)));
    members.pop();
    let after = owners(&mut sender, &members);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(moved, before.iter().filter(|owner| **owner == 4).count(), "only those of the one that left");
    fill(&mut sender, &members[after[0]]);
    assert!(sender.blocking(Op::Publish, "plant/0/state", "").is_blocked(), "order is kept");
}

#[test]
fn the_newest_value_of_each_topic_waits_for_a_slow_client() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["$latest/t/#"]);
    assert_eq!(publish_all(&mut sender, "t/1", &[b"1", b"2", b"3"]), 1);
    assert_eq!(a.payloads(), ["3"], "of a run only the last one matters");
    a.set_queued(1);
    for round in 0..100 {
        for topic in ["t/1", "t/2"] {
            assert!(!sender.blocking(Op::Publish, topic, "").is_blocked());
            sender.publish(topic, format!("{topic} {round}").as_bytes());
        }
    }
    assert!(a.take().is_empty(), "nothing is encoded while the queue is not empty");
    a.set_queued(0);
    assert_eq!(a.payloads(), ["t/1 99", "t/2 99"]);
    sender.publish("t/1", b"live");
    let expected: Got =
        (elbus_plugin_api::FrameKind::Publish, "sender".into(), "t/1".into(), b"live".to_vec());
    assert_eq!(a.take(), [expected], "with its sender");
    // after the end of the subscription nothing comes
    a.set_queued(1);
    sender.publish("t/1", b"never");
    assert_eq!(a.filters(Op::Unsubscribe, &["$latest/t/#"]), Code::Ok);
    a.set_queued(0);
    assert!(a.take().is_empty());
}

#[test]
fn values_that_wait_are_limited_and_count_in_the_budget() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["$latest/#", ".broker/missed"]);
    a.set_queued(1);
    for number in 0..10_003 {
        sender.publish(&format!("t/{number}"), b"x");
    }
    let queued = |broker: &Broker| health(broker).queued_bytes;
    assert!(queued(&broker) > 10_000 * 100);
    let info = options_of(&broker, "a");
    assert_eq!((info.pending, info.missed, info.replaced), (10_000, 3, 0));
    a.take();
    a.set_queued(0);
    let got = wait_for(|| {
        let mut got = a.record.got.lock().unwrap();
        got.retain(|(_, sender, ..)| sender == "sender");
        (got.len() == 10_000).then(|| got.clone())
    });
    assert_eq!(got[9999].2, "t/9999");
    assert_eq!(queued(&broker), 0);
    // more bytes than a queue may have
    a.set_queued(1);
    for number in 0..10 {
        sender.publish(&format!("large/{number}"), &vec![1; 1 << 20]);
    }
    assert_eq!(options_of(&broker, "a").missed, 3 + 3, "8 MiB, and a little for each topic");
    drop(a);
    wait_for(|| (queued(&broker) == 0).then_some(()));
}

#[test]
fn a_topic_comes_once_in_an_interval_and_its_last_value_arrives() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["$every/100/t"]);
    let mut times = vec![];
    let began = Instant::now();
    let mut number = 0u32;
    while began.elapsed() < Duration::from_millis(450) {
        number += 1;
        sender.publish("t", number.to_string().as_bytes());
        a.take().iter().for_each(|_| times.push(Instant::now()));
        std::thread::sleep(Duration::from_millis(1));
    }
    let last = wait_for(|| a.payloads().pop());
    times.push(Instant::now());
    assert_eq!(last, number.to_string());
    // it is stopped by nobody, so a pause of the machine can only make the intervals longer
    assert!((2..=6).contains(&times.len()), "{}", times.len());
}

#[derive(Deserialize, Debug, PartialEq, Eq)]
struct Missed {
    filter: String,
    topic: String,
    count: u64,
}

/// Returns the reports that a client has got.
fn reports(client: &Peer) -> Vec<Missed> {
    let got = client
        .take()
        .into_iter()
        .filter(|(_, sender, topic, _)| sender == ".broker" && topic == ".broker/missed");
    got.map(|(.., payload)| rmp_serde::from_slice(&payload).unwrap()).collect()
}

#[test]
fn a_lossy_client_learns_what_it_has_missed() {
    let broker = broker();
    let (mut a, mut b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    let mut sender = Peer::new(&broker, "sender");
    a.subscribe(&["$lossy/t/#", ".broker/missed"]);
    b.subscribe(&["$lossy/t/1"]);
    fill(&mut sender, &a);
    fill(&mut sender, &b);
    for _ in 0..3 {
        let result = sender.blocking(Op::Publish, "t/1", "");
        assert!(!result.is_blocked() && result.code() == Code::Ok);
    }
    publish_all(&mut sender, "t/2", &[b"1", b"2"]);
    assert!(a.take().is_empty(), "not while its queue is full");
    a.drain();
    b.drain();
    let got = wait_for(|| Some(reports(&a)).filter(|got| !got.is_empty()));
    assert_eq!(got, [Missed { filter: "$lossy/t/#".into(), topic: "t/2".into(), count: 5 }]);
    assert!(b.take().is_empty(), "it is not subscribed to reports");
    assert_eq!((options_of(&broker, "a").missed, options_of(&broker, "b").missed), (5, 3));
    assert_eq!(sender.publish("t/1", b"fits"), 2);
    assert_eq!((a.payloads(), b.payloads()), (vec!["fits".to_owned()], vec!["fits".to_owned()]));
}

#[derive(Deserialize)]
struct Health {
    queued_bytes: u64,
}

fn health(broker: &Broker) -> Health {
    rmp_serde::from_slice(&broker.host().call(&Call::by_broker("health", &[])).unwrap()).unwrap()
}

#[derive(Deserialize, Clone)]
struct Options {
    filter: String,
    missed: u64,
    replaced: u64,
    pending: u64,
}

#[derive(Deserialize)]
struct Info {
    options: Vec<Options>,
}

/// Returns the only subscription with options of a client.
fn options_of(broker: &Broker, name: &str) -> Options {
    let params = rmp_serde::to_vec_named(&BTreeMap::from([("name", name)])).unwrap();
    let info: Info =
        rmp_serde::from_slice(&broker.host().call(&Call::by_broker("client.info", &params)).unwrap())
            .unwrap();
    assert_eq!(info.options.len(), 1);
    assert!(info.options[0].filter.starts_with('$'));
    info.options[0].clone()
}

#[test]
fn the_broker_lists_what_it_understands() {
    let broker = broker();
    let features: BTreeMap<String, bool> =
        rmp_serde::from_slice(&broker.host().call(&Call::by_broker("features", &[])).unwrap()).unwrap();
    for feature in ["share", "key", "latest", "every", "lossy", "missed"] {
        assert_eq!(features.get(feature), Some(&true), "{feature}");
    }
}

#[derive(Deserialize)]
struct Explained {
    recipients: Vec<String>,
    recipient_count: u64,
    options: Vec<ExplainedOption>,
}

#[derive(Deserialize)]
struct ExplainedOption {
    client: String,
    filter: String,
    group: Option<String>,
}

#[test]
fn explain_shows_options_and_groups() {
    let broker = broker();
    let (mut a, mut b, mut c) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"), Peer::new(&broker, "c"));
    a.subscribe(&["t"]);
    b.subscribe(&["$latest/t"]);
    c.subscribe(&["$key/g/1/#"]);
    let explain = |action: &str, target: &str| {
        let question = BTreeMap::from([("action", action), ("name", "a"), ("target", target)]);
        broker.host().call(&Call::by_broker("explain", &rmp_serde::to_vec_named(&question).unwrap()))
    };
    let explained: Explained = rmp_serde::from_slice(&explain("publish", "t").unwrap()).unwrap();
    assert_eq!((explained.recipients, explained.recipient_count), (vec!["a".to_owned(), "b".to_owned()], 3));
    let options: Vec<_> =
        explained.options.iter().map(|one| (&*one.client, &*one.filter, one.group.as_deref())).collect();
    assert_eq!(options, [("b", "$latest/t", None), ("c", "$key/g/1/#", Some("$key/g/1"))]);
    assert!(explain("publish", "$latest/t").is_err() && explain("subscribe", "$every/0/t").is_err());
    assert!(explain("subscribe", "$every/1/t").is_ok());
    assert_eq!(broker.subscriber_count("t"), 3);
}

#[test]
fn many_groups_are_limited_like_filters_and_are_forgotten() {
    let broker = broker();
    let mut sender = Peer::new(&broker, "sender");
    let mut a = Peer::new(&broker, "a");
    let mut count = 0;
    // a million of them, as far as the memory of the filters of a client allows
    'all: for request in 0..1000 {
        let filters: Vec<_> = (0..1000).map(|number| format!("$share/{request}.{number}/t")).collect();
        let filters: Vec<_> = filters.iter().map(String::as_str).collect();
        match a.filters(Op::Subscribe, &filters) {
            Code::Ok => count += 1000,
            code => {
                assert_eq!(code, Code::Other, "a limit");
                break 'all;
            }
        }
    }
    assert!((10_000..100_001).contains(&count), "{count}");
    assert_eq!(sender.publish("t", b"x"), 1, "one client gets it once");
    assert_eq!(a.take().len(), 1);
    drop(a);
    assert_eq!(sender.publish("t", b"x"), 0);
    let mut again = Peer::of(&broker, "a", ClientInfo::default()).unwrap();
    again.subscribe(&["$share/0.0/t"]);
    assert_eq!(sender.publish("t", b"x"), 1);
}

#[test]
fn what_a_departed_member_has_not_got_goes_to_the_others() {
    let broker = broker();
    let mut sender = Peer::new(&broker, "sender");
    let (mut a, mut b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    let mut other = Peer::new(&broker, "other");
    a.subscribe(&["$share/g/t/#", "$share/g/u", "plain/#", "$lossy/loss"]);
    for topic in ["t/1", "t/2", "u", "plain/1", "loss"] {
        sender.publish(topic, topic.as_bytes());
    }
    sender.send("a", b"message");
    b.subscribe(&["$share/g/t/#"]);
    other.subscribe(&["$share/h/#"]);
    drop(a);
    assert_eq!(b.payloads(), ["t/1", "t/2"], "what it has got as a member, from its sender");
    assert!(other.take().is_empty(), "members of another group have nothing to do with it");
    // also to members over their limit, and if it is evicted
    let mut c = Peer::new(&broker, "c");
    c.subscribe(&["$share/g/t/#"]);
    b.set_queued(9);
    sender.publish("t/3", b"t/3");
    b.set_queued(0);
    fill(&mut sender, &b);
    let params = rmp_serde::to_vec_named(&BTreeMap::from([("name", "c")])).unwrap();
    broker.host().call(&Call::by_broker("client.kick", &params)).unwrap();
    assert_eq!((c.closed().len(), b.payloads()), (1, vec!["t/3".to_owned()]));
    // the last member has nobody
    b.drain();
    sender.publish("t/4", b"t/4");
    drop(b);
    assert_eq!(sender.publish("t/5", b"t/5"), 1, "to the other group only");
}

#[test]
fn a_plain_filter_keeps_what_a_departed_client_has_not_got_from_others() {
    let broker = broker();
    let mut sender = Peer::new(&broker, "sender");
    let (mut a, mut b) = (Peer::new(&broker, "a"), Peer::new(&broker, "b"));
    a.subscribe(&["$share/g/#", "t"]);
    b.subscribe(&["$share/g/#"]);
    assert_eq!(sender.publish("t", b"1"), 2);
    assert_eq!(b.payloads(), ["1"]);
    drop(a);
    assert!(b.take().is_empty(), "b has got it, and a would have got it in any case");
}

#[test]
fn a_member_whose_connection_has_closed_takes_nothing_from_the_others() {
    let broker = broker();
    let mut members = members(&broker, 3, "$share/g/t");
    let mut sender = Peer::new(&broker, "sender");
    // it has the least in its queue, and is still registered
    members[0].answer(DeliveryStatus::CLOSED);
    members[1].set_queued(1000);
    members[2].set_queued(1000);
    (0..20).for_each(|_| assert_eq!(sender.publish("t", b"x"), 1));
    let got = counts(&members);
    assert_eq!((got[0], got[1] + got[2]), (0, 20));
    // also for clients in several groups
    members.iter_mut().for_each(|member| member.subscribe(&["$share/h/t"]));
    for _ in 0..20 {
        let reached = sender.publish("t", b"x") as usize;
        let got = counts(&members);
        assert!(got[0] == 0 && reached == got[1] + got[2] && (1..=2).contains(&reached), "{got:?}");
    }
}

#[test]
fn members_come_and_go_ten_thousand_times_and_nothing_is_lost() {
    const ROUNDS: usize = 10_000;
    let broker = broker();
    let ended = AtomicBool::new(false);
    let mut last = Peer::new(&broker, "last");
    last.subscribe(&["$share/g/t/#"]);
    let mut got: Vec<u64> = vec![];
    let read = |client: &Peer, got: &mut Vec<u64>| {
        got.extend(client.payloads().iter().map(|number| number.parse::<u64>().unwrap()));
    };
    let published = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut sender = Peer::new(&broker, "sender");
            let mut number = 0u64;
            while !ended.load(Ordering::SeqCst) {
                let run: Vec<_> = (0..number % 40 + 1).map(|at| (number + at).to_string()).collect();
                let payloads: Vec<_> = run.iter().map(String::as_bytes).collect();
                publish_all(&mut sender, &format!("t/{}", number % 3), &payloads);
                number += run.len() as u64;
                std::thread::yield_now();
            }
            number
        });
        for round in 0..ROUNDS {
            let mut members: Vec<_> =
                (0..round % 3 + 1).map(|at| Peer::new(&broker, &format!("m.{round}.{at}"))).collect();
            members.iter_mut().for_each(|member| member.subscribe(&["$share/g/#"]));
            if round % 2 == 0 {
                std::thread::yield_now();
            }
            // one of them reads what it has, the others leave with it
            read(&members[0], &mut got);
            drop(members);
            if round % 100 == 0 {
                read(&last, &mut got);
            }
        }
        ended.store(true, Ordering::SeqCst);
        publishing.join().unwrap()
    });
    read(&last, &mut got);
    got.sort_unstable();
    assert_eq!(got.len() as u64, published);
    assert!(got.iter().zip(0..).all(|(got, number)| *got == number), "each once");
}
