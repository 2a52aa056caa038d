//! What one client may: taken from the settings of the instance when it connects, and kept for each connection, so that it
//! can be changed for one of them. Owns the numbers; enforces none.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::StreamSettings;

/// The limits of one connection; a rate of zero is none.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    queue_bytes: AtomicUsize,
    max_frame_bytes: AtomicU32,
    messages_per_second: AtomicU32,
    bytes_per_second: AtomicU64,
}

/// How much a client may send in a second; zero: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rates {
    pub(crate) messages: u32,
    pub(crate) bytes: u64,
}

/// There is one of them for each connection, so they are no longer than they need to be.
fn short(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(u32::MAX)
}

impl Allowance {
    pub(crate) fn new(settings: &StreamSettings) -> Self {
        Allowance {
            queue_bytes: settings.queue_bytes.into(),
            max_frame_bytes: short(settings.max_frame_bytes).into(),
            messages_per_second: short(settings.messages_per_second.unwrap_or(0)).into(),
            bytes_per_second: settings.bytes_per_second.unwrap_or(0).into(),
        }
    }

    /// How much may wait for the client.
    #[inline]
    pub(crate) fn queue_bytes(&self) -> usize {
        self.queue_bytes.load(Relaxed)
    }

    /// The longest body of a frame it may send.
    #[inline]
    pub(crate) fn max_frame_bytes(&self) -> usize {
        self.max_frame_bytes.load(Relaxed) as usize
    }

    /// How much it may send.
    #[inline]
    pub(crate) fn rates(&self) -> Rates {
        Rates { messages: self.messages_per_second.load(Relaxed), bytes: self.bytes_per_second.load(Relaxed) }
    }
}
