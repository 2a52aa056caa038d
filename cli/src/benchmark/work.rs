//! What the stages do on the bus: each worker's loop, and the checks that everything arrived. Measures round trips;
//! never shows anything.
//!
//! The work of a stage is that of the field's own benchmark: the same operations, targets, methods and quality of
//! service, one after the other in each worker. What counts as done is stricter: a message that is not acknowledged
//! counts once the broker has answered a frame that was sent behind it, or once it has arrived and was checked.

use bytes::Bytes;
use elbus_client::{Call, CallOptions, Client, Error, Frame, FrameKind, Frames, Qos, RpcError, RpcHandler};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    flow::{Progress, Window},
    payload::Payloads,
    report::Latency,
    stage::Stage,
};
use crate::failure::Failure;

/// The method a client serves for its own calls.
const OWN_METHOD: &str = "benchmark.selftest";
/// Where an answer is awaited; the field's benchmark asks for it at once, too.
const ANSWERED: Qos = Qos::REALTIME_PROCESSED;
/// Latencies up to this are told apart.
const LONGEST: Duration = Duration::from_secs(60);

/// A connection and what it gets.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) frames: Frames,
}

/// What a task of a stage gives back.
#[derive(Default)]
pub(super) struct Done {
    /// Whose job it was, and its connection for the next stage.
    pub(super) connection: Option<(usize, Connection)>,
    pub(super) latency: Option<Latency>,
}

/// What all tasks of one worker know.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) stage: Stage,
    /// Which of the workers, or of the subscribers, this is.
    pub(super) index: usize,
    pub(super) iterations: u64,
    pub(super) payload_size: usize,
    pub(super) timeout: Duration,
}

/// Answers calls with their parameters.
pub(super) struct Echo;

impl RpcHandler for Echo {
    async fn call(&self, call: Call) -> Result<Bytes, RpcError> {
        if call.method() == OWN_METHOD {
            Ok(call.params().clone())
        } else {
            Err(RpcError::method_not_found())
        }
    }
}

/// A name that is not registered.
fn nobody(client: &Client) -> String {
    format!("{}-null", client.name())
}

/// The topic of the publications.
pub(super) fn topic(name: &str) -> String {
    format!("{name}/benchmark")
}

/// Does what waits for an answer each time, and notes how long that took.
pub(super) async fn answered(
    job: Job,
    mut connection: Connection,
    progress: Arc<Progress>,
) -> Result<Done, Failure> {
    let Connection { client, frames } = &mut connection;
    let (own, nobody) = (client.name().to_owned(), nobody(client));
    let (mut payloads, mut arrived) =
        (Payloads::new(job.payload_size), Arrivals::of(&job, Source::Own(own.clone())));
    let mut latency = Latency::new_with_bounds(1, LONGEST.as_nanos() as u64, 3)
        .map_err(|error| Failure::bus(format!("no room for latencies: {error}")))?;
    let options = || CallOptions::new().timeout(job.timeout).realtime(true);
    let mut last = Instant::now();
    for number in 0..job.iterations {
        let payload = payloads.make(number);
        match job.stage {
            Stage::Call => {
                let reply = client.call_with(".broker", "benchmark.test", payload, options()).await?;
                payloads.check(&reply, number).map_err(|wrong| job.failure(&wrong))?;
            }
            Stage::CallHandled => {
                let reply = client.call_with(&own, OWN_METHOD, payload, options()).await?;
                payloads.check(&reply, number).map_err(|wrong| job.failure(&wrong))?;
            }
            Stage::CallZero => {
                job.refused(client.call0(&nobody, "test", payload, ANSWERED).await, &nobody)?
            }
            Stage::SendProcessed => job.refused(client.send(&nobody, payload, ANSWERED).await, &nobody)?,
            _ => {
                client.send(&own, payload, ANSWERED).await?;
                while let Some(frame) = frames.try_next() {
                    arrived.take(&frame)?;
                }
            }
        }
        let now = Instant::now();
        latency.saturating_record((now - last).as_nanos() as u64);
        last = now;
        progress.set(job.index, number + 1);
    }
    if job.stage == Stage::SendReceiveProcessed {
        while arrived.count < job.iterations {
            let Some(frame) = frames.next().await else { return Err(arrived.ended(client).await) };
            arrived.take(&frame)?;
        }
    }
    Ok(Done { connection: Some((job.index, connection)), latency: Some(latency) })
}

/// Sends messages to a name that is not registered, without waiting for anything but the broker's answer to a last
/// one: then it has read them all.
pub(super) async fn unanswered(
    job: Job,
    connection: Connection,
    progress: Arc<Progress>,
) -> Result<Done, Failure> {
    let client = &connection.client;
    let nobody = nobody(client);
    let mut payloads = Payloads::new(job.payload_size);
    for number in 0..job.iterations {
        client.send(&nobody, payloads.make(number), Qos::NO).await?;
        progress.set(job.index, number + 1);
    }
    job.refused(client.send(&nobody, Bytes::new(), ANSWERED).await, &nobody)?;
    Ok(Done { connection: Some((job.index, connection)), latency: None })
}

/// Sends messages to its own name, as far as the window allows.
pub(super) async fn ahead(job: Job, client: Client, window: Arc<Window>) -> Result<Done, Failure> {
    let own = client.name().to_owned();
    let mut payloads = Payloads::new(job.payload_size);
    for number in 0..job.iterations {
        window.room(number).await;
        client.send(&own, payloads.make(number), Qos::NO).await?;
    }
    Ok(Done::default())
}

/// Publishes, as far as the window allows.
pub(super) async fn publish_ahead(
    job: Job,
    client: Client,
    topic: String,
    window: Arc<Window>,
) -> Result<Done, Failure> {
    let mut payloads = Payloads::new(job.payload_size);
    for number in 0..job.iterations {
        window.room(number).await;
        client.publish(&topic, payloads.make(number), Qos::NO).await?;
    }
    Ok(Done::default())
}

/// Takes what was sent ahead, checks each, and tells the window as its receiver `place`.
pub(super) async fn receive(
    job: Job,
    mut connection: Connection,
    source: Source,
    window: Arc<Window>,
    place: usize,
) -> Result<Done, Failure> {
    let mut arrived = Arrivals::of(&job, source);
    while arrived.count < job.iterations {
        let Some(frame) = connection.frames.next().await else {
            return Err(arrived.ended(&connection.client).await);
        };
        if arrived.take(&frame)? {
            window.received(place, arrived.count);
        }
    }
    Ok(Done { connection: Some((job.index, connection)), latency: None })
}

/// Where a worker's messages come from; others, of the broker for instance, are none of the stage's.
pub(super) enum Source {
    /// Messages of this client.
    Own(String),
    /// Publications of this topic.
    Topic(String),
}

/// Checks what arrives.
struct Arrivals<'a> {
    job: &'a Job,
    source: Source,
    payloads: Payloads,
    count: u64,
}

impl<'a> Arrivals<'a> {
    fn of(job: &'a Job, source: Source) -> Self {
        Arrivals { job, source, payloads: Payloads::new(job.payload_size), count: 0 }
    }

    /// Whether it is the message that was due; `false` if it is none of the stage's.
    fn take(&mut self, frame: &Frame) -> Result<bool, Failure> {
        let ours = match &self.source {
            Source::Own(name) => frame.kind() == FrameKind::Message && frame.sender() == name.as_str(),
            Source::Topic(topic) => frame.kind() == FrameKind::Publish && frame.topic() == topic.as_str(),
        };
        if ours {
            self.payloads.check(frame.payload(), self.count).map_err(|wrong| self.job.failure(&wrong))?;
            self.count += 1;
        }
        Ok(ours)
    }

    /// The connection has ended too early.
    async fn ended(&self, client: &Client) -> Failure {
        let why = client.connected().await.err().map(|error| format!(" ({error})")).unwrap_or_default();
        let (count, all) = (self.count, self.job.iterations);
        self.job.failure(&format!(
            "the connection ended after {count} of {all} messages{why}; \
             a broker that limits a queue wants a smaller --window"
        ))
    }
}

impl Job {
    /// Something that is wrong, with the stage it happened in.
    pub(super) fn failure(&self, what: &str) -> Failure {
        Failure::bus(format!("{}: {what}", self.stage))
    }

    /// That there is no such target is the answer that is due.
    fn refused(&self, answer: Result<(), Error>, target: &str) -> Result<(), Failure> {
        match answer {
            Err(Error::NotRegistered { .. }) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => {
                Err(self.failure(&format!("{target} must not be registered, and is; take another --name")))
            }
        }
    }
}
