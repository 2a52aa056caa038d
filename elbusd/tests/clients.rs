//! The client library with a whole `elbusd` that is killed under load: what was acknowledged has arrived, or its loss
//! is reported.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use elbus_client::{Client, ClientBuilder, ConnectionEvent, Error, Frames, Qos, Reconnect};
use rustix::process::Signal;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use support::{PATIENCE, daemon::Daemon, daemon::folder};

const SENDERS: usize = 4;
/// Acknowledged messages of each sender before the broker is killed, and after.
const MESSAGES: u32 = 200;
const END: u32 = u32::MAX;

fn reconnecting(name: &str) -> ClientBuilder {
    Client::builder(name).timeout(PATIENCE).reconnect(Reconnect::Backoff {
        first: Duration::from_millis(5),
        max: Duration::from_millis(100),
        jitter: 0.5,
        attempts: None,
    })
}

/// What a sender knows.
#[derive(Default)]
struct Sent {
    acknowledged: Vec<u32>,
    /// The first number that was sent over the second connection.
    second: Option<u32>,
}

/// Sends numbers until so many of them were acknowledged over the second connection, then the end.
async fn send(client: Client, acknowledged: Arc<AtomicU32>) -> Sent {
    let (mut sent, mut number, mut after) = (Sent::default(), 0, 0);
    loop {
        let payload = if after < MESSAGES { number } else { END }.to_le_bytes().to_vec();
        match client.send("receiver", payload, Qos::PROCESSED).await {
            Ok(()) if after == MESSAGES => return sent,
            Ok(()) => {
                sent.acknowledged.push(number);
                acknowledged.fetch_add(1, Ordering::Relaxed);
                after += u32::from(sent.second.is_some());
            }
            Err(Error::Disconnected { .. }) => {
                client.connected().await.unwrap();
                sent.second = Some(number + 1);
            }
            // the receiver is not yet back
            Err(Error::NotRegistered { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
        number += 1;
    }
}

/// The numbers of each sender, in the order they arrive.
async fn receive(mut frames: Frames) -> HashMap<String, Vec<u32>> {
    let (mut arrived, mut ends) = (HashMap::<String, Vec<u32>>::new(), 0);
    while ends < SENDERS {
        let frame = frames.next().await.expect("reconnects for ever");
        // announcements of the broker are no messages
        let Ok(number) = frame.payload().try_into().map(u32::from_le_bytes) else { continue };
        match number {
            END => ends += 1,
            number => arrived.entry(frame.sender().to_owned()).or_default().push(number),
        }
    }
    arrived
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_has_arrived_or_the_loss_is_reported() {
    let folder = folder();
    let arguments = ["--plugins", "builtin", "--bind", "./bus.sock"];
    let daemon = Daemon::start_in(folder.clone(), &arguments);
    let path = folder.path().join("bus.sock");
    let (receiver, frames) = reconnecting("receiver").connect(path.clone()).await.unwrap();
    let mut events = receiver.events();
    let receiving = tokio::spawn(receive(frames));
    let acknowledged = Arc::new(AtomicU32::new(0));
    let mut senders = vec![];
    for number in 0..SENDERS {
        let name = format!("sender.{number}");
        let (client, _) = reconnecting(&name).connect(path.clone()).await.unwrap();
        senders.push((name, tokio::spawn(send(client, acknowledged.clone()))));
    }
    while acknowledged.load(Ordering::Relaxed) < MESSAGES * SENDERS as u32 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    daemon.signal(Signal::KILL);
    assert!(!daemon.wait_end().0.success());
    let _daemon = Daemon::start_in(folder.clone(), &arguments);

    let mut arrived = tokio::time::timeout(2 * PATIENCE, receiving).await.expect("all ends").unwrap();
    let lost = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    assert!(matches!(lost, Some(ConnectionEvent::Disconnected { .. })), "{lost:?}");
    for (name, sender) in senders {
        let sent = sender.await.unwrap();
        let arrived = arrived.remove(&name).unwrap_or_default();
        assert!(arrived.is_sorted_by(|a, b| a < b), "{name}: in order and once");
        let known: HashSet<_> = arrived.iter().collect();
        let missing: Vec<_> = sent.acknowledged.iter().filter(|number| !known.contains(number)).collect();
        let Some((first, last)) = missing.first().zip(missing.last()) else { continue };
        // what the broker held when it was killed, and nothing else: that is the loss both sides were told of
        assert!(!arrived.iter().any(|number| (*first..*last).contains(&number)), "{name}: {missing:?}");
        assert!(sent.second.is_some_and(|second| **last < second), "{name}: {missing:?} {:?}", sent.second);
    }
}
