//! What all connections of an instance share. Owns who is connected, and the counts that status shows.

use elbus_plugin_api::{Event, EventKind, Host, QueueBudget};
use parking_lot::{Condvar, Mutex};
use slab::Slab;
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle};

use crate::{
    Notice, Places, Source, StreamSettings, Transport,
    clients::{Claim, Clients},
    connection::Connection,
    debts::Debts,
    liveness::Phase,
    notices::{Hidden, Notices},
    reason::Reason,
    receiving::Receiving,
    turns::Turns,
};

/// What the connections of an instance share.
pub(crate) struct Instance {
    pub(crate) host: Host,
    pub(crate) settings: StreamSettings,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) runtime: Handle,
    /// Set once, by `stop`: nobody is accepted or read from any more.
    pub(crate) stopping: AtomicBool,
    /// How often the keeper has looked: the clock of those who need none that is exact.
    pub(crate) sweeps: AtomicU64,
    /// A socket has become full since the keeper has last seen none that was.
    pub(crate) any_blocked: AtomicBool,
    /// Who is there. Lock order: this, then [`Connection`]'s own.
    pub(crate) census: Mutex<Census>,
    /// Somebody has left the census: for threads, and for tasks.
    pub(crate) left: Condvar,
    pub(crate) departures: Notify,
    pub(crate) counts: Counts,
    pub(crate) notices: Notices,
    /// What clients that have left had sent of what they may. Held for moments, alone.
    pub(crate) debts: Mutex<Debts>,
    /// Who holds memory for long frames. Held for moments, alone.
    pub(crate) receiving: Mutex<Receiving>,
    /// The places of connections that have not registered yet.
    pub(crate) pending: Places,
    /// Paces registering.
    pub(crate) turns: Option<Arc<Turns>>,
    /// What may wait in all queues of the broker.
    pub(crate) budget: QueueBudget,
    /// The connection whose frame is received although that is used up, by its address; zero: none.
    first: AtomicUsize,
}

/// Connections, and accepting tasks.
#[derive(Default)]
pub(crate) struct Census {
    pub(crate) connections: Slab<Entry>,
    /// Those that are registered, where their number is limited.
    pub(crate) clients: Option<Clients>,
    pub(crate) listeners: usize,
    /// Tasks that work beside the session of a connection.
    pub(crate) attendants: usize,
}

/// Whether a connection is in the census.
pub(crate) enum Entered {
    /// By this key.
    As(usize),
    /// Not, since the instance is stopping.
    Stopping,
}

/// A connection, and when the keeper has to do with it, in sweeps. Until then the keeper only walks over this entry.
pub(crate) struct Entry {
    pub(crate) connection: Arc<Connection>,
    /// When it is to be looked at.
    pub(crate) next_look: u64,
    /// When the next keep-alive is due; zero until the keeper has seen the client registered.
    pub(crate) next_nop: u64,
}

/// Somebody in the census who is on the way out. Held as long as it is waited for, so the key means nobody else.
pub(crate) struct Leaving {
    key: usize,
    connection: Arc<Connection>,
}

/// Counts since the start.
#[derive(Default)]
pub(crate) struct Counts {
    /// Clients that were disconnected since they took nothing or too little.
    pub(crate) slow: AtomicU64,
    /// Runs of messages that were refused since a queue was full.
    pub(crate) refused: AtomicU64,
    /// Connections that were refused before they could say anything.
    pub(crate) turned_away: AtomicU64,
}

impl Instance {
    pub(crate) fn new(
        host: Host,
        settings: StreamSettings,
        transport: impl Transport,
        runtime: Handle,
    ) -> Arc<Self> {
        let turns = settings.connects_per_second;
        let turns = turns.map(|rate| Turns::new(rate, settings.pending(), Instant::now()));
        let clients = settings.max_clients.map(|limit| Clients::new(limit, settings.max_source_share));
        Arc::new(Instance {
            budget: host.queue_budget(),
            host,
            pending: Places::new(settings.pending()),
            settings,
            transport: Box::new(transport),
            runtime,
            stopping: AtomicBool::new(false),
            sweeps: AtomicU64::new(0),
            any_blocked: AtomicBool::new(false),
            census: Mutex::new(Census { clients, ..Census::default() }),
            left: Condvar::new(),
            departures: Notify::new(),
            counts: Counts::default(),
            notices: Notices::default(),
            turns,
            debts: Mutex::default(),
            receiving: Mutex::default(),
            first: AtomicUsize::new(0),
        })
    }

    /// Runs a task of this instance, whose log lines name it.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(self.host.attribute(task))
    }

    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Adds a connection, unless the instance is stopping.
    pub(crate) fn enter(&self, connection: &Arc<Connection>) -> Entered {
        let mut census = self.census.lock();
        // within the lock: whoever enters is seen by `stop`, which sets the flag first
        if self.is_stopping() {
            return Entered::Stopping;
        }
        connection.liveness.step(Phase::Greeting, self.now());
        let entry = Entry { connection: connection.clone(), next_look: 0, next_nop: 0 };
        Entered::As(census.connections.insert(entry))
    }

    /// Counts a connection as a registered client. The error is the limit that is reached.
    pub(crate) fn claim(&self, source: Source, key: usize) -> Result<(), usize> {
        let mut census = self.census.lock();
        let Census { clients: Some(clients), connections, .. } = &mut *census else { return Ok(()) };
        let limit = clients.limit();
        let victim = match clients.claim(source, key) {
            Claim::Granted => return Ok(()),
            Claim::Full => return Err(limit),
            Claim::InsteadOf(victim) => connections.get(victim).map(|entry| entry.connection.clone()),
        };
        drop(census);
        if let Some(victim) = victim {
            victim.close(Reason::OverShare { limit, share: self.settings.max_source_share });
        }
        Ok(())
    }

    /// Takes back what [`claim`](Self::claim) has counted.
    pub(crate) fn release(&self, source: Source, key: usize) {
        if let Some(clients) = &mut self.census.lock().clients {
            clients.release(source, key);
        }
    }

    /// Whether a line of the log about a source may appear.
    pub(crate) fn admits(&self, notice: Notice, source: Source) -> bool {
        self.notices.admit(notice, source, Instant::now())
    }

    /// Tells of a connection that was evicted before its session began. No event: whoever connects often enough
    /// causes as many.
    pub(crate) fn evicted(&self, (key, source): (Source, Option<&str>), why: &str) {
        self.counts.turned_away.fetch_add(1, Ordering::Relaxed);
        if self.admits(Notice::Evicted, key) {
            tracing::info!(source, "connection ended: {why}");
        } else {
            tracing::debug!(source, "connection ended: {why}");
        }
    }

    /// Tells of a connection that was refused before it could say anything.
    pub(crate) fn refuse(&self, (key, source): (Source, Option<&str>), notice: Notice, why: &str) {
        self.counts.turned_away.fetch_add(1, Ordering::Relaxed);
        if self.admits(notice, key) {
            tracing::warn!(source, "connection refused: {why}");
        } else {
            tracing::debug!(source, "connection refused: {why}");
        }
        let from = source.unwrap_or(self.transport.kind());
        self.host.emit(&Event::now(EventKind::ConnectionRefused, from, why));
    }

    /// Says how many lines were not shown.
    pub(crate) fn tell_hidden(&self, now: Instant) {
        for Hidden { notice, count, sources, most } in self.notices.take_hidden(now) {
            let (noisiest, its_count) = most.map(|(source, count)| (source.to_string(), count)).unzip();
            tracing::warn!(
                count,
                sources,
                noisiest,
                its_count,
                "more {} in the last minute, not shown (shown with --log debug)",
                notice.plural()
            );
        }
    }

    /// How often the keeper has looked.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.sweeps.load(Ordering::Relaxed)
    }

    /// Takes a connection out, which was that of a registered client of `source`, or of none.
    pub(crate) fn leave(&self, key: usize, client_of: Option<Source>) {
        let mut census = self.census.lock();
        if let (Some(clients), Some(source)) = (&mut census.clients, client_of) {
            clients.release(source, key);
        }
        let gone = census.connections.try_remove(key);
        drop(census);
        self.left.notify_all();
        self.departures.notify_waiters();
        drop(gone);
    }

    /// The client of a name that has closed its connection, but is still here: its last messages are being read.
    pub(crate) fn leaving(&self, name: &str) -> Option<Leaving> {
        let census = self.census.lock();
        let (key, entry) = census.connections.iter().find(|(_, entry)| {
            let connection = &entry.connection;
            connection.name() == name && connection.is_registered() && connection.peer_has_closed()
        })?;
        Some(Leaving { key, connection: entry.connection.clone() })
    }

    /// Waits until somebody has left.
    pub(crate) async fn until_left(&self, somebody: &Leaving) {
        loop {
            let mut next = pin!(self.departures.notified());
            next.as_mut().enable(); // before the look, so that none is missed
            if !self.is_here(somebody) {
                return;
            }
            next.await;
        }
    }

    fn is_here(&self, somebody: &Leaving) -> bool {
        let census = self.census.lock();
        let entry = census.connections.get(somebody.key);
        entry.is_some_and(|entry| Arc::ptr_eq(&entry.connection, &somebody.connection))
    }

    /// Whether the frame of a connection may be received although the budget of the broker is used up: one at a time may,
    /// so that frames get complete and memory is freed; the next one only when the previous one has left the queues.
    pub(crate) fn finish_first(&self, connection: &Arc<Connection>) -> bool {
        let address = Arc::as_ptr(connection).addr();
        self.budget.queues_are_nearly_empty()
            && self.first.compare_exchange(0, address, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The frame of [`finish_first`](Self::finish_first) is complete, or its connection has ended.
    pub(crate) fn has_finished(&self, connection: &Arc<Connection>) {
        let address = Arc::as_ptr(connection).addr();
        let _ = self.first.compare_exchange(address, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Ends the connection that holds the most memory for long frames, to make room for another one, unless that is it itself.
    pub(crate) fn make_room_for(&self, asking: &Arc<Connection>) {
        let greediest = self.receiving.lock().take_greediest(asking);
        if let Some((connection, bytes)) = greediest {
            connection.close(Reason::MadeRoom { bytes });
        }
    }

    /// The connections of this moment.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.census.lock().connections.iter().map(|(_, entry)| entry.connection.clone()).collect()
    }
}
