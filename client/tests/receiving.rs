//! Receiving: bounded queues, no loss, and exact reports of frames that are dropped by choice.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{Client, Error, Frames, Overflow, Qos};
use std::time::Duration;
use support::{
    BrokerKind, Limits, TEST_TIMEOUT, TestBroker, Transport, broker_kinds, in_time, next, wait_until,
    with_growing_limits,
};

const FRAME: usize = 4096;

/// Returns a payload that starts with its number.
fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(len.max(4), 0);
    payload
}

fn number_of(payload: &[u8]) -> u32 {
    u32::from_le_bytes(*payload.first_chunk().unwrap())
}

async fn take(frames: &mut Frames, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(number_of(next(frames).await.payload()), number);
    }
}

/// Starts a broker with short queues and long timeouts.
fn small_queues() -> TestBroker {
    TestBroker::start_with(
        BrokerKind::Elbus,
        Limits { queue_bytes: Some(256 << 10), timeout_seconds: Some(60.0) },
    )
}

fn sender(name: &str) -> elbus_client::ClientBuilder {
    Client::builder(name).queue_bytes(64 << 10).timeout(TEST_TIMEOUT)
}

/// Sends `count` numbered frames to "receiver", in a task.
fn flood(client: &Client, count: u32) -> tokio::task::JoinHandle<Result<(), Error>> {
    let client = client.clone();
    tokio::spawn(async move {
        for number in 0..count {
            client.send("receiver", numbered(number, FRAME), Qos::NO).await?;
        }
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_consumer_holds_the_senders_and_loses_nothing() {
    // more than the buffers of four TCP sockets, which grow to tens of megabytes
    const FRAMES: u32 = 30_000;
    const BOUND: usize = 256 << 10;
    for transport in [Transport::Unix, Transport::Tcp] {
        let broker = small_queues();
        let receiver = Client::builder("receiver").queue_bytes(BOUND).timeout(TEST_TIMEOUT);
        let (receiver, mut frames) = broker.connect_with(transport, receiver).await.unwrap();
        let (sender, _) = broker.connect_with(transport, sender("sender")).await.unwrap();
        let flood = flood(&sender, FRAMES);
        // more than both sides queue: the reader pauses
        wait_until("the reader has begun", || receiver.stats().bytes_received as usize > BOUND / 2).await;
        wait_until("the sender waits", || sender.stats().queued_bytes > 64 << 10).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!flood.is_finished());
        // one read can exceed the limit
        assert!(receiver.stats().bytes_received as usize <= BOUND + (256 << 10), "{:?}", receiver.stats());
        assert!(sender.stats().queued_bytes <= (64 << 10) + 2 * FRAME, "{:?}", sender.stats());
        take(&mut frames, 0..FRAMES).await;
        flood.await.unwrap().unwrap();
        assert_eq!(frames.missed(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_complete_while_frames_are_unread() {
    const FRAMES: u32 = 8000;
    let broker = small_queues();
    // four times this is more than the broker, both sockets and one more read queue
    let receiver = Client::builder("receiver").queue_bytes(1 << 20).timeout(TEST_TIMEOUT);
    let (receiver, mut frames) = broker.connect_with(Transport::Unix, receiver).await.unwrap();
    let (sender, _) = broker.connect_with(Transport::Unix, sender("sender")).await.unwrap();
    let flood = flood(&sender, FRAMES);
    wait_until("the reader has begun", || receiver.stats().bytes_received > 1 << 19).await;
    in_time("an acknowledgement", receiver.publish("t", "", Qos::PROCESSED)).await.unwrap();
    assert!(receiver.stats().bytes_received < 6 << 20, "{:?}", receiver.stats());
    take(&mut frames, 0..FRAMES).await;
    flood.await.unwrap().unwrap();
}

#[test]
fn operations_time_out_with_too_many_unread_frames() {
    // the limit is that of everything the receiver does, and of a busy machine
    with_growing_limits(Duration::from_millis(500), time_out);
}

async fn time_out(timeout: Duration) {
    const FRAMES: u32 = 2000;
    let broker = small_queues();
    let receiver = Client::builder("receiver").queue_bytes(16 << 10).timeout(timeout);
    let (receiver, mut frames) = broker.connect_with(Transport::Unix, receiver).await.unwrap();
    let (sender, _) = broker.connect_with(Transport::Unix, sender("sender")).await.unwrap();
    let flood = flood(&sender, FRAMES);
    wait_until("the sender waits", || sender.stats().queued_bytes > 64 << 10).await;
    // the first operations can still overtake the flood
    let ended = in_time("the end of an operation", async {
        loop {
            if let Err(error) = receiver.publish("t", "", Qos::PROCESSED).await {
                break error;
            }
        }
    })
    .await;
    assert!(matches!(ended, Error::Timeout { .. }), "{ended:?}");
    // a client whose reader is paused does not consider the broker lost
    assert!(receiver.is_connected());
    take(&mut frames, 0..FRAMES).await;
    flood.await.unwrap().unwrap();
    receiver.publish("t", "", Qos::PROCESSED).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_can_be_awaited_between_the_frames_of_a_flood() {
    const FRAMES: u32 = 5000;
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let broker = TestBroker::start(kind);
            let (receiver, mut frames) = broker.connect(*transport, "receiver").await;
            let (sender, _) = broker.connect(*transport, "sender").await;
            let flood = flood(&sender, FRAMES);
            for number in 0..FRAMES {
                take(&mut frames, number..number + 1).await;
                if number % 5 == 0 {
                    receiver.publish("taken", "", Qos::PROCESSED).await.unwrap();
                }
            }
            flood.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_frames_are_counted_exactly() {
    const FRAMES: u32 = 1000;
    for kind in broker_kinds() {
        let broker = TestBroker::start(kind);
        for (overflow, transport) in [Overflow::DropNewest, Overflow::DropOldest]
            .into_iter()
            .flat_map(|o| kind.transports().iter().map(move |w| (o, *w)))
        {
            let name = format!("{overflow:?}.{transport:?}");
            let receiver =
                Client::builder(&name).queue_bytes(20_000).overflow(overflow).timeout(TEST_TIMEOUT);
            let (receiver, mut frames) = broker.connect_with(transport, receiver).await.unwrap();
            let (sender, _) = broker.connect(transport, &format!("to.{name}")).await;
            for number in 0..FRAMES {
                sender.send(&name, numbered(number, 1000), Qos::NO).await.unwrap();
            }
            wait_until("all frames have arrived", || receiver.stats().frames_received == u64::from(FRAMES))
                .await;
            // received before the acknowledgement, so queued or dropped by then
            receiver.publish("end", "", Qos::PROCESSED).await.unwrap();
            let received: Vec<_> = std::iter::from_fn(|| frames.try_next()).collect();
            let numbers: Vec<_> = received.iter().map(|frame| number_of(frame.payload())).collect();
            let count = numbers.len() as u32;
            assert!((10..=20).contains(&count), "{numbers:?}");
            let dropped = u64::from(FRAMES - count);
            assert_eq!(frames.missed(), dropped);
            let reported: Vec<_> = received.iter().map(elbus_client::Frame::missed).collect();
            sender.send(&name, numbered(FRAMES, 1000), Qos::NO).await.unwrap();
            let last = next(&mut frames).await;
            assert_eq!(number_of(last.payload()), FRAMES);
            if overflow == Overflow::DropNewest {
                assert_eq!(numbers, (0..count).collect::<Vec<_>>());
                assert!(reported.iter().all(|missed| *missed == 0));
                assert_eq!(last.missed(), dropped);
            } else {
                assert_eq!(numbers, (FRAMES - count..FRAMES).collect::<Vec<_>>());
                assert_eq!((reported[0], reported.iter().sum::<u64>()), (dropped, dropped));
                assert_eq!(last.missed(), 0);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn received_frames_without_a_consumer_are_counted() {
    const FRAMES: u32 = 3000;
    for kind in broker_kinds() {
        for transport in kind.transports() {
            let broker = TestBroker::start(kind);
            let receiver = Client::builder("receiver").queue_bytes(10_000).timeout(TEST_TIMEOUT);
            let (receiver, frames) = broker.connect_with(*transport, receiver).await.unwrap();
            let (sender, _) = broker.connect(*transport, "sender").await;
            drop(frames);
            flood(&sender, FRAMES).await.unwrap().unwrap();
            wait_until("all frames are counted", || receiver.stats().unclaimed == u64::from(FRAMES)).await;
            receiver.round_trip().await.unwrap();
        }
    }
}

/// Senders that wait for queue space continue when the frames are dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_frames_releases_held_senders() {
    let broker = small_queues();
    let receiver = Client::builder("receiver").queue_bytes(10_000).timeout(TEST_TIMEOUT);
    let (receiver, frames) = broker.connect_with(Transport::Unix, receiver).await.unwrap();
    let (sender, _) = broker.connect_with(Transport::Unix, sender("sender")).await.unwrap();
    let flood = flood(&sender, 4000);
    wait_until("the sender waits", || sender.stats().queued_bytes > 64 << 10).await;
    assert_eq!(receiver.stats().unclaimed, 0);
    drop(frames);
    in_time("the flood", flood).await.unwrap().unwrap();
    wait_until("all frames are read", || receiver.stats().frames_received == 4000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_future_loses_no_frame() {
    let broker = TestBroker::start(BrokerKind::Elbus);
    let (sender, _) = broker.connect(Transport::Unix, "sender").await;
    let (_receiver, mut frames) = broker.connect(Transport::Unix, "receiver").await;
    for number in 0..1000u32 {
        let taken = {
            // polled before the frame arrives, then dropped, possibly while it arrives
            let mut cancelled = std::pin::pin!(frames.next());
            assert!(poll_once(cancelled.as_mut()).await.is_none());
            sender.send("receiver", numbered(number, 4), Qos::NO).await.unwrap();
            poll_once(cancelled).await
        };
        let frame = match taken {
            Some(frame) => frame.unwrap(),
            None => next(&mut frames).await,
        };
        assert_eq!(number_of(frame.payload()), number);
    }
}

/// Polls a future once.
async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_frames_stays_connected() {
    const FRAMES: u32 = 3000;
    let limits = Limits { timeout_seconds: Some(25.0), queue_bytes: Some(1 << 20) };
    let broker = TestBroker::start_with(BrokerKind::Elbus, limits);
    for transport in BrokerKind::Elbus.transports() {
        let name = format!("{transport:?}");
        let receiver = Client::builder(&name).queue_bytes(20_000).timeout(TEST_TIMEOUT);
        let receiver = receiver.hold_limit(Duration::from_millis(200));
        let (receiver, mut frames) = broker.connect_with(*transport, receiver).await.unwrap();
        let (sender, _) = broker.connect(*transport, &format!("to.{name}")).await;
        let flood = async {
            for number in 0..FRAMES {
                sender.send(&name, numbered(number, 10_000), Qos::NO).await.unwrap();
            }
            sender.send(&name, "end", Qos::PROCESSED).await.unwrap();
        };
        in_time("the flood", flood).await;
        in_time("an operation of its own", receiver.publish("t", "x", Qos::PROCESSED)).await.unwrap();
        assert!(receiver.is_connected(), "{transport:?}");
        wait_until("all frames have arrived", || receiver.stats().frames_received == u64::from(FRAMES) + 1)
            .await;
        let received = std::iter::from_fn(|| frames.try_next()).count() as u64;
        assert_eq!(received + frames.missed(), u64::from(FRAMES) + 1, "{transport:?}");
        assert!(frames.missed() > 0, "{transport:?}");
        // nothing is lost once it reads again
        sender.send(&name, "more", Qos::PROCESSED).await.unwrap();
        assert_eq!(next(&mut frames).await.payload(), b"more");
    }
}

#[test]
fn a_slow_consumer_of_a_full_queue_loses_nothing() {
    with_growing_limits(Duration::from_millis(250), take_slowly);
}

async fn take_slowly(hold_limit: Duration) {
    // several times what is queued, which takes longer than the limit to consume
    const FRAMES: u32 = 1500;
    let broker = small_queues();
    let receiver = Client::builder("receiver").queue_bytes(300 * FRAME).hold_limit(hold_limit);
    let (_receiver, mut frames) = broker.connect_with(Transport::Unix, receiver).await.unwrap();
    let (client, _) = broker.connect_with(Transport::Unix, sender("sender")).await.unwrap();
    let flood = flood(&client, FRAMES);
    for number in 0..FRAMES {
        assert_eq!(frames.missed(), 0, "before frame {number}");
        assert_eq!(number_of(next(&mut frames).await.payload()), number);
        tokio::time::sleep(hold_limit / 250).await;
    }
    flood.await.unwrap().unwrap();
}

#[test]
fn a_consumer_that_is_too_slow_for_a_flood_loses_frames_and_stays_connected() {
    with_growing_limits(Duration::from_millis(1500), lag_behind);
}

async fn lag_behind(hold_limit: Duration) {
    // the broker disconnects a client that reads nothing for four thirds of the limit, as with the defaults
    let limits = Limits { timeout_seconds: Some(hold_limit.as_secs_f64() * 5.0 / 3.0), queue_bytes: None };
    let broker = TestBroker::start_with(BrokerKind::Elbus, limits);
    let receiver = Client::builder("receiver").queue_bytes(1000).hold_limit(hold_limit);
    let (receiver, mut frames) = broker.connect_with(Transport::Unix, receiver).await.unwrap();
    let (client, _) = broker.connect_with(Transport::Unix, sender("sender")).await.unwrap();
    let flood =
        tokio::spawn(async move { while client.send("receiver", numbered(1, 4), Qos::NO).await.is_ok() {} });
    // more than it takes at once, and much less than one read has
    let within_limit = 1200.0;
    let begun = tokio::time::Instant::now();
    let mut taken = 0.0;
    while frames.missed() == 0 || begun.elapsed() < 3 * hold_limit {
        assert!(receiver.is_connected() && begun.elapsed() < TEST_TIMEOUT, "after {:?}", begun.elapsed());
        while taken < begun.elapsed().div_duration_f64(hold_limit) * within_limit
            && frames.try_next().is_some()
        {
            taken += 1.0;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    flood.abort();
}
