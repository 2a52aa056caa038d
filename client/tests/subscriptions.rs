//! Subscriptions with a queue of their own, and handlers: delivery and lifetime.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{Client, FrameKind, Overflow, Qos, Subscription};
use std::sync::Arc;
use support::{BrokerKind, TestBroker, Transport, broker_kinds, in_time, next, wait_until};
use tokio::sync::{Notify, mpsc};

/// Returns the topics before a publication with this payload.
async fn topics_until(subscription: &mut Subscription, end: &str) -> Vec<String> {
    let mut topics = vec![];
    loop {
        let frame = in_time("a publication", subscription.next()).await.unwrap();
        if frame.payload() == end.as_bytes() {
            return topics;
        }
        topics.push(frame.topic().to_owned());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publications_are_delivered_to_all_matching_subscriptions_or_else_to_the_frames() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let (client, mut frames) = broker.connect(*transport, &format!("{transport:?}.a")).await;
            let (other, _) = broker.connect(*transport, &format!("{transport:?}.b")).await;
            let mut plus = client.subscribe("a/+").await.unwrap();
            let mut hash = client.subscribe(["a/#", "b"]).await.unwrap();
            client.add_filters(["a/x", "c"]).await.unwrap();
            for topic in ["a/x", "a/x/y", "b", "c"] {
                other.publish(topic, topic.to_owned(), Qos::NO).await.unwrap();
            }
            other.publish("a/end", "end", Qos::NO).await.unwrap();
            other.send(client.name(), "end", Qos::NO).await.unwrap();
            assert_eq!(topics_until(&mut plus, "end").await, ["a/x"], "{kind:?} {transport:?}");
            assert_eq!(topics_until(&mut hash, "end").await, ["a/x", "a/x/y", "b"]);
            let frame = next(&mut frames).await;
            assert_eq!((frame.topic(), frame.sender()), ("c", other.name()));
            assert_eq!(next(&mut frames).await.kind(), FrameKind::Message);
            assert!(plus.try_next().is_none() && hash.try_next().is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_stays_subscribed_until_its_last_use_ends() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let (client, mut frames) = broker.connect(*transport, &format!("{transport:?}.a")).await;
            let (other, _) = broker.connect(*transport, &format!("{transport:?}.b")).await;
            let publish = async || {
                other.publish("t", "", Qos::NO).await.unwrap();
                other.send(client.name(), "end", Qos::NO).await.unwrap();
            };
            let first = client.subscribe("t").await.unwrap();
            let mut second = client.subscribe("t").await.unwrap();
            client.add_filters("t").await.unwrap();
            first.unsubscribe().await.unwrap();
            client.remove_filters("t").await.unwrap();
            publish().await;
            assert_eq!(in_time("a publication", second.next()).await.unwrap().topic(), "t");
            assert_eq!(next(&mut frames).await.payload(), b"end");
            client.add_filters("t").await.unwrap();
            second.unsubscribe().await.unwrap();
            publish().await;
            assert_eq!(next(&mut frames).await.topic(), "t", "{kind:?} {transport:?}");
            assert_eq!(next(&mut frames).await.payload(), b"end");
            client.remove_filters("t").await.unwrap();
            publish().await;
            assert_eq!(next(&mut frames).await.payload(), b"end");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_subscription_unsubscribes() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let (client, mut frames) = broker.connect(*transport, &format!("{transport:?}.a")).await;
            drop(client.subscribe("t").await.unwrap());
            // once the broker has unsubscribed the client, nothing arrives
            in_time("quiet", async {
                loop {
                    client.round_trip().await.unwrap();
                    client.publish("t", "", Qos::NO).await.unwrap();
                    client.send(client.name(), "end", Qos::NO).await.unwrap();
                    if next(&mut frames).await.kind() == FrameKind::Message {
                        break;
                    }
                    next(&mut frames).await;
                }
            })
            .await;
        }
    }
}

/// Ends and starts subscriptions to one filter concurrently: the remaining one receives the publications.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_subscription_is_not_affected_by_the_concurrent_end_of_another() {
    let broker = TestBroker::start(BrokerKind::Elbus);
    let (client, _frames) = broker.connect(Transport::Unix, "a").await;
    let mut current = client.subscribe("t").await.unwrap();
    for round in 0..1500u32 {
        let stopping = tokio::spawn(current.unsubscribe());
        current = client.subscribe("t").await.unwrap();
        stopping.await.unwrap().unwrap();
        client.publish("t", round.to_le_bytes().to_vec(), Qos::PROCESSED).await.unwrap();
        let received = tokio::time::timeout(support::TEST_TIMEOUT, current.next()).await;
        let frame = received.unwrap_or_else(|_| panic!("lost in round {round}")).unwrap();
        assert_eq!(frame.payload(), round.to_le_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_is_called_in_order_one_at_a_time_until_it_is_stopped() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let (client, mut frames) = broker.connect(*transport, &format!("{transport:?}.a")).await;
            let (calls, mut called) = mpsc::unbounded_channel();
            let running = Arc::new(tokio::sync::Mutex::new(()));
            let handler = client
                .subscribe_with("a/+/b", move |frame| {
                    let (calls, running) = (calls.clone(), running.clone());
                    async move {
                        let alone = running.try_lock().is_ok_and(|guard| {
                            calls.send((frame.topic().to_owned(), frame.payload().to_vec())).unwrap();
                            drop(guard);
                            true
                        });
                        let _running = running.lock().await;
                        tokio::task::yield_now().await;
                        assert!(alone);
                    }
                })
                .await
                .unwrap();
            for number in 0..200u8 {
                client.publish(&format!("a/{number}/b"), vec![number], Qos::NO).await.unwrap();
                client.publish("a/b", "not this", Qos::NO).await.unwrap();
            }
            for number in 0..200u8 {
                let call = in_time("a call", called.recv()).await.unwrap();
                assert_eq!(call, (format!("a/{number}/b"), vec![number]), "{kind:?} {transport:?}");
            }
            handler.stop().await.unwrap();
            // the function and its sender are dropped
            assert!(in_time("the end of the handler", called.recv()).await.is_none());
            client.publish("a/x/b", "", Qos::NO).await.unwrap();
            client.send(client.name(), "end", Qos::NO).await.unwrap();
            assert_eq!(next(&mut frames).await.payload(), b"end");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_continues_without_its_handle_and_ends_with_the_client() {
    let broker = TestBroker::start(BrokerKind::Elbus);
    for transport in BrokerKind::Elbus.transports() {
        let (client, frames) = broker.connect(*transport, &format!("{transport:?}.a")).await;
        let (other, _) = broker.connect(*transport, &format!("{transport:?}.b")).await;
        let (calls, mut called) = mpsc::unbounded_channel();
        let handler = client.subscribe_with("t", move |frame| {
            calls.send(frame.to_payload()).unwrap();
            async {}
        });
        drop(handler.await.unwrap());
        other.publish("t", "x", Qos::PROCESSED).await.unwrap();
        assert_eq!(in_time("a call", called.recv()).await.unwrap(), "x");
        // the handler does not keep the client connected
        drop((client, frames));
        assert!(in_time("the end of the handler", called.recv()).await.is_none(), "{transport:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_can_use_their_client() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for transport in kind.transports() {
            let (client, mut frames) = broker.connect(*transport, &format!("{transport:?}.a")).await;
            let own = client.clone();
            let handler = client.subscribe_with("ask/+", move |frame| {
                let client = own.clone();
                async move {
                    let topic = frame.topic().replace("ask", "answer");
                    client.add_filters(&topic).await.unwrap();
                    client.publish(&topic, frame.into_payload(), Qos::PROCESSED).await.unwrap();
                }
            });
            let handler = handler.await.unwrap();
            for number in 0..50 {
                client.publish(&format!("ask/{number}"), "x", Qos::NO).await.unwrap();
            }
            for number in 0..50 {
                assert_eq!(
                    next(&mut frames).await.topic(),
                    format!("answer/{number}"),
                    "{kind:?} {transport:?}"
                );
            }
            handler.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscription_that_drops_delays_no_other_consumer() {
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        let builder = Client::builder("a").queue_bytes(20_000).overflow(Overflow::DropOldest);
        let (client, mut frames) = broker.connect_with(Transport::Unix, builder).await.unwrap();
        let (other, _) = broker.connect(Transport::Unix, "b").await;
        let mut slow = client.subscribe("t").await.unwrap();
        for _ in 0..500 {
            other.publish("t", vec![1; 1000], Qos::NO).await.unwrap();
        }
        other.publish("t", "end", Qos::NO).await.unwrap();
        other.send("a", "end", Qos::NO).await.unwrap();
        assert_eq!(next(&mut frames).await.payload(), b"end");
        wait_until("all frames have arrived", || client.stats().frames_received == 502).await;
        let (mut received, mut missed) = (0, 0);
        while let Some(frame) = slow.try_next() {
            received += 1;
            missed += frame.missed();
        }
        assert_eq!((received + missed, slow.missed()), (501, missed));
        assert!((10..=20).contains(&received), "{received}");
        assert_eq!(frames.missed(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_end_with_their_client() {
    let broker = TestBroker::start(BrokerKind::Elbus);
    for transport in BrokerKind::Elbus.transports() {
        let (client, mut frames) = broker.connect(*transport, &format!("{transport:?}")).await;
        let mut subscription = client.subscribe("t").await.unwrap();
        let waiting = Arc::new(Notify::new());
        let notify = waiting.clone();
        let end = tokio::spawn(async move {
            notify.notify_one();
            subscription.next().await.is_none() && subscription.next().await.is_none()
        });
        waiting.notified().await;
        in_time("close", client.close()).await;
        assert!(in_time("the end", end).await.unwrap());
        assert!(in_time("the end", frames.next()).await.is_none());
        assert!(client.subscribe("t").await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_is_counted_and_called_with_the_next_frame() {
    let broker = TestBroker::start(BrokerKind::Elbus);
    let (client, _frames) = broker.connect(Transport::Unix, "a").await;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let handler = move |frame: elbus_client::Frame| {
        let sender = sender.clone();
        let text = String::from_utf8_lossy(frame.payload()).into_owned();
        assert!(text != "before", "panics before the first await");
        async move {
            tokio::task::yield_now().await;
            assert!(text != "after", "panics after an await");
            sender.send(text).unwrap();
        }
    };
    client.subscribe_with("t", handler).await.unwrap();
    for text in ["one", "before", "two", "after", "three"] {
        client.publish("t", text, Qos::PROCESSED).await.unwrap();
    }
    for text in ["one", "two", "three"] {
        assert_eq!(in_time("a frame", receiver.recv()).await.unwrap(), text);
    }
    assert_eq!(client.stats().handler_panics, 2);
}
