//! What a broker uses at rest, and whether it is back there.

use super::{daemon::Daemon, wait_until};

/// What of memory may stay, in KiB: allocators keep some of what was needed once.
const STAYS: u64 = 6 * 1024;

/// What a broker uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    /// In KiB.
    pub(crate) memory: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Level {
    /// Once the broker has served somebody: from its first clients on it keeps what every broker needs.
    pub(crate) fn of(daemon: &Daemon) -> Self {
        Level { memory: daemon.memory(), descriptors: daemon.descriptors(), threads: daemon.threads() }
    }

    /// Waits until the broker is at this level again, with as many clients as then.
    pub(crate) fn wait_for(self, daemon: &Daemon) {
        wait_until(&format!("the descriptors of {self:?}"), || daemon.descriptors() <= self.descriptors);
        wait_until(&format!("the threads of {self:?}"), || daemon.threads() <= self.threads);
        wait_until(&format!("the memory of {self:?}"), || daemon.memory() <= self.memory + STAYS);
    }
}
