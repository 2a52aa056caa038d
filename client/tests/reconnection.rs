//! Reconnection: events, restored subscriptions, limits of attempts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{Backoff, Client, ClientBuilder, ConnectionEvent, ConnectionEvents, Error, Frames, Qos};
use std::time::Duration;
use support::{TEST_TIMEOUT, TestBroker, Transport, broker_kinds, in_time, next};

/// Returns a builder with short delays.
fn fast_reconnect(name: &str) -> ClientBuilder {
    Client::builder(name).timeout(TEST_TIMEOUT).reconnect(
        Backoff::new().first_delay(Duration::from_millis(5)).max_delay(Duration::from_millis(50)).jitter(0.5),
    )
}

async fn event(events: &mut ConnectionEvents) -> ConnectionEvent {
    in_time("an event", events.next()).await.unwrap()
}

/// Waits for the event that the client is connected. The events before it must be numbered attempts.
async fn until_connected(events: &mut ConnectionEvents) {
    let mut expected = 1;
    loop {
        match event(events).await {
            ConnectionEvent::Connected => break,
            ConnectionEvent::Retrying { attempt, after, .. } => {
                assert_eq!(attempt, expected);
                assert!(after <= Duration::from_millis(50));
                expected += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(expected > 1);
}

/// Returns the payloads before one that equals `end`.
async fn until(frames: &mut Frames, end: &str) -> Vec<String> {
    let mut payloads = vec![];
    loop {
        let payload = String::from_utf8_lossy(next(frames).await.payload()).into_owned();
        if payload == end {
            return payloads;
        }
        payloads.push(payload);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_ends_a_client_that_does_not_reconnect() {
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let mut broker = TestBroker::start(kind);
            let (client, mut frames) = broker.connect(*transport, "a").await;
            let mut events = client.events();
            client.send("a", "last", Qos::PROCESSED).await.unwrap();
            support::wait_until("it arrives", || client.stats().frames_received == 1).await;
            broker.kill();
            let lost = event(&mut events).await;
            assert!(matches!(lost, ConnectionEvent::Disconnected { .. }), "{kind:?} {transport:?} {lost:?}");
            assert_eq!(event(&mut events).await, ConnectionEvent::Closed);
            assert_eq!(events.next().await, None);
            // frames that had arrived are there, possibly announcements of .broker as well
            assert_eq!(next(&mut frames).await.payload(), b"last");
            while in_time("the end", frames.next()).await.is_some() {}
            assert!(!client.is_connected());
            for qos in [Qos::NO, Qos::PROCESSED] {
                let sent = client.send("a", "", qos).await;
                assert!(matches!(sent, Err(Error::Disconnected { .. })), "{kind:?} {transport:?} {sent:?}");
            }
            assert!(matches!(client.add_filters("t").await, Err(Error::Disconnected { .. })));
            assert!(matches!(client.connected().await, Err(Error::Disconnected { .. })));
            assert!(matches!(client.call("a", "m", "").await, Err(Error::Disconnected { .. })));
            in_time("close", client.close()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnection_restores_subscriptions_and_exclusions() {
    for kind in broker_kinds() {
        let mut broker = TestBroker::start(kind);
        let (client, mut frames) = broker.connect_with(Transport::Unix, fast_reconnect("a")).await.unwrap();
        let mut events = client.events();
        client.add_filters(["t/#", "gone"]).await.unwrap();
        client.remove_filters("gone").await.unwrap();
        client.remove_filters(".broker/warn").await.unwrap();
        client.exclude(["t/secret", "t/open"]).await.unwrap();
        client.unexclude("t/open").await.unwrap();
        let mut subscription = client.subscribe("own").await.unwrap();
        for round in 1..=2 {
            broker.kill();
            let lost = event(&mut events).await;
            assert!(matches!(lost, ConnectionEvent::Disconnected { .. }), "{lost:?}");
            // restored once the broker is back
            let later = format!("later/{round}");
            client.add_filters(&later).await.unwrap();
            let send = client.send("a", "", Qos::NO).await;
            assert!(matches!(send, Err(Error::Disconnected { .. })), "{send:?}");
            broker.restart();
            until_connected(&mut events).await;
            client.round_trip().await.unwrap();
            support::wait_until("counted", || client.stats().reconnects == round).await;
            let (other, _) = broker.connect(Transport::Unix, "b").await;
            for topic in ["gone", "t/1", "t/secret", "t/open", ".broker/warn", &later] {
                other.publish(topic, topic.to_owned(), Qos::NO).await.unwrap();
            }
            other.publish("own", "own", Qos::NO).await.unwrap();
            other.send("a", "end", Qos::PROCESSED).await.unwrap();
            assert_eq!(until(&mut frames, "end").await, ["t/1", "t/open", &later], "{kind:?} {round}");
            assert_eq!(in_time("a publication", subscription.next()).await.unwrap().payload(), b"own");
            in_time("close", other.close()).await;
        }
    }
}

/// The opposite case of the declined warnings in the previous test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broker_warnings_arrive_after_a_reconnection_unless_declined() {
    for kind in broker_kinds() {
        let mut broker = TestBroker::start(kind);
        let (client, mut frames) = broker.connect_with(Transport::Unix, fast_reconnect("a")).await.unwrap();
        let mut events = client.events();
        broker.kill();
        assert!(matches!(event(&mut events).await, ConnectionEvent::Disconnected { .. }));
        broker.restart();
        until_connected(&mut events).await;
        let (other, _) = broker.connect(Transport::Unix, "b").await;
        other.publish(".broker/warn", "warning", Qos::PROCESSED).await.unwrap();
        other.send("a", "end", Qos::PROCESSED).await.unwrap();
        let payloads = until(&mut frames, "end").await;
        assert_eq!(payloads.last().map(String::as_str), Some("warning"), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_fail_with_typed_errors_until_a_killed_broker_is_back() {
    const TASKS: usize = 8;
    for kind in broker_kinds() {
        let mut broker = TestBroker::start(kind);
        let (client, mut frames) = broker.connect_with(Transport::Unix, fast_reconnect("a")).await.unwrap();
        let (done, mut ended) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..TASKS {
            let (client, done) = (client.clone(), done.clone());
            tasks.spawn(async move {
                let mut again = 0;
                while again < 20 {
                    let payload = vec![1; 1000];
                    let sent = match task % 4 {
                        0 => client.send("a", payload, Qos::PROCESSED).await,
                        1 => client.publish("t", payload, Qos::NO).await,
                        2 => client.round_trip().await.map(drop),
                        _ => client.call(".broker", "test", "").await.map(drop),
                    };
                    match sent {
                        Ok(()) if client.stats().reconnects > 0 => again += 1,
                        Ok(()) => _ = done.send(()),
                        Err(Error::Disconnected { .. }) => client.connected().await.unwrap(),
                        // plugins stop one after another: the one that answers calls before the transports
                        Err(Error::NotRegistered { target, .. }) if target == ".broker" => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
        let taking = tokio::spawn(async move { while frames.next().await.is_some() {} });
        for _ in 0..TASKS * 20 {
            in_time("an operation", ended.recv()).await.unwrap();
        }
        broker.kill();
        broker.restart();
        in_time("the tasks", async {
            while let Some(task) = tasks.join_next().await {
                task.unwrap();
            }
        })
        .await;
        in_time("close", client.close()).await;
        in_time("the end", taking).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_ends_after_its_last_attempt() {
    for kind in broker_kinds() {
        let mut broker = TestBroker::start(kind);
        let limited = Client::builder("a").reconnect(
            Backoff::new()
                .first_delay(Duration::from_millis(2))
                .max_delay(Duration::from_millis(5))
                .jitter(0.0)
                .max_attempts(3),
        );
        let (client, mut frames) = broker.connect_with(Transport::Unix, limited).await.unwrap();
        let mut events = client.events();
        broker.kill();
        assert!(matches!(event(&mut events).await, ConnectionEvent::Disconnected { .. }));
        for (expected, pause) in [(1, 2), (2, 4), (3, 5)] {
            let retrying = event(&mut events).await;
            let pause = Duration::from_millis(pause);
            assert!(
                matches!(
                    &retrying,
                    ConnectionEvent::Retrying { attempt, after, .. }
                        if (*attempt, *after) == (expected, pause)
                ),
                "{retrying:?}"
            );
        }
        assert_eq!(event(&mut events).await, ConnectionEvent::Closed);
        while in_time("the end", frames.next()).await.is_some() {}
        // the reason of the last attempt
        assert!(matches!(client.connected().await, Err(Error::NoBroker { .. })));
        assert!(matches!(client.send("a", "", Qos::NO).await, Err(Error::NoBroker { .. })));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_does_not_wait_for_the_next_attempt() {
    for kind in broker_kinds() {
        let mut broker = TestBroker::start(kind);
        let slow = Client::builder("a").reconnect(
            Backoff::new()
                .first_delay(Duration::from_secs(3600))
                .max_delay(Duration::from_secs(3600))
                .jitter(0.0),
        );
        for dropped in [false, true] {
            let (client, frames) = broker.connect_with(Transport::Unix, slow.clone()).await.unwrap();
            let mut events = client.events();
            broker.kill();
            while !matches!(event(&mut events).await, ConnectionEvent::Retrying { .. }) {}
            if dropped {
                drop((client, frames));
            } else {
                let clone = client.clone();
                let waiting = tokio::spawn(async move { clone.connected().await });
                in_time("close", client.close()).await;
                assert!(matches!(in_time("the end", waiting).await.unwrap(), Err(Error::Closed)));
                assert!(matches!(client.add_filters("t").await, Err(Error::Closed)));
            }
            assert_eq!(event(&mut events).await, ConnectionEvent::Closed);
            broker.restart();
        }
    }
}
