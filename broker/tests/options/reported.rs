//! What can be found out: missed publications, options that the broker understands, explanations.

use elbus_plugin_api::{Call, Code, DeliveryStatus, Op};
use serde::Deserialize;
use std::collections::BTreeMap;

use crate::{
    Missed, fill, options_of, publish_all, reports,
    support::{Peer, broker},
    wait_for,
};

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
fn refused_reports_are_repeated_and_long_topics_are_cut_in_them() {
    let broker = broker();
    let (mut a, mut sender) = (Peer::new(&broker, "a"), Peer::new(&broker, "sender"));
    a.subscribe(&["$lossy/#", ".broker/missed"]);
    a.answer(DeliveryStatus::REFUSED);
    let topic = format!("t/{}", "é".repeat(30_000));
    sender.publish(&topic, b"x");
    a.answer(DeliveryStatus::TAKEN);
    let report = wait_for(|| reports(&a).pop());
    assert_eq!((report.count, report.topic.as_str()), (1, &topic[..1024]));
}
