//! The registry of an instance's clients, and the work queue of the thread that watches them. Never accesses
//! the state of a client.

use elbus_plugin_api::Host;
use parking_lot::{Condvar, Mutex};
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use crate::settings::Limits;

/// The clients of an instance; `P` is the type of one.
pub(crate) struct Clients<P> {
    pub(crate) host: Host,
    pub(crate) limits: Limits,
    /// A leaf lock.
    pub(crate) state: Mutex<State<P>>,
    pub(crate) changed: Condvar,
}

pub(crate) struct State<P> {
    /// All clients, by their address in memory.
    clients: HashMap<usize, Weak<P>>,
    /// Clients that exceeded their limit since the watch thread last took this list.
    pub(crate) over_limit: Vec<Weak<P>>,
    /// Closed clients that the watch thread must unregister.
    pub(crate) disconnects: Vec<Disconnect<P>>,
    pub(crate) stopped: bool,
}

/// A closed client that must be unregistered.
pub(crate) struct Disconnect<P> {
    pub(crate) peer: Arc<P>,
    pub(crate) cause: Cause,
}

/// Why a client is disconnected.
pub(crate) enum Cause {
    /// The broker closed it for this reason.
    Broker(String),
    /// It received too slowly; this many bytes are queued.
    Slow { bytes: usize },
}

impl<P> State<P> {
    fn new(stopped: bool) -> Self {
        State { clients: HashMap::new(), over_limit: Vec::new(), disconnects: Vec::new(), stopped }
    }
}

impl<P> Clients<P> {
    pub(crate) fn new(host: Host, limits: Limits) -> Self {
        Clients { host, limits, state: Mutex::new(State::new(false)), changed: Condvar::new() }
    }

    /// Returns the number of clients.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().clients.len()
    }

    /// Adds a client; `false` if the instance has stopped.
    pub(crate) fn insert(&self, peer: &Arc<P>) -> bool {
        let mut state = self.state.lock();
        if !state.stopped {
            state.clients.insert(key(peer), Arc::downgrade(peer));
        }
        !state.stopped
    }

    /// Removes a client that its user has closed.
    pub(crate) fn remove(&self, peer: &Arc<P>) {
        self.state.lock().clients.remove(&key(peer));
    }

    /// Lets the watch thread watch a client that exceeds its limit.
    pub(crate) fn watch_over_limit(&self, peer: &Arc<P>) {
        self.update(|state| state.over_limit.push(Arc::downgrade(peer)));
    }

    /// Lets the watch thread unregister a closed client.
    pub(crate) fn disconnect(&self, peer: &Arc<P>, cause: Cause) {
        let disconnect = Disconnect { peer: peer.clone(), cause };
        self.update(|state| state.disconnects.push(disconnect));
    }

    fn update(&self, change: impl FnOnce(&mut State<P>)) {
        {
            let mut state = self.state.lock();
            if state.stopped {
                return; // `stop` has returned all clients to be closed
            }
            change(&mut state);
        }
        self.changed.notify_all();
    }

    /// Accepts no more clients, ends the watch thread, and returns all clients, which the caller must close.
    pub(crate) fn stop(&self) -> Vec<Arc<P>> {
        let state = std::mem::replace(&mut *self.state.lock(), State::new(true));
        self.changed.notify_all();
        state.clients.values().filter_map(Weak::upgrade).collect()
    }
}

fn key<P>(peer: &Arc<P>) -> usize {
    Arc::as_ptr(peer).addr()
}
