//! The growth of a broker's memory over a run. Owns how long the broker has to return memory after its
//! clients have left.

use std::time::Duration;

use crate::process::resident_memory;

/// The time between the last disconnect and the measurement.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// The resident memory of a broker before a run.
pub(super) struct MemoryBaseline {
    pid: u32,
    bytes: u64,
}

impl MemoryBaseline {
    /// `None` if there is no such process.
    pub(super) fn of(pid: u32) -> Option<Self> {
        resident_memory(pid).map(|bytes| MemoryBaseline { pid, bytes })
    }

    /// The growth since then, in bytes.
    pub(super) fn growth(&self) -> Option<i64> {
        Some(resident_memory(self.pid)? as i64 - self.bytes as i64)
    }

    /// Waits until the broker has had time to return memory, and returns the growth. The clients must have
    /// disconnected.
    pub(super) fn growth_after_settling(&self) -> Option<i64> {
        std::thread::sleep(SETTLE_TIME);
        self.growth()
    }
}

/// Describes the growth after the clients have left.
pub(super) fn describe(bytes: i64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    format!("broker: {mib:+.2} MiB of memory {} s after the clients left", SETTLE_TIME.as_secs())
}
