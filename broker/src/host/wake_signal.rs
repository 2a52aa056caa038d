//! A signal that wakes one waiting thread. A signal without a waiting thread is kept.

use parking_lot::{Condvar, Mutex};
use std::time::Instant;

/// A signal that is set or not.
#[derive(Default)]
pub(crate) struct WakeSignal {
    signalled: Mutex<bool>,
    changed: Condvar,
}

impl WakeSignal {
    /// Wakes the waiting thread, or the next thread that waits.
    pub(crate) fn signal(&self) {
        *self.signalled.lock() = true;
        self.changed.notify_all();
    }

    /// Waits for the signal, at most until `end` if given.
    pub(crate) fn wait(&self, end: Option<Instant>) {
        let mut signalled = self.signalled.lock();
        while !*signalled {
            match end {
                None => self.changed.wait(&mut signalled),
                Some(end) if self.changed.wait_until(&mut signalled, end).timed_out() => break,
                Some(_) => {}
            }
        }
        *signalled = false;
    }
}
