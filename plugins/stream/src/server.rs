//! A running instance of a stream transport: start, serve, stop. Owns the order of these and their waiting, which is
//! done without a runtime, since any thread may call.

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
pub(crate) mod runtime;
pub(crate) mod source;
pub(crate) mod state;
pub(crate) mod transport;

use elbus_plugin_api::{Host, PluginError, Status};
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

/// While queues drain, they are looked at this often.
const DRAIN_STEP: Duration = Duration::from_millis(2);

/// What a stream transport is once its sockets are bound. Stops when it is dropped.
pub struct Server {
    state: Arc<ServerState>,
    /// Empty from `stop` on.
    listeners: Mutex<Vec<Arc<BoundListener>>>,
    addresses: Vec<String>,
    /// The keeper, and the accepting tasks. Lock order: this, then the entrances, then the census.
    tasks: Mutex<Vec<AbortHandle>>,
    /// The accepting tasks of sockets that are not shut down.
    acceptors: Mutex<Vec<AbortHandle>>,
    runtime: Mutex<Option<Runtime>>,
}

impl Server {
    /// Takes bound sockets over; accepts nobody yet. Runs on the runtime the calling thread is in, else on its own.
    ///
    /// # Errors
    /// Where the runtime or a registration with it cannot be had.
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

    /// Accepts from now on.
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

    /// Accepts at this socket instead of the one at the same address, which nobody can reach any more. Connections go on.
    ///
    /// # Errors
    /// The socket cannot be registered with the runtime; then nothing has changed.
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

    /// Where it is reached, and how it is.
    pub fn status(&self) -> Status {
        let counts = &self.state.counts;
        let detail = format!(
            "{} connections, {} not registered yet, {} slow consumers disconnected, {} runs of messages refused by full queues, \
             {} connections refused",
            self.state.table.lock().entries.len(),
            self.state.pending.in_use(),
            counts.slow.load(Ordering::Relaxed),
            counts.refused.load(Ordering::Relaxed),
            counts.refused_connections.load(Ordering::Relaxed),
        );
        Status { addresses: self.addresses.clone(), detail }
    }

    /// Accepts and reads no more, lets queues drain, closes all, and waits for their ends; `deadline` is for all of
    /// that. Later calls do nothing.
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
        // they would wait on: what comes now is for whoever accepts next
        self.acceptors.lock().drain(..).for_each(|acceptor| acceptor.abort());
        // the last part of the time is for the ends of the connections
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

    /// Sends here what the tasks do not: the calling thread may be the one they would need.
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
