//! The limits of one connection, initially those of the instance. Owns the numbers; enforces none.

use elbus_plugin_api::{
    SinkLimits,
    config::{Limit, Overflow},
};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use crate::settings::StreamSettings;

/// The limits of one connection. There is one for each connection, so the numbers are no longer than
/// necessary.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    /// The limit of the queue, and in the two highest bits the index of a policy in [`POLICIES`].
    queue_bytes: AtomicUsize,
    max_frame_bytes: AtomicU32,
    /// `u32::MAX`: unlimited.
    messages_per_second: AtomicU32,
    /// As a [`Limit`].
    bytes_per_second: AtomicU64,
}

/// The bits of [`ConnectionLimits::queue_bytes`] below those of the policy.
const POLICY_SHIFT: u32 = usize::BITS - 2;
const MAX_QUEUE_BYTES: usize = usize::MAX >> 2;

/// All policies for a full queue.
const POLICIES: [Overflow; 4] =
    [Overflow::Block, Overflow::Disconnect, Overflow::DropNewest, Overflow::Latest];

/// What a client can send per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rates {
    pub(crate) messages: Limit,
    pub(crate) bytes: Limit,
}

/// A limit in four bytes.
fn short(limit: Limit) -> u32 {
    limit.or_max().try_into().unwrap_or(u32::MAX)
}

impl ConnectionLimits {
    pub(crate) fn new(settings: &StreamSettings) -> Self {
        let limits = ConnectionLimits {
            queue_bytes: AtomicUsize::new(0),
            max_frame_bytes: AtomicU32::new(0),
            messages_per_second: AtomicU32::new(0),
            bytes_per_second: AtomicU64::new(0),
        };
        limits.restrict(settings, &SinkLimits::default());
        limits
    }

    /// Sets limits of this client; the stricter of these and the instance's apply.
    pub(crate) fn restrict(&self, settings: &StreamSettings, limits: &SinkLimits) {
        let max_frame_bytes = Limit::new(settings.max_frame_bytes as u64).min(limits.max_frame_bytes);
        let messages = settings.messages_per_second.min(limits.messages_per_second);
        let bytes = settings.bytes_per_second.min(limits.bytes_per_second);
        let overflow = limits.overflow().unwrap_or(settings.overflow);
        let policy = POLICIES.iter().position(|policy| *policy == overflow).unwrap_or(0) << POLICY_SHIFT;
        let queue_bytes = settings.queue_bytes.min(limits.queue_bytes.as_usize()).min(MAX_QUEUE_BYTES);
        self.queue_bytes.store(policy | queue_bytes, Relaxed);
        self.max_frame_bytes.store(short(max_frame_bytes), Relaxed);
        self.messages_per_second.store(short(messages), Relaxed);
        self.bytes_per_second.store(bytes.or_max(), Relaxed);
    }

    /// Returns the limit of the queue in bytes.
    #[inline]
    pub(crate) fn queue_bytes(&self) -> usize {
        self.queue_bytes.load(Relaxed) & MAX_QUEUE_BYTES
    }

    /// Returns what happens to messages for a full queue.
    pub(crate) fn overflow(&self) -> Overflow {
        POLICIES.get(self.queue_bytes.load(Relaxed) >> POLICY_SHIFT).copied().unwrap_or_default()
    }

    /// Returns the length of the longest frame body.
    #[inline]
    pub(crate) fn max_frame_bytes(&self) -> usize {
        self.max_frame_bytes.load(Relaxed) as usize
    }

    /// Returns the rates at which the client can send.
    #[inline]
    pub(crate) fn rates(&self) -> Rates {
        let messages = match self.messages_per_second.load(Relaxed) {
            u32::MAX => Limit::NONE,
            messages => Limit::new(messages.into()),
        };
        Rates { messages, bytes: Limit::new(self.bytes_per_second.load(Relaxed)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_limit_applies_and_a_missing_one_restricts_nothing() {
        let settings = StreamSettings { bytes_per_second: Limit::new(100), ..StreamSettings::default() };
        let limits = ConnectionLimits::new(&settings);
        let mut own = SinkLimits::default();
        let before = (limits.queue_bytes(), limits.max_frame_bytes(), limits.rates());
        limits.restrict(&settings, &own);
        assert_eq!((limits.queue_bytes(), limits.max_frame_bytes(), limits.rates()), before);
        own.queue_bytes = Limit::new(10);
        own.max_frame_bytes = Limit::new(20);
        own.messages_per_second = Limit::new(30);
        own.bytes_per_second = Limit::new(200);
        limits.restrict(&settings, &own);
        assert_eq!((limits.queue_bytes(), limits.max_frame_bytes()), (10, 20));
        assert_eq!(limits.rates(), Rates { messages: Limit::new(30), bytes: Limit::new(100) });
        for overflow in POLICIES {
            own.set_overflow(Some(overflow));
            limits.restrict(&settings, &own);
            assert_eq!(limits.overflow(), overflow, "instead of the instance's");
        }
        limits.restrict(&settings, &SinkLimits::default());
        assert_eq!((limits.queue_bytes(), limits.max_frame_bytes(), limits.rates()), before);
        assert_eq!(limits.overflow(), settings.overflow);
    }
}
