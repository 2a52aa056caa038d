//! Kept values, and what new subscribers and callers of the methods get of them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_plugin_api::{
    Call, CallError, Op,
    hooks::{SubscriptionEvent, Verdict},
    testing::{FakeHost, FakeInstance, FakeReplay},
};
use elbus_retain::Retain;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn start(more: &str) -> (FakeHost, FakeInstance) {
    let fake = FakeHost::new();
    let text = format!("{more}\n[[topic]]\nfilter = 'k/#'\nmax_topics = 5000\n");
    let instance = fake.create::<Retain>("retain", &text).unwrap();
    instance.start().unwrap();
    (fake, instance)
}

fn publish(fake: &FakeHost, topic: &str, payloads: &[&[u8]]) {
    let verdicts = fake.intercept("s", Op::Publish, topic, payloads);
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Continue));
}

/// Waits until a replay has sent `count` values; returns topics and payloads in order of the topics.
fn sent(fake: &FakeHost, replay: &FakeReplay, count: usize) -> Vec<(String, Vec<u8>)> {
    assert!(fake.wait_until(PATIENCE, |_| replay.sent().len() >= count), "{:?}", replay.sent());
    let mut sent: Vec<_> = replay.sent().into_iter().map(|(topic, payload, _)| (topic, payload)).collect();
    sent.sort();
    assert_eq!(sent.len(), count);
    sent
}

fn replays(instance: &FakeInstance) -> String {
    instance.status().detail.rsplit(", ").next().unwrap().to_owned()
}

fn value(topic: &str, payload: &[u8]) -> (String, Vec<u8>) {
    (topic.to_owned(), payload.to_vec())
}

#[test]
fn a_new_subscriber_gets_the_last_value_of_each_topic() {
    let (fake, instance) = start("");
    publish(&fake, "k/a", &[b"1", b"2"]);
    publish(&fake, "k/b", &[b"3"]);
    publish(&fake, "other", &[b"4"]);
    fake.intercept("s", Op::PublishFor, "k/for", &[b"5"]);
    let replay = fake.subscribe("panel", &["k/+", "other"]);
    assert_eq!(sent(&fake, &replay, 2), [value("k/a", b"2"), value("k/b", b"3")]);
    publish(&fake, "k/a", &[b"x", b""]);
    let replay = fake.subscribe("panel", &["k/#"]);
    assert_eq!(sent(&fake, &replay, 1), [value("k/b", b"3")]);
    assert!(fake.wait_until(PATIENCE, |_| replays(&instance) == "0 replays"));
    assert_eq!(instance.status().detail, "1 topics, 5 bytes, 0 values not kept, 0 replays");
}

#[test]
fn a_slow_client_gets_what_is_current_when_it_is_sent() {
    let (fake, instance) = start("");
    for number in 0..1000 {
        publish(&fake, &format!("k/{number}"), &[b"old"]);
    }
    let slow = FakeReplay::default();
    slow.set_room(0);
    let replay = fake.subscribe_with("slow", &["k/#"], &slow);
    // others are not delayed by it
    assert_eq!(sent(&fake, &fake.subscribe("fast", &["k/7"]), 1), [value("k/7", b"old")]);
    for number in 0..1000 {
        publish(&fake, &format!("k/{number}"), &[b"new"]);
    }
    for room in [1, 2, 100, 1000] {
        let before = replay.sent().len();
        replay.set_room(room);
        assert!(fake.wait_until(PATIENCE, |_| replay.sent().len() >= (before + room).min(1000)));
    }
    let sent = sent(&fake, &replay, 1000);
    assert!(sent.iter().all(|(_, payload)| payload == b"new"));
    assert!(sent.windows(2).all(|pair| pair[0].0 != pair[1].0), "each once");
    assert!(fake.wait_until(PATIENCE, |_| replays(&instance) == "0 replays"));
}

#[test]
fn replays_end_with_their_client_and_with_the_instance() {
    let (fake, instance) = start("");
    publish(&fake, "k/a", &[b"1"]);
    for client in ["left", "stays"] {
        let full = FakeReplay::default();
        full.set_room(0);
        fake.subscribe_with(client, &["k/#"], &full);
    }
    assert_eq!(replays(&instance), "2 replays");
    // a broker would also answer `Ended` from then on; it waits only once it had a turn
    assert!(fake.wait_until(PATIENCE, |fake| {
        fake.change_filters(SubscriptionEvent::Left, "left", &[]);
        replays(&instance) == "1 replays"
    }));
    instance.stop(PATIENCE);
    assert!(fake.subscribe("late", &["k/#"]).sent().is_empty());
    assert_eq!(fake.intercept("s", Op::Publish, "k/b", &[b"1"]), [Verdict::Continue]);
    assert!(instance.status().detail.starts_with("1 topics"));
    assert!(fake.failures().is_empty());
}

#[test]
fn replays_of_one_identity_are_limited_and_leave_room_for_others() {
    let (fake, _instance) = start("");
    publish(&fake, "k/a", &[b"1"]);
    fake.set_identity("flood", 1);
    fake.set_identity("other", 2);
    let long = "x".repeat(1 << 20);
    let mut parked = vec![];
    for _ in 0..20 {
        let full = FakeReplay::default();
        full.set_room(0);
        fake.subscribe_with("flood", &["k/a", &long], &full);
        parked.push(full);
    }
    assert_eq!(sent(&fake, &fake.subscribe("other", &["k/a"]), 1), [value("k/a", b"1")]);
    let got = |parked: &[FakeReplay]| parked.iter().filter(|replay| replay.sent().len() == 1).count();
    parked.iter().for_each(|replay| replay.set_room(1));
    assert!(fake.wait_until(PATIENCE, |_| got(&parked) == 15), "{}", got(&parked));
}

#[test]
fn an_identity_beyond_its_rate_waits_and_others_do_not() {
    let (fake, instance) = start("replay_topics_per_second = 1000");
    for number in 0..3000 {
        publish(&fake, &format!("k/{number}"), &[b"1"]);
    }
    fake.set_identity("flood", 1);
    fake.set_identity("other", 2);
    let start = std::time::Instant::now();
    let flood = fake.subscribe("flood", &["k/#"]);
    assert_eq!(sent(&fake, &fake.subscribe("other", &["k/5"]), 1).len(), 1);
    assert!(flood.sent().len() < 3000);
    assert_eq!(sent(&fake, &flood, 3000).len(), 3000);
    // 3,000 topics, of which a burst of 1,000 and the last turn are not waited for
    assert!(start.elapsed() > Duration::from_millis(1000), "{:?}", start.elapsed());
    drop(instance);
}

/// Until a flush, the client gets nothing: neither these values nor what is delivered to it later.
#[test]
fn nothing_is_held_back_while_a_replay_waits_for_its_next_turn() {
    let (fake, instance) = start("replay_topics_per_second = 100");
    for number in 0..1000 {
        publish(&fake, &format!("k/{number}"), &[b"1"]);
    }
    let replay = fake.subscribe("panel", &["k/#"]);
    // it takes seconds
    assert!(fake.wait_until(PATIENCE, |_| !replay.sent().is_empty() && replay.unflushed() == 0));
    assert_eq!(replays(&instance), "1 replays");
}

fn call(fake: &FakeHost, method: &str, params: &[(&str, rmpv::Value)]) -> Result<rmpv::Value, CallError> {
    let map = params.iter().map(|(key, value)| (rmpv::Value::from(*key), value.clone())).collect();
    let mut encoded = vec![];
    rmpv::encode::write_value(&mut encoded, &rmpv::Value::Map(map)).unwrap();
    let result = fake.host("test").call(&Call::by_broker(method, &encoded))?;
    Ok(rmpv::decode::read_value(&mut &*result).unwrap())
}

#[test]
fn values_are_returned_listed_and_deleted() {
    let (fake, _instance) = start("");
    for number in 0..2500 {
        publish(&fake, &format!("k/{}/{number}", number % 2), &[b"1"]);
    }
    publish(&fake, "k/binary", &[b"\xff"]);
    let got = call(&fake, "retain.get", &[("topic", "k/1/7".into())]).unwrap();
    assert_eq!(got.to_string(), r#"{"topic": "k/1/7", "sender": "s", "payload": "1"}"#);
    let got = call(&fake, "retain.get", &[("topic", "k/binary".into())]).unwrap();
    assert_eq!(got["payload"], rmpv::Value::Binary(vec![0xff]));
    assert_eq!(call(&fake, "retain.get", &[("topic", "k/x".into())]).unwrap_err().code, -32001);
    assert_eq!(call(&fake, "retain.get", &[]).unwrap_err().code, -32602);
    for (filter, limit, expected) in [("k/1/+", 100, 1250), ("#", 1000, 2501), ("k/0/8", 1, 1), ("x", 1, 0)] {
        let (mut topics, mut after) = (vec![], None);
        loop {
            let mut params = vec![("filter", filter.into()), ("limit", limit.into())];
            params.extend(after.map(|after: rmpv::Value| ("after", after)));
            let page = call(&fake, "retain.list", &params).unwrap();
            let values = page["values"].as_array().unwrap();
            assert!(values.len() <= limit as usize);
            topics.extend(values.iter().map(|value| value["topic"].to_string()));
            if page["next"].is_nil() {
                break;
            }
            after = Some(page["next"].clone());
        }
        topics.sort();
        topics.dedup();
        assert_eq!(topics.len(), expected, "{filter}");
    }
    let listed = fake.host("test").call(&Call::by_broker("retain.list", b"")).unwrap();
    let listed = rmpv::decode::read_value(&mut &*listed).unwrap();
    assert_eq!(listed["values"].as_array().unwrap().len(), 100);
    assert_eq!(call(&fake, "retain.list", &[("after", "x".into())]).unwrap_err().code, -32602);
    let delete = |key, value: &str| call(&fake, "retain.delete", &[(key, value.into())]);
    assert_eq!(delete("topic", "k/1/7").unwrap().to_string(), r#"{"deleted": 1}"#);
    assert_eq!(delete("topic", "k/1/7").unwrap().to_string(), r#"{"deleted": 0}"#);
    assert_eq!(delete("filter", "k/1/#").unwrap().to_string(), r#"{"deleted": 1249}"#);
    assert_eq!(call(&fake, "retain.delete", &[]).unwrap_err().code, -32602);
    let traits = fake.host("test").method_traits("retain.delete").unwrap();
    assert!(traits.admin && traits.slow && !traits.query);
}

#[test]
fn an_answer_is_limited_in_bytes_and_continues_where_it_ended() {
    let (fake, _instance) = start("");
    for number in 0..100 {
        publish(&fake, &format!("k/{number}"), &[&[b'x'; 10_000]]);
    }
    publish(&fake, "k/large", &[&[b'x'; 1 << 20]]);
    let (mut topics, mut after, mut pages) = (vec![], rmpv::Value::from(""), 0);
    while !after.is_nil() {
        let params = [("limit", 1000.into()), ("after", after)];
        let page = call(&fake, "retain.list", if pages == 0 { &params[..1] } else { &params }).unwrap();
        topics.extend(page["values"].as_array().unwrap().iter().map(|value| value["topic"].to_string()));
        (after, pages) = (page["next"].clone(), pages + 1);
    }
    let count = topics.len();
    topics.sort();
    topics.dedup();
    assert!(topics.len() == 101 && count == 101 && (5..20).contains(&pages), "{count} {pages}");
}

#[test]
fn invalid_configuration_is_refused() {
    let error = |config: &str| FakeHost::new().create::<Retain>("r", config).err().unwrap().to_string();
    assert_eq!(error("topic = []"), "topic: expected 1 to 64 tables, found 0");
    let of = |key: &str| error(&format!("[[topic]]\nfilter = 'a'\n{key}\n"));
    assert_eq!(of("max_topics = 0"), "topic[0].max_topics: must be at least 1");
    assert!(of("max = 1").contains("max"), "{}", of("max = 1"));
    let option = error("[[topic]]\nfilter = '$latest/a'");
    assert!(option.contains("topic[0].filter: expected a topic filter without options"), "{option}");
}
