//! The resources that a broker uses at rest, and whether it has returned to them.

use super::{daemon::Daemon, wait_until};

/// Memory that may stay in use, in KiB: allocators keep some of it.
const STAYS: u64 = 6 * 1024;

/// The resources that a broker uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    /// Resident memory in KiB.
    pub(crate) memory: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Level {
    /// Measures a broker that has served clients: some memory is allocated with the first ones.
    pub(crate) fn of(daemon: &Daemon) -> Self {
        Level { memory: daemon.memory(), descriptors: daemon.descriptors(), threads: daemon.threads() }
    }

    /// Waits until the broker uses no more than this, with as many clients as at the measurement.
    pub(crate) fn wait_for(self, daemon: &Daemon) {
        wait_until(&format!("the descriptors of {self:?}"), || daemon.descriptors() <= self.descriptors);
        wait_until(&format!("the threads of {self:?}"), || daemon.threads() <= self.threads);
        wait_until(&format!("the memory of {self:?}"), || daemon.memory() <= self.memory + STAYS);
    }
}
