//! What holds the reader of a connection back while a consumer is slow. Owns the count of operations whose outcome may
//! stand behind frames that nobody has taken yet; never a queue.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// By how much the limit of an inbox may be passed while an operation waits for its outcome.
pub(crate) const PATIENCE: usize = 4;

/// See the module.
#[derive(Default)]
pub(crate) struct Gate {
    in_flight: AtomicUsize,
    opened: Notify,
}

impl Gate {
    /// An operation begins whose outcome arrives over the connection.
    #[inline]
    pub(crate) fn begin(&self) {
        if self.in_flight.fetch_add(1, Ordering::AcqRel) == 0 {
            self.opened.notify_one();
        }
    }

    /// It has ended.
    #[inline]
    pub(crate) fn finish(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// By how much limits may be passed now.
    pub(crate) fn patience(&self) -> usize {
        if self.in_flight.load(Ordering::Acquire) > 0 { PATIENCE } else { 1 }
    }

    /// Something may have changed.
    #[inline]
    pub(crate) fn open(&self) {
        self.opened.notify_one();
    }

    /// Waits until something may have changed since the last time. For one task, the reader.
    pub(crate) async fn opened(&self) {
        self.opened.notified().await;
    }
}
