//! A running stream transport: starts, serves and stops. Waits without a runtime, since any thread can call
//! `stop`.

pub(crate) mod client_quota;
pub(crate) mod connection_table;
pub(crate) mod driver_watch;
pub(crate) mod fair_slots;
pub(crate) mod frame_memory;
pub(crate) mod housekeeping;
pub(crate) mod listener;
pub(crate) mod log_throttle;
pub(crate) mod peer_info;
pub(crate) mod rate_debts;
pub(crate) mod registration_queue;
pub(crate) mod ring_quota;
pub(crate) mod runtime;
pub(crate) mod source;
pub(crate) mod state;
pub(crate) mod transport;

use elbus_plugin_api::{Figure, Host, PluginError, Status};
use elbus_socket::Socket;
use parking_lot::Mutex;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::task::AbortHandle;

use crate::{
    connection::close_reason::CloseReason,
    server::{
        listener::{BoundListener, Listener, accept},
        runtime::Runtime,
        state::ServerState,
        transport::Transport,
    },
    settings::StreamSettings,
};

/// Time between two checks of queues that are draining.
const DRAIN_STEP: Duration = Duration::from_millis(2);

/// A stream transport with bound sockets. Stops when it is dropped.
pub struct Server {
    state: Arc<ServerState>,
    /// Empty after `stop`.
    listeners: Mutex<Vec<Arc<BoundListener>>>,
    addresses: Vec<String>,
    /// Housekeeping and the accepting tasks. Lock order: this, then the listeners, then the connection table.
    tasks: Mutex<Vec<AbortHandle>>,
    /// The accepting tasks of inherited sockets, which are not shut down.
    acceptors: Mutex<Vec<AbortHandle>>,
    runtime: Mutex<Option<Runtime>>,
}

impl Server {
    /// Takes ownership of bound sockets without accepting yet. Uses the calling thread's tokio runtime if
    /// there is one, else its own.
    ///
    /// # Errors
    /// The runtime cannot be created, or a socket cannot be registered with it.
    pub fn start(
        host: Host,
        settings: StreamSettings,
        transport: impl Transport,
        listeners: Vec<Listener>,
    ) -> Result<Self, PluginError> {
        let failed = |what, error| PluginError::new(format!("cannot {what}: {error}"));
        let runtime = Runtime::obtain(host.instance(), settings.workers)
            .map_err(|error| failed("start a runtime (workers)", error))?;
        let within = runtime.handle().enter();
        let (mut bound, mut addresses) = (vec![], vec![]);
        for Listener { socket, port, address, inherited } in listeners {
            let socket = Socket::new(socket).map_err(|error| failed("wait for connections", error))?;
            bound.push(Arc::new(BoundListener::new(socket, port, inherited)));
            addresses.push(address);
        }
        drop(within);
        let handle = runtime.handle().clone();
        host.watch_worker("runtime", move |answer| drop(handle.spawn(async move { answer.notify() })));
        let state = ServerState::new(host, settings, transport, runtime.handle().clone());
        Ok(Server {
            state,
            listeners: Mutex::new(bound),
            addresses,
            tasks: Mutex::default(),
            acceptors: Mutex::default(),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    /// Starts accepting connections.
    pub fn serve(&self) {
        let state = &self.state;
        let mut tasks = self.tasks.lock();
        if state.is_stopping() || !tasks.is_empty() {
            return;
        }
        tasks.push(state.spawn(housekeeping::run(state.clone())).abort_handle());
        for listener in &*self.listeners.lock() {
            tasks.push(self.accept_at(listener));
        }
    }

    fn accept_at(&self, listener: &Arc<BoundListener>) -> AbortHandle {
        let state = &self.state;
        state.table.lock().listeners += 1;
        let task = state.spawn(accept(state.clone(), listener.clone())).abort_handle();
        if listener.inherited {
            self.acceptors.lock().push(task.clone());
        }
        task
    }

    /// Replaces the socket at the same address, which clients can no longer reach. Connections are kept.
    ///
    /// # Errors
    /// The socket cannot be registered with the runtime; nothing has changed then.
    pub fn rebind(&self, listener: Listener) -> Result<(), PluginError> {
        let failed = |error| PluginError::new(format!("cannot wait for connections: {error}"));
        let Listener { socket, port, inherited, .. } = listener;
        let within = self.state.runtime.enter();
        let socket = Socket::new(socket).map_err(failed)?;
        drop(within);
        let listener = Arc::new(BoundListener::new(socket, port, inherited));
        let mut tasks = self.tasks.lock();
        let mut listeners = self.listeners.lock();
        if self.state.is_stopping() {
            return Ok(());
        }
        if let Some(previous) = listeners.iter_mut().find(|previous| previous.port == listener.port) {
            previous.replace();
            *previous = listener.clone();
        } else {
            listeners.push(listener.clone());
        }
        tasks.retain(|task| !task.is_finished());
        if !tasks.is_empty() {
            tasks.push(self.accept_at(&listener));
        }
        Ok(())
    }

    /// Returns the addresses and the counters.
    pub fn status(&self) -> Status {
        let counts = &self.state.counts;
        let rings = self.state.rings.as_ref().map(|rings| format!(", {} with rings", rings.in_use()));
        let detail = format!(
            "{} connections{}, {} not registered yet, {} slow consumers disconnected, {} runs of messages refused by full queues, \
             {} connections refused",
            self.state.table.lock().entries.len(),
            rings.unwrap_or_default(),
            self.state.pending.in_use(),
            counts.slow_consumers.load(Ordering::Relaxed),
            counts.refused_runs.load(Ordering::Relaxed),
            counts.refused_connections.load(Ordering::Relaxed),
        );
        Status::new(self.addresses.clone(), detail)
    }

    /// Returns the counters and gauges.
    pub fn figures(&self) -> Vec<Figure> {
        let counts = &self.state.counts;
        let (open, pending) = (self.state.table.lock().entries.len(), self.state.pending.in_use());
        let mut figures = vec![
            Figure::gauge("connections", open as f64),
            Figure::gauge("pending_connections", pending as f64),
        ];
        let rejected = counts.categories();
        let rejected =
            rejected.map(|(of, count)| Figure::counter("rejected_connections", count as f64).of(of.key()));
        figures.extend(rejected);
        figures
    }

    /// Stops accepting and reading, drains queues, closes all connections and waits for their tasks, all
    /// until `deadline`. Later calls do nothing.
    pub fn stop(&self, deadline: Duration) {
        let start = Instant::now();
        if self.state.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        for listener in std::mem::take(&mut *self.listeners.lock()) {
            if !listener.inherited {
                listener.socket.shutdown();
            }
        }
        // they would not end by themselves: new connections belong to the process that accepts next
        self.acceptors.lock().drain(..).for_each(|acceptor| acceptor.abort());
        // the last fifth is for the ends of the connections
        self.drain_until(start + deadline * 4 / 5);
        for connection in self.state.connections() {
            connection.close(CloseReason::Stopping);
        }
        let runtime = self.runtime.lock().take();
        if !runtime.as_ref().is_some_and(Runtime::needs_this_thread) {
            self.wait_for_ends(start + deadline);
        }
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        drop(runtime);
    }

    /// Sends from the calling thread, since that can be the one that the tasks need.
    fn drain_until(&self, end: Instant) {
        let mut waiting = self.state.connections();
        loop {
            waiting.retain(|connection| !connection.drained());
            if waiting.is_empty() || Instant::now() >= end {
                return;
            }
            let mut table = self.state.table.lock();
            self.state.left.wait_for(&mut table, DRAIN_STEP);
        }
    }

    fn wait_for_ends(&self, end: Instant) {
        let mut table = self.state.table.lock();
        while !table.entries.is_empty() || table.listeners > 0 || table.helper_tasks > 0 {
            if self.state.left.wait_until(&mut table, end).timed_out() {
                let left = table.entries.len();
                drop(table);
                return tracing::debug!(left, "stopped without waiting for the ends of all connections");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}
