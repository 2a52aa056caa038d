//! Clients that are only there: how fast they connect, what they cost, what is left of them. One thread, which looks at the
//! sockets in a fixed rhythm, so that what wakes it does not cost the broker.

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::retry_on_intr,
};
use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{Bound, Crowd, Plan, memory_growth::Before};
use crate::{
    Failure,
    driver::{Dialect, Line, PATIENCE},
    names::{self, Side},
    process::{Stopwatch, allow_descriptors},
};

/// Clients that have connected and are not registered yet, at most.
const UNDER_WAY: usize = 64;
/// The rhythm of the idle time.
const TICK: Duration = Duration::from_millis(20);
/// Descriptors of the generator beside the clients.
const OTHERS: u64 = 64;
/// The longest answer to a hello.
const MAX_ANSWER: usize = 4096;

pub(super) fn run<D: Dialect>(plan: &Plan) -> Result<Crowd, Failure> {
    let Bound::Time(time) = plan.bound else { return Err("idle clients need a time".into()) };
    allow_descriptors(plan.clients as u64 + OTHERS)?;
    let before = plan.broker.and_then(Before::of);

    let watch = Stopwatch::start(plan.broker);
    let mut clients = Clients::new(plan.clients)?;
    clients.connect::<D>(plan)?;
    let connected = watch.stop();

    let watch = Stopwatch::start(plan.broker);
    clients.idle(time, plan.ping, D::PING)?;
    let idle = watch.stop();

    let broker_memory = before.as_ref().and_then(Before::above);
    clients.must_all_be_there()?;
    drop(clients);
    Ok(Crowd {
        clients: plan.clients,
        connecting: connected.elapsed,
        connect_cpu: connected.broker_cpu,
        idle: idle.elapsed,
        idle_cpu: idle.broker_cpu,
        broker_memory,
        broker_memory_after: before.as_ref().and_then(Before::above_later),
        broker_peak_memory: idle.broker_peak_memory,
        own_cpu: [connected.own_cpu, idle.own_cpu],
    })
}

/// All connections, and what waits for them.
struct Clients {
    epoll: OwnedFd,
    lines: Vec<Line>,
    events: Vec<epoll::Event>,
    /// What was read last, of anybody.
    received: Vec<u8>,
}

/// Who waits for being registered.
struct Waiting {
    answered: Vec<u8>,
    received: Vec<u8>,
}

impl Clients {
    fn new(count: usize) -> Result<Self, Failure> {
        Ok(Clients {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            lines: Vec::with_capacity(count),
            events: Vec::with_capacity(1024),
            received: Vec::new(),
        })
    }

    /// Connects all, several at a time.
    fn connect<D: Dialect>(&mut self, plan: &Plan) -> Result<(), Failure> {
        let (mut waiting, mut registered) = (Vec::<Option<Waiting>>::new(), 0);
        while registered < plan.clients {
            while self.lines.len() < plan.clients && self.lines.len() - registered < UNDER_WAY {
                let index = self.lines.len();
                let hello = D::hello(&names::client(0, Side::Reader, index))?;
                let line = Line::connect(&plan.address)
                    .and_then(|line| line.send(&hello.said).map(|()| line))
                    .map_err(|error| format!("client {index} could not join {}: {error}", plan.address))?;
                let data = epoll::EventData::new_u64(index as u64);
                epoll::add(&self.epoll, line.socket(), data, epoll::EventFlags::IN)?;
                self.lines.push(line);
                waiting.push(Some(Waiting { answered: hello.answered, received: Vec::new() }));
            }
            if self.wait(PATIENCE)? == 0 {
                let seconds = PATIENCE.as_secs();
                return Err(
                    format!("only {registered} clients were registered, and none for {seconds} s").into()
                );
            }
            for event in &self.events {
                let index = event.data.u64() as usize;
                let (Some(line), Some(slot)) = (self.lines.get(index), waiting.get_mut(index)) else {
                    continue;
                };
                let failed = |error, said: &[u8]| {
                    let said = said.escape_ascii();
                    format!("client {index} was not registered: {error} (after {said})")
                };
                let Some(waits) = slot else {
                    // registered before, and kept alive meanwhile
                    line.receive_now(&mut self.received).map_err(|error| dropped(index, &error))?;
                    self.received.clear();
                    continue;
                };
                line.receive_now(&mut waits.received).map_err(|error| failed(error, &waits.received))?;
                if waits.received.ends_with(&waits.answered) {
                    (*slot, registered) = (None, registered + 1);
                } else if waits.received.len() > MAX_ANSWER {
                    return Err(failed("too long an answer".into(), &waits.received).into());
                }
            }
        }
        Ok(())
    }

    /// Reads what comes and pings, each client at its own time.
    fn idle(&mut self, time: Duration, every: Duration, ping: &[u8]) -> Result<(), Failure> {
        let (begin, mut pinged) = (Instant::now(), 0);
        loop {
            let elapsed = begin.elapsed();
            while self.wait(Duration::ZERO)? > 0 {
                for event in &self.events {
                    let index = event.data.u64() as usize;
                    let Some(line) = self.lines.get(index) else { continue };
                    line.receive_now(&mut self.received).map_err(|error| dropped(index, &error))?;
                    self.received.clear();
                }
            }
            if elapsed >= time {
                return Ok(());
            }
            if !ping.is_empty() {
                let due = elapsed.as_secs_f64() / every.as_secs_f64() * self.lines.len() as f64;
                while pinged < due as usize {
                    let index = pinged % self.lines.len();
                    if let Some(line) = self.lines.get(index) {
                        line.send(ping).map_err(|error| dropped(index, &error))?;
                    }
                    pinged += 1;
                }
            }
            std::thread::sleep(TICK.min(time - elapsed));
        }
    }

    fn must_all_be_there(&mut self) -> Result<(), Failure> {
        let mut gone = 0;
        for line in &self.lines {
            while match line.receive_now(&mut self.received) {
                Ok(more) => more,
                Err(_) => {
                    gone += 1;
                    false
                }
            } {}
            self.received.clear();
        }
        match gone {
            0 => Ok(()),
            gone => Err(format!("{gone} of {} clients were dropped while idle", self.lines.len()).into()),
        }
    }

    fn wait(&mut self, patience: Duration) -> Result<usize, Failure> {
        let patience = Timespec::try_from(patience)?;
        self.events.clear();
        Ok(retry_on_intr(|| epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&patience)))?)
    }
}

fn dropped(index: usize, error: &Failure) -> Failure {
    format!("client {index} was dropped after it had been registered: {error}").into()
}
