//! Liveness: pings to the broker, and detection of a silent broker.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{Client, ConnectionEvent, Error, Qos};
use std::time::{Duration, Instant};
use support::{
    fake_broker::{FakeBroker, OK},
    in_time, with_growing_limits,
};
use tokio::io::AsyncWriteExt;

const TIMEOUT: Duration = Duration::from_millis(200);
/// UNEXCLUDE.
const UNEXCLUDE: u8 = 0x05;

async fn connect(
    fake: &FakeBroker,
    builder: elbus_client::ClientBuilder,
) -> (Client, elbus_client::Frames, support::fake_broker::FakeConnection) {
    let (connected, peer) = tokio::join!(builder.connect(fake.path()), fake.register());
    let (client, frames) = connected.unwrap();
    (client, frames, peer)
}

#[tokio::test]
async fn an_idle_client_pings_at_its_interval() {
    let fake = FakeBroker::listen();
    let builder = Client::builder("a").ping_interval(Duration::from_millis(20));
    let (_client, _frames, mut peer) = connect(&fake, builder).await;
    let begin = Instant::now();
    for _ in 0..10 {
        let sent = peer.next().await.unwrap();
        assert_eq!((sent.is_ping(), sent.op_id), (true, 0));
    }
    // not more often; a busy machine can delay them
    assert!(begin.elapsed() >= Duration::from_millis(20 * 9));
}

#[tokio::test]
async fn a_ping_is_sent_at_once() {
    let fake = FakeBroker::listen();
    let builder =
        Client::builder("a").ping_interval(Duration::from_secs(3600)).timeout(Duration::from_secs(3600));
    let (client, _frames, mut peer) = connect(&fake, builder).await;
    for _ in 0..3 {
        client.ping().await.unwrap();
        assert!(peer.next().await.unwrap().is_ping());
    }
}

#[test]
fn a_silent_broker_is_probed_and_then_disconnected() {
    with_growing_limits(TIMEOUT, falls_silent);
}

async fn falls_silent(timeout: Duration) {
    let fake = FakeBroker::listen();
    let builder = Client::builder("a").timeout(timeout).ping_interval(Duration::from_millis(20));
    let begin = Instant::now();
    let (client, mut frames, mut peer) = connect(&fake, builder).await;
    let mut events = client.events();
    let asked = peer.next_operation().await;
    assert!(begin.elapsed() >= timeout);
    assert_eq!((asked.op(), asked.flags >> 6), (UNEXCLUDE, 1));
    let lost = in_time("the loss", events.next()).await.unwrap();
    assert!(begin.elapsed() >= 2 * timeout);
    assert!(
        matches!(&lost, ConnectionEvent::Disconnected { reason, .. } if reason.contains("silent")),
        "{lost:?}"
    );
    assert_eq!(in_time("the end", events.next()).await, Some(ConnectionEvent::Closed));
    assert!(in_time("the end", frames.next()).await.is_none());
    let sent = client.send("b", "", Qos::NO).await;
    assert!(matches!(sent, Err(Error::Disconnected { .. })), "{sent:?}");
}

#[test]
fn a_broker_that_answers_or_pings_stays_connected() {
    with_growing_limits(TIMEOUT, answers_or_pings);
}

async fn answers_or_pings(timeout: Duration) {
    let fake = FakeBroker::listen();
    let builder = || Client::builder("a").timeout(timeout).ping_interval(Duration::from_millis(20));
    // longer than a silent broker stays connected
    let (client, _frames, mut peer) = connect(&fake, builder()).await;
    let mut events = client.events();
    let begin = Instant::now();
    while begin.elapsed() < 4 * timeout {
        let asked = peer.next().await.unwrap();
        if !asked.is_ping() {
            peer.acknowledge(&asked, OK).await;
        }
    }
    assert!(client.is_connected());
    client.close().await;
    assert_eq!(events.next().await, Some(ConnectionEvent::Closed));

    // the broker's own pings arrive in time: no probe is needed
    let (client, _frames, mut peer) = connect(&fake, builder()).await;
    let begin = Instant::now();
    while begin.elapsed() < 4 * timeout {
        peer.stream.write_all(&[0; 6]).await.unwrap();
        tokio::time::sleep(timeout / 10).await;
    }
    assert!(client.is_connected());
}

#[tokio::test]
async fn an_invalid_frame_ends_the_connection() {
    let fake = FakeBroker::listen();
    let (client, mut frames, mut peer) = connect(&fake, Client::builder("a")).await;
    let mut events = client.events();
    peer.stream.write_all(&[0x55; 64]).await.unwrap();
    let lost = in_time("the loss", events.next()).await.unwrap();
    assert!(
        matches!(&lost, ConnectionEvent::Disconnected { reason, .. } if reason.contains("invalid frame")),
        "{lost:?}"
    );
    assert!(in_time("the end", frames.next()).await.is_none());
}

#[test]
fn an_unacknowledged_operation_times_out() {
    with_growing_limits(TIMEOUT, is_not_acknowledged);
}

async fn is_not_acknowledged(timeout: Duration) {
    let fake = FakeBroker::listen();
    let builder = Client::builder("a").timeout(timeout);
    let (client, _frames, mut peer) = connect(&fake, builder).await;
    let begin = Instant::now();
    let send = client.send("b", "", Qos::PROCESSED);
    let (sent, asked) = tokio::join!(in_time("the timeout", send), peer.next_operation());
    assert!(matches!(&sent, Err(Error::Timeout { after, .. }) if *after == timeout), "{sent:?}");
    assert!(begin.elapsed() >= timeout);
    // too late for this operation, and not counted for the next one
    peer.acknowledge(&asked, 0x71).await;
    let send = async { client.send("b", "", Qos::PROCESSED).await };
    let answer = async {
        let asked = peer.next_operation().await;
        peer.acknowledge(&asked, OK).await;
    };
    let (sent, ()) = tokio::join!(in_time("an acknowledgement", send), answer);
    sent.unwrap();
}
