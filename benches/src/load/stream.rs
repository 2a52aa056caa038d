//! Streams: writers that send batches, at most a window ahead, and readers that check every message. A thread each.

use std::{
    sync::{Arc, Barrier, OnceLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Bound, Plan, Scenario, Traffic, pinger::Keeper, sequence, sequence::Check, window::Window};
use crate::{
    Failure,
    driver::{Client, Dialect, Joining, Kind, Letter},
    histogram::Histogram,
    names::{self, Side},
    process::Stopwatch,
};

/// Enough for what is on a thread's stack here.
const STACK_BYTES: usize = 256 * 1024;

/// What all threads of a group know.
struct Group {
    plan: Plan,
    index: usize,
    window: Window,
    start: Arc<Start>,
}

/// The beginning, at which all have joined.
struct Start {
    joined: Barrier,
    begin: OnceLock<Instant>,
    go: Barrier,
}

impl Start {
    /// Waits for all others; the time is the same for all.
    fn wait(&self) -> Instant {
        self.joined.wait();
        self.go.wait();
        *self.begin.get_or_init(Instant::now)
    }
}

type Running<T> = JoinHandle<Result<T, Failure>>;

pub(super) fn run<D: Dialect + 'static>(plan: &Plan) -> Result<Traffic, Failure> {
    let threads = plan.pairs * (plan.readers() + plan.writers()) + 1;
    let start =
        Arc::new(Start { joined: Barrier::new(threads), begin: OnceLock::new(), go: Barrier::new(threads) });
    // all join here, so that a failure to join leaves nobody at the barrier
    let (mut clients, mut kept) = (Vec::new(), Vec::new());
    for index in 0..plan.pairs {
        let window = Window::new(plan.readers(), plan.writers());
        let group = Arc::new(Group { plan: plan.clone(), index, window, start: start.clone() });
        for reader in 0..plan.readers() {
            let client = group.join::<D>(Side::Reader, reader)?;
            kept.push(client.sending.line.twin()?);
            clients.push((group.clone(), Side::Reader, reader, client));
        }
        for writer in 0..plan.writers() {
            let client = group.join::<D>(Side::Writer, writer)?;
            clients.push((group.clone(), Side::Writer, writer, client));
        }
    }
    let _keeper = Keeper::of(kept, D::PING)?;
    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    for (group, side, index, client) in clients {
        match side {
            Side::Reader => readers.push(spawn(move || group.guard(|| group.read(index, client)))?),
            Side::Writer => writers.push(spawn(move || group.guard(|| group.write(index, client)))?),
        }
    }
    start.joined.wait();
    let watch = Stopwatch::start(plan.broker);
    start.go.wait();
    let (mut sent, mut came, mut latency) = (0, 0, Histogram::new());
    // readers first: what a reader has to say is the cause of what writers say
    let readers: Vec<_> = readers.into_iter().map(join_thread).collect();
    let used = watch.stop();
    let writers: Vec<_> = writers.into_iter().map(join_thread).collect();
    for result in readers {
        let check = result?;
        came += check.came_in_all();
        latency.merge(&check.into_latency());
    }
    for result in writers {
        sent += result?;
    }
    let due = sent * plan.readers() as u64;
    if came != due {
        return Err(format!("{came} messages came where {due} were due").into());
    }
    Ok(Traffic::new(plan, came, &used, &latency))
}

fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<Running<T>, Failure> {
    Ok(std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work)?)
}

fn join_thread<T>(thread: Running<T>) -> Result<T, Failure> {
    thread.join().map_err(|_| "a thread of the generator panicked")?
}

impl Group {
    fn join<D: Dialect>(&self, side: Side, index: usize) -> Result<Client<D>, Failure> {
        let topic =
            (side == Side::Reader && self.plan.scenario == Scenario::Topic).then(|| names::topic(self.index));
        Client::join(&Joining {
            address: &self.plan.address,
            name: &names::client(self.index, side, index),
            topic: topic.as_deref(),
            payload_bytes: self.plan.bytes,
        })
    }

    fn guard<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let result = work();
        if result.is_err() {
            self.window.fail();
        }
        result
    }

    fn read<D: Dialect>(&self, reader: usize, mut client: Client<D>) -> Result<Check, Failure> {
        let writers = self.plan.writers();
        let mut check = Check::new(writers, self.start.wait());
        while !check.is_complete() {
            check.read();
            client.receive(|payload| check.take(payload))?;
            for writer in 0..writers {
                self.window.advance(reader, writer, check.came(writer));
            }
        }
        Ok(check)
    }

    fn write<D: Dialect>(&self, writer: usize, mut client: Client<D>) -> Result<u64, Failure> {
        let plan = &self.plan;
        let mut batch = Batch::new(&client.sending.dialect, plan, self.letter())?;
        let (answered, size) = (D::answers(plan.qos), plan.window as u64);
        let begin = self.start.wait();
        let (until, most) = match plan.bound {
            Bound::Messages(messages) => (None, messages),
            Bound::Time(time) => (Some(begin + time), u64::MAX),
        };
        let (mut sent, mut slowest) = (0, 0);
        loop {
            let count = (plan.batch as u64).min(most - sent);
            self.window.wait(writer, sent, count, size, &mut slowest)?;
            let due = plan.rate.map(|rate| begin + Duration::from_secs_f64(sent as f64 / rate));
            let time = match due {
                Some(due) => {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    (due.duration_since(begin).as_nanos() as u64).max(1)
                }
                None => sequence::nanos_since(begin),
            };
            let last = sent + count == most
                || until.is_some_and(|until| begin + Duration::from_nanos(time) >= until);
            let frames = batch.number(writer, sent, count as usize, last, time);
            client.sending.send(frames, if answered { count } else { 0 })?;
            sent += count;
            if answered {
                client.sending.collect_answers()?;
                while client.sending.owed() > size {
                    client.sending.line.wait_readable()?;
                    client.sending.collect_answers()?;
                }
            }
            if last {
                client.sending.await_answers()?;
                return Ok(sent);
            }
        }
    }

    fn letter(&self) -> Letter {
        let (kind, to) = match self.plan.scenario {
            Scenario::Topic => (Kind::Publish, names::topic(self.index)),
            Scenario::Broadcast => (Kind::Broadcast, names::readers(self.index)),
            _ => (Kind::Message, names::client(self.index, Side::Reader, 0)),
        };
        Letter { kind, to, qos: self.plan.qos }
    }
}

/// Frames that are encoded once and numbered anew for each write.
struct Batch {
    frames: Vec<u8>,
    frame_bytes: usize,
    payload: usize,
    /// Where the number of an answered frame goes.
    id: Option<usize>,
}

impl Batch {
    fn new<D: Dialect>(dialect: &D, plan: &Plan, letter: Letter) -> Result<Self, Failure> {
        let text: Vec<u8> = (0..plan.bytes).map(|place| b'a' + (place % 26) as u8).collect();
        let (mut frames, mut payload) = (Vec::new(), 0);
        for _ in 0..plan.batch {
            payload = dialect.encode(&mut frames, &letter, &text)?;
        }
        let frame_bytes = frames.len() / plan.batch;
        let id = D::NUMBER.filter(|_| D::answers(plan.qos));
        Ok(Batch { frames, frame_bytes, payload, id })
    }

    #[inline]
    fn number(&mut self, writer: usize, first: u64, count: usize, last: bool, time: u64) -> &[u8] {
        let bytes = count * self.frame_bytes;
        let (payload, id) = (self.payload, self.id);
        let frames = &mut self.frames[..bytes];
        let end = first + count as u64 - 1;
        for (number, frame) in (first..).zip(frames.chunks_exact_mut(self.frame_bytes)) {
            let time = if number == first { time } else { 0 };
            sequence::stamp(&mut frame[payload..], writer, number, last && number == end, time);
            if let Some(place) = id
                && let Some(id) = frame.get_mut(place..place + 4)
            {
                id.copy_from_slice(&(number as u32).to_le_bytes());
            }
        }
        frames
    }
}
