//! What a broker holds once its clients have left. Owns how long it has to give memory back.

use std::time::Duration;

use crate::process::resident_memory;

/// So long after the last client has left the broker is looked at.
const LATER: Duration = Duration::from_secs(2);

/// What a broker held before a run.
pub(crate) struct Before {
    pid: u32,
    bytes: u64,
}

impl Before {
    /// `None`: there is no such process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        resident_memory(pid).map(|bytes| Before { pid, bytes })
    }

    /// How much more it holds now, in bytes.
    pub(crate) fn above(&self) -> Option<i64> {
        Some(resident_memory(self.pid)? as i64 - self.bytes as i64)
    }

    /// How much more it holds some time after its clients have left. They must have.
    pub(crate) fn above_later(&self) -> Option<i64> {
        std::thread::sleep(LATER);
        self.above()
    }
}

/// The figure as text.
pub(crate) fn tell(bytes: i64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    format!("{} s after the end: {mib:+.2} MiB of broker memory", LATER.as_secs())
}
