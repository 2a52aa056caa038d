//! What all connections of an instance share. Owns who is connected, and the counts that status shows.

use elbus_plugin_api::{Event, EventKind, Host, QueueBudget};
use parking_lot::{Condvar, Mutex};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle};

use crate::{
    connection::{Connection, close_reason::CloseReason},
    server::{
        client_quota::ClientQuota,
        connection_table::ConnectionTable,
        fair_slots::FairSlots,
        frame_memory::FrameMemory,
        log_throttle::{LogCategory, LogThrottle, SuppressedLines},
        rate_debts::RateDebts,
        registration_queue::RegistrationQueue,
        source::Source,
        transport::Transport,
    },
    settings::StreamSettings,
};

/// What the connections of an instance share.
pub(crate) struct ServerState {
    pub(crate) host: Host,
    pub(crate) settings: StreamSettings,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) runtime: Handle,
    /// Set once, by `stop`: nobody is accepted or read from any more.
    pub(crate) stopping: AtomicBool,
    /// How often the keeper has looked: the clock of those who need none that is exact.
    pub(crate) ticks: AtomicU64,
    /// A socket has become full since the keeper has last seen none that was.
    pub(crate) any_blocked: AtomicBool,
    /// Who is there. Lock order: this, then [`Connection`]'s own.
    pub(crate) table: Mutex<ConnectionTable>,
    /// Somebody has left the census: for threads, and for tasks.
    pub(crate) left: Condvar,
    pub(crate) departures: Notify,
    pub(crate) counts: Counts,
    pub(crate) log_throttle: LogThrottle,
    /// What clients that have left had sent of what they may. Held for moments, alone.
    pub(crate) rate_debts: Mutex<RateDebts>,
    /// Who holds memory for long frames. Held for moments, alone.
    pub(crate) frame_memory: Mutex<FrameMemory>,
    /// The places of connections that have not registered yet.
    pub(crate) pending: FairSlots,
    /// Paces registering.
    pub(crate) turns: Option<Arc<RegistrationQueue>>,
    /// What may wait in all queues of the broker.
    pub(crate) budget: QueueBudget,
    /// The connection whose frame is received although that is used up, by its address; zero: none.
    over_budget: AtomicUsize,
}

/// Counts since the start.
#[derive(Default)]
pub(crate) struct Counts {
    /// Clients that were disconnected since they took nothing or too little.
    pub(crate) slow: AtomicU64,
    /// Runs of messages that were refused since a queue was full.
    pub(crate) refused: AtomicU64,
    /// Connections that were refused before they could say anything.
    pub(crate) refused_connections: AtomicU64,
}

impl ServerState {
    pub(crate) fn new(
        host: Host,
        settings: StreamSettings,
        transport: impl Transport,
        runtime: Handle,
    ) -> Arc<Self> {
        let turns = settings.connects_per_second;
        let turns = turns.map(|rate| RegistrationQueue::new(rate, settings.pending(), Instant::now()));
        let clients = settings.max_clients.map(|limit| ClientQuota::new(limit, settings.max_source_share));
        Arc::new(ServerState {
            budget: host.queue_budget(),
            host,
            pending: FairSlots::new(settings.pending()),
            settings,
            transport: Box::new(transport),
            runtime,
            stopping: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
            any_blocked: AtomicBool::new(false),
            table: Mutex::new(ConnectionTable { clients, ..ConnectionTable::default() }),
            left: Condvar::new(),
            departures: Notify::new(),
            counts: Counts::default(),
            log_throttle: LogThrottle::default(),
            turns,
            rate_debts: Mutex::default(),
            frame_memory: Mutex::default(),
            over_budget: AtomicUsize::new(0),
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

    /// Whether a line of the log about a source may appear.
    pub(crate) fn admits(&self, category: LogCategory, source: Source) -> bool {
        self.log_throttle.admit(category, source, Instant::now())
    }

    /// Tells of a connection that was evicted before its session began. No event: whoever connects often enough
    /// causes as many.
    pub(crate) fn log_eviction(&self, (key, source): (Source, Option<&str>), why: &str) {
        self.counts.refused_connections.fetch_add(1, Ordering::Relaxed);
        if self.admits(LogCategory::Evicted, key) {
            tracing::info!(source, "connection ended: {why}");
        } else {
            tracing::debug!(source, "connection ended: {why}");
        }
    }

    /// Tells of a connection that was refused before it could say anything.
    pub(crate) fn reject(&self, (key, source): (Source, Option<&str>), category: LogCategory, why: &str) {
        self.counts.refused_connections.fetch_add(1, Ordering::Relaxed);
        if self.admits(category, key) {
            tracing::warn!(source, "connection refused: {why}");
        } else {
            tracing::debug!(source, "connection refused: {why}");
        }
        let from = source.unwrap_or(self.transport.kind());
        self.host.emit(&Event::now(EventKind::ConnectionRefused, from, why));
    }

    /// Says how many lines were not shown.
    pub(crate) fn log_suppressed(&self, now: Instant) {
        for SuppressedLines { category, count, sources, most } in self.log_throttle.take_suppressed(now) {
            let (noisiest, its_count) = most.map(|(source, count)| (source.to_string(), count)).unzip();
            tracing::warn!(
                count,
                sources,
                noisiest,
                its_count,
                "more {} in the last minute, not shown (shown with --log debug)",
                category.plural()
            );
        }
    }

    /// How often the keeper has looked.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Whether the frame of a connection may be received although the budget of the broker is used up: one at a time may,
    /// so that frames get complete and memory is freed; the next one only when the previous one has left the queues.
    pub(crate) fn try_exceed_budget(&self, connection: &Arc<Connection>) -> bool {
        let address = Arc::as_ptr(connection).addr();
        self.budget.queues_are_nearly_empty()
            && self.over_budget.compare_exchange(0, address, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The frame of [`try_exceed_budget`](Self::try_exceed_budget) is complete, or its connection has ended.
    pub(crate) fn end_exceeding(&self, connection: &Arc<Connection>) {
        let address = Arc::as_ptr(connection).addr();
        let _ = self.over_budget.compare_exchange(address, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Ends the connection that holds the most memory for long frames, to make room for another one, unless that is it itself.
    pub(crate) fn free_memory_for(&self, asking: &Arc<Connection>) {
        let largest = self.frame_memory.lock().take_largest_user(asking);
        if let Some((connection, bytes)) = largest {
            connection.close(CloseReason::MadeRoom { bytes });
        }
    }

    /// The connections of this moment.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.table.lock().entries.iter().map(|(_, entry)| entry.connection.clone()).collect()
    }
}
