//! The life of a client: connected, lost, connected again, ended. Owns its tasks and the order in which their parts
//! begin and end; never what a user's operation means.

pub(crate) mod dial;
pub(crate) mod frame_reader;
#[cfg(feature = "in-process")]
pub(crate) mod in_process;
pub(crate) mod operations;
pub(crate) mod send_queue;
pub(crate) mod subscription_state;

use elbus_protocol::Op;
use elbus_socket::Socket;
use parking_lot::Mutex;
use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    Address, Client, ClientBuilder, Error, Frames, Reconnect,
    connection::dial::{Registered, register},
    connection::frame_reader::{Batch, End, Incoming},
    connection::send_queue::{Ack, Flushed, Outgoing, Refusal, Told},
    connection::subscription_state::{Wishes, frames_of},
    events::{ConnectionEvent, Events, Status, reason_of},
    receive::demux::{Memory, Switchboard},
    receive::inbox::{Inbox, Overflow, Receiver},
    receive::pending_calls::Calls,
    receive::read_limit::Gate,
    settings::Settings,
};

/// How long the broker may take to end a connection that the client has ended.
const FAREWELL: Duration = Duration::from_secs(1);
/// A filter that nobody excludes: taking it back changes nothing, and is acknowledged.
pub(crate) const PROBE_FILTER: &str = ".client/probe";

/// Where a client connects to.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Socket(Address),
    #[cfg(feature = "in-process")]
    InProcess(elbus_plugin_api::Host),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Socket(address) => write!(f, "{address}"),
            #[cfg(feature = "in-process")]
            Place::InProcess(_) => f.write_str("this process"),
        }
    }
}

/// What all handles and tasks of a client share.
pub(crate) struct Shared {
    pub(crate) builder: ClientBuilder,
    pub(crate) place: Place,
    pub(crate) gate: Arc<Gate>,
    pub(crate) outgoing: Outgoing,
    #[cfg(feature = "in-process")]
    pub(crate) local: in_process::Local,
    pub(crate) switchboard: Switchboard,
    pub(crate) events: Events,
    /// Taken before the lock of the outgoing side.
    pub(crate) wishes: Mutex<Wishes>,
    /// Secondary clients of the same primary so far.
    pub(crate) secondaries: Arc<AtomicU32>,
    pub(crate) reconnects: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    /// Panics of functions that were called for a frame.
    pub(crate) handler_panics: AtomicU64,
    /// Counts reads: a sign of life of the broker.
    heard: AtomicU64,
    /// The reader waits for consumers.
    held_back: AtomicBool,
    closing: AtomicBool,
    close_wanted: Notify,
    /// Calls that have arrived before they are served, with `queue_calls`.
    pub(crate) queued_calls: Mutex<Option<Receiver>>,
    /// Where its tasks run.
    pub(crate) runtime: Handle,
}

/// A connection that is registered.
enum Live {
    Stream(Registered),
    #[cfg(feature = "in-process")]
    Local,
}

/// Connects for the first time and starts the tasks.
pub(crate) async fn open(
    builder: ClientBuilder,
    place: Place,
    secondaries: Arc<AtomicU32>,
) -> Result<(Client, Frames), Error> {
    let Settings { queue_bytes, max_frame_bytes, overflow, .. } = builder.settings;
    let gate = Arc::new(Gate::default());
    let main = Inbox::new(queue_bytes, overflow, gate.clone());
    let receiver = Receiver::new(main.clone());
    let shared = Arc::new(Shared {
        outgoing: Outgoing::new(queue_bytes, max_frame_bytes, gate.clone()),
        #[cfg(feature = "in-process")]
        local: Default::default(),
        switchboard: Switchboard::new(main, Calls::new(gate.clone())),
        events: Events::new(),
        wishes: Mutex::default(),
        secondaries,
        reconnects: AtomicU64::new(0),
        bytes_received: AtomicU64::new(0),
        handler_panics: AtomicU64::new(0),
        heard: AtomicU64::new(0),
        held_back: AtomicBool::new(false),
        closing: AtomicBool::new(false),
        close_wanted: Notify::new(),
        queued_calls: Mutex::new(None),
        runtime: Handle::current(),
        builder,
        place,
        gate,
    });
    if shared.settings().queue_calls {
        let inbox = shared.call_inbox();
        *shared.queued_calls.lock() = Some(Receiver::new(inbox.clone()));
        shared.switchboard.serve(inbox);
    }
    let live = shared.connect().await?;
    shared.begin(&live);
    let client = Client::new(shared.clone());
    tokio::spawn(supervise(Ending { shared, reason: None }, live));
    let frames = Frames::new(client.clone(), receiver);
    Ok((client, frames))
}

/// Ends the client when dropped: when its task is over, or when the runtime that it ran on is.
struct Ending {
    shared: Arc<Shared>,
    reason: Option<Error>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let reason = self.reason.take();
        let reason = reason
            .unwrap_or_else(|| Error::disconnected("the runtime that the client was created on has ended"));
        self.shared.detach(&reason);
        self.shared.switchboard.end();
        self.shared.events.set(Status::Closed(reason));
    }
}

async fn supervise(mut ending: Ending, mut live: Live) {
    let shared = ending.shared.clone();
    let end = loop {
        let reason = shared.live(live).await;
        if shared.is_closing() {
            break Error::Closed;
        }
        tracing::debug!(client = shared.builder.name, %reason, "connection lost");
        shared.detach(&reason);
        shared.events.set(Status::Lost(reason.clone()));
        if shared.builder.settings.reconnect == Reconnect::Off {
            break reason;
        }
        live = match shared.connect_again(reason).await {
            Ok(live) => live,
            Err(end) => break end,
        };
        shared.reconnects.fetch_add(1, Ordering::Relaxed);
        shared.begin(&live);
    };
    ending.reason = Some(end);
}

impl Shared {
    pub(crate) fn settings(&self) -> &Settings {
        &self.builder.settings
    }

    /// A queue for calls. It drops nothing: a caller would wait for nothing.
    pub(crate) fn call_inbox(&self) -> Arc<Inbox> {
        Inbox::new(self.settings().queue_bytes, Overflow::Block, self.gate.clone())
    }

    pub(crate) fn reconnects(&self) -> bool {
        self.settings().reconnect != Reconnect::Off && !self.is_closing()
    }

    /// Asks the client to end once everything is written.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.close_wanted.notify_one();
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    async fn close_wanted(&self) {
        while !self.is_closing() {
            self.close_wanted.notified().await;
        }
    }

    async fn connect(&self) -> Result<Live, Error> {
        match &self.place {
            Place::Socket(address) => {
                register(address, &self.builder.name, self.settings()).await.map(Live::Stream)
            }
            #[cfg(feature = "in-process")]
            Place::InProcess(host) => self.local.connect(host, &self.builder.name).map(|()| Live::Local),
        }
    }

    /// Makes a connection the one that operations use, with everything the user wished before.
    fn begin(&self, live: &Live) {
        let wishes = self.wishes.lock();
        match live {
            Live::Stream(registered) => {
                self.outgoing.attach(registered.socket.clone());
                let subscribed: Vec<_> = wishes.subscribed().collect();
                let excluded: Vec<_> = wishes.excluded().collect();
                let declined: Vec<_> = wishes.declined().into_iter().collect();
                let again = [
                    (Op::Exclude, excluded, "excluding again after a lost connection"),
                    (Op::Subscribe, subscribed, "subscribing again after a lost connection"),
                    (Op::Unsubscribe, declined, "unsubscribing again after a lost connection"),
                ];
                for (op, filters, what) in again {
                    frames_of(&filters).for_each(|filters| self.ask_again(op, filters, what));
                }
            }
            #[cfg(feature = "in-process")]
            Live::Local => self.local.begin(&wishes),
        }
        drop(wishes);
        self.events.set(Status::Connected);
    }

    /// Asks for filters that were granted to an earlier connection.
    fn ask_again(&self, op: Op, filters: &[&str], what: &'static str) {
        let owned = filters.iter().map(|filter| (*filter).to_owned()).collect();
        match self.outgoing.change_filters(op, filters, Ack::Again { op, filters: owned, what }) {
            Ok(_) => {}
            Err(Refusal::Full) => tracing::warn!("{what}: more filters than queue_bytes"),
            Err(Refusal::Failed(error)) => tracing::warn!(%error, "{what}"),
        }
    }

    /// Asks for each half of filters that were refused together, since one that is refused takes all others of its frame
    /// with it. Those that are no longer wanted are left out.
    fn divide(&self, op: Op, filters: &[String], what: &'static str) {
        let wishes = self.wishes.lock();
        let (first, second) = filters.split_at(filters.len() / 2);
        for half in [first, second] {
            let wanted = half.iter().map(String::as_str).filter(|filter| wishes.asks(op, filter));
            let wanted: Vec<_> = wanted.collect();
            if !wanted.is_empty() {
                self.ask_again(op, &wanted, what);
            }
        }
    }

    /// Forgets the connection; what is in flight fails.
    fn detach(&self, reason: &Error) {
        self.outgoing.detach(reason);
        #[cfg(feature = "in-process")]
        self.local.detach(reason);
        self.switchboard.calls.fail_all(reason);
    }

    /// Tries until it is connected, or gives up and says why.
    async fn connect_again(&self, mut reason: Error) -> Result<Live, Error> {
        let Reconnect::Backoff { first, max, jitter, attempts } = self.settings().reconnect else {
            return Err(reason);
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            if attempts.is_some_and(|limit| attempt > limit) {
                return Err(reason);
            }
            let after = pause(attempt, first, max, jitter);
            self.events.tell(ConnectionEvent::Retrying { attempt, after, reason: reason_of(&reason) });
            tokio::select! {
                () = sleep(after) => {}
                () = self.close_wanted() => return Err(Error::Closed),
            }
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = self.close_wanted() => return Err(Error::Closed),
            };
            match connected {
                Ok(live) => return Ok(live),
                Err(error) => reason = error,
            }
        }
    }

    /// Serves a connection to its end, and tells that.
    async fn live(self: &Arc<Self>, live: Live) -> Error {
        match live {
            Live::Stream(Registered { socket, ahead }) => {
                let flusher = tokio::spawn(flush(self.clone()));
                let incoming = Incoming::new(socket.clone(), self.settings().max_frame_bytes, ahead);
                let end = tokio::select! {
                    end = self.read(incoming) => end,
                    end = self.keep_alive() => end,
                    () = async {
                        self.close_wanted().await;
                        // a broker that takes nothing more is not waited for any longer than for anything else
                        let _ = timeout(self.settings().timeout, self.outgoing.drained()).await;
                        socket.shutdown_write();
                        sleep(FAREWELL).await;
                    } => Error::Closed,
                };
                flusher.abort();
                end
            }
            #[cfg(feature = "in-process")]
            Live::Local => {
                let mut memory = Memory::default();
                let mut touched = Vec::new();
                let receive = async {
                    let mut frames = Vec::new();
                    while self.local.receive(&mut frames).await {
                        self.switchboard.route(&mut frames, &mut memory, &mut touched);
                        self.wait_for_consumers(&touched).await;
                    }
                };
                tokio::select! {
                    () = receive => Error::disconnected("the broker has ended the client"),
                    () = self.close_wanted() => Error::Closed,
                }
            }
        }
    }

    async fn read(&self, mut incoming: Incoming) -> Error {
        let (mut batch, mut memory, mut touched, mut told) =
            (Batch::default(), Memory::default(), Vec::new(), Vec::new());
        let mut end = incoming.begin(&mut batch).err();
        loop {
            if !batch.acks.is_empty() {
                self.outgoing.acknowledge(&batch.acks, &mut told);
                batch.acks.clear();
                for told in told.drain(..) {
                    match told {
                        Told::CallRefused { call, code } => self.switchboard.calls.refuse(call, code),
                        Told::FiltersRefused { op, filters, what } => self.divide(op, &filters, what),
                    }
                }
            }
            if !batch.frames.is_empty() {
                self.switchboard.route(&mut batch.frames, &mut memory, &mut touched);
                self.wait_for_consumers(&touched).await;
            }
            match end {
                Some(End::Closed) => return Error::disconnected("the broker has closed the connection"),
                Some(End::Io(error)) => return Error::disconnected(&error.to_string()),
                Some(End::Protocol(error)) => {
                    return Error::disconnected(&format!("the broker sent what is no frame: {error}"));
                }
                None => {}
            }
            end = incoming.read(&mut batch, self.settings().busy_poll).await.err();
            self.heard.fetch_add(1, Ordering::Relaxed);
            self.bytes_received.store(incoming.bytes, Ordering::Relaxed);
        }
    }

    /// Whether nothing more can come of the connection than what has arrived.
    fn is_gone(&self) -> bool {
        match self.place {
            Place::Socket(_) => self.outgoing.is_gone(),
            #[cfg(feature = "in-process")]
            Place::InProcess(_) => false,
        }
    }

    /// Waits until none of these inboxes is over its limit, or the connection is gone. A consumer that takes nothing for
    /// `hold_limit` is not waited for: its frames are dropped and counted until it goes on.
    async fn wait_for_consumers(&self, inboxes: &[Arc<Inbox>]) {
        for inbox in inboxes {
            let (mut taken, mut end) = (inbox.taken(), None);
            while inbox.is_over(self.gate.patience()) && !self.is_gone() {
                self.held_back.store(true, Ordering::Relaxed);
                let limit = self.settings().hold_limit;
                let at = *end.get_or_insert_with(|| Instant::now().checked_add(limit));
                match at {
                    Some(at) => drop(timeout_at(at, self.gate.opened()).await),
                    None => self.gate.opened().await,
                }
                if inbox.taken() != taken {
                    (taken, end) = (inbox.taken(), None);
                } else if at.is_some_and(|at| at <= Instant::now()) && inbox.stop_holding(taken) {
                    let client = &self.builder.name;
                    tracing::warn!(client, ?limit, "received frames are not consumed; dropping further ones");
                }
            }
        }
        self.held_back.store(false, Ordering::Relaxed);
    }

    /// Pings, and ends when the broker gives no sign of life although it was asked for one.
    async fn keep_alive(&self) -> Error {
        let &Settings { timeout: patience, ping_interval, .. } = self.settings();
        let (mut heard, mut since, mut asked) = (0, Instant::now(), false);
        loop {
            sleep(ping_interval.min(patience)).await;
            self.outgoing.ping_if_idle();
            let now = self.heard.load(Ordering::Relaxed);
            if now != heard || self.held_back.load(Ordering::Relaxed) {
                (heard, since, asked) = (now, Instant::now(), false);
                continue;
            }
            let silent = since.elapsed();
            if silent >= patience * 2 && asked {
                let seconds = silent.as_secs_f64();
                return Error::disconnected(&format!("the broker has been silent for {seconds:.1} s"));
            }
            if silent >= patience && !asked {
                asked = true;
                // where it cannot be queued, enough waits to be answered
                let _ = self.outgoing.change_filters(Op::Unexclude, &[PROBE_FILTER], Ack::Abandoned);
            }
        }
    }
}

/// Writes what senders leave to it.
async fn flush(shared: Arc<Shared>) {
    loop {
        shared.outgoing.flush_wanted().await;
        match shared.outgoing.flush() {
            Flushed::Done => {}
            Flushed::Gone => return,
            Flushed::Full(socket) => flush_when_writable(&shared.outgoing, &socket).await,
        }
    }
}

/// Writes until nothing waits, or the connection is gone. The second descriptor exists only that long.
async fn flush_when_writable(outgoing: &Outgoing, socket: &Socket) {
    match socket.writable_twin() {
        Ok(twin) => {
            let mut full = true;
            while full && twin.writable().await.is_ok() {
                twin.while_writable(|| {
                    full = matches!(outgoing.flush(), Flushed::Full(_));
                    !full
                });
            }
        }
        Err(error) => {
            // out of descriptors: written in this rhythm meanwhile
            tracing::debug!(%error, "no descriptor to wait with");
            while matches!(outgoing.flush(), Flushed::Full(_)) {
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// The pause before an attempt, which counts from 1.
fn pause(attempt: u32, first: Duration, max: Duration, jitter: f64) -> Duration {
    let doubled = 2u32.checked_pow(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    let whole = first.saturating_mul(doubled).min(max);
    let chance = RandomState::new().hash_one(attempt) as f64 / u64::MAX as f64;
    whole.mul_f64(1.0 - jitter.clamp(0.0, 1.0) * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_differ() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(10));
        let exact: Vec<_> = (1..=9).map(|attempt| pause(attempt, first, max, 0.0).as_millis()).collect();
        assert_eq!(exact, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(pause(u32::MAX, first, max, 0.0), max);
        let chances: std::collections::HashSet<_> = (0..20).map(|_| pause(3, first, max, 0.5)).collect();
        assert!(chances.len() > 1);
        assert!(chances.iter().all(|pause| (200..=400).contains(&pause.as_millis())));
    }
}
