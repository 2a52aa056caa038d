//! What all connections of an instance share. Owns who is connected, and the counts that status shows.

use elbus_plugin_api::Host;
use parking_lot::{Condvar, Mutex};
use slab::Slab;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::runtime::Handle;

use crate::{StreamSettings, Transport, connection::Connection, liveness::Watch};

/// What the connections of an instance share.
pub(crate) struct Instance {
    pub(crate) host: Host,
    pub(crate) settings: StreamSettings,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) runtime: Handle,
    /// Set once, by `stop`: nobody is accepted or read from any more.
    pub(crate) stopping: AtomicBool,
    /// Who is there. Lock order: this, then [`Connection`]'s own.
    pub(crate) census: Mutex<Census>,
    /// Somebody has left the census.
    pub(crate) left: Condvar,
    pub(crate) counts: Counts,
}

/// Connections, and accepting tasks.
#[derive(Default)]
pub(crate) struct Census {
    pub(crate) connections: Slab<Entry>,
    pub(crate) listeners: usize,
}

/// A connection, and what the keeper has seen of it.
pub(crate) struct Entry {
    pub(crate) connection: Arc<Connection>,
    pub(crate) watch: Watch,
    /// When the next keep-alive is due; set when the keeper first sees the client registered.
    pub(crate) next_nop: Option<Instant>,
}

/// Counts since the start.
#[derive(Default)]
pub(crate) struct Counts {
    /// Clients that were disconnected since they took nothing or too little.
    pub(crate) slow: AtomicU64,
    /// Runs of messages that were refused since a queue was full.
    pub(crate) refused: AtomicU64,
}

impl Instance {
    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Adds a connection, unless the instance is stopping.
    pub(crate) fn enter(&self, connection: &Arc<Connection>) -> Option<usize> {
        let mut census = self.census.lock();
        // within the lock: whoever enters is seen by `stop`, which sets the flag first
        if self.is_stopping() {
            return None;
        }
        let watch = Watch::new(Instant::now());
        Some(census.connections.insert(Entry { connection: connection.clone(), watch, next_nop: None }))
    }

    /// Takes a connection out.
    pub(crate) fn leave(&self, key: usize) {
        let gone = self.census.lock().connections.try_remove(key);
        self.left.notify_all();
        drop(gone);
    }

    /// The connections of this moment.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        self.census.lock().connections.iter().map(|(_, entry)| entry.connection.clone()).collect()
    }
}
