//! Mirrored publications that were dropped: counted by reason, and logged from time to time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Interval of log messages of one instance.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Why a publication was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DropReason {
    NotConnected,
    NoSubject,
    LongPayload,
    QueueFull,
    ReceiversFull,
    Refused,
    TooMany,
    Stopped,
}

/// All reasons, in the order of their numbers.
const REASONS: [(DropReason, &str); 8] = [
    (DropReason::NotConnected, "there is no connection to the server"),
    (DropReason::NoSubject, "the topic is too long for a subject, or has a subject of the bus itself"),
    (DropReason::LongPayload, "the payload is longer than the server accepts (max_payload)"),
    (DropReason::QueueFull, "the server takes them too slowly"),
    (DropReason::ReceiversFull, "local subscribers take what NATS programs publish too slowly"),
    (DropReason::Refused, "the broker has refused what NATS programs publish"),
    (DropReason::TooMany, "too many of NATS programs have arrived at once"),
    (DropReason::Stopped, "the bridge has stopped"),
];

/// Counters of an instance. Any thread counts, one logs.
#[derive(Debug, Default)]
pub(crate) struct MirrorDrops([AtomicU64; REASONS.len()]);

/// What was logged.
#[derive(Debug, Default)]
pub(crate) struct LoggedDrops {
    counts: [u64; REASONS.len()],
    next: Option<Instant>,
}

impl MirrorDrops {
    pub(crate) fn add(&self, reason: DropReason, count: usize) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// Returns how many were dropped.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}

impl LoggedDrops {
    /// Logs what was dropped since the last time, if that was some time ago or `at_once`.
    pub(crate) fn log(&mut self, bus: &str, drops: &MirrorDrops, at_once: bool) {
        let now = Instant::now();
        if !at_once && self.next.is_some_and(|next| now < next) {
            return;
        }
        for (((_, reason), counter), logged) in REASONS.iter().zip(&drops.0).zip(&mut self.counts) {
            let total = counter.load(Ordering::Relaxed);
            let count = total - std::mem::replace(logged, total);
            if count > 0 {
                tracing::warn!(bus, count, reason, "mirrored publications were dropped");
                self.next = Some(now + LOG_INTERVAL);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_text() {
        let drops = MirrorDrops::default();
        for (number, (reason, text)) in REASONS.iter().enumerate() {
            assert_eq!(*reason as usize, number, "{text}");
            drops.add(*reason, 2);
            assert_eq!(drops.total(), 2 * (number as u64 + 1));
        }
        let mut logged = LoggedDrops::default();
        logged.log("plant", &drops, false);
        assert_eq!(logged.counts, [2; REASONS.len()]);
        drops.add(DropReason::NoSubject, 1);
        logged.log("plant", &drops, false);
        assert_eq!(logged.counts, [2; REASONS.len()], "not more often than the interval");
        logged.log("plant", &drops, true);
        assert_eq!(logged.counts[1], 3);
    }
}
