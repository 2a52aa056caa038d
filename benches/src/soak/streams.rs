//! The steady traffic of a soak test: each stream carries one kind of message from one sender to its
//! receivers for the whole time.

use elbus_client::{Client, Error, Frames, Qos, Router};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::task::JoinHandle;

use super::{
    DRAIN_TIMEOUT, StopFlag, TIMEOUT,
    fixture::BrokerFixture,
    ledger::{LAST, Ledger, Sequence, number, payload},
};
use crate::BoxError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Send,
    Broadcast,
    Publish,
    Call,
}

/// What a stream carries.
#[derive(Debug, Clone, Copy)]
struct StreamPlan {
    name: &'static str,
    operation: Operation,
    receivers: usize,
    qos: Qos,
    bytes: usize,
    /// Messages between two pauses of the sender. The last of a burst is acknowledged.
    burst: u64,
    pause: Duration,
    /// The receivers of a slow stream pause after this number of messages.
    receiver_pause_after: Option<u64>,
}

const STREAMS: [StreamPlan; 8] = [
    StreamPlan::new("one to one, plain", Operation::Send, Qos::NO),
    StreamPlan { burst: 16, ..StreamPlan::new("one to one, acknowledged", Operation::Send, Qos::PROCESSED) },
    StreamPlan { burst: 16, ..StreamPlan::new("real-time", Operation::Send, Qos::REALTIME_PROCESSED) },
    StreamPlan { receivers: 4, ..StreamPlan::new("topic", Operation::Publish, Qos::NO) },
    StreamPlan { receivers: 4, ..StreamPlan::new("broadcast", Operation::Broadcast, Qos::NO) },
    StreamPlan { burst: 8, ..StreamPlan::new("call", Operation::Call, Qos::PROCESSED) },
    StreamPlan {
        bytes: 1 << 20,
        burst: 4,
        pause: Duration::from_millis(50),
        receivers: 2,
        ..StreamPlan::new("topic, 1 MiB", Operation::Publish, Qos::NO)
    },
    StreamPlan {
        bytes: 1000,
        receiver_pause_after: Some(500),
        receivers: 2,
        ..StreamPlan::new("topic, slow receivers", Operation::Publish, Qos::NO)
    },
];

/// The pause of a slow receiver.
const RECEIVER_PAUSE: Duration = Duration::from_millis(30);
/// The limit of a slow receiver's own queue, so that the broker notices that it is slow.
const SLOW_QUEUE_BYTES: usize = 100_000;

impl StreamPlan {
    const fn new(name: &'static str, operation: Operation, qos: Qos) -> Self {
        let pause = Duration::from_millis(3);
        let (receivers, bytes, burst, receiver_pause_after) = (1, 100, 64, None);
        StreamPlan { name, operation, receivers, qos, bytes, burst, pause, receiver_pause_after }
    }
}

/// A task of a sender or a receiver.
type Task = JoinHandle<Result<(), BoxError>>;

/// All streams.
pub(super) struct Streams {
    senders: Vec<Task>,
    receivers: Vec<Task>,
    ledgers: Vec<Arc<Ledger>>,
}

impl Streams {
    pub(super) async fn start(fixture: &BrokerFixture, stop: &StopFlag) -> Result<Self, BoxError> {
        let mut streams = Streams { senders: vec![], receivers: vec![], ledgers: vec![] };
        for (index, plan) in STREAMS.into_iter().enumerate() {
            let ledger = Arc::new(Ledger::new(plan.name, plan.receivers as u64));
            streams.ledgers.push(ledger.clone());
            for receiver in 0..plan.receivers {
                let builder = Client::builder(&receiver_name(index, receiver)).timeout(TIMEOUT);
                let builder = match plan.receiver_pause_after {
                    Some(_) => builder.queue_bytes(SLOW_QUEUE_BYTES),
                    None => builder,
                };
                let (client, frames) = builder.connect(&*fixture.address(index + receiver)).await?;
                match plan.operation {
                    Operation::Publish => client.add_filters(&*topic(index)).await?,
                    Operation::Call => {
                        let echo = Router::new().raw("echo", |call| async move { Ok(call.params().clone()) });
                        client.serve(echo)?;
                    }
                    _ => {}
                }
                streams.receivers.push(tokio::spawn(receive(plan, client, frames, ledger.clone())));
            }
            let builder = Client::builder(&format!("soak.{index}.sender")).timeout(TIMEOUT);
            let (client, frames) = builder.connect(&*fixture.address(index)).await?;
            let sender = Sender { plan, index, client, _frames: frames, ledger };
            streams.senders.push(tokio::spawn(sender.run(stop.clone())));
        }
        Ok(streams)
    }

    /// The error of a task that has ended early.
    pub(super) async fn error(&mut self) -> Option<BoxError> {
        let ended = self.senders.iter_mut().chain(&mut self.receivers).find(|task| task.is_finished())?;
        Some(match ended.await {
            Ok(Ok(())) => "a stream has ended early".into(),
            Ok(Err(error)) => error,
            Err(panic) => panic.into(),
        })
    }

    /// Waits until all messages in flight have arrived.
    pub(super) async fn finish(self) -> Result<Vec<Arc<Ledger>>, BoxError> {
        for sender in self.senders {
            tokio::time::timeout(DRAIN_TIMEOUT, sender).await.map_err(|_| "a sender did not finish")???;
        }
        for receiver in self.receivers {
            tokio::time::timeout(DRAIN_TIMEOUT, receiver)
                .await
                .map_err(|_| "the last messages did not arrive")???;
        }
        Ok(self.ledgers)
    }
}

fn receiver_name(stream: usize, receiver: usize) -> String {
    format!("soak.{stream}.receiver.{receiver}")
}

fn topic(stream: usize) -> String {
    format!("soak/{stream}")
}

struct Sender {
    plan: StreamPlan,
    index: usize,
    client: Client,
    /// Kept open; the sender receives nothing.
    _frames: Frames,
    ledger: Arc<Ledger>,
}

impl Sender {
    async fn run(self, stop: StopFlag) -> Result<(), BoxError> {
        let plan = &self.plan;
        let mut next = 0;
        while !stop.is_set() {
            for position in 1..=plan.burst {
                let acknowledged = position == plan.burst && plan.qos == Qos::NO;
                let qos = if acknowledged { Qos::PROCESSED } else { plan.qos };
                if self.send(next, qos).await? {
                    next += 1;
                    self.ledger.sent.store(next, Relaxed);
                    if plan.operation == Operation::Call {
                        self.ledger.received.store(next, Relaxed);
                    }
                } else {
                    self.ledger.refused.fetch_add(1, Relaxed);
                }
            }
            tokio::time::sleep(plan.pause).await;
        }
        if plan.operation == Operation::Call {
            let target = receiver_name(self.index, 0);
            self.client.send(&target, payload(LAST, 8), Qos::PROCESSED).await?;
            return Ok(());
        }
        // with the QoS of all others, so that it cannot overtake them
        while !self.send(LAST, plan.qos).await? {
            tokio::time::sleep(plan.pause).await;
        }
        Ok(())
    }

    /// Sends one message; `false` if the broker refused it.
    async fn send(&self, number: u64, qos: Qos) -> Result<bool, BoxError> {
        let (plan, client) = (&self.plan, &self.client);
        let bytes = payload(number, plan.bytes);
        let result = match plan.operation {
            Operation::Send => client.send(&receiver_name(self.index, 0), bytes, qos).await,
            Operation::Publish => client.publish(&topic(self.index), bytes, qos).await,
            Operation::Broadcast => {
                client.broadcast(&format!("soak.{}.receiver.*", self.index), bytes, qos).await
            }
            Operation::Call => {
                let result = client.call(&receiver_name(self.index, 0), "echo", bytes.clone()).await?;
                if result != bytes {
                    return Err(format!("{}: the result differs from the parameters", plan.name).into());
                }
                Ok(())
            }
        };
        match result {
            Ok(()) => Ok(true),
            Err(Error::NotDelivered { .. } | Error::QueueFull { .. }) if qos == Qos::REALTIME_PROCESSED => {
                Ok(false)
            }
            Err(error) => Err(format!("{}: {error}", plan.name).into()),
        }
    }
}

async fn receive(
    plan: StreamPlan,
    _client: Client,
    mut frames: Frames,
    ledger: Arc<Ledger>,
) -> Result<(), BoxError> {
    let mut sequence = Sequence::default();
    let mut count = 0;
    while let Some(frame) = frames.next().await {
        if frame.sender() == ".broker" {
            continue;
        }
        let Some(number) = number(frame.payload()) else {
            return Err(format!("{}: a message is damaged", plan.name).into());
        };
        // calls do not appear here; the caller counts their results
        if plan.operation == Operation::Call || !sequence.accept(number, &ledger) {
            return Ok(());
        }
        count += 1;
        if plan.receiver_pause_after.is_some_and(|messages| count % messages == 0) {
            tokio::time::sleep(RECEIVER_PAUSE).await;
        }
    }
    Err(format!("{}: a receiver was disconnected", plan.name).into())
}
