//! Lengths of names, targets, masks, topics and receivers: a request beyond the limit is refused without
//! disconnecting the client.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::{Broker, BrokerSettings};
use elbus_plugin_api::{Code, Op, Qos};
use support::{Peer, broker};

fn code(peer: &mut Peer, op: Op, target: &str, receiver: &str) -> Code {
    peer.dispatch(op, Qos::PROCESSED, target, receiver, &[b"x"]).code()
}

#[test]
fn targets_longer_than_max_topic_bytes_are_refused_without_a_disconnect() {
    let broker = broker();
    let mut client = Peer::new(&broker, "a");
    client.subscribe(&["#"]);
    let (longest, longer) = ("t".repeat(65_535), "t".repeat(65_536));
    assert_eq!(code(&mut client, Op::Publish, &longest, ""), Code::Ok);
    assert_eq!(code(&mut client, Op::PublishFor, &longest, &longest), Code::Ok);
    assert_eq!(code(&mut client, Op::Broadcast, &longest, ""), Code::Ok);
    assert_eq!(code(&mut client, Op::Message, &longest, ""), Code::NotRegistered);
    assert_eq!(client.take().len(), 1);
    for (op, target, receiver) in [
        (Op::Publish, &*longer, ""),
        (Op::PublishFor, &*longer, "a"),
        (Op::PublishFor, "t", &*longer),
        (Op::Broadcast, &*longer, ""),
        (Op::Message, &*longer, ""),
    ] {
        assert_eq!(code(&mut client, op, target, receiver), Code::BadData, "{op:?}");
    }
    assert!(client.take().is_empty());
    assert_eq!(client.send("a", b"still here"), Code::Ok);
}

#[test]
fn the_limits_can_be_set_and_changed() {
    let with = |name: usize, topic: usize| {
        let mut settings = BrokerSettings::default();
        settings.max_name_bytes = name;
        settings.max_topic_bytes = topic;
        Broker::builder().settings(settings)
    };
    let broker = with(4, 10).start().unwrap();
    assert_eq!(Peer::try_new(&broker, "abcde").err(), Some(Code::BadData));
    let mut client = Peer::new(&broker, "abcd");
    assert_eq!(code(&mut client, Op::Publish, "0123456789", ""), Code::Ok);
    assert_eq!(code(&mut client, Op::Publish, "0123456789a", ""), Code::BadData);
    broker.reload(with(5, 11)).unwrap();
    assert_eq!(code(&mut client, Op::Publish, "0123456789a", ""), Code::Ok);
    assert!(Peer::try_new(&broker, "abcde").is_ok());
}
