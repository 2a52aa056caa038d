//! What a connection has until it is registered: its place among those that wait, and its turn. Owns the steps from
//! one to the other; a registered connection has given all of it back.

use tokio::sync::oneshot;

use crate::server::{
    connection_table::DepartingClient, fair_slots::Slot, source::Source, state::ServerState,
};

/// A connection that is not registered yet.
pub(crate) struct Unregistered {
    slot: Slot,
    source: Source,
    /// In the census.
    key: usize,
    /// It has had its turn, or has asked for it.
    is_queued: bool,
    /// It waits for its turn.
    pub(crate) turn: Option<oneshot::Receiver<()>>,
    /// It waits for the name of this one.
    pub(crate) previous_owner: Option<DepartingClient>,
}

impl Unregistered {
    /// Boxed, since every connection has room for it, and few have one.
    pub(crate) fn new(slot: Slot, source: Source, key: usize, is_queued: bool) -> Box<Self> {
        Box::new(Unregistered { slot, source, key, is_queued, turn: None, previous_owner: None })
    }

    /// The connection has greeted; whether it must wait for its turn.
    pub(crate) fn has_greeted(&mut self, server: &ServerState) -> bool {
        self.slot.mark_active();
        if !std::mem::replace(&mut self.is_queued, true)
            && let Some(turns) = &server.turns
        {
            self.turn = turns.ask(self.source, &server.runtime);
        }
        self.turn.is_some()
    }

    /// Whether it waits for something else than its peer.
    pub(crate) fn waits(&self) -> bool {
        self.turn.is_some() || self.previous_owner.is_some()
    }

    /// What to do when its place is needed, instead of what was to be done before.
    pub(crate) fn on_eviction(&self, evict: impl FnOnce() + Send + 'static) {
        self.slot.on_eviction(evict);
    }

    /// Counts it as a registered client; the error is the limit that is reached.
    pub(crate) fn claim(&self, server: &ServerState) -> Result<(), usize> {
        server.claim(self.source, self.key)
    }

    /// It is not registered after all.
    pub(crate) fn release(&self, server: &ServerState) {
        server.release(self.source, self.key);
    }
}
