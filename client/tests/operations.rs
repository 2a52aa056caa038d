//! Operations over all transports, with ELBUS and BUS/RT brokers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{Bytes, Client, Error, FrameKind, Qos};
use std::{collections::HashMap, time::Duration};
use support::{BrokerKind, TestBroker, Transport, broker_kinds, in_time, next};

const ALL_QOS: [Qos; 4] = [Qos::NO, Qos::PROCESSED, Qos::REALTIME, Qos::REALTIME_PROCESSED];

/// Calls `test` for each broker and each pair of transports.
async fn each_pair(test: impl AsyncFn(&TestBroker, Transport, Transport)) {
    for kind in broker_kinds() {
        for from in kind.transports() {
            let broker = TestBroker::start(kind);
            for to in kind.transports() {
                in_time(&format!("{kind:?} {from:?} {to:?}"), test(&broker, *from, *to)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_is_delivered_with_its_kind() {
    each_pair(async |broker, from, to| {
        let (sender, receiver) = (format!("{to:?}.a"), format!("{to:?}.b"));
        let (a, _) = broker.connect(from, &sender).await;
        let (b, mut frames) = broker.connect(to, &receiver).await;
        b.add_filters(["t/+", "x/#"]).await.unwrap();
        b.exclude("x/secret").await.unwrap();
        for qos in ALL_QOS {
            a.send(&receiver, "one", qos).await.unwrap();
            a.broadcast(&format!("{to:?}.*"), "two", qos).await.unwrap();
            a.publish("t/1", "three", qos).await.unwrap();
            a.publish("x/secret", "never", qos).await.unwrap();
            a.publish_for("x/y", &receiver, "four", qos).await.unwrap();
            a.publish_for("x/y", "nobody", "never", qos).await.unwrap();
            let mut got = vec![];
            while got.len() < 4 {
                let frame = next(&mut frames).await;
                assert_eq!((frame.sender(), frame.is_realtime()), (&sender[..], qos.is_realtime()));
                got.push((frame.kind(), frame.topic().to_owned(), frame.payload().to_vec()));
            }
            let expected = [
                (FrameKind::Message, String::new(), b"one".to_vec()),
                (FrameKind::Broadcast, String::new(), b"two".to_vec()),
                (FrameKind::Publish, "t/1".to_owned(), b"three".to_vec()),
                (FrameKind::Publish, "x/y".to_owned(), b"four".to_vec()),
            ];
            assert_eq!(got, expected, "{from:?} {to:?} {qos:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_report_missing_targets() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let (client, _) = broker.connect(*transport, &format!("{transport:?}")).await;
            for qos in [Qos::PROCESSED, Qos::REALTIME_PROCESSED] {
                let unknown = client.send("nobody", "", qos).await;
                assert!(
                    matches!(&unknown, Err(Error::NotRegistered { target, .. }) if target == "nobody"),
                    "{unknown:?}"
                );
                client.broadcast("nobody.*", "", qos).await.unwrap();
                client.publish("nowhere", "", qos).await.unwrap();
                client.publish_for("nowhere", "nobody", "", qos).await.unwrap();
            }
            for qos in [Qos::NO, Qos::REALTIME] {
                client.send("nobody", "", qos).await.unwrap();
            }
            client.ping().await.unwrap();
            client.round_trip().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_are_added_and_removed_one_or_many_at_once() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let (client, mut frames) = broker.connect(*transport, &format!("{transport:?}")).await;
            let topics = ["a", "b", "c", "d", "e"];
            let mut received = async |what: &str| {
                for topic in topics {
                    client.publish(topic, "", Qos::NO).await.unwrap();
                }
                client.send(client.name(), "", Qos::NO).await.unwrap();
                let mut got = String::new();
                loop {
                    let frame = next(&mut frames).await;
                    match frame.kind() {
                        FrameKind::Message => break,
                        _ => got.push_str(frame.topic()),
                    }
                }
                assert_eq!(got, what, "{kind:?} {transport:?}");
            };
            received("").await;
            client.add_filters("a").await.unwrap();
            client.add_filters(["b", "c"]).await.unwrap();
            client.add_filters(vec!["d".to_owned(), "e".to_owned()]).await.unwrap();
            received("abcde").await;
            client.exclude("a").await.unwrap();
            client.exclude(&["b", "c"][..]).await.unwrap();
            received("de").await;
            client.unexclude(&["a", "b"]).await.unwrap();
            received("abde").await;
            client.remove_filters(&vec!["a", "d"]).await.unwrap();
            client.remove_filters("b".to_owned()).await.unwrap();
            received("e").await;
            client.unexclude("c").await.unwrap();
            received("ce").await;
            client.remove_filters(topics).await.unwrap();
            received("").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_list_of_filters_changes_nothing() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let (client, mut frames) = broker.connect(*transport, &format!("{transport:?}")).await;
            client.add_filters(Vec::<String>::new()).await.unwrap();
            client.publish("", "empty topic", Qos::NO).await.unwrap();
            client.add_filters("").await.unwrap();
            client.remove_filters(Vec::<String>::new()).await.unwrap();
            client.exclude(Vec::<String>::new()).await.unwrap();
            client.publish("", "asked for", Qos::NO).await.unwrap();
            assert_eq!(next(&mut frames).await.payload(), b"asked for", "{kind:?} {transport:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_from_many_tasks_arrive_in_the_order_of_each() {
    const TASKS: u32 = 8;
    const FRAMES: u32 = 1000;
    each_pair(async |broker, from, to| {
        let receiver = format!("{to:?}.b");
        let (a, _) = broker.connect(from, &format!("{to:?}.a")).await;
        let (_b, mut frames) = broker.connect(to, &receiver).await;
        for task in 0..TASKS {
            let (a, receiver) = (a.clone(), receiver.clone());
            tokio::spawn(async move {
                for number in 0..FRAMES {
                    let payload = [task.to_le_bytes(), number.to_le_bytes()].concat();
                    a.send(&receiver, payload, Qos::NO).await.unwrap();
                }
            });
        }
        let mut expected = HashMap::new();
        for _ in 0..TASKS * FRAMES {
            let frame = next(&mut frames).await;
            let (task, number) = frame.payload().split_at(4);
            let expected: &mut u32 = expected.entry(task.to_vec()).or_default();
            assert_eq!(number, expected.to_le_bytes(), "{from:?} {to:?}");
            *expected += 1;
        }
        assert!(frames.try_next().is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_any_qos_arrive_in_order() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let (a, _) = broker.connect(*transport, &format!("{transport:?}.a")).await;
            let (b, mut frames) = broker.connect(*transport, &format!("{transport:?}.b")).await;
            b.add_filters("t").await.unwrap();
            for number in 0..400u32 {
                let (qos, payload) = (ALL_QOS[number as usize / 3 % 4], number.to_le_bytes().to_vec());
                match number % 3 {
                    0 => a.send(b.name(), payload, qos).await.unwrap(),
                    1 => a.publish("t", payload, qos).await.unwrap(),
                    _ => a.broadcast(b.name(), payload, qos).await.unwrap(),
                }
            }
            for number in 0..400u32 {
                assert_eq!(next(&mut frames).await.payload(), number.to_le_bytes(), "{kind:?} {transport:?}");
            }
        }
    }
}

#[tokio::test]
async fn busy_polling_does_not_change_the_results() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            for (number, time) in
                [Duration::from_micros(20), Duration::from_secs(3600)].into_iter().enumerate()
            {
                let builder = Client::builder(&format!("{transport:?}.{number}")).busy_poll(time);
                let (client, mut frames) = broker.connect_with(*transport, builder).await.unwrap();
                for payload in 0..50u8 {
                    client.send(client.name(), vec![payload], Qos::PROCESSED).await.unwrap();
                    assert_eq!(next(&mut frames).await.payload(), [payload], "{kind:?} {transport:?}");
                }
                client.close().await;
                assert!(frames.next().await.is_none());
            }
        }
    }
}

/// Sends nothing else: no ping, no probe.
#[tokio::test]
async fn a_single_frame_is_sent_at_once() {
    const HOUR: Duration = Duration::from_secs(3600);
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let quiet = Client::builder(&format!("{transport:?}.a")).timeout(HOUR).ping_interval(HOUR);
            let (a, _) = broker.connect_with(*transport, quiet).await.unwrap();
            let (b, mut frames) = broker.connect(*transport, &format!("{transport:?}.b")).await;
            // one after a pause, and groups of which all but the first follow closely
            for group in 1..20 {
                for number in 0..group {
                    a.send(b.name(), vec![number], Qos::NO).await.unwrap();
                }
                for number in 0..group {
                    assert_eq!(next(&mut frames).await.payload(), [number], "{kind:?} {transport:?}");
                }
            }
            assert_eq!(a.stats().queued_bytes, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_payloads_arrive_both_ways() {
    each_pair(async |broker, from, to| {
        let (a, mut a_frames) = broker.connect(from, &format!("{to:?}.a")).await;
        let (b, mut b_frames) = broker.connect(to, &format!("{to:?}.b")).await;
        for (size, qos) in [
            (64 << 10, Qos::NO),
            ((64 << 10) + 1, Qos::PROCESSED),
            (1 << 20, Qos::NO),
            (8 << 20, Qos::PROCESSED),
        ] {
            let payload: Bytes = (0..size as u32).map(|n| (n ^ (n >> 8)) as u8).collect::<Vec<_>>().into();
            // small frames before and after it are not affected
            let there = async {
                a.send(b.name(), "before", Qos::NO).await.unwrap();
                a.send(b.name(), payload.clone(), qos).await.unwrap();
                a.send(b.name(), "after", Qos::NO).await.unwrap();
            };
            let back = async {
                assert_eq!(next(&mut b_frames).await.payload(), b"before");
                let large = next(&mut b_frames).await;
                assert!(large.payload() == payload, "{from:?} {to:?} {size}");
                assert_eq!(next(&mut b_frames).await.payload(), b"after");
                b.send(a.name(), large.into_payload(), qos).await.unwrap();
                assert!(next(&mut a_frames).await.payload() == payload, "{from:?} {to:?} {size}");
            };
            tokio::join!(there, back);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unsendable_frames_are_refused_without_side_effects() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in [Transport::Unix, Transport::Tcp] {
            let small = Client::builder(&format!("{transport:?}")).max_frame_bytes(1000);
            let (client, mut frames) = broker.connect_with(transport, small).await.unwrap();
            let long = client.send("x", vec![0; 1001], Qos::NO).await;
            assert!(matches!(long, Err(Error::FrameTooLong { len: 1001, limit: 1000, .. })), "{long:?}");
            for qos in ALL_QOS {
                assert!(matches!(client.send("a\0b", "", qos).await, Err(Error::Unsendable(_))));
                assert!(matches!(client.publish_for("t", "a\0b", "", qos).await, Err(Error::Unsendable(_))));
            }
            assert!(matches!(client.add_filters(["a", "b\0c"]).await, Err(Error::Unsendable(_))));
            client.send(client.name(), vec![7; 1000], Qos::PROCESSED).await.unwrap();
            assert_eq!(next(&mut frames).await.payload(), [7; 1000]);
        }
    }
}

#[tokio::test]
async fn payloads_are_any_type_that_converts_to_bytes() {
    let broker = TestBroker::start(BrokerKind::Elbus);
    let (client, mut frames) = broker.connect(Transport::Unix, "a").await;
    client.send("a", "x", Qos::NO).await.unwrap();
    client.send("a", String::from("x"), Qos::NO).await.unwrap();
    client.send("a", vec![b'x'], Qos::NO).await.unwrap();
    client.send("a", Bytes::from_static(b"x"), Qos::NO).await.unwrap();
    client.send("a", &b"x"[..], Qos::NO).await.unwrap();
    for _ in 0..5 {
        assert_eq!(next(&mut frames).await.to_payload(), "x");
    }
    let stats = client.stats();
    assert_eq!((stats.frames_received, stats.unclaimed, stats.reconnects), (5, 0, 0));
    assert!(stats.frames_sent >= 5 && stats.bytes_sent >= 5 * 12, "{stats:?}");
}

#[test]
fn a_client_is_send_sync_and_clone() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    fn moved<T: Send + 'static>() {}
    shared::<Client>();
    moved::<elbus_client::Frames>();
    moved::<elbus_client::Subscription>();
    moved::<elbus_client::ConnectionEvents>();
}
