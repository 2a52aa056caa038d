//! Streams: senders that write batches, at most a window ahead, and receivers that check every message. Each
//! client has a thread.

use std::{
    sync::{Arc, Barrier, OnceLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    Plan, RunLength, Scenario, Traffic, latency::LatencyHistogram, pinger::Pinger, sequence,
    sequence::SequenceCheck, window::Window,
};
use crate::{
    BoxError,
    driver::{Client, ConnectOptions, Driver, Envelope, MessageKind},
    names::{self, Side},
    process::UsageMeter,
};

/// Threads are many and their stacks shallow.
const STACK_BYTES: usize = 256 * 1024;

/// What all threads of a group share.
struct Group {
    plan: Plan,
    index: usize,
    window: Window,
    start: Arc<Start>,
}

/// The start of the run, when all threads are ready.
struct Start {
    ready: Barrier,
    begin: OnceLock<Instant>,
    go: Barrier,
}

impl Start {
    /// Waits for all other threads and returns the start of the run, the same for all.
    fn wait(&self) -> Instant {
        self.ready.wait();
        self.go.wait();
        *self.begin.get_or_init(Instant::now)
    }
}

type Thread<T> = JoinHandle<Result<T, BoxError>>;

pub(super) fn run<D: Driver + 'static>(plan: &Plan) -> Result<Traffic, BoxError> {
    let threads = plan.pairs * (plan.receivers() + plan.senders()) + 1;
    let (ready, go) = (Barrier::new(threads), Barrier::new(threads));
    let start = Arc::new(Start { ready, begin: OnceLock::new(), go });
    // all clients connect before any thread starts, so that a failed connect leaves no thread at the barrier
    let (mut clients, mut silent) = (Vec::new(), Vec::new());
    for index in 0..plan.pairs {
        let window = Window::new(plan.window, plan.receivers(), plan.senders());
        let group = Arc::new(Group { plan: plan.clone(), index, window, start: start.clone() });
        for receiver in 0..plan.receivers() {
            let client = group.connect::<D>(Side::Receiver, receiver)?;
            silent.push(client.sender.connection.try_clone()?);
            clients.push((group.clone(), Side::Receiver, receiver, client));
        }
        for sender in 0..plan.senders() {
            let client = group.connect::<D>(Side::Sender, sender)?;
            clients.push((group.clone(), Side::Sender, sender, client));
        }
    }
    let _pinger = Pinger::start(silent, D::PING)?;
    let (mut receivers, mut senders) = (Vec::new(), Vec::new());
    for (group, side, index, client) in clients {
        match side {
            Side::Receiver => {
                receivers.push(spawn(move || group.fail_on_error(|| group.receive(index, client)))?);
            }
            Side::Sender => senders.push(spawn(move || group.fail_on_error(|| group.send(index, client)))?),
        }
    }
    start.ready.wait();
    let meter = UsageMeter::start(plan.broker_pid);
    start.go.wait();
    let (mut sent, mut received, mut latency) = (0, 0, LatencyHistogram::new()?);
    // receivers first: their error is the cause of the senders'
    let receivers: Vec<_> = receivers.into_iter().map(join).collect();
    let usage = meter.stop();
    let senders: Vec<_> = senders.into_iter().map(join).collect();
    for result in receivers {
        let check = result?;
        received += check.total_received();
        latency.merge(check.latency())?;
    }
    for result in senders {
        sent += result?;
    }
    let expected = sent * plan.receivers() as u64;
    if received != expected {
        return Err(format!("{received} messages arrived, expected {expected}").into());
    }
    Ok(Traffic::new(plan, received, &usage, &latency))
}

fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<Thread<T>, BoxError> {
    Ok(std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work)?)
}

fn join<T>(thread: Thread<T>) -> Result<T, BoxError> {
    thread.join().map_err(|_| "a thread of the generator panicked")?
}

impl Group {
    fn connect<D: Driver>(&self, side: Side, index: usize) -> Result<Client<D>, BoxError> {
        let subscribes = side == Side::Receiver && self.plan.scenario == Scenario::Topic;
        let topic = subscribes.then(|| names::topic(self.index));
        Client::connect(&ConnectOptions {
            address: &self.plan.address,
            name: &names::client(self.index, side, index),
            topic: topic.as_deref(),
            payload_bytes: self.plan.bytes,
        })
    }

    /// Runs a client; its error stops the other clients of the group.
    fn fail_on_error<T>(&self, work: impl FnOnce() -> Result<T, BoxError>) -> Result<T, BoxError> {
        work().inspect_err(|_| self.window.fail())
    }

    fn receive<D: Driver>(&self, receiver: usize, mut client: Client<D>) -> Result<SequenceCheck, BoxError> {
        let senders = self.plan.senders();
        let mut check = SequenceCheck::new(senders, self.start.wait())?;
        while !check.is_complete() {
            check.begin_read();
            client.receive(|payload| check.accept(payload))?;
            for sender in 0..senders {
                self.window.advance(receiver, sender, check.received(sender));
            }
        }
        Ok(check)
    }

    fn send<D: Driver>(&self, sender: usize, mut client: Client<D>) -> Result<u64, BoxError> {
        let plan = &self.plan;
        // an error before the start would leave the other threads at the barrier
        let batch = Batch::new(&client.sender.driver, plan, self.envelope());
        let acknowledged = D::acknowledges(plan.qos);
        let begin = self.start.wait();
        let mut batch = batch?;
        let (deadline, limit) = match plan.length {
            RunLength::Messages(messages) => (None, messages),
            RunLength::Time(time) => (Some(begin + time), u64::MAX),
        };
        let (mut sent, mut slowest) = (0, 0);
        loop {
            let count = (plan.batch as u64).min(limit - sent);
            self.window.wait(sender, sent, count, &mut slowest)?;
            let due = plan.rate.map(|rate| begin + Duration::from_secs_f64(sent as f64 / rate));
            let timestamp = match due {
                Some(due) => {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    (due.duration_since(begin).as_nanos() as u64).max(1)
                }
                None => sequence::nanos_since(begin),
            };
            let last = sent + count == limit
                || deadline.is_some_and(|deadline| begin + Duration::from_nanos(timestamp) >= deadline);
            let frames = batch.stamp(sender, sent, count as usize, last, timestamp);
            client.sender.send(frames, if acknowledged { count } else { 0 })?;
            sent += count;
            if acknowledged {
                client.sender.wait_for_acks(if last { 0 } else { plan.window as u64 })?;
            }
            if last {
                return Ok(sent);
            }
        }
    }

    fn envelope(&self) -> Envelope {
        let (kind, target) = match self.plan.scenario {
            Scenario::Topic => (MessageKind::Publish, names::topic(self.index)),
            Scenario::Broadcast => (MessageKind::Broadcast, names::receivers(self.index)),
            _ => (MessageKind::Direct, names::client(self.index, Side::Receiver, 0)),
        };
        Envelope { kind, target, qos: self.plan.qos }
    }
}

/// Frames that are encoded once and stamped for each write.
struct Batch {
    frames: Vec<u8>,
    frame_bytes: usize,
    payload_offset: usize,
    /// The offset of the acknowledgement id, if frames are acknowledged by id.
    ack_id_offset: Option<usize>,
}

impl Batch {
    fn new<D: Driver>(driver: &D, plan: &Plan, envelope: Envelope) -> Result<Self, BoxError> {
        let text: Vec<u8> = (0..plan.bytes).map(|index| b'a' + (index % 26) as u8).collect();
        let (mut frames, mut payload_offset) = (Vec::new(), 0);
        for _ in 0..plan.batch {
            payload_offset = driver.encode(&mut frames, &envelope, &text)?;
        }
        let frame_bytes = frames.len() / plan.batch;
        let ack_id_offset = D::ACK_ID_OFFSET.filter(|_| D::acknowledges(plan.qos));
        Ok(Batch { frames, frame_bytes, payload_offset, ack_id_offset })
    }

    /// Stamps the first `count` frames and returns them; only the first of them gets the timestamp.
    #[inline]
    fn stamp(&mut self, sender: usize, first: u64, count: usize, last: bool, timestamp: u64) -> &[u8] {
        let (payload_offset, ack_id_offset) = (self.payload_offset, self.ack_id_offset);
        let frames = &mut self.frames[..count * self.frame_bytes];
        let end = first + count as u64 - 1;
        for (number, frame) in (first..).zip(frames.chunks_exact_mut(self.frame_bytes)) {
            let timestamp = if number == first { timestamp } else { 0 };
            sequence::stamp(&mut frame[payload_offset..], sender, number, last && number == end, timestamp);
            if let Some(offset) = ack_id_offset
                && let Some(id) = frame.get_mut(offset..offset + 4)
            {
                id.copy_from_slice(&(number as u32).to_le_bytes());
            }
        }
        frames
    }
}
