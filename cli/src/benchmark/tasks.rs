//! The tasks of the stages: each worker's loop, and the checks that everything arrived. Measures round trips;
//! never prints anything.
//!
//! The first seven stages do the work of `busrt benchmark`: the same operations, targets, methods and quality
//! of service, one at a time in each worker. Completion is stricter here: a message without acknowledgement
//! counts once the broker has answered a later frame, or once the message has arrived and was checked.

use bytes::Bytes;
use elbus_client::{Call, CallOptions, Client, Error, Frame, FrameKind, Frames, Qos, RpcError, RpcHandler};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    flow_control::{Progress, Window},
    payload::Payloads,
    report::Latency,
    stage::Stage,
    topics::Topics,
};
use crate::error::CliError;

/// The method that a worker serves for its own calls.
const ECHO_METHOD: &str = "benchmark.selftest";
/// Quality of service of frames whose acknowledgement is awaited, as in `busrt benchmark`.
const ACKNOWLEDGED: Qos = Qos::REALTIME_PROCESSED;
/// The largest latency that the histogram resolves.
const MAX_LATENCY: Duration = Duration::from_secs(60);

/// A client and the frames it receives.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) frames: Frames,
}

/// The result of a task.
#[derive(Default)]
pub(super) struct TaskOutput {
    /// The index of the worker, and its connection for the next stage.
    pub(super) connection: Option<(usize, Connection)>,
    pub(super) latency: Option<Latency>,
}

/// The parameters of a task.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) stage: Stage,
    /// The index among the workers or the subscribers.
    pub(super) index: usize,
    pub(super) iterations: u64,
    pub(super) payload_size: usize,
    pub(super) timeout: Duration,
}

/// Answers calls to [`ECHO_METHOD`] with their parameters.
pub(super) struct Echo;

impl RpcHandler for Echo {
    async fn call(&self, call: Call) -> Result<Bytes, RpcError> {
        if call.method() == ECHO_METHOD {
            Ok(call.params().clone())
        } else {
            Err(RpcError::method_not_found())
        }
    }
}

/// Returns a name that is not registered.
fn unregistered_name(client: &Client) -> String {
    format!("{}-null", client.name())
}

/// Runs iterations that wait for an answer, and records their latencies.
pub(super) async fn round_trips(
    job: Job,
    mut connection: Connection,
    progress: Arc<Progress>,
) -> Result<TaskOutput, CliError> {
    let Connection { client, frames } = &mut connection;
    let (own, unregistered) = (client.name().to_owned(), unregistered_name(client));
    let mut payloads = Payloads::new(job.payload_size);
    let mut received = ReceivedMessages::new(&job, ExpectedSource::Own(own.clone()));
    let mut latency = Latency::new_with_bounds(1, MAX_LATENCY.as_nanos() as u64, 3)
        .map_err(|error| CliError::runtime(format!("cannot create the latency histogram: {error}")))?;
    let options = || CallOptions::new().timeout(job.timeout).realtime(true);
    let mut last = Instant::now();
    for number in 0..job.iterations {
        let payload = payloads.make(number);
        match job.stage {
            Stage::Call => {
                let reply = client.call_with(".broker", "benchmark.test", payload, options()).await?;
                payloads.check(&reply, number).map_err(|error| job.error(&error))?;
            }
            Stage::CallHandled => {
                let reply = client.call_with(&own, ECHO_METHOD, payload, options()).await?;
                payloads.check(&reply, number).map_err(|error| job.error(&error))?;
            }
            Stage::CallZero => {
                let answer = client.call0(&unregistered, "test", payload, ACKNOWLEDGED).await;
                job.expect_not_registered(answer, &unregistered)?;
            }
            Stage::SendProcessed => {
                let answer = client.send(&unregistered, payload, ACKNOWLEDGED).await;
                job.expect_not_registered(answer, &unregistered)?;
            }
            _ => {
                client.send(&own, payload, ACKNOWLEDGED).await?;
                while let Some(frame) = frames.try_next() {
                    received.accept(&frame)?;
                }
            }
        }
        let now = Instant::now();
        latency.saturating_record((now - last).as_nanos() as u64);
        last = now;
        progress.set(job.index, number + 1);
    }
    if job.stage == Stage::SendReceiveProcessed {
        while received.count < job.iterations {
            let Some(frame) = frames.next().await else { return Err(received.connection_lost(client).await) };
            received.accept(&frame)?;
        }
    }
    Ok(TaskOutput { connection: Some((job.index, connection)), latency: Some(latency) })
}

/// Sends messages without acknowledgement to an unregistered name, then waits for the acknowledgement of a
/// final message: the broker has then read them all.
pub(super) async fn send_unacknowledged(
    job: Job,
    connection: Connection,
    progress: Arc<Progress>,
) -> Result<TaskOutput, CliError> {
    let client = &connection.client;
    let unregistered = unregistered_name(client);
    let mut payloads = Payloads::new(job.payload_size);
    for number in 0..job.iterations {
        client.send(&unregistered, payloads.make(number), Qos::NO).await?;
        progress.set(job.index, number + 1);
    }
    let answer = client.send(&unregistered, Bytes::new(), ACKNOWLEDGED).await;
    job.expect_not_registered(answer, &unregistered)?;
    Ok(TaskOutput { connection: Some((job.index, connection)), latency: None })
}

/// Sends messages to the worker's own name, as the window permits.
pub(super) async fn send_ahead(
    job: Job,
    client: Client,
    window: Arc<Window>,
) -> Result<TaskOutput, CliError> {
    let own = client.name().to_owned();
    let mut payloads = Payloads::new(job.payload_size);
    for number in 0..job.iterations {
        window.wait_for_room(number).await;
        client.send(&own, payloads.make(number), Qos::NO).await?;
    }
    Ok(TaskOutput::default())
}

/// Publishes, as the window permits.
pub(super) async fn publish_ahead(
    job: Job,
    client: Client,
    topics: Arc<Topics>,
    window: Arc<Window>,
) -> Result<TaskOutput, CliError> {
    let mut payloads = Payloads::new(job.payload_size);
    for (number, topic) in (0..job.iterations).zip(topics.in_turn()) {
        window.wait_for_room(number).await;
        client.publish(topic, payloads.make(number), Qos::NO).await?;
    }
    Ok(TaskOutput::default())
}

/// Receives and checks messages, and reports them to the window as its receiver `receiver`.
pub(super) async fn receive(
    job: Job,
    mut connection: Connection,
    source: ExpectedSource,
    window: Arc<Window>,
    receiver: usize,
) -> Result<TaskOutput, CliError> {
    let mut received = ReceivedMessages::new(&job, source);
    while received.count < job.iterations {
        let Some(frame) = connection.frames.next().await else {
            return Err(received.connection_lost(&connection.client).await);
        };
        if received.accept(&frame)? {
            window.received(receiver, received.count);
        }
    }
    Ok(TaskOutput { connection: Some((job.index, connection)), latency: None })
}

/// Where the messages of a stage come from. Other messages, such as the broker's, are ignored.
pub(super) enum ExpectedSource {
    /// Messages from this client.
    Own(String),
    /// Publications to these topics in turn.
    Topics(Arc<Topics>),
}

/// Checks the messages that arrive, and counts them.
struct ReceivedMessages<'a> {
    job: &'a Job,
    source: ExpectedSource,
    payloads: Payloads,
    count: u64,
}

impl<'a> ReceivedMessages<'a> {
    fn new(job: &'a Job, source: ExpectedSource) -> Self {
        ReceivedMessages { job, source, payloads: Payloads::new(job.payload_size), count: 0 }
    }

    /// Checks a frame. Returns `false` if it does not belong to the stage.
    ///
    /// # Errors
    /// It is not the expected message.
    fn accept(&mut self, frame: &Frame) -> Result<bool, CliError> {
        let ours = match &self.source {
            ExpectedSource::Own(name) => {
                frame.kind() == FrameKind::Message && frame.sender() == name.as_str()
            }
            ExpectedSource::Topics(topics) => {
                frame.kind() == FrameKind::Publish && topics.contain(frame.topic())
            }
        };
        if ours {
            self.payloads.check(frame.payload(), self.count).map_err(|error| self.job.error(&error))?;
            self.count += 1;
        }
        Ok(ours)
    }

    /// Returns the error for a connection that ended too early.
    async fn connection_lost(&self, client: &Client) -> CliError {
        let reason = client.connected().await.err().map(|error| format!(" ({error})")).unwrap_or_default();
        let (count, all) = (self.count, self.job.iterations);
        self.job.error(&format!(
            "connection lost after {count} of {all} messages{reason}; \
             if the broker limits the number of queued frames, set a smaller --window"
        ))
    }
}

impl Job {
    /// Returns an error that names the stage.
    pub(super) fn error(&self, text: &str) -> CliError {
        CliError::runtime(format!("{}: {text}", self.stage))
    }

    /// Checks that the broker answered that the target is not registered.
    fn expect_not_registered(&self, answer: Result<(), Error>, target: &str) -> Result<(), CliError> {
        match answer {
            Err(Error::NotRegistered { .. }) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => {
                Err(self.error(&format!("{target} must not be registered, but is: choose another --name")))
            }
        }
    }
}
