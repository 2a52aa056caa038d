//! A running instance of a stream transport: start, serve, stop. Owns the order of these and their waiting, which is
//! done without a runtime, since any thread may call.

use elbus_plugin_api::{Host, PluginError, Status};
use elbus_socket::Socket;
use parking_lot::Mutex;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::task::AbortHandle;

use crate::{
    Listener, StreamSettings, Transport,
    instance::Instance,
    keeper,
    listener::{Entrance, accept},
    reason::Reason,
    runtime::Runtime,
};

/// While queues drain, they are looked at this often.
const DRAIN_STEP: Duration = Duration::from_millis(2);

/// What a stream transport is once its sockets are bound. Stops when it is dropped.
pub struct Server {
    instance: Arc<Instance>,
    /// Empty from `stop` on.
    entrances: Mutex<Vec<Arc<Entrance>>>,
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
        let (mut entrances, mut addresses) = (vec![], vec![]);
        for Listener { socket, port, address, inherited } in listeners {
            let socket = Socket::new(socket).map_err(|error| failed("wait for connections", error))?;
            entrances.push(Arc::new(Entrance::new(socket, port, inherited)));
            addresses.push(address);
        }
        drop(within);
        let handle = runtime.handle().clone();
        host.watch_worker("runtime", move |answer| drop(handle.spawn(async move { answer.notify() })));
        let instance = Instance::new(host, settings, transport, runtime.handle().clone());
        Ok(Server {
            instance,
            entrances: Mutex::new(entrances),
            addresses,
            tasks: Mutex::default(),
            acceptors: Mutex::default(),
            runtime: Mutex::new(Some(runtime)),
        })
    }

    /// Accepts from now on.
    pub fn serve(&self) {
        let instance = &self.instance;
        let mut tasks = self.tasks.lock();
        if instance.is_stopping() || !tasks.is_empty() {
            return;
        }
        tasks.push(instance.spawn(keeper::keep(instance.clone())).abort_handle());
        for entrance in &*self.entrances.lock() {
            tasks.push(self.accept_at(entrance));
        }
    }

    fn accept_at(&self, entrance: &Arc<Entrance>) -> AbortHandle {
        let instance = &self.instance;
        instance.census.lock().listeners += 1;
        let task = instance.spawn(accept(instance.clone(), entrance.clone())).abort_handle();
        if entrance.inherited {
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
        let within = self.instance.runtime.enter();
        let socket = Socket::new(socket).map_err(failed)?;
        drop(within);
        let entrance = Arc::new(Entrance::new(socket, port, inherited));
        let mut tasks = self.tasks.lock();
        let mut entrances = self.entrances.lock();
        if self.instance.is_stopping() {
            return Ok(());
        }
        if let Some(previous) = entrances.iter_mut().find(|previous| previous.port == entrance.port) {
            previous.replace();
            *previous = entrance.clone();
        } else {
            entrances.push(entrance.clone());
        }
        tasks.retain(|task| !task.is_finished());
        if !tasks.is_empty() {
            tasks.push(self.accept_at(&entrance));
        }
        Ok(())
    }

    /// Where it is reached, and how it is.
    pub fn status(&self) -> Status {
        let counts = &self.instance.counts;
        let detail = format!(
            "{} connections, {} not registered yet, {} slow consumers disconnected, {} runs of messages refused by full queues, \
             {} connections refused",
            self.instance.census.lock().connections.len(),
            self.instance.pending.taken(),
            counts.slow.load(Ordering::Relaxed),
            counts.refused.load(Ordering::Relaxed),
            counts.turned_away.load(Ordering::Relaxed),
        );
        Status { addresses: self.addresses.clone(), detail }
    }

    /// Accepts and reads no more, lets queues drain, closes all, and waits for their ends; `deadline` is for all of
    /// that. Later calls do nothing.
    pub fn stop(&self, deadline: Duration) {
        let start = Instant::now();
        if self.instance.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        for entrance in std::mem::take(&mut *self.entrances.lock()) {
            if !entrance.inherited {
                entrance.socket.shutdown();
            }
        }
        // they would wait on: what comes now is for whoever accepts next
        self.acceptors.lock().drain(..).for_each(|acceptor| acceptor.abort());
        // the last part of the time is for the ends of the connections
        self.drain_until(start + deadline * 4 / 5);
        for connection in self.instance.connections() {
            connection.close(Reason::Stopping);
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
        let mut waiting = self.instance.connections();
        loop {
            waiting.retain(|connection| !connection.drained());
            if waiting.is_empty() || Instant::now() >= end {
                return;
            }
            let mut census = self.instance.census.lock();
            self.instance.left.wait_for(&mut census, DRAIN_STEP);
        }
    }

    fn wait_for_ends(&self, end: Instant) {
        let mut census = self.instance.census.lock();
        while !census.connections.is_empty() || census.listeners > 0 || census.attendants > 0 {
            if self.instance.left.wait_until(&mut census, end).timed_out() {
                let left = census.connections.len();
                drop(census);
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
