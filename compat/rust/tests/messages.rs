//! Direct messages and broadcasts: recipients, order and acknowledgements.

use busrt::client::AsyncClient;
use busrt::{ErrorKind, FrameKind, QoS};
use elbus_compat::{Bus, Peer, acknowledged, pattern};

const EVERY_QOS: [QoS; 4] = [QoS::No, QoS::Processed, QoS::Realtime, QoS::RealtimeProcessed];

#[tokio::test]
async fn every_kind_arrives_at_every_qos() {
    for bus in Bus::each() {
        let (mut sender, mut receiver) = (bus.peer("sender").await, bus.peer("receiver").await);
        let topic = bus.topic("t");
        receiver.subscribe(&[&topic]).await;
        for qos in EVERY_QOS {
            let client = &mut sender.client;
            for operation in [
                client.send(&receiver.name, b"message".as_slice().into(), qos).await,
                client.send_broadcast(&receiver.name, b"broadcast".as_slice().into(), qos).await,
                client.publish(&topic, b"publication".as_slice().into(), qos).await,
            ] {
                assert_eq!(operation.as_ref().unwrap().is_some(), qos.needs_ack());
                acknowledged(operation).await.unwrap();
            }
            for (kind, topic, payload) in [
                (FrameKind::Message, None, "message"),
                (FrameKind::Broadcast, None, "broadcast"),
                (FrameKind::Publish, Some(topic.as_str()), "publication"),
            ] {
                let frame = receiver.next().await;
                assert_eq!((frame.kind(), frame.topic(), frame.payload()), (kind, topic, payload.as_bytes()));
                assert_eq!(
                    (frame.sender(), frame.primary_sender()),
                    (sender.name.as_str(), sender.name.as_str())
                );
                assert_eq!(frame.is_realtime(), qos.is_realtime());
            }
        }
    }
}

#[tokio::test]
async fn payloads_of_every_size_arrive_unchanged() {
    for bus in Bus::each() {
        let (mut sender, mut receiver) = (bus.peer("sender").await, bus.peer("receiver").await);
        let topic = bus.topic("t");
        receiver.subscribe(&[&topic]).await;
        let sizes = [0, 1, 2, 8_192, 16_383, 16_384, 65_535, 65_536, 1 << 20, 16 << 20];
        for size in sizes.into_iter().filter(|size| *size <= bus.max_sent_bytes()) {
            let payload = pattern(size);
            sender.send(&receiver.name, &payload).await.unwrap();
            assert!(receiver.next().await.payload() == payload, "message of {size} bytes");
            sender.publish(&topic, &payload).await;
            assert!(receiver.next().await.payload() == payload, "publication of {size} bytes");
            let operation = sender.client.zc_send(
                &receiver.name,
                b"\0head\0".as_slice().into(),
                payload.as_slice().into(),
                QoS::No,
            );
            acknowledged(operation.await).await.unwrap();
            let frame = receiver.next().await;
            assert!(
                frame.payload().strip_prefix(b"\0head\0".as_slice()) == Some(payload.as_slice()),
                "with a header, {size} bytes"
            );
        }
    }
}

#[tokio::test]
async fn order_holds_across_kinds_and_qos() {
    for bus in Bus::each() {
        let (mut sender, mut receiver) = (bus.peer("sender").await, bus.peer("receiver").await);
        let topic = bus.topic("t");
        receiver.subscribe(&[&topic]).await;
        let sent: Vec<Vec<u8>> = (0..3000).map(|number: u32| number.to_le_bytes().to_vec()).collect();
        let mut operations = Vec::new();
        for (number, payload) in sent.iter().enumerate() {
            let (client, payload, qos) =
                (&mut sender.client, payload.as_slice().into(), EVERY_QOS[number % 4]);
            operations.push(match number % 3 {
                0 => client.send(&receiver.name, payload, qos).await,
                1 => client.send_broadcast(&receiver.name, payload, qos).await,
                _ => client.publish(&topic, payload, qos).await,
            });
        }
        for operation in operations {
            acknowledged(operation).await.unwrap();
        }
        assert_eq!(receiver.payloads_from(&mut sender).await, sent);
    }
}

#[tokio::test]
async fn unknown_targets_are_negatively_acknowledged() {
    for bus in Bus::each() {
        let mut peer = bus.peer("peer").await;
        bus.peer("a.b").await;
        for label in ["nobody", "a.?", "a.*", "A.B"] {
            let target = bus.name(label);
            for qos in EVERY_QOS {
                let expected = if qos.needs_ack() { Err(ErrorKind::NotRegistered) } else { Ok(()) };
                assert_eq!(
                    acknowledged(peer.client.send(&target, b"x".as_slice().into(), qos).await).await,
                    expected
                );
            }
        }
        let own = peer.name.clone();
        peer.send(&own, b"still here").await.unwrap();
        assert_eq!(peer.next().await.payload(), b"still here");
    }
}

#[tokio::test]
async fn target_names_are_matched_exactly() {
    for bus in Bus::each() {
        let mut sender = bus.peer("sender").await;
        for label in ["with space", "Zürich.東京", "a.*", "?", "+/#", "UPPER", &"x".repeat(900)] {
            let mut odd = bus.peer(label).await;
            sender.send(&odd.name, b"there").await.unwrap();
            assert_eq!(odd.next().await.payload(), b"there");
            odd.send(&sender.name, b"back").await.unwrap();
            assert_eq!(sender.next().await.sender(), odd.name);
        }
    }
}

#[tokio::test]
async fn broadcasts_follow_their_masks() {
    let receivers = ["a", "b", "a.b", "a.b.c", "ü.b", "a.b%%0"];
    let masks: [(&str, &[&str]); 9] = [
        ("a", &["a"]),
        ("?", &["a", "b"]),
        ("?.?", &["a.b", "ü.b", "a.b%%0"]),
        ("?.b", &["a.b", "ü.b"]),
        ("a.*", &["a.b", "a.b.c", "a.b%%0"]),
        ("ü.*", &["ü.b"]),
        ("*", &receivers),
        ("a*", &[]),
        ("nobody", &[]),
    ];
    for bus in Bus::each() {
        let mut sender = Peer::new(bus.connect(&format!("{}-sender", bus.prefix)).await.unwrap());
        let mut peers = Vec::new();
        for label in receivers {
            peers.push(bus.peer(label).await);
        }
        for (mask, _) in masks {
            sender.broadcast(&bus.name(mask), mask.as_bytes()).await;
        }
        for (label, peer) in receivers.iter().zip(&peers) {
            let expected: Vec<_> = masks
                .iter()
                .filter(|(_, labels)| labels.contains(label))
                .map(|(mask, _)| mask.as_bytes())
                .collect();
            assert_eq!(peer.payloads_from(&mut sender).await, expected, "{label}");
        }
    }
}

#[tokio::test]
async fn a_broadcast_includes_its_sender() {
    for bus in Bus::each() {
        let mut peer = bus.peer("peer").await;
        let mask = bus.name("*");
        peer.broadcast(&mask, b"mine").await;
        let frame = peer.next().await;
        assert_eq!(
            (frame.kind(), frame.sender(), frame.payload()),
            (FrameKind::Broadcast, peer.name.as_str(), b"mine".as_slice())
        );
    }
}
