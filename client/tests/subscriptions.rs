//! Subscriptions with a queue of their own, and handlers: who gets a publication, and what happens when one goes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use elbus_client::{Client, FrameKind, Overflow, Qos, Subscription};
use std::{sync::Arc, time::Duration};
use support::{Kind, TestBroker, Way, kinds, next, soon, wait_until};
use tokio::sync::{Notify, mpsc};

/// The topics that come until a publication with this payload.
async fn topics_until(subscription: &mut Subscription, end: &str) -> Vec<String> {
    let mut topics = vec![];
    loop {
        let frame = soon("a publication", subscription.next()).await.unwrap();
        if frame.payload() == end.as_bytes() {
            return topics;
        }
        topics.push(frame.topic().to_owned());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_publication_goes_to_every_subscription_it_matches_else_to_the_frames() {
    for kind in kinds() {
        let broker = TestBroker::start(kind);
        for way in kind.ways() {
            let (client, mut frames) = broker.connect(*way, &format!("{way:?}.a")).await;
            let (other, _) = broker.connect(*way, &format!("{way:?}.b")).await;
            let mut plus = client.subscription("a/+").await.unwrap();
            let mut hash = client.subscription(["a/#", "b"]).await.unwrap();
            client.subscribe(["a/x", "c"]).await.unwrap();
            for topic in ["a/x", "a/x/y", "b", "c"] {
                other.publish(topic, topic.to_owned(), Qos::NO).await.unwrap();
            }
            other.publish("a/end", "end", Qos::NO).await.unwrap();
            other.send(client.name(), "end", Qos::NO).await.unwrap();
            assert_eq!(topics_until(&mut plus, "end").await, ["a/x"], "{kind:?} {way:?}");
            assert_eq!(topics_until(&mut hash, "end").await, ["a/x", "a/x/y", "b"]);
            let frame = next(&mut frames).await;
            assert_eq!((frame.topic(), frame.sender()), ("c", other.name()));
            assert_eq!(next(&mut frames).await.kind(), FrameKind::Message);
            assert!(plus.try_next().is_none() && hash.try_next().is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_lives_until_the_last_who_wants_it_goes() {
    for kind in kinds() {
        let broker = TestBroker::start(kind);
        for way in kind.ways() {
            let (client, mut frames) = broker.connect(*way, &format!("{way:?}.a")).await;
            let (other, _) = broker.connect(*way, &format!("{way:?}.b")).await;
            let publish = async || {
                other.publish("t", "", Qos::NO).await.unwrap();
                other.send(client.name(), "end", Qos::NO).await.unwrap();
            };
            let first = client.subscription("t").await.unwrap();
            let mut second = client.subscription("t").await.unwrap();
            client.subscribe("t").await.unwrap();
            first.stop().await.unwrap();
            client.unsubscribe("t").await.unwrap();
            publish().await;
            assert_eq!(soon("a publication", second.next()).await.unwrap().topic(), "t");
            assert_eq!(next(&mut frames).await.payload(), b"end");
            client.subscribe("t").await.unwrap();
            second.stop().await.unwrap();
            publish().await;
            assert_eq!(next(&mut frames).await.topic(), "t", "{kind:?} {way:?}");
            assert_eq!(next(&mut frames).await.payload(), b"end");
            client.unsubscribe("t").await.unwrap();
            publish().await;
            assert_eq!(next(&mut frames).await.payload(), b"end");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_subscription_is_taken_back_from_the_broker() {
    for kind in kinds() {
        let broker = TestBroker::start(kind);
        for way in kind.ways() {
            let (client, mut frames) = broker.connect(*way, &format!("{way:?}.a")).await;
            drop(client.subscription("t").await.unwrap());
            // once the broker knows, nothing comes any more
            soon("quiet", async {
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

/// Taking back and asking again at the same moment: whoever has the filter last gets what is published.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_subscription_outlives_one_of_the_same_filter_that_ends_meanwhile() {
    let broker = TestBroker::start(Kind::Elbus);
    let (client, _frames) = broker.connect(Way::Unix, "a").await;
    let mut kept = client.subscription("t").await.unwrap();
    for round in 0..1500u32 {
        let stopping = tokio::spawn(kept.stop());
        kept = client.subscription("t").await.unwrap();
        stopping.await.unwrap().unwrap();
        client.publish("t", round.to_le_bytes().to_vec(), Qos::PROCESSED).await.unwrap();
        let received = tokio::time::timeout(Duration::from_secs(5), kept.next()).await;
        let frame = received.unwrap_or_else(|_| panic!("lost in round {round}")).unwrap();
        assert_eq!(frame.payload(), round.to_le_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_is_called_in_order_one_at_a_time_until_it_is_stopped() {
    for kind in kinds() {
        let broker = TestBroker::start(kind);
        for way in kind.ways() {
            let (client, mut frames) = broker.connect(*way, &format!("{way:?}.a")).await;
            let (calls, mut called) = mpsc::unbounded_channel();
            let running = Arc::new(tokio::sync::Mutex::new(()));
            let handler = client
                .on("a/+/b", move |frame| {
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
                let call = soon("a call", called.recv()).await.unwrap();
                assert_eq!(call, (format!("a/{number}/b"), vec![number]), "{kind:?} {way:?}");
            }
            handler.stop().await.unwrap();
            // its function is gone, and with it the sender
            assert!(soon("the end of the handler", called.recv()).await.is_none());
            client.publish("a/x/b", "", Qos::NO).await.unwrap();
            client.send(client.name(), "end", Qos::NO).await.unwrap();
            assert_eq!(next(&mut frames).await.payload(), b"end");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_handler_goes_on_and_ends_with_the_client() {
    let broker = TestBroker::start(Kind::Elbus);
    for way in Kind::Elbus.ways() {
        let (client, frames) = broker.connect(*way, &format!("{way:?}.a")).await;
        let (other, _) = broker.connect(*way, &format!("{way:?}.b")).await;
        let (calls, mut called) = mpsc::unbounded_channel();
        let handler = client.on("t", move |frame| {
            calls.send(frame.to_payload()).unwrap();
            async {}
        });
        drop(handler.await.unwrap());
        other.publish("t", "x", Qos::PROCESSED).await.unwrap();
        assert_eq!(soon("a call", called.recv()).await.unwrap(), "x");
        // it does not keep the client
        drop((client, frames));
        assert!(soon("the end of the handler", called.recv()).await.is_none(), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_may_use_their_client() {
    for kind in kinds() {
        let broker = TestBroker::start(kind);
        for way in kind.ways() {
            let (client, mut frames) = broker.connect(*way, &format!("{way:?}.a")).await;
            let own = client.clone();
            let handler = client.on("ask/+", move |frame| {
                let client = own.clone();
                async move {
                    let topic = frame.topic().replace("ask", "answer");
                    client.subscribe(&topic).await.unwrap();
                    client.publish(&topic, frame.into_payload(), Qos::PROCESSED).await.unwrap();
                }
            });
            let handler = handler.await.unwrap();
            for number in 0..50 {
                client.publish(&format!("ask/{number}"), "x", Qos::NO).await.unwrap();
            }
            for number in 0..50 {
                assert_eq!(next(&mut frames).await.topic(), format!("answer/{number}"), "{kind:?} {way:?}");
            }
            handler.stop().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_drops_reports_it_and_delays_nobody() {
    for kind in kinds() {
        let broker = TestBroker::start(kind);
        let builder = Client::builder("a").queue_bytes(20_000).overflow(Overflow::DropOldest);
        let (client, mut frames) = broker.join(Way::Unix, builder).await.unwrap();
        let (other, _) = broker.connect(Way::Unix, "b").await;
        let mut slow = client.subscription("t").await.unwrap();
        for _ in 0..500 {
            other.publish("t", vec![1; 1000], Qos::NO).await.unwrap();
        }
        other.publish("t", "end", Qos::NO).await.unwrap();
        other.send("a", "end", Qos::NO).await.unwrap();
        assert_eq!(next(&mut frames).await.payload(), b"end");
        wait_until("all have come", || client.stats().frames_received == 502).await;
        let (mut kept, mut missed) = (0, 0);
        while let Some(frame) = slow.try_next() {
            kept += 1;
            missed += frame.missed();
        }
        assert_eq!((kept + missed, slow.missed()), (501, missed));
        assert!((10..=20).contains(&kept), "{kept}");
        assert_eq!(frames.missed(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_end_with_their_client() {
    let broker = TestBroker::start(Kind::Elbus);
    for way in Kind::Elbus.ways() {
        let (client, mut frames) = broker.connect(*way, &format!("{way:?}")).await;
        let mut subscription = client.subscription("t").await.unwrap();
        let waiting = Arc::new(Notify::new());
        let notify = waiting.clone();
        let end = tokio::spawn(async move {
            notify.notify_one();
            subscription.next().await.is_none() && subscription.next().await.is_none()
        });
        waiting.notified().await;
        soon("close", client.close()).await;
        assert!(soon("the end", end).await.unwrap());
        assert!(soon("the end", frames.next()).await.is_none());
        assert!(client.subscription("t").await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_panics_is_counted_and_called_with_the_next_frame() {
    let broker = TestBroker::start(Kind::Elbus);
    let (client, _frames) = broker.connect(Way::Unix, "a").await;
    let (tell, mut told) = mpsc::unbounded_channel();
    let handler = move |frame: elbus_client::Frame| {
        let tell = tell.clone();
        let text = String::from_utf8_lossy(frame.payload()).into_owned();
        assert!(text != "before", "as the test wants: before the first await");
        async move {
            tokio::task::yield_now().await;
            assert!(text != "after", "as the test wants: behind an await");
            tell.send(text).unwrap();
        }
    };
    client.on("t", handler).await.unwrap();
    for text in ["one", "before", "two", "after", "three"] {
        client.publish("t", text, Qos::PROCESSED).await.unwrap();
    }
    for text in ["one", "two", "three"] {
        assert_eq!(soon("a frame", told.recv()).await.unwrap(), text);
    }
    assert_eq!(client.stats().handler_panics, 2);
}
