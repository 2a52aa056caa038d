//! State shared by all connections of an instance. Owns the counters that `status` returns.

use elbus_plugin_api::{Event, EventKind, Host, QueueBudget};
use parking_lot::{Condvar, Mutex};
use std::{
    sync::{
        Arc, Weak,
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
        log_throttle::{LogCategory, SourceLogThrottle, SuppressedLines},
        rate_debts::RateDebts,
        registration_queue::RegistrationQueue,
        ring_quota::RingQuota,
        source::Source,
        transport::Transport,
    },
    settings::StreamSettings,
};

/// State shared by all connections of an instance.
pub(crate) struct ServerState {
    pub(crate) host: Host,
    pub(crate) settings: StreamSettings,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) runtime: Handle,
    /// Set once by `stop`: no connection is accepted or read from afterwards.
    pub(crate) stopping: AtomicBool,
    /// Ticks of housekeeping so far: a coarse clock.
    pub(crate) ticks: AtomicU64,
    /// A socket has become full since housekeeping last found none full.
    pub(crate) any_blocked: AtomicBool,
    /// All connections. Lock order: this, then [`Connection`]'s own.
    pub(crate) table: Mutex<ConnectionTable>,
    /// Notified when a connection or task has left the table: for threads, and for tasks.
    pub(crate) left: Condvar,
    pub(crate) departures: Notify,
    pub(crate) counts: Counts,
    pub(crate) log_throttle: SourceLogThrottle,
    /// Rate debts of clients that have left. Held briefly, with no other lock.
    pub(crate) rate_debts: Mutex<RateDebts>,
    /// Connections with acknowledgements that wait for their codes. Held briefly, with no other lock.
    pub(crate) acknowledging: Mutex<Vec<Weak<Connection>>>,
    /// Memory held for large frames. Held briefly; taken after a connection's lock.
    pub(crate) frame_memory: Mutex<FrameMemory>,
    /// Slots of connections that have not registered yet.
    pub(crate) pending: FairSlots,
    /// Limits the rate of registrations.
    pub(crate) turns: Option<Arc<RegistrationQueue>>,
    /// Rings of shared memory, if the transport has them.
    pub(crate) rings: Option<Arc<RingQuota>>,
    /// Limit of all queues of the broker together.
    pub(crate) budget: QueueBudget,
    /// Address of the connection whose frame is received although the budget is used up; 0 if there is none.
    over_budget: AtomicUsize,
}

/// Counters since the start.
#[derive(Default)]
pub(crate) struct Counts {
    /// Clients disconnected for taking nothing or too little.
    pub(crate) slow_consumers: AtomicU64,
    /// Runs of messages refused because a queue was full.
    pub(crate) refused_runs: AtomicU64,
    /// Connections refused before they could send anything.
    pub(crate) refused_connections: AtomicU64,
    /// Connections that have ended for a reason of a category, refused ones included.
    categories: [AtomicU64; LogCategory::ALL.len()],
}

impl Counts {
    /// Counts a connection that has ended.
    pub(crate) fn ended(&self, category: LogCategory) {
        if let Some(count) = self.categories.get(category as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of connections that have ended, by category.
    pub(crate) fn categories(&self) -> impl Iterator<Item = (LogCategory, u64)> {
        let counts = self.categories.iter().map(|count| count.load(Ordering::Relaxed));
        LogCategory::ALL.into_iter().zip(counts)
    }
}

impl ServerState {
    pub(crate) fn new(
        host: Host,
        settings: StreamSettings,
        transport: impl Transport,
        runtime: Handle,
    ) -> Arc<Self> {
        let turns = settings.connects_per_second.get();
        let turns = turns.map(|rate| RegistrationQueue::new(rate, settings.pending(), Instant::now()));
        let limit = settings.max_clients;
        let clients =
            (!limit.is_none()).then(|| ClientQuota::new(limit.as_usize(), settings.max_source_share));
        let rings = transport.rings().map(|limits| RingQuota::new(limits, settings.max_source_share));
        Arc::new(ServerState {
            rings,
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
            log_throttle: SourceLogThrottle::default(),
            turns,
            rate_debts: Mutex::default(),
            acknowledging: Mutex::default(),
            frame_memory: Mutex::default(),
            over_budget: AtomicUsize::new(0),
        })
    }

    /// Spawns a task whose log lines name this instance.
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

    /// Returns whether a log line about a source is within its limit.
    pub(crate) fn admits(&self, category: LogCategory, source: Source) -> bool {
        self.log_throttle.admit(category, source, Instant::now())
    }

    /// Logs that a connection was evicted before its session began. Emits no event: a peer can cause any
    /// number of these.
    pub(crate) fn log_eviction(&self, (key, source): (Source, Option<&str>), why: &str) {
        self.counts.refused_connections.fetch_add(1, Ordering::Relaxed);
        self.counts.ended(LogCategory::Evicted);
        if self.admits(LogCategory::Evicted, key) {
            tracing::info!(source, reason = %why, "connection ended");
        } else {
            tracing::debug!(source, reason = %why, "connection ended");
        }
    }

    /// Logs and counts a connection that was refused before it could send anything.
    pub(crate) fn reject(&self, (key, source): (Source, Option<&str>), category: LogCategory, why: &str) {
        self.counts.refused_connections.fetch_add(1, Ordering::Relaxed);
        self.counts.ended(category);
        if self.admits(category, key) {
            tracing::warn!(source, reason = %why, "connection refused");
        } else {
            tracing::debug!(source, reason = %why, "connection refused");
        }
        let from = source.unwrap_or(self.transport.kind());
        self.host.emit(&Event::now(EventKind::ConnectionRefused, from, why));
    }

    /// Logs how many lines were suppressed.
    pub(crate) fn log_suppressed(&self, now: Instant) {
        for SuppressedLines { category, count, sources, most } in self.log_throttle.take_suppressed(now) {
            let (noisiest, its_count) = most.map(|(source, count)| (source.to_string(), count)).unzip();
            tracing::warn!(
                category = category.plural(),
                count,
                sources,
                noisiest,
                its_count,
                "log lines of the last minute are not shown (shown with --log debug)"
            );
        }
    }

    /// Returns the number of the current tick.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Returns whether a connection can receive the rest of its frame although the budget is used up. One at
    /// a time can, so that frames complete and memory is freed; the next one only when the previous frame has
    /// left the queues.
    pub(crate) fn try_exceed_budget(&self, connection: &Arc<Connection>) -> bool {
        let address = Arc::as_ptr(connection).addr();
        self.budget.queues_are_nearly_empty()
            && self.over_budget.compare_exchange(0, address, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Releases [`try_exceed_budget`](Self::try_exceed_budget): the frame is complete, or its connection has
    /// closed.
    pub(crate) fn end_exceeding(&self, connection: &Arc<Connection>) {
        let address = Arc::as_ptr(connection).addr();
        let _ = self.over_budget.compare_exchange(address, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Closes the connection that holds the most memory for large frames, unless that is `asking`.
    pub(crate) fn free_memory_for(&self, asking: &Arc<Connection>) {
        let largest = self.frame_memory.lock().take_largest_user(asking);
        if let Some((connection, bytes)) = largest {
            connection.close(CloseReason::MadeRoom { bytes });
        }
    }

    /// Returns the current connections.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.table.lock().entries.iter().map(|(_, entry)| entry.connection.clone()).collect()
    }
}
