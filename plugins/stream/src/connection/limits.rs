//! The limits of one connection, initially those of the instance. Owns the numbers; enforces none.

use elbus_plugin_api::SinkLimits;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::settings::StreamSettings;

/// The limits of one connection; a rate of 0 is unlimited.
#[derive(Debug, Default)]
pub(crate) struct ConnectionLimits {
    queue_bytes: AtomicUsize,
    max_frame_bytes: AtomicU32,
    messages_per_second: AtomicU32,
    bytes_per_second: AtomicU64,
}

/// What a client can send per second; 0 is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rates {
    pub(crate) messages: u32,
    pub(crate) bytes: u64,
}

/// One for each connection, so no longer than necessary.
fn short(value: impl TryInto<u32>) -> u32 {
    value.try_into().unwrap_or(u32::MAX)
}

impl ConnectionLimits {
    pub(crate) fn new(settings: &StreamSettings) -> Self {
        ConnectionLimits {
            queue_bytes: settings.queue_bytes.into(),
            max_frame_bytes: short(settings.max_frame_bytes).into(),
            messages_per_second: short(settings.messages_per_second.unwrap_or(0)).into(),
            bytes_per_second: settings.bytes_per_second.unwrap_or(0).into(),
        }
    }

    /// Sets limits of this client; the stricter of these and the instance's apply.
    pub(crate) fn restrict(&self, settings: &StreamSettings, limits: &SinkLimits) {
        let ConnectionLimits { queue_bytes, max_frame_bytes, messages_per_second, bytes_per_second } =
            Self::new(settings);
        let lesser_rate = |own: u64, limit: u64| match (own, limit) {
            (0, SinkLimits::NONE) => 0,
            (0, limit) => limit,
            (own, limit) => own.min(limit),
        };
        let queue = usize::try_from(limits.queue_bytes).unwrap_or(usize::MAX);
        self.queue_bytes.store(queue_bytes.into_inner().min(queue), Relaxed);
        self.max_frame_bytes.store(max_frame_bytes.into_inner().min(short(limits.frame_bytes)), Relaxed);
        let messages = lesser_rate(messages_per_second.into_inner().into(), limits.messages_per_second);
        self.messages_per_second.store(short(messages), Relaxed);
        let bytes = lesser_rate(bytes_per_second.into_inner(), limits.bytes_per_second);
        self.bytes_per_second.store(bytes, Relaxed);
    }

    /// Returns the limit of the queue in bytes.
    #[inline]
    pub(crate) fn queue_bytes(&self) -> usize {
        self.queue_bytes.load(Relaxed)
    }

    /// Returns the length of the longest frame body.
    #[inline]
    pub(crate) fn max_frame_bytes(&self) -> usize {
        self.max_frame_bytes.load(Relaxed) as usize
    }

    /// Returns the rates at which the client can send.
    #[inline]
    pub(crate) fn rates(&self) -> Rates {
        Rates { messages: self.messages_per_second.load(Relaxed), bytes: self.bytes_per_second.load(Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_limit_applies_and_a_missing_one_restricts_nothing() {
        let settings = StreamSettings { bytes_per_second: Some(100), ..StreamSettings::default() };
        let limits = ConnectionLimits::new(&settings);
        let mut own = SinkLimits::default();
        let before = (limits.queue_bytes(), limits.max_frame_bytes(), limits.rates());
        limits.restrict(&settings, &own);
        assert_eq!((limits.queue_bytes(), limits.max_frame_bytes(), limits.rates()), before);
        own.queue_bytes = 10;
        own.frame_bytes = 20;
        own.messages_per_second = 30;
        own.bytes_per_second = 200;
        limits.restrict(&settings, &own);
        assert_eq!((limits.queue_bytes(), limits.max_frame_bytes()), (10, 20));
        assert_eq!(limits.rates(), Rates { messages: 30, bytes: 100 });
        limits.restrict(&settings, &SinkLimits::default());
        assert_eq!((limits.queue_bytes(), limits.max_frame_bytes(), limits.rates()), before);
    }
}
