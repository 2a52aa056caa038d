//! Streams: senders that write batches, at most a window ahead, and receivers that check every message. Each
//! client has a thread; the receivers of a group share threads if they are many.

use std::{
    sync::{Arc, Barrier, OnceLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    Plan, RunLength, Traffic,
    batch::Batch,
    latency::LatencyHistogram,
    mix::{self, Mix},
    pinger::Pinger,
    sequence,
    sequence::SequenceCheck,
    window::Window,
};
use crate::{
    BoxError,
    driver::{Client, ConnectOptions, Driver, readable},
    names::{self, Side},
    process::UsageMeter,
};

/// Threads are many and their stacks shallow.
const STACK_BYTES: usize = 256 * 1024;
/// Receivers of a group that have a thread each. More than that share threads: on two processors, the
/// switches between dozens of threads would be measured and not the broker.
const MAX_RECEIVER_THREADS: usize = 8;
/// The threads that more receivers share.
const SHARED_THREADS: usize = 2;

/// What all threads of a group share.
struct Group {
    plan: Plan,
    index: usize,
    window: Window,
    start: Arc<Start>,
}

/// A receiving client.
struct Reader<D> {
    receiver: usize,
    client: Client<D>,
    check: SequenceCheck,
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
    let threads = plan.pairs * (receiver_threads(plan) + plan.senders()) + 1;
    let (ready, go) = (Barrier::new(threads), Barrier::new(threads));
    let start = Arc::new(Start { ready, begin: OnceLock::new(), go });
    // all clients connect before any thread starts, so that a failed connect leaves no thread at the barrier
    let (mut readers, mut writers, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..plan.pairs {
        let window = Window::new(plan.window, plan.receivers(), plan.senders());
        let group = Arc::new(Group { plan: plan.clone(), index, window, start: start.clone() });
        let mut shared: Vec<Vec<_>> = (0..receiver_threads(plan)).map(|_| Vec::new()).collect();
        for receiver in 0..plan.receivers() {
            let client = group.connect::<D>(Side::Receiver, receiver)?;
            silent.push(client.sender.connection.try_clone()?);
            let thread = receiver % shared.len();
            shared.get_mut(thread).ok_or("no thread")?.push((receiver, client));
        }
        readers.extend(shared.into_iter().map(|clients| (group.clone(), clients)));
        for sender in 0..plan.senders() {
            let client = group.connect::<D>(Side::Sender, sender)?;
            writers.push((group.clone(), sender, client));
        }
    }
    let _pinger = Pinger::start(silent, D::PING)?;
    plan.wait_for_names();
    let (mut receivers, mut senders) = (Vec::new(), Vec::new());
    for (group, clients) in readers {
        receivers.push(spawn(move || group.fail_on_error(|| group.receive(clients)))?);
    }
    for (group, index, client) in writers {
        senders.push(spawn(move || group.fail_on_error(|| group.send(index, client)))?);
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
        for check in result? {
            received += check.total_received();
            latency.merge(check.latency())?;
        }
    }
    for result in senders {
        sent += result?;
    }
    let expected = sent * plan.copies() as u64;
    if received != expected {
        return Err(format!("{received} messages arrived, expected {expected}").into());
    }
    Ok(Traffic::new(plan, received, &usage, &latency))
}

/// The number of threads that receive for one group.
fn receiver_threads(plan: &Plan) -> usize {
    if plan.receivers() > MAX_RECEIVER_THREADS { SHARED_THREADS } else { plan.receivers() }
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
        let subscription = match side {
            Side::Receiver => mix::subscription(&self.plan, self.index, index)?,
            Side::Sender => None,
        };
        Client::connect(&ConnectOptions {
            address: self.plan.address_of(side),
            name: &names::client(self.index, side, index),
            subscription: subscription.as_ref(),
            payload_bytes: self.plan.bytes,
        })
    }

    /// Runs a client; its error stops the other clients of the group.
    fn fail_on_error<T>(&self, work: impl FnOnce() -> Result<T, BoxError>) -> Result<T, BoxError> {
        work().inspect_err(|_| self.window.fail())
    }

    fn receive<D: Driver>(&self, clients: Vec<(usize, Client<D>)>) -> Result<Vec<SequenceCheck>, BoxError> {
        let begin = self.start.wait();
        let check = || SequenceCheck::new(self.plan.senders(), begin);
        let mut open: Vec<_> = clients
            .into_iter()
            .map(|(receiver, client)| Ok(Reader { receiver, client, check: check()? }))
            .collect::<Result<_, BoxError>>()?;
        let mix = Mix::of(&self.plan);
        let mut complete = Vec::new();
        loop {
            // a single client blocks in its read
            let several = open.len() > 1;
            let ready = if several {
                readable(open.iter().map(|reader| reader.client.incoming()))?
            } else {
                vec![true]
            };
            for (reader, _) in open.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
                self.receive_once(reader, mix)?;
            }
            for reader in open.extract_if(.., |reader| reader.check.is_complete()) {
                complete.push(reader.check);
            }
            if open.is_empty() {
                return Ok(complete);
            }
        }
    }

    /// Reads once and reports the progress.
    fn receive_once<D: Driver>(&self, reader: &mut Reader<D>, mix: Mix) -> Result<(), BoxError> {
        let Reader { receiver, client, check } = reader;
        check.begin_read();
        client.receive(|payload| check.accept(payload))?;
        for sender in 0..self.plan.senders() {
            self.window.advance(*receiver, sender, mix.progress(*receiver, check.received(sender)));
        }
        Ok(())
    }

    fn send<D: Driver>(&self, sender: usize, mut client: Client<D>) -> Result<u64, BoxError> {
        let plan = &self.plan;
        // an error before the start would leave the other threads at the barrier
        let batch = Batch::new(&client.sender.driver, plan, self.index, sender);
        let acknowledged = D::acknowledges(plan.qos);
        let begin = self.start.wait();
        let (mut batch, closing) = (batch?, Mix::of(plan).shares() as u64);
        let (deadline, limit) = match plan.length {
            RunLength::Messages(messages) => (None, messages.saturating_sub(closing)),
            RunLength::Time(time) => (Some(begin + time), u64::MAX),
        };
        let (mut slowest, mut last) = (0, limit == 0);
        loop {
            let sent = batch.sent();
            let count = if last { closing } else { (plan.batch as u64).min(limit - sent) };
            self.window.wait(sender, sent, count, &mut slowest)?;
            let due = plan.rate.map(|rate| begin + Duration::from_secs_f64(sent as f64 / rate));
            let timestamp = match due {
                Some(due) => {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    (due.duration_since(begin).as_nanos() as u64).max(1)
                }
                None => sequence::nanos_since(begin),
            };
            let frames = if last { batch.close(timestamp) } else { batch.next(count as usize, timestamp) };
            client.sender.send(frames, if acknowledged { count } else { 0 })?;
            if acknowledged {
                client.sender.wait_for_acks(if last { 0 } else { plan.window as u64 })?;
            }
            if last {
                return Ok(batch.sent());
            }
            last = batch.sent() == limit
                || deadline.is_some_and(|deadline| begin + Duration::from_nanos(timestamp) >= deadline);
        }
    }
}
