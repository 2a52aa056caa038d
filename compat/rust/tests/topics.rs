//! Publications: filters, subscriptions, exclusions, publications to one receiver.

use busrt::QoS;
use busrt::client::AsyncClient;
use elbus_compat::{Bus, Peer, acknowledged};

#[tokio::test]
async fn filters_select_topics() {
    let topics = ["a", "a/", "a/b", "a/b/c", "b/b", "/b", "Größe/b", "a+/b"];
    let filters: [(&str, &[&str]); 9] = [
        ("a/b", &["a/b"]),
        ("a/+", &["a/", "a/b"]),
        ("+/b", &["a/b", "b/b", "/b", "Größe/b", "a+/b"]),
        ("a/#", &["a/", "a/b", "a/b/c"]),
        ("a/+/c", &["a/b/c"]),
        ("Größe/+", &["Größe/b"]),
        ("a+/+", &["a+/b"]),
        ("#", &topics),
        ("a/*", &[]),
    ];
    for bus in Bus::each() {
        let mut sender = bus.peer("sender").await;
        let mut receivers = Vec::new();
        for (number, (filter, _)) in filters.iter().enumerate() {
            let mut receiver = bus.peer(&format!("receiver{number}")).await;
            receiver.subscribe(&[&bus.topic(filter)]).await;
            receivers.push(receiver);
        }
        for topic in topics {
            sender.publish(&bus.topic(topic), b"x").await;
        }
        for ((filter, matching), receiver) in filters.iter().zip(&receivers) {
            let expected: Vec<_> = matching.iter().map(|topic| bus.topic(topic)).collect();
            assert_eq!(receiver.topics_from(&mut sender).await, expected, "{filter}");
        }
    }
}

#[tokio::test]
async fn overlapping_subscriptions_deliver_once() {
    for bus in Bus::each() {
        let (mut sender, mut receiver) = (bus.peer("sender").await, bus.peer("receiver").await);
        let (a, b, all) = (bus.topic("a"), bus.topic("b"), bus.topic("#"));
        receiver.subscribe(&[&a, &b, &all]).await;
        acknowledged(receiver.client.subscribe(&a, QoS::RealtimeProcessed).await).await.unwrap();
        sender.publish(&a, b"x").await;
        assert_eq!(receiver.topics_from(&mut sender).await, [a.as_str()]);

        acknowledged(receiver.client.unsubscribe_bulk(&[&all, &a], QoS::Processed).await).await.unwrap();
        acknowledged(receiver.client.unsubscribe(&bus.topic("never"), QoS::Processed).await).await.unwrap();
        for topic in [&a, &b] {
            sender.publish(topic, b"x").await;
        }
        assert_eq!(receiver.topics_from(&mut sender).await, [b.as_str()]);
    }
}

#[tokio::test]
async fn exclusions_suppress_publications() {
    for bus in Bus::each() {
        let (mut sender, mut receiver) = (bus.peer("sender").await, bus.peer("receiver").await);
        let (open, secret, noise) = (bus.topic("open"), bus.topic("secret/a"), bus.topic("noise"));
        let below = bus.topic("secret/#");
        let all = [open.as_str(), &secret, &noise];

        acknowledged(receiver.client.exclude_bulk(&[&below, &noise], QoS::Processed).await).await.unwrap();
        receiver.subscribe(&[&bus.topic("#"), &secret]).await;
        assert_eq!(publish_all(&receiver, &mut sender, &all).await, [open.as_str()]);
        acknowledged(receiver.client.unexclude(&noise, QoS::Processed).await).await.unwrap();
        assert_eq!(publish_all(&receiver, &mut sender, &all).await, [open.as_str(), &noise]);
        acknowledged(receiver.client.unexclude_bulk(&[&below, &noise], QoS::Processed).await).await.unwrap();
        assert_eq!(publish_all(&receiver, &mut sender, &all).await, all);
        acknowledged(receiver.client.exclude(&open, QoS::Processed).await).await.unwrap();
        assert_eq!(publish_all(&receiver, &mut sender, &all).await, [secret.as_str(), &noise]);

        sender.send(&receiver.name, b"a message").await.unwrap();
        assert_eq!(receiver.next().await.payload(), b"a message");
    }
}

/// Publishes to these topics and returns those that arrive.
async fn publish_all(receiver: &Peer, sender: &mut Peer, topics: &[&str]) -> Vec<String> {
    for topic in topics {
        sender.publish(topic, b"x").await;
    }
    receiver.topics_from(sender).await
}

#[tokio::test]
async fn empty_topic_lists_are_acknowledged() {
    for bus in Bus::each() {
        let mut peer = bus.peer("peer").await;
        acknowledged(peer.client.exclude_bulk(&[], QoS::Processed).await).await.unwrap();
        acknowledged(peer.client.subscribe_bulk(&[], QoS::Processed).await).await.unwrap();
        acknowledged(peer.client.unsubscribe_bulk(&[], QoS::Processed).await).await.unwrap();
        acknowledged(peer.client.unexclude_bulk(&[], QoS::Processed).await).await.unwrap();
    }
}

#[tokio::test]
async fn publications_to_one_receiver() {
    for bus in Bus::each() {
        let mut sender = bus.peer("sender").await;
        let (mut one, mut other) = (bus.peer("one").await, bus.peer("other").await);
        let mut second = Peer::new(one.client.register_secondary().await.unwrap());
        let topic = bus.topic("t");
        for peer in [&mut one, &mut other, &mut second] {
            peer.subscribe(&[&bus.topic("#")]).await;
        }
        for receiver in [one.name.clone(), second.name.clone(), bus.name("?"), bus.name("nobody")] {
            let operation =
                sender.client.publish_for(&topic, &receiver, receiver.as_bytes().into(), QoS::Processed);
            acknowledged(operation.await).await.unwrap();
        }
        assert_eq!(one.payloads_from(&mut sender).await, [one.name.as_bytes()]);
        assert_eq!(second.payloads_from(&mut sender).await, [one.name.as_bytes()]);
        assert!(other.payloads_from(&mut sender).await.is_empty());
    }
}
