//! The steady traffic of a soak test: each stream carries one kind of message from one sender to its
//! receivers for the whole time.

use elbus_client::{Client, Error, Frames, Qos, Router};
use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};
use tokio::task::JoinHandle;

use super::{
    DRAIN_TIMEOUT, StopFlag, TIMEOUT,
    fixture::BrokerFixture,
    ledger::{LAST, Ledger, Sequence, number, payload},
    stream_plan::{Operation, STREAMS, StreamPlan, receiver_name},
};
use crate::BoxError;

/// The pause of a slow receiver.
const RECEIVER_PAUSE: Duration = Duration::from_millis(30);
/// The limit of a slow receiver's own queue, so that the broker notices that it is slow.
const SLOW_QUEUE_BYTES: usize = 100_000;

/// A task of a sender or a receiver.
type Task = JoinHandle<Result<(), BoxError>>;

/// A message under way; see [`Sender::send`].
type Sending<'a> = Pin<Box<dyn Future<Output = Result<bool, BoxError>> + Send + 'a>>;

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
                    Operation::Publish => client.add_filters(plan.filters(index, receiver as u64)).await?,
                    Operation::Call => {
                        let echo = Router::new().raw("echo", |call| async move { Ok(call.params().clone()) });
                        client.serve(echo)?;
                    }
                    _ => {}
                }
                let sequence = Sequence::of(receiver as u64, plan.stride());
                let receiver =
                    Receiver { plan, stream: index, sequence, _client: client, ledger: ledger.clone() };
                streams.receivers.push(tokio::spawn(receiver.run(frames)));
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
            if plan.in_turn.is_some() {
                self.send_burst(next).await?;
                next += plan.burst;
                self.ledger.sent.store(next, Relaxed);
                tokio::time::sleep(plan.pause).await;
                continue;
            }
            for position in 1..=plan.burst {
                if self.send(&plan.target(self.index, next), next, self.qos(position)).await? {
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
        for receiver in 0..plan.stride() {
            // with the QoS of all others, so that it cannot overtake them
            while !self.send(&plan.target(self.index, receiver), LAST, plan.qos).await? {
                tokio::time::sleep(plan.pause).await;
            }
        }
        Ok(())
    }

    /// The QoS of a message at this position of a burst, from 1.
    fn qos(&self, position: u64) -> Qos {
        let is_last = position == self.plan.burst && self.plan.qos == Qos::NO;
        if is_last { Qos::PROCESSED } else { self.plan.qos }
    }

    /// Sends a burst at once: in order, and without waiting for one acknowledgement before the next message.
    async fn send_burst(&self, first: u64) -> Result<(), BoxError> {
        let plan = &self.plan;
        let targets: Vec<_> =
            (first..first + plan.burst).map(|number| plan.target(self.index, number)).collect();
        let mut pending: Vec<Sending<'_>> = (1..)
            .zip(&targets)
            .map(|(position, target)| {
                Box::pin(self.send(target, first + position - 1, self.qos(position))) as _
            })
            .collect();
        let mut result = Ok(());
        poll_fn(|context| {
            pending.retain_mut(|sending| match sending.as_mut().poll(context) {
                Poll::Pending => true,
                Poll::Ready(Ok(true)) => false,
                Poll::Ready(Ok(false)) => {
                    self.ledger.refused.fetch_add(1, Relaxed);
                    false
                }
                Poll::Ready(Err(error)) => {
                    result = Err(error);
                    false
                }
            });
            if pending.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        result
    }

    /// Sends one message; `false` if the broker refused it.
    async fn send(&self, target: &str, number: u64, qos: Qos) -> Result<bool, BoxError> {
        let (plan, client) = (&self.plan, &self.client);
        let bytes = payload(number, plan.bytes);
        let result = match plan.operation {
            Operation::Send => client.send(target, bytes, qos).await,
            Operation::Publish => client.publish(target, bytes, qos).await,
            Operation::Broadcast => client.broadcast(target, bytes, qos).await,
            Operation::Call => {
                let result = client.call(target, "echo", bytes.clone()).await?;
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

struct Receiver {
    plan: StreamPlan,
    stream: usize,
    sequence: Sequence,
    /// Kept open.
    _client: Client,
    ledger: Arc<Ledger>,
}

impl Receiver {
    async fn run(mut self, mut frames: Frames) -> Result<(), BoxError> {
        let plan = self.plan;
        let mut count = 0;
        while let Some(frame) = frames.next().await {
            if frame.sender() == ".broker" {
                continue;
            }
            let Some(number) = number(frame.payload()) else {
                return Err(format!("{}: a message is damaged", plan.name).into());
            };
            let is_publication = plan.operation == Operation::Publish && number != LAST;
            if is_publication && frame.topic() != plan.target(self.stream, number) {
                return Err(format!("{}: message {number} has topic {}", plan.name, frame.topic()).into());
            }
            if !self.sequence.is_own(number) {
                return Err(format!("{}: message {number} has another receiver", plan.name).into());
            }
            // calls do not appear here; the caller counts their results
            if plan.operation == Operation::Call || !self.sequence.accept(number, &self.ledger) {
                return Ok(());
            }
            count += 1;
            if plan.receiver_pause_after.is_some_and(|messages| count % messages == 0) {
                tokio::time::sleep(RECEIVER_PAUSE).await;
            }
        }
        Err(format!("{}: a receiver was disconnected", plan.name).into())
    }
}
