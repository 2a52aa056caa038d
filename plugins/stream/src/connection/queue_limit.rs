//! The limit of a connection's queue: the client's own, or its share of the broker's budget. Owns what the
//! queue counts for in the budget and in the frame memory.

use std::sync::Arc;

use crate::{
    connection::{Connection, SendState, overdraft::Overdrawn, waiter::Side},
    session::reader::RUN_BYTES,
};

/// Limit of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueLimit {
    pub(crate) bytes: usize,
    /// It is a share of the broker's budget.
    pub(crate) shared: bool,
}

impl Connection {
    /// Returns whether so much is queued that the client must not be read.
    #[inline]
    pub(crate) fn is_over_limit(&self) -> bool {
        self.is_blocked() && {
            let out = self.lock();
            out.queue.bytes() > self.limit(&out, Side::Own).bytes
        }
    }

    /// Returns the current limit of the queue: the client's own, or its share of the broker's budget while
    /// that is half used and the queue is one of those that use it.
    #[inline]
    pub(crate) fn limit(&self, out: &SendState, side: Side) -> QueueLimit {
        let own = QueueLimit { bytes: self.limits.queue_bytes(), shared: false };
        if out.is_blocked() { self.shared_limit(own, out.overdrawn(), side) } else { own }
    }

    /// Only the first half of the budget can be overdrawn.
    fn shared_limit(&self, own: QueueLimit, overdrawn: Option<&Overdrawn>, side: Side) -> QueueLimit {
        match self.server.budget.fair_share() {
            Some(share) if share < own.bytes => QueueLimit { bytes: share, shared: true },
            Some(_) => own,
            None => {
                let beyond = overdrawn.map_or(0, |overdrawn| overdrawn.bytes(side));
                QueueLimit { bytes: own.bytes.saturating_add(beyond), shared: false }
            }
        }
    }

    /// Counts the memory of the queue in the broker's budget while the socket is full.
    #[inline]
    pub(crate) fn account(self: &Arc<Self>, out: &mut SendState) {
        if out.is_blocked() || out.accounted > 0 {
            let memory = if out.is_blocked() { out.queue.memory() } else { 0 };
            self.server.budget.account(&mut out.accounted, memory);
            let is_large = memory > 0 && out.queue.bytes() > self.most_queued(out);
            if is_large || out.is_recorded {
                self.set_queued(out, is_large);
            }
        }
    }

    /// Returns the bytes that are exceeded only by a large frame that was appended while there was room.
    #[inline]
    fn most_queued(&self, out: &SendState) -> usize {
        let beyond = out.overdrawn().map_or(0, |overdrawn| overdrawn.bytes(Side::Own));
        self.limits.queue_bytes().saturating_add(beyond).saturating_add(RUN_BYTES)
    }

    #[cold]
    fn set_queued(self: &Arc<Self>, out: &mut SendState, is_large: bool) {
        out.is_recorded = is_large;
        let bytes = if is_large { out.queue.bytes() } else { 0 };
        self.server.frame_memory.lock().set_queued(self, bytes);
    }

    /// Waiting senders resume at or below this.
    #[inline]
    pub(super) fn resume_bytes(&self, out: &SendState) -> usize {
        let own = QueueLimit { bytes: self.limits.queue_bytes(), shared: false };
        let limit = if out.is_blocked() { self.shared_limit(own, None, Side::Senders) } else { own };
        limit.bytes / 4
    }
}
