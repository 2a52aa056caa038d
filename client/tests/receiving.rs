//! Receiving: bounded, nothing lost, and where the user has chosen to lose something, every gap is reported.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use elbus_client::{Client, Error, Frames, Overflow, Qos};
use std::time::Duration;
use support::{Kind, Limits, PATIENCE, TestBroker, Way, kinds, next, soon, wait_until};

const FRAME: usize = 4096;

/// A payload that tells its number.
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

/// A broker that bears little and waits long.
fn narrow() -> TestBroker {
    TestBroker::start_with(Kind::Elbus, Limits { queue_bytes: Some(256 << 10), timeout_seconds: Some(60.0) })
}

fn sender(name: &str) -> elbus_client::ClientBuilder {
    Client::builder(name).queue_bytes(64 << 10).timeout(PATIENCE)
}

/// Sends so many numbered frames to "receiver", in a task.
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
async fn who_takes_nothing_holds_the_senders_back_and_loses_nothing() {
    const FRAMES: u32 = 8000;
    const BOUND: usize = 256 << 10;
    for way in [Way::Unix, Way::Tcp] {
        let broker = narrow();
        let receiver = Client::builder("receiver").queue_bytes(BOUND).timeout(PATIENCE);
        let (receiver, mut frames) = broker.join(way, receiver).await.unwrap();
        let (sender, _) = broker.join(way, sender("sender")).await.unwrap();
        let flood = flood(&sender, FRAMES);
        // more than either side may read ahead: the reader stands
        wait_until("the reader has begun", || receiver.stats().bytes_received as usize > BOUND / 2).await;
        wait_until("the sender waits", || sender.stats().queued_bytes > 64 << 10).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!flood.is_finished());
        // what a read brings may lie above the bound
        assert!(receiver.stats().bytes_received as usize <= BOUND + (256 << 10), "{:?}", receiver.stats());
        assert!(sender.stats().queued_bytes <= (64 << 10) + 2 * FRAME, "{:?}", sender.stats());
        take(&mut frames, 0..FRAMES).await;
        flood.await.unwrap().unwrap();
        assert_eq!(frames.missed(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_end_although_nobody_takes_the_frames_before_them() {
    const FRAMES: u32 = 8000;
    let broker = narrow();
    // four times this is more than the broker, both sockets and one more read hold
    let receiver = Client::builder("receiver").queue_bytes(1 << 20).timeout(PATIENCE);
    let (receiver, mut frames) = broker.join(Way::Unix, receiver).await.unwrap();
    let (sender, _) = broker.join(Way::Unix, sender("sender")).await.unwrap();
    let flood = flood(&sender, FRAMES);
    wait_until("the reader has begun", || receiver.stats().bytes_received > 1 << 19).await;
    soon("an acknowledgement", receiver.publish("t", "", Qos::PROCESSED)).await.unwrap();
    assert!(receiver.stats().bytes_received < 6 << 20, "{:?}", receiver.stats());
    take(&mut frames, 0..FRAMES).await;
    flood.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_that_operations_end_by_their_timeout() {
    const FRAMES: u32 = 2000;
    let broker = narrow();
    let receiver = Client::builder("receiver").queue_bytes(16 << 10).timeout(Duration::from_millis(300));
    let (receiver, mut frames) = broker.join(Way::Unix, receiver).await.unwrap();
    let (sender, _) = broker.join(Way::Unix, sender("sender")).await.unwrap();
    let flood = flood(&sender, FRAMES);
    wait_until("the sender waits", || sender.stats().queued_bytes > 64 << 10).await;
    // the first ones may still overtake the flood
    let ended = soon("the end of an operation", async {
        loop {
            if let Err(error) = receiver.publish("t", "", Qos::PROCESSED).await {
                break error;
            }
        }
    })
    .await;
    assert!(matches!(ended, Error::Timeout { .. }), "{ended:?}");
    // a client that holds its broker back does not take it for lost
    assert!(receiver.is_connected());
    take(&mut frames, 0..FRAMES).await;
    flood.await.unwrap().unwrap();
    receiver.publish("t", "", Qos::PROCESSED).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_can_be_awaited_between_the_frames_of_a_flood() {
    const FRAMES: u32 = 5000;
    for kind in kinds() {
        for way in kind.ways() {
            let broker = TestBroker::start(kind);
            let (receiver, mut frames) = broker.connect(*way, "receiver").await;
            let (sender, _) = broker.connect(*way, "sender").await;
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
async fn what_is_dropped_is_reported_exactly() {
    const FRAMES: u32 = 1000;
    for kind in kinds() {
        let broker = TestBroker::start(kind);
        for (overflow, way) in [Overflow::DropNewest, Overflow::DropOldest]
            .into_iter()
            .flat_map(|o| kind.ways().iter().map(move |w| (o, *w)))
        {
            let name = format!("{overflow:?}.{way:?}");
            let receiver = Client::builder(&name).queue_bytes(20_000).overflow(overflow);
            let (receiver, mut frames) = broker.join(way, receiver).await.unwrap();
            let (sender, _) = broker.connect(way, &format!("to.{name}")).await;
            for number in 0..FRAMES {
                sender.send(&name, numbered(number, 1000), Qos::NO).await.unwrap();
            }
            wait_until("everything is there", || receiver.stats().frames_received == u64::from(FRAMES)).await;
            let kept: Vec<_> = std::iter::from_fn(|| frames.try_next()).collect();
            let numbers: Vec<_> = kept.iter().map(|frame| number_of(frame.payload())).collect();
            let count = numbers.len() as u32;
            assert!((10..=20).contains(&count), "{numbers:?}");
            let dropped = u64::from(FRAMES - count);
            assert_eq!(frames.missed(), dropped);
            let reported: Vec<_> = kept.iter().map(elbus_client::Frame::missed).collect();
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
async fn without_frames_everything_is_taken_and_counted() {
    const FRAMES: u32 = 3000;
    for kind in kinds() {
        for way in kind.ways() {
            let broker = TestBroker::start(kind);
            let receiver = Client::builder("receiver").queue_bytes(10_000);
            let (receiver, frames) = broker.join(*way, receiver).await.unwrap();
            let (sender, _) = broker.connect(*way, "sender").await;
            drop(frames);
            flood(&sender, FRAMES).await.unwrap().unwrap();
            wait_until("all are counted", || receiver.stats().unclaimed == u64::from(FRAMES)).await;
            receiver.round_trip().await.unwrap();
        }
    }
}

/// Whoever waits for room while the frames are dropped is let on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_frames_frees_the_senders_they_held_back() {
    let broker = narrow();
    let receiver = Client::builder("receiver").queue_bytes(10_000).timeout(PATIENCE);
    let (receiver, frames) = broker.join(Way::Unix, receiver).await.unwrap();
    let (sender, _) = broker.join(Way::Unix, sender("sender")).await.unwrap();
    let flood = flood(&sender, 4000);
    wait_until("the sender waits", || sender.stats().queued_bytes > 64 << 10).await;
    assert_eq!(receiver.stats().unclaimed, 0);
    drop(frames);
    soon("the flood", flood).await.unwrap().unwrap();
    wait_until("all are read", || receiver.stats().frames_received == 4000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_future_takes_no_frame_along() {
    let broker = TestBroker::start(Kind::Elbus);
    let (sender, _) = broker.connect(Way::Unix, "sender").await;
    let (_receiver, mut frames) = broker.connect(Way::Unix, "receiver").await;
    for number in 0..1000u32 {
        let taken = {
            // begun before the frame is there, then dropped, perhaps with the frame just arriving
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

/// One poll.
async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_its_frames_unread_stays_connected() {
    const FRAMES: u32 = 3000;
    let limits = Limits { timeout_seconds: Some(5.0), queue_bytes: Some(1 << 20) };
    let broker = TestBroker::start_with(Kind::Elbus, limits);
    for way in Kind::Elbus.ways() {
        let name = format!("{way:?}");
        let receiver = Client::builder(&name).queue_bytes(20_000).hold_limit(Duration::from_millis(200));
        let (receiver, mut frames) = broker.join(*way, receiver).await.unwrap();
        let (sender, _) = broker.connect(*way, &format!("to.{name}")).await;
        let flood = async {
            for number in 0..FRAMES {
                sender.send(&name, numbered(number, 10_000), Qos::NO).await.unwrap();
            }
            sender.send(&name, "end", Qos::PROCESSED).await.unwrap();
        };
        soon("the flood", flood).await;
        soon("an operation of its own", receiver.publish("t", "x", Qos::PROCESSED)).await.unwrap();
        assert!(receiver.is_connected(), "{way:?}");
        wait_until("everything has arrived", || receiver.stats().frames_received == u64::from(FRAMES) + 1)
            .await;
        let kept = std::iter::from_fn(|| frames.try_next()).count() as u64;
        assert_eq!(kept + frames.missed(), u64::from(FRAMES) + 1, "{way:?}");
        assert!(frames.missed() > 0, "{way:?}");
        // once it reads again nothing is lost
        sender.send(&name, "more", Qos::PROCESSED).await.unwrap();
        assert_eq!(next(&mut frames).await.payload(), b"more");
    }
}
