//! A signal that wakes one waiting thread. A signal that arrives while no thread waits is kept.

use parking_lot::{Condvar, Mutex};
use std::time::Instant;

/// The signal.
#[derive(Default)]
pub(crate) struct WakeSignal {
    signalled: Mutex<bool>,
    changed: Condvar,
}

impl WakeSignal {
    /// Wakes the waiting thread, or the next one that waits.
    pub(crate) fn signal(&self) {
        *self.signalled.lock() = true;
        self.changed.notify_all();
    }

    /// Waits for the signal, until `end` at most if there is one.
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
