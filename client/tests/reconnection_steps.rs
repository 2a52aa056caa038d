//! Reconnection step by step with a scripted broker: frames on the wire, and operations that fail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{Backoff, Client, ClientBuilder, ConnectionEvent, Error, Qos};
use std::time::Duration;
use support::{
    TEST_TIMEOUT,
    fake_broker::{FakeBroker, FakeConnection, OK},
    in_time, wait_until,
};
use tokio::io::AsyncWriteExt;

const SUBSCRIBE: u8 = 0x02;
const UNSUBSCRIBE: u8 = 0x03;
const EXCLUDE: u8 = 0x04;
const BUSY: u8 = 0x76;

fn fast_reconnect(name: &str) -> ClientBuilder {
    Client::builder(name).timeout(TEST_TIMEOUT).ping_interval(TEST_TIMEOUT).reconnect(
        Backoff::new().first_delay(Duration::from_millis(2)).max_delay(Duration::from_millis(10)).jitter(0.5),
    )
}

async fn connect(
    fake: &FakeBroker,
    builder: ClientBuilder,
) -> (Client, elbus_client::Frames, FakeConnection) {
    let (connected, peer) = tokio::join!(builder.connect(fake.path()), fake.register());
    let (client, frames) = connected.unwrap();
    (client, frames, peer)
}

/// Takes the next operation and acknowledges it: operation and filters.
async fn answer(peer: &mut FakeConnection) -> (u8, Vec<String>) {
    let sent = peer.next_operation().await;
    peer.acknowledge(&sent, OK).await;
    (sent.op(), sent.filters())
}

#[tokio::test]
async fn filters_are_restored_in_few_frames() {
    let fake = FakeBroker::listen();
    let (client, _frames, mut peer) = connect(&fake, fast_reconnect("a")).await;
    let many: Vec<_> = (0..2500).map(|n| format!("t/{n}")).collect();
    let ask = async {
        client.add_filters(&many).await.unwrap();
        client.exclude(["x", "y"]).await.unwrap();
        client.remove_filters(".broker/warn").await.unwrap();
        client.unexclude("y").await.unwrap();
    };
    let answers = async {
        for _ in 0..4 {
            answer(&mut peer).await;
        }
    };
    tokio::join!(ask, answers);
    drop(peer);
    let mut peer = fake.register().await;
    assert_eq!(answer(&mut peer).await, (EXCLUDE, vec!["x".to_owned()]));
    let mut again = vec![];
    for _ in 0..3 {
        let (op, filters) = answer(&mut peer).await;
        assert_eq!(op, SUBSCRIBE);
        assert!(filters.len() <= 1000);
        again.extend(filters);
    }
    let mut expected = many;
    again.sort();
    expected.sort();
    assert_eq!(again, expected);
    assert_eq!(answer(&mut peer).await, (UNSUBSCRIBE, vec![".broker/warn".to_owned()]));
}

#[tokio::test]
async fn operations_in_flight_fail_and_late_outcomes_are_ignored() {
    let fake = FakeBroker::listen();
    let (client, _frames, mut peer) = connect(&fake, fast_reconnect("a")).await;
    let in_flight = async {
        tokio::join!(
            client.send("b", "", Qos::PROCESSED),
            client.publish("t", "", Qos::REALTIME_PROCESSED),
            client.call("b", "method", ""),
            async { client.round_trip().await.map(drop) },
        )
    };
    let lose = async {
        for _ in 0..4 {
            peer.next_operation().await;
        }
        drop(peer);
    };
    let ((send, publish, call, round_trip), ()) =
        in_time("the errors", async { tokio::join!(in_flight, lose) }).await;
    for failed in [send, publish, call.map(drop), round_trip] {
        assert!(matches!(failed, Err(Error::Disconnected { .. })), "{failed:?}");
    }
    // acknowledgements of operations of another connection
    let mut peer = fake.register().await;
    in_time("the connection", client.connected()).await.unwrap();
    for op_id in 0..8u32 {
        peer.stream.write_all(&elbus_protocol::delivery::encode_ack(op_id, 0x71)).await.unwrap();
    }
    let before = client.stats().bytes_received;
    wait_until("the acknowledgements are read", || client.stats().bytes_received >= 8 * 6 || before >= 8 * 6)
        .await;
    let answer = async {
        let sent = peer.next_operation().await;
        peer.acknowledge(&sent, OK).await;
    };
    let (sent, ()) =
        in_time("an answer", async { tokio::join!(client.send("b", "", Qos::PROCESSED), answer) }).await;
    sent.unwrap();
}

#[tokio::test]
async fn a_topic_operation_in_flight_is_repeated() {
    let fake = FakeBroker::listen();
    let (client, _frames, mut peer) = connect(&fake, fast_reconnect("a")).await;
    let lose = async {
        let sent = peer.next_operation().await;
        assert_eq!((sent.op(), sent.filters()), (SUBSCRIBE, vec!["t".to_owned()]));
        drop(peer);
        let mut peer = fake.register().await;
        assert_eq!(answer(&mut peer).await, (SUBSCRIBE, vec!["t".to_owned()]));
        peer
    };
    let (subscribed, _peer) =
        in_time("the subscription", async { tokio::join!(client.add_filters("t"), lose) }).await;
    subscribed.unwrap();
}

#[tokio::test]
async fn refused_reconnections_are_retried() {
    let fake = FakeBroker::listen();
    let (client, _frames, peer) = connect(&fake, fast_reconnect("a")).await;
    let mut events = client.events();
    drop(peer);
    // another client owns the name for some time
    let (_, name) = fake.answer(BUSY).await;
    assert_eq!(name, "a");
    // closes at once, then sends an invalid greeting
    drop(fake.accept().await);
    let mut stranger = fake.accept().await;
    stranger.stream.write_all(b"HTTP/1.1").await.unwrap();
    let _peer = fake.register().await;
    in_time("the connection", client.connected()).await.unwrap();
    let mut reasons = vec![];
    loop {
        match in_time("an event", events.next()).await.unwrap() {
            ConnectionEvent::Retrying { reason, attempt, .. } => {
                assert_eq!(attempt as usize, reasons.len() + 1);
                reasons.push(reason);
            }
            ConnectionEvent::Connected => break,
            ConnectionEvent::Disconnected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    assert!(reasons[1].contains("another client is registered as \"a\""), "{reasons:?}");
}

/// Bytes that were queued for the previous connection are not sent over the new one.
#[tokio::test]
async fn a_new_connection_starts_with_a_complete_frame() {
    let fake = FakeBroker::listen();
    let (client, _frames, mut peer) = connect(&fake, fast_reconnect("a")).await;
    // more than the socket holds: the last one is written in part
    for _ in 0..7 {
        client.send("b", vec![7; 1 << 20], Qos::NO).await.unwrap();
    }
    assert!(client.stats().queued_bytes > 0);
    assert_eq!(peer.next_operation().await.body.len(), (1 << 20) + 2);
    drop(peer);
    let mut peer = fake.register().await;
    in_time("the connection", client.connected()).await.unwrap();
    assert_eq!(client.stats().queued_bytes, 0);
    client.send("c", "first", Qos::NO).await.unwrap();
    let sent = peer.next().await.unwrap();
    assert_eq!(sent.body, b"c\0first");
}

/// Senders that wait for room when the connection is lost.
#[tokio::test]
async fn waiting_senders_fail_when_the_connection_is_lost() {
    let fake = FakeBroker::listen();
    let (client, _frames, peer) = connect(&fake, fast_reconnect("a").queue_bytes(1 << 20)).await;
    let sender = client.clone();
    let flood = tokio::spawn(async move {
        loop {
            if let Err(error) = sender.send("b", vec![7; 100_000], Qos::NO).await {
                break error;
            }
        }
    });
    // waiting senders continue when half of the queue is written
    wait_until("the socket is full", || client.stats().queued_bytes > 1 << 19).await;
    // real-time frames do not wait, so they are refused at some point
    let refused = loop {
        if let Err(error) = client.send("b", vec![7; 100_000], Qos::REALTIME).await {
            break error;
        }
    };
    assert!(
        matches!(refused, Error::QueueFull { queued, limit, .. } if queued > limit && limit == 2 << 20),
        "{refused:?}"
    );
    drop(peer);
    let error = in_time("the error", flood).await.unwrap();
    assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
}

#[test]
fn a_sender_waits_for_queue_space_until_the_timeout() {
    support::with_growing_limits(Duration::from_millis(200), waits_for_queue_space);
}

async fn waits_for_queue_space(timeout: Duration) {
    let fake = FakeBroker::listen();
    let builder = Client::builder("a").timeout(timeout).queue_bytes(1 << 20);
    let (client, _frames, mut peer) = connect(&fake, builder).await;
    // the broker keeps sending, but reads nothing
    let speaking = async {
        loop {
            peer.stream.write_all(&[0; 6]).await.unwrap();
            tokio::time::sleep(timeout / 10).await;
        }
    };
    let flood = async {
        loop {
            if let Err(error) = client.send("b", vec![7; 100_000], Qos::NO).await {
                break error;
            }
        }
    };
    let error = tokio::select! {
        error = in_time("the timeout", flood) => error,
        () = speaking => unreachable!(),
    };
    assert!(matches!(error, Error::Timeout { after, .. } if after == timeout), "{error:?}");
    assert!(client.is_connected());
}

#[tokio::test]
async fn a_refused_filter_removes_no_earlier_one() {
    const DENIED: u8 = 0x79;
    let fake = FakeBroker::listen();
    let (client, _frames, mut peer) = connect(&fake, fast_reconnect("a")).await;
    let refuse = async {
        answer(&mut peer).await;
        answer(&mut peer).await;
        for _ in 0..2 {
            let sent = peer.next_operation().await;
            peer.acknowledge(&sent, DENIED).await;
        }
    };
    let ask = async {
        client.add_filters("granted").await.unwrap();
        client.exclude("hidden").await.unwrap();
        let subscribed = client.add_filters(["granted", "secret"]).await;
        let excluded = client.exclude(["hidden", "secret"]).await;
        (subscribed, excluded)
    };
    let ((subscribed, excluded), ()) = in_time("the answers", async { tokio::join!(ask, refuse) }).await;
    for (refused, named) in [(subscribed, "granted, secret"), (excluded, "hidden, secret")] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::AccessDenied { .. }), "{error:?}");
        assert!(error.to_string().contains(named), "{error}");
    }
    drop(peer);
    let mut peer = fake.register().await;
    assert_eq!(answer(&mut peer).await, (EXCLUDE, vec!["hidden".to_owned()]));
    assert_eq!(answer(&mut peer).await, (SUBSCRIBE, vec!["granted".to_owned()]));
}

#[tokio::test]
async fn a_filter_refused_on_reconnection_affects_no_other() {
    const DENIED: u8 = 0x79;
    let fake = FakeBroker::listen();
    let (client, _frames, mut peer) = connect(&fake, fast_reconnect("a")).await;
    let mut granted: Vec<_> = (0..7).map(|n| format!("t/{n}")).collect();
    let ask = async {
        client.add_filters(&granted).await.unwrap();
        client.add_filters("secret").await.unwrap();
    };
    let answers = async {
        answer(&mut peer).await;
        answer(&mut peer).await;
    };
    tokio::join!(ask, answers);
    drop(peer);
    let mut peer = fake.register().await;
    let (mut asked, mut again) = (0, vec![]);
    while again.len() < granted.len() {
        let sent = in_time("the next part", peer.next_operation()).await;
        asked += 1;
        if sent.filters().iter().any(|filter| filter == "secret") {
            peer.acknowledge(&sent, DENIED).await;
        } else {
            again.extend(sent.filters());
            peer.acknowledge(&sent, OK).await;
        }
    }
    again.sort();
    granted.sort();
    assert_eq!(again, granted);
    assert!(asked <= 2 * 8, "{asked}");
}
