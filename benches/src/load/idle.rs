//! Clients that only stay connected: how fast they connect, and what they cost. One thread, which polls the
//! sockets at a fixed interval, so that its own wake-ups take no CPU time from the broker.

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::retry_on_intr,
};
use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{IdleClients, Plan, RunLength, memory_growth::MemoryBaseline};
use crate::{
    BoxError,
    driver::{Connection, Driver, TIMEOUT},
    names::{self, Side},
    process::{UsageMeter, raise_fd_limit},
};

/// The limit of handshakes in progress.
const MAX_PENDING: usize = 64;
/// The interval at which sockets are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// File descriptors of the generator besides the clients'.
const OTHER_FDS: u64 = 64;
/// File descriptors of a client, and of one with rings: socket, eventfd, pipe, what it waits with.
const FDS: [u64; 2] = [1, 4];
/// The longest reply to a handshake.
const MAX_REPLY_BYTES: usize = 4096;

pub(super) fn run<D: Driver>(plan: &Plan) -> Result<IdleClients, BoxError> {
    let RunLength::Time(time) = plan.length else { return Err("idle clients need a time".into()) };
    let [plain, with_rings] = FDS;
    let fds = if plan.asks_for_rings() { with_rings } else { plain };
    raise_fd_limit(fds * plan.clients as u64 + OTHER_FDS)?;
    let baseline = plan.broker_pid.and_then(MemoryBaseline::of);

    let meter = UsageMeter::start(plan.broker_pid);
    let mut clients = Clients::new(plan.clients)?;
    clients.connect::<D>(plan)?;
    let connected = meter.stop();

    let meter = UsageMeter::start(plan.broker_pid);
    clients.idle(time, plan.ping_interval, D::PING)?;
    let idle = meter.stop();

    let broker_memory = baseline.as_ref().and_then(MemoryBaseline::growth);
    clients.check_connected()?;
    drop(clients);
    Ok(IdleClients {
        count: plan.clients,
        connect_time: connected.elapsed,
        connect_cpu: connected.broker_cpu,
        idle_time: idle.elapsed,
        idle_cpu: idle.broker_cpu,
        broker_memory,
        broker_memory_after: baseline.as_ref().and_then(MemoryBaseline::growth_after_settling),
        broker_peak_memory: idle.broker_peak_memory,
        generator_connect_cpu: connected.generator_cpu,
        generator_idle_cpu: idle.generator_cpu,
    })
}

/// All connections.
struct Clients {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    events: Vec<epoll::Event>,
    /// The bytes of the last read, of any connection.
    received: Vec<u8>,
}

/// A handshake in progress.
struct PendingHandshake {
    reply_end: Vec<u8>,
    received: Vec<u8>,
}

impl Clients {
    fn new(count: usize) -> Result<Self, BoxError> {
        Ok(Clients {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::with_capacity(count),
            events: Vec::with_capacity(1024),
            received: Vec::new(),
        })
    }

    /// Connects all clients, several at a time.
    fn connect<D: Driver>(&mut self, plan: &Plan) -> Result<(), BoxError> {
        let (mut handshakes, mut registered) = (Vec::<Option<PendingHandshake>>::new(), 0);
        while registered < plan.clients {
            while self.connections.len() < plan.clients && self.connections.len() - registered < MAX_PENDING {
                handshakes.push(Some(self.begin_handshake::<D>(&plan.address)?));
            }
            if self.wait(TIMEOUT)? == 0 {
                return Err(format!(
                    "only {registered} of {} clients were registered; no reply for {} s",
                    plan.clients,
                    TIMEOUT.as_secs()
                )
                .into());
            }
            for event in &self.events {
                let index = event.data.u64() as usize;
                let (Some(connection), Some(slot)) = (self.connections.get(index), handshakes.get_mut(index))
                else {
                    continue;
                };
                let failed = |error: BoxError, received: &[u8]| {
                    let received = received.escape_ascii();
                    format!("client {index} was not registered: {error} (received {received})")
                };
                let Some(handshake) = slot else {
                    // registered already; this is a keep-alive
                    discard(connection, &mut self.received).map_err(|error| disconnected(index, &error))?;
                    continue;
                };
                connection
                    .try_receive(&mut handshake.received)
                    .map_err(|error| failed(error, &handshake.received))?;
                if handshake.received.ends_with(&handshake.reply_end) {
                    (*slot, registered) = (None, registered + 1);
                    if let Some(rings) = connection.rings() {
                        rings.prepare_wait()?;
                        epoll::add(&self.epoll, rings.pipe(), event.data, epoll::EventFlags::IN)?;
                    }
                } else if handshake.received.len() > MAX_REPLY_BYTES {
                    return Err(failed("the reply is too long".into(), &handshake.received).into());
                }
            }
        }
        Ok(())
    }

    /// Connects the next client and sends its handshake.
    fn begin_handshake<D: Driver>(&mut self, address: &str) -> Result<PendingHandshake, BoxError> {
        let index = self.connections.len();
        let (connection, handshake) = Connection::connect(address)
            .and_then(|connection| {
                let handshake = D::handshake(&connection, &names::client(0, Side::Receiver, index))?;
                connection.send(&handshake.request).map(|()| (connection, handshake))
            })
            .map_err(|error| format!("client {index} could not connect to {address}: {error}"))?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &connection, data, epoll::EventFlags::IN)?;
        self.connections.push(connection);
        Ok(PendingHandshake { reply_end: handshake.reply_end, received: Vec::new() })
    }

    /// Discards what is received, and pings once per interval and client, evenly spread over the interval.
    fn idle(&mut self, time: Duration, ping_interval: Duration, ping: &[u8]) -> Result<(), BoxError> {
        let (begin, mut pings) = (Instant::now(), 0);
        loop {
            let elapsed = begin.elapsed();
            while self.wait(Duration::ZERO)? > 0 {
                for event in &self.events {
                    let index = event.data.u64() as usize;
                    let Some(connection) = self.connections.get(index) else { continue };
                    discard(connection, &mut self.received).map_err(|error| disconnected(index, &error))?;
                }
            }
            if elapsed >= time {
                return Ok(());
            }
            if !ping.is_empty() {
                let intervals = elapsed.as_secs_f64() / ping_interval.as_secs_f64();
                let due = (intervals * self.connections.len() as f64) as usize;
                while pings < due {
                    let index = pings % self.connections.len();
                    if let Some(connection) = self.connections.get(index) {
                        connection.send(ping).map_err(|error| disconnected(index, &error))?;
                    }
                    pings += 1;
                }
            }
            std::thread::sleep(POLL_INTERVAL.min(time - elapsed));
        }
    }

    /// Reads what is left of each connection; one that has ended is an error.
    fn check_connected(&mut self) -> Result<(), BoxError> {
        let mut ended = 0;
        for connection in &self.connections {
            let result = loop {
                match discard(connection, &mut self.received) {
                    Ok(true) => {}
                    result => break result,
                }
            };
            ended += usize::from(result.is_err());
        }
        match ended {
            0 => Ok(()),
            _ => {
                Err(format!("{ended} of {} clients were disconnected while idle", self.connections.len())
                    .into())
            }
        }
    }

    /// Waits for events and returns how many there are.
    fn wait(&mut self, timeout: Duration) -> Result<usize, BoxError> {
        let timeout = Timespec::try_from(timeout)?;
        self.events.clear();
        Ok(retry_on_intr(|| epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)))?)
    }
}

/// Reads and discards what has arrived; `false` if nothing has.
fn discard(connection: &Connection, buffer: &mut Vec<u8>) -> Result<bool, BoxError> {
    if let Some(rings) = connection.rings() {
        rings.empty_pipe()?;
        while connection.try_receive(buffer)? || !rings.prepare_wait()? {}
        buffer.clear();
        return Ok(false);
    }
    let received = connection.try_receive(buffer);
    buffer.clear();
    received
}

fn disconnected(index: usize, error: &BoxError) -> BoxError {
    format!("client {index} was disconnected after its registration: {error}").into()
}
