//! Clients of the client library that reconnect, and a ledger of what they sent: each acknowledged message
//! has arrived, or its loss was reported to both sides as the loss of their connection.

use elbus_client::{Backoff, Client, ClientBuilder, Error, Frames, Qos};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

const END: u32 = u32::MAX;

pub(crate) fn reconnecting(name: &str, timeout: Duration) -> ClientBuilder {
    Client::builder(name).timeout(timeout).reconnect(
        Backoff::new()
            .first_delay(Duration::from_millis(5))
            .max_delay(Duration::from_millis(100))
            .jitter(0.5),
    )
}

/// State shared by all senders of a test.
#[derive(Default)]
pub(crate) struct Senders {
    /// Acknowledged messages of all senders.
    pub(crate) acknowledged: AtomicU32,
    pub(crate) stopping: AtomicBool,
}

/// The numbers acknowledged to a sender, for each of its connections.
pub(crate) type Sent = Vec<Vec<u32>>;

/// Sends numbers until it is stopped, then a final message.
pub(crate) async fn send(client: Client, senders: Arc<Senders>) -> Sent {
    let (mut sent, mut number, mut reconnects) = (vec![vec![]], 0u32, 0);
    loop {
        let last = senders.stopping.load(Ordering::Relaxed);
        let payload = if last { END } else { number }.to_le_bytes().to_vec();
        match client.send("receiver", payload, Qos::PROCESSED).await {
            Ok(()) if last => return sent,
            Ok(()) => {
                // the acknowledgement arrived over the current connection: a lost one delivers none
                let now = client.stats().reconnects;
                if std::mem::replace(&mut reconnects, now) != now {
                    sent.push(vec![]);
                }
                sent.last_mut().unwrap().push(number);
                senders.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(Error::Disconnected { .. }) => client.connected().await.unwrap(),
            // the receiver is not back yet, or it is unknown whether it got this message
            Err(Error::NotRegistered { .. } | Error::Timeout { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
        number += 1;
    }
}

/// Returns the numbers received from each of `senders` senders, in the order of arrival.
pub(crate) async fn receive(mut frames: Frames, senders: usize) -> HashMap<String, Vec<u32>> {
    let (mut arrived, mut ends) = (HashMap::<String, Vec<u32>>::new(), HashSet::new());
    while ends.len() < senders {
        let frame = frames.next().await.expect("reconnects indefinitely");
        // skips announcements of the broker
        let Ok(number) = frame.payload().try_into().map(u32::from_le_bytes) else { continue };
        match number {
            END => _ = ends.insert(frame.sender().to_owned()),
            number => arrived.entry(frame.sender().to_owned()).or_default().push(number),
        }
    }
    arrived
}

/// Checks that the numbers of a sender arrived in order and once, and that all acknowledged ones arrived,
/// except for the last ones of a connection that was lost: the broker held them or the network had them, and
/// their loss was reported to both sides.
pub(crate) fn check(name: &str, sent: &Sent, arrived: &[u32]) {
    assert!(arrived.is_sorted_by(|a, b| a < b), "{name}: in order and once");
    let known: HashSet<_> = arrived.iter().collect();
    for (connection, acknowledged) in sent.iter().enumerate() {
        let present = acknowledged.iter().take_while(|number| known.contains(number)).count();
        let (_, missing) = acknowledged.split_at(present);
        assert!(
            missing.iter().all(|number| !known.contains(number)),
            "{name}: a gap in {connection}: {missing:?}"
        );
        assert!(missing.is_empty() || connection + 1 < sent.len(), "{name}: unreported loss of {missing:?}");
    }
}
