//! A bell: one thread waits for it, with a limit, whoever has news rings it. A ring that nobody waits for is kept.

use parking_lot::{Condvar, Mutex};
use std::time::Instant;

#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *self.rung.lock() = true;
        self.changed.notify_all();
    }

    /// Waits for a ring, until `end` at most where there is one.
    pub(super) fn wait(&self, end: Option<Instant>) {
        let mut rung = self.rung.lock();
        while !*rung {
            match end {
                None => self.changed.wait(&mut rung),
                Some(end) if self.changed.wait_until(&mut rung, end).timed_out() => break,
                Some(_) => {}
            }
        }
        *rung = false;
    }
}
