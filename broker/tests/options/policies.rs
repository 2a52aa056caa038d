//! The overflow policy "latest" of a transport or a name.

use elbus_broker::Broker;
use elbus_plugin_api::{
    Call, ClientInfo, Code, Op,
    access::{AccessRules, ClientRules, Verdict},
    config::Overflow,
};
use serde::Deserialize;
use std::collections::BTreeMap;

use crate::{
    client_options, fill, health, options_of, reports,
    support::{Peer, broker},
    wait_for,
};

/// Registers a client whose transport keeps the newest values.
fn latest_client(broker: &Broker, name: &str) -> Peer {
    Peer::of(broker, name, ClientInfo::default().with_overflow(Overflow::Latest)).unwrap()
}

#[derive(Deserialize)]
struct Policy {
    overflow: String,
    dropped_frames: u64,
}

fn policy_of(broker: &Broker, name: &str) -> Policy {
    let params = rmp_serde::to_vec_named(&BTreeMap::from([("name", name)])).unwrap();
    rmp_serde::from_slice(&broker.host().call(&Call::by_broker("client.info", &params)).unwrap()).unwrap()
}

/// Publishes the topic and a text.
fn publish_text(sender: &mut Peer, topic: &str, text: &str) {
    sender.publish(topic, format!("{topic} {text}").as_bytes());
}

#[test]
fn plain_filters_of_a_client_that_keeps_newest_values_are_as_latest() {
    let broker = broker();
    let (mut a, mut other) = (latest_client(&broker, "a"), Peer::new(&broker, "other"));
    let mut sender = Peer::new(&broker, "sender");
    a.subscribe(&["t/#", "t/1"]);
    other.subscribe(&["t/#"]);
    assert_eq!(policy_of(&broker, "a").overflow, "latest");
    assert_eq!(policy_of(&broker, "other").overflow, "block");
    publish_text(&mut sender, "t/1", "0");
    assert_eq!(a.payloads(), ["t/1 0"], "once, and at once while it is not slow");
    fill(&mut sender, &a);
    a.set_queued(1);
    for number in 1..100u32 {
        for topic in ["t/1", "t/2"] {
            assert_eq!(sender.blocking(Op::Publish, topic, "").code(), Code::Ok, "it holds nobody");
            publish_text(&mut sender, topic, &number.to_string());
        }
    }
    assert!(a.take().is_empty());
    assert_eq!(other.take().len(), 1 + 4 * 99, "others get everything");
    let info = options_of(&broker, "a");
    assert_eq!((info.filter.as_str(), info.pending, info.missed), ("", 2, 0));
    assert_eq!(info.replaced, 4 * 99 - 2);
    // a message holds its sender, as with other policies
    assert!(sender.blocking(Op::Message, "a", "").is_blocked());
    a.drain();
    a.set_queued(0);
    assert_eq!(a.payloads(), ["t/1 99", "t/2 99"]);
    // an exclusion, the end of a subscription, and the client's own options
    assert_eq!(a.filters(Op::Exclude, &["t/2"]), Code::Ok);
    publish_text(&mut sender, "t/2", "excluded");
    assert_eq!(a.filters(Op::Unsubscribe, &["t/#"]), Code::Ok);
    publish_text(&mut sender, "t/3", "no longer");
    a.subscribe(&["$lossy/l", "$share/g/s"]);
    for topic in ["l", "s", "t/1"] {
        publish_text(&mut sender, topic, "last");
    }
    assert_eq!(a.payloads(), ["l last", "s last", "t/1 last"]);
}

#[test]
fn a_member_of_a_group_that_keeps_newest_values_holds_nobody() {
    let broker = broker();
    let (mut a, mut sender) = (latest_client(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["$share/g/t"]);
    fill(&mut sender, &a);
    a.set_queued(1);
    for _ in 0..10 {
        assert_eq!(sender.blocking(Op::Publish, "t", "").code(), Code::Ok);
    }
    assert!(a.take().is_empty());
    a.drain();
    a.set_queued(0);
    assert_eq!(a.payloads(), ["x"]);
}

#[test]
fn announcements_of_the_broker_are_no_values() {
    let broker = broker();
    let (mut a, mut sender) = (latest_client(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["#"]);
    a.set_queued(1);
    sender.publish(".broker/info", b"1");
    sender.publish(".broker/info", b"2");
    assert_eq!(a.payloads(), ["1", "2"]);
}

#[test]
fn values_that_wait_because_of_a_policy_are_limited_and_reported() {
    let broker = broker();
    let (mut a, mut sender) = (latest_client(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["#", "t/+", ".broker/missed"]);
    a.set_queued(1);
    for number in 0..10_003 {
        sender.publish(&format!("t/{number}"), b"x");
    }
    let report = wait_for(|| {
        let own = reports(&a);
        (!own.is_empty()).then_some(own)
    });
    assert!(report.iter().all(|report| report.filter.is_empty() && report.topic.starts_with("t/1000")));
    let mut counted: u64 = report.iter().map(|report| report.count).sum();
    while counted < 3 {
        counted += wait_for(|| reports(&a).pop()).count;
    }
    let info = client_options(&broker, "a");
    assert_eq!((info[0].filter.as_str(), info[0].pending, info[0].missed), ("", 10_000, 3));
    // a client that leaves takes its store with it
    assert!(health(&broker).queued_bytes > 10_000 * 100);
    drop(a);
    wait_for(|| (health(&broker).queued_bytes == 0).then_some(()));
}

#[test]
fn the_rules_for_a_name_replace_the_policy_of_its_transport() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["t"]);
    let set = |overflow: Option<Overflow>| {
        let clients = ClientRules { name: "a".to_owned(), overflow, ..ClientRules::default() };
        let rules = AccessRules { default: Verdict::Allow, clients: vec![clients], user_names: vec![] };
        broker.host().set_access_rules(&rules).unwrap();
    };
    let applied = |client: &Peer| {
        let limits = client.record.limits.lock().unwrap().last().unwrap().overflow();
        (policy_of(&broker, "a").overflow, limits)
    };
    set(Some(Overflow::Latest));
    assert_eq!(applied(&a), ("latest".into(), Some(Overflow::Latest)));
    fill(&mut sender, &a);
    a.set_queued(1);
    for _ in 0..10 {
        assert_eq!(sender.blocking(Op::Publish, "t", "").code(), Code::Ok);
    }
    assert_eq!(options_of(&broker, "a").pending, 1);
    // what waits does not arrive after something newer, and is counted
    set(Some(Overflow::Disconnect));
    assert_eq!(applied(&a), ("disconnect".into(), Some(Overflow::Disconnect)));
    a.drain();
    sender.publish("t", b"newer");
    a.set_queued(0);
    assert_eq!(a.payloads(), ["newer"]);
    assert_eq!(policy_of(&broker, "a").dropped_frames, 1);
    set(None);
    assert_eq!(applied(&a), ("block".into(), None));
    fill(&mut sender, &a);
    assert!(sender.blocking(Op::Publish, "t", "").is_blocked());
}
