//! State of a connection that is not registered yet: its slot, its turn, and the previous owner of its name.
//! Owns the transitions; a registered connection has released all of it.

use tokio::sync::oneshot;

use crate::server::{
    connection_table::DepartingClient, fair_slots::Slot, ring_quota::RingPermit, source::Source,
    state::ServerState,
};

/// A connection that is not registered yet.
pub(crate) struct Unregistered {
    slot: Slot,
    source: Source,
    /// In the connection table.
    key: usize,
    /// It has had its turn or is queued.
    is_queued: bool,
    /// Completes when it is its turn.
    pub(crate) turn: Option<oneshot::Receiver<()>>,
    /// The client whose name it waits for.
    pub(crate) previous_owner: Option<DepartingClient>,
    /// Whether it has asked for rings.
    pub(crate) wants_rings: bool,
    /// The right to have them, until they are made.
    pub(crate) ring_permit: Option<RingPermit>,
}

impl Unregistered {
    /// Boxed, since few connections have one and all would have room for it.
    pub(crate) fn new(slot: Slot, source: Source, key: usize, is_queued: bool) -> Box<Self> {
        Box::new(Unregistered {
            slot,
            source,
            key,
            is_queued,
            turn: None,
            previous_owner: None,
            wants_rings: false,
            ring_permit: None,
        })
    }

    /// Marks that the peer has sent its greeting; returns whether the connection must wait for its turn.
    pub(crate) fn has_greeted(&mut self, server: &ServerState) -> bool {
        self.slot.mark_active();
        if !std::mem::replace(&mut self.is_queued, true)
            && let Some(turns) = &server.turns
        {
            self.turn = turns.enqueue(self.source, &server.runtime);
        }
        self.turn.is_some()
    }

    /// Claims rings of a size class; `false` if there are none left.
    pub(crate) fn claim_rings(&mut self, server: &ServerState, class: u8) -> bool {
        self.wants_rings = true;
        self.ring_permit = server.rings.as_ref().and_then(|rings| rings.claim(self.source, class));
        self.ring_permit.is_some()
    }

    /// Returns whether it waits for anything but its peer.
    pub(crate) fn waits(&self) -> bool {
        self.turn.is_some() || self.previous_owner.is_some()
    }

    /// Replaces what is done on eviction.
    pub(crate) fn on_eviction(&self, evict: impl FnOnce() + Send + 'static) {
        self.slot.on_eviction(evict);
    }

    /// Counts it as a registered client; the error is the limit that is reached.
    pub(crate) fn claim(&self, server: &ServerState) -> Result<(), usize> {
        server.claim(self.source, self.key)
    }

    /// Reverts [`claim`](Self::claim).
    pub(crate) fn release(&self, server: &ServerState) {
        server.release(self.source, self.key);
    }
}
