//! The steady traffic of a soak: each kind of message goes its own lane from one sender to its receivers for the whole
//! time.

use elbus_client::{Client, Error, Frames, Qos, Router};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::task::JoinHandle;

use super::{
    End,
    fixture::House,
    ledger::{Account, Expected, LAST, number, payload},
};
use crate::Failure;

const PATIENCE: Duration = Duration::from_secs(30);

/// How a lane carries its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Message,
    Broadcast,
    Topic,
    Call,
}

/// A kind of message.
#[derive(Debug, Clone, Copy)]
struct Lane {
    kind: &'static str,
    way: Way,
    receivers: usize,
    qos: Qos,
    bytes: usize,
    /// Messages between two pauses, the last of which is acknowledged.
    burst: u64,
    pause: Duration,
    /// Rests after each so many messages that it has received.
    slow: Option<u64>,
}

const LANES: [Lane; 8] = [
    Lane::new("one to one, plain", Way::Message, Qos::NO),
    Lane { burst: 16, ..Lane::new("one to one, acknowledged", Way::Message, Qos::PROCESSED) },
    Lane { burst: 16, ..Lane::new("real-time", Way::Message, Qos::REALTIME_PROCESSED) },
    Lane { receivers: 4, ..Lane::new("topic", Way::Topic, Qos::NO) },
    Lane { receivers: 4, ..Lane::new("broadcast", Way::Broadcast, Qos::NO) },
    Lane { burst: 8, ..Lane::new("call", Way::Call, Qos::PROCESSED) },
    Lane {
        bytes: 1 << 20,
        burst: 4,
        pause: Duration::from_millis(50),
        receivers: 2,
        ..Lane::new("topic, 1 MiB", Way::Topic, Qos::NO)
    },
    Lane { bytes: 1000, slow: Some(500), receivers: 2, ..Lane::new("topic, slow", Way::Topic, Qos::NO) },
];

impl Lane {
    const fn new(kind: &'static str, way: Way, qos: Qos) -> Self {
        let pause = Duration::from_millis(3);
        Lane { kind, way, receivers: 1, qos, bytes: 100, burst: 64, pause, slow: None }
    }
}

/// All lanes under way.
pub(super) struct Lanes {
    senders: Vec<JoinHandle<Result<(), Failure>>>,
    receivers: Vec<JoinHandle<Result<(), Failure>>>,
    accounts: Vec<Arc<Account>>,
}

pub(super) async fn begin(house: &House, end: &End) -> Result<Lanes, Failure> {
    let mut lanes = Lanes { senders: vec![], receivers: vec![], accounts: vec![] };
    for (at, lane) in LANES.into_iter().enumerate() {
        let account = Arc::new(Account::new(lane.kind, lane.receivers as u64));
        lanes.accounts.push(account.clone());
        for receiver in 0..lane.receivers {
            let name = format!("soak.{at}.receiver.{receiver}");
            let builder = Client::builder(&name).timeout(PATIENCE);
            // a slow one shall be felt by the broker, not hidden by its own queue
            let builder = if lane.slow.is_some() { builder.queue_bytes(100_000) } else { builder };
            let (client, frames) = builder.connect(&*house.address(at + receiver)).await?;
            match lane.way {
                Way::Topic => client.add_filters(&*format!("soak/{at}")).await?,
                Way::Call => {
                    client
                        .serve(Router::new().raw("echo", |call| async move { Ok(call.params().clone()) }))?;
                }
                _ => {}
            }
            lanes.receivers.push(tokio::spawn(receive(lane, client, frames, account.clone())));
        }
        let builder = Client::builder(&format!("soak.{at}.sender")).timeout(PATIENCE);
        let (client, frames) = builder.connect(&*house.address(at)).await?;
        lanes.senders.push(tokio::spawn(send(lane, at, client, frames, account, end.clone())));
    }
    Ok(lanes)
}

impl Lanes {
    /// What has gone wrong with one that has ended before its time.
    pub(super) async fn failure(&mut self) -> Option<Failure> {
        let ended = self.senders.iter_mut().chain(&mut self.receivers).find(|task| task.is_finished())?;
        Some(match ended.await {
            Ok(Ok(())) => "a lane has ended too early".into(),
            Ok(Err(failure)) => failure,
            Err(panic) => panic.into(),
        })
    }

    /// Waits until all that was sent has arrived, or will not.
    pub(super) async fn finish(self, rest: Duration) -> Result<Vec<Arc<Account>>, Failure> {
        for sender in self.senders {
            tokio::time::timeout(rest, sender).await.map_err(|_| "a sender that hangs")???;
        }
        for receiver in self.receivers {
            tokio::time::timeout(rest, receiver)
                .await
                .map_err(|_| "the last messages do not arrive")???;
        }
        Ok(self.accounts)
    }
}

/// Sends one message; `false` where the broker would not take it, and said so.
async fn send_one(lane: &Lane, at: usize, client: &Client, number: u64, qos: Qos) -> Result<bool, Failure> {
    let bytes = payload(number, lane.bytes);
    let sent = match lane.way {
        Way::Message => client.send(&format!("soak.{at}.receiver.0"), bytes, qos).await,
        Way::Topic => client.publish(&format!("soak/{at}"), bytes, qos).await,
        Way::Broadcast => client.broadcast(&format!("soak.{at}.receiver.*"), bytes, qos).await,
        Way::Call => {
            let answer = client.call(&format!("soak.{at}.receiver.0"), "echo", bytes.clone()).await?;
            if answer != bytes {
                return Err(format!("{}: another answer than asked for", lane.kind).into());
            }
            Ok(())
        }
    };
    match sent {
        Ok(()) => Ok(true),
        Err(Error::NotDelivered { .. } | Error::QueueFull { .. }) if qos == Qos::REALTIME_PROCESSED => {
            Ok(false)
        }
        Err(error) => Err(format!("{}: {error}", lane.kind).into()),
    }
}

async fn send(
    lane: Lane,
    at: usize,
    client: Client,
    _frames: Frames,
    account: Arc<Account>,
    end: End,
) -> Result<(), Failure> {
    let mut next = 0;
    while !end.has_come() {
        for of_burst in 1..=lane.burst {
            let qos = if of_burst == lane.burst && lane.qos == Qos::NO { Qos::PROCESSED } else { lane.qos };
            if send_one(&lane, at, &client, next, qos).await? {
                next += 1;
                account.sent.store(next, Relaxed);
                if lane.way == Way::Call {
                    account.received.store(next, Relaxed);
                }
            } else {
                account.refused.fetch_add(1, Relaxed);
            }
        }
        tokio::time::sleep(lane.pause).await;
    }
    if lane.way != Way::Call {
        // by the same way and behind all others, so that nothing may overtake it
        while !send_one(&lane, at, &client, LAST, lane.qos).await? {
            tokio::time::sleep(lane.pause).await;
        }
    } else {
        client.send(&format!("soak.{at}.receiver.0"), payload(LAST, 8), Qos::PROCESSED).await?;
    }
    Ok(())
}

async fn receive(
    lane: Lane,
    _client: Client,
    mut frames: Frames,
    account: Arc<Account>,
) -> Result<(), Failure> {
    let mut expected = Expected::default();
    let mut count = 0;
    while let Some(frame) = frames.next().await {
        if frame.sender() == ".broker" {
            continue;
        }
        let Some(number) = number(frame.payload()) else {
            return Err(format!("{}: a message is not as it was sent", lane.kind).into());
        };
        // calls are answered, and counted by who asks
        if lane.way == Way::Call || !expected.take(number, &account) {
            return Ok(());
        }
        count += 1;
        if lane.slow.is_some_and(|slow| count % slow == 0) {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    Err(format!("{}: a receiver was disconnected", lane.kind).into())
}
