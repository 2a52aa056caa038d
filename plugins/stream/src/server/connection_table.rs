//! The connections and tasks of an instance. Owns the entries; the lock around them belongs to the
//! [state](super::state).

use slab::Slab;
use std::{pin::pin, sync::Arc};

use crate::{
    connection::Connection,
    connection::close_reason::CloseReason,
    connection::liveness::Phase,
    server::client_quota::{Claim, ClientQuota},
    server::source::Source,
    server::state::ServerState,
};

/// Connections, and the number of tasks that `stop` waits for.
#[derive(Default)]
pub(crate) struct ConnectionTable {
    pub(crate) entries: Slab<Entry>,
    /// Registered clients, if their number is limited.
    pub(crate) clients: Option<ClientQuota>,
    pub(crate) listeners: usize,
    /// Tasks beside the sessions, such as TLS.
    pub(crate) helper_tasks: usize,
}

/// A connection, and the ticks at which housekeeping has to act. Until then housekeeping only iterates over
/// the entry.
pub(crate) struct Entry {
    pub(crate) connection: Arc<Connection>,
    /// Tick of the next check.
    pub(crate) next_check: u64,
    /// Tick of the next keep-alive; 0 until housekeeping has seen the client registered.
    pub(crate) next_nop: u64,
}

/// A client that has closed its connection and is still in the table. Keeps the connection, so that its key
/// is not reused for comparison.
pub(crate) struct DepartingClient {
    key: usize,
    connection: Arc<Connection>,
}

impl ServerState {
    /// Adds a connection; `None` if the instance is stopping.
    pub(crate) fn insert(&self, connection: &Arc<Connection>) -> Option<usize> {
        let mut table = self.table.lock();
        // within the lock: `stop` sets the flag first and then sees every entry
        if self.is_stopping() {
            return None;
        }
        connection.liveness.step(Phase::Greeting, self.now());
        let entry = Entry { connection: connection.clone(), next_check: 0, next_nop: 0 };
        Some(table.entries.insert(entry))
    }

    /// Counts a connection as a registered client. The error is the limit that is reached.
    pub(crate) fn claim(&self, source: Source, key: usize) -> Result<(), usize> {
        let mut table = self.table.lock();
        let ConnectionTable { clients: Some(clients), entries, .. } = &mut *table else { return Ok(()) };
        let limit = clients.limit();
        let victim = match clients.claim(source, key) {
            Claim::Granted => return Ok(()),
            Claim::Full => return Err(limit),
            Claim::Evicting(victim) => entries.get(victim).map(|entry| entry.connection.clone()),
        };
        drop(table);
        if let Some(victim) = victim {
            victim.close(CloseReason::OverShare { limit, share: self.settings.max_source_share });
        }
        Ok(())
    }

    /// Reverts [`claim`](Self::claim).
    pub(crate) fn release(&self, source: Source, key: usize) {
        if let Some(clients) = &mut self.table.lock().clients {
            clients.release(source, key);
        }
    }

    /// Removes a connection; `client_of` is the source if it was a registered client.
    pub(crate) fn remove(&self, key: usize, client_of: Option<Source>) {
        let mut table = self.table.lock();
        if let (Some(clients), Some(source)) = (&mut table.clients, client_of) {
            clients.release(source, key);
        }
        let gone = table.entries.try_remove(key);
        drop(table);
        self.left.notify_all();
        self.departures.notify_waiters();
        drop(gone);
    }

    /// Finds the client of a name that has closed its connection while its last messages are still being
    /// read.
    pub(crate) fn find_departing(&self, name: &str) -> Option<DepartingClient> {
        let table = self.table.lock();
        let (key, entry) = table.entries.iter().find(|(_, entry)| {
            let connection = &entry.connection;
            connection.name() == name && connection.is_registered() && connection.peer_has_closed()
        })?;
        Some(DepartingClient { key, connection: entry.connection.clone() })
    }

    /// Waits until a departing client has left.
    pub(crate) async fn wait_for_departure(&self, departing: &DepartingClient) {
        loop {
            let mut next = pin!(self.departures.notified());
            next.as_mut().enable(); // before the look, so that none is missed
            if !self.contains(departing) {
                return;
            }
            next.await;
        }
    }

    fn contains(&self, departing: &DepartingClient) -> bool {
        let table = self.table.lock();
        let entry = table.entries.get(departing.key);
        entry.is_some_and(|entry| Arc::ptr_eq(&entry.connection, &departing.connection))
    }
}
