//! The groups of clients that exchange messages. Owns their members; forwards nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use super::peer::Peer;
use crate::names::Side;

/// The clients on one side of a group.
pub(super) type Members = Arc<RwLock<Vec<Arc<Peer>>>>;

/// All groups. Empty groups are kept: there is one per run and pair.
#[derive(Default)]
pub(super) struct Groups(Mutex<HashMap<String, [Members; 2]>>);

impl Groups {
    /// Adds a client to its side and returns the members of the other side.
    pub(super) fn join(&self, group: &str, side: Side, peer: &Arc<Peer>) -> Members {
        let [own, others] = self.sides(group, side);
        own.write().unwrap_or_else(PoisonError::into_inner).push(peer.clone());
        others
    }

    pub(super) fn leave(&self, group: &str, side: Side, peer: &Arc<Peer>) {
        let [own, _] = self.sides(group, side);
        own.write().unwrap_or_else(PoisonError::into_inner).retain(|other| !Arc::ptr_eq(other, peer));
    }

    fn sides(&self, group: &str, own: Side) -> [Members; 2] {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [senders, receivers] = groups.entry(group.to_owned()).or_default().clone();
        if own == Side::Sender { [senders, receivers] } else { [receivers, senders] }
    }
}
