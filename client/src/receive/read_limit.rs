//! Limits how far the reader of a connection runs ahead of slow consumers. Owns the count of operations whose
//! outcome can be queued after frames that no consumer has taken yet; never a queue.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Factor by which an inbox can exceed its limit while an operation waits for its outcome.
pub(crate) const OVERCOMMIT_FACTOR: usize = 4;

/// Pauses the reader while inboxes are over their limits.
#[derive(Default)]
pub(crate) struct ReadLimit {
    operations_in_flight: AtomicUsize,
    changed: Notify,
}

impl ReadLimit {
    /// Counts an operation whose outcome arrives over the connection.
    #[inline]
    pub(crate) fn operation_started(&self) {
        if self.operations_in_flight.fetch_add(1, Ordering::AcqRel) == 0 {
            self.changed.notify_one();
        }
    }

    #[inline]
    pub(crate) fn operation_finished(&self) {
        self.operations_in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// Returns the factor by which inboxes can currently exceed their limits.
    pub(crate) fn factor(&self) -> usize {
        if self.operations_in_flight.load(Ordering::Acquire) > 0 { OVERCOMMIT_FACTOR } else { 1 }
    }

    /// Wakes the reader to check its inboxes again.
    #[inline]
    pub(crate) fn wake_reader(&self) {
        self.changed.notify_one();
    }

    /// Waits for a change since the last call. For one task, the reader.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
