//! Counts events of the broker, and clients that come back. Owns the counters; the names of clients that have
//! left are bounded in number and time.

use elbus_plugin_api::{Event, EventKind};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    exposition::Samples,
    families::{EVENTS, RECONNECTIONS},
};

/// A client that registers again within this time has reconnected.
const RECONNECTION_TIME: Duration = Duration::from_secs(300);
/// Names that have left and are remembered; the oldest are forgotten first.
const MAX_LEFT: usize = 65_536;

/// The kinds that are counted, with their names.
const KINDS: [(EventKind, &str); 8] = [
    (EventKind::ClientRegistered, "client_registered"),
    (EventKind::ClientLeft, "client_left"),
    (EventKind::PluginState, "plugin_state"),
    (EventKind::SlowConsumer, "slow_consumer"),
    (EventKind::ConnectionRefused, "connection_refused"),
    (EventKind::Shutdown, "shutdown"),
    (EventKind::EventsMissed, "events_missed"),
    (EventKind::PublicationsMissed, "publications_missed"),
];

/// The events since the plugin has started.
#[derive(Default)]
pub(crate) struct EventCounts {
    counts: [AtomicU64; KINDS.len()],
    reconnections: AtomicU64,
    is_ending: AtomicBool,
    left: Mutex<Left>,
    hashing: RandomState,
}

/// Hashes of the names of clients that have left lately: names are chosen by clients, and can be long.
#[derive(Default)]
struct Left {
    since: HashMap<u64, Instant>,
    order: VecDeque<(u64, Instant)>,
}

impl Left {
    fn add(&mut self, name: u64, now: Instant) {
        self.since.insert(name, now);
        self.order.push_back((name, now));
        while let Some((oldest, since)) = self.order.front().copied()
            && (self.order.len() > MAX_LEFT || now.saturating_duration_since(since) > RECONNECTION_TIME)
        {
            self.order.pop_front();
            // it may have left again since
            if self.since.get(&oldest) == Some(&since) {
                self.since.remove(&oldest);
            }
        }
    }

    /// Returns whether the name has left within the time.
    fn take(&mut self, name: u64, now: Instant) -> bool {
        let left = self.since.remove(&name);
        left.is_some_and(|since| now.saturating_duration_since(since) <= RECONNECTION_TIME)
    }
}

impl EventCounts {
    /// Counts an event.
    pub(crate) fn count(&self, event: &Event<'_>) {
        self.count_at(event, Instant::now());
    }

    fn count_at(&self, event: &Event<'_>, now: Instant) {
        let kinds = KINDS.iter().zip(&self.counts);
        if let Some((_, count)) = kinds.into_iter().find(|((kind, _), _)| *kind == event.kind) {
            count.fetch_add(1, Relaxed);
        }
        match event.kind {
            EventKind::ClientLeft => self.left.lock().add(self.hashing.hash_one(event.subject), now),
            EventKind::ClientRegistered => {
                let reconnected = self.left.lock().take(self.hashing.hash_one(event.subject), now);
                self.reconnections.fetch_add(u64::from(reconnected), Relaxed);
            }
            EventKind::Shutdown => self.is_ending.store(true, Relaxed),
            _ => {}
        }
    }

    /// Returns whether the broker shuts down.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Relaxed)
    }

    /// Adds the figures.
    pub(crate) fn sample(&self, samples: &mut Samples) {
        for ((_, kind), count) in KINDS.iter().zip(&self.counts) {
            samples.count(&EVENTS, &[kind], count.load(Relaxed));
        }
        samples.count(&RECONNECTIONS, &[], self.reconnections.load(Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_come_back_in_time_are_counted() {
        let (events, start) = (EventCounts::default(), Instant::now());
        let event = |kind, name: &str, seconds| {
            events.count_at(&Event::now(kind, name, ""), start + Duration::from_secs(seconds));
        };
        event(EventKind::ClientRegistered, "a", 0);
        event(EventKind::ClientLeft, "a", 1);
        event(EventKind::ClientRegistered, "b", 2);
        assert_eq!(events.reconnections.load(Relaxed), 0);
        event(EventKind::ClientRegistered, "a", 2);
        event(EventKind::ClientRegistered, "a", 3);
        assert_eq!(events.reconnections.load(Relaxed), 1, "counted once");
        event(EventKind::ClientLeft, "a", 4);
        event(EventKind::ClientRegistered, "a", 305);
        assert_eq!(events.reconnections.load(Relaxed), 1, "too late");
        assert!(!events.is_ending());
        event(EventKind::Shutdown, "", 306);
        assert!(events.is_ending());
    }

    #[test]
    fn names_are_forgotten() {
        let (mut left, start) = (Left::default(), Instant::now());
        for name in 0..MAX_LEFT as u64 + 10 {
            left.add(name, start);
        }
        assert_eq!((left.since.len(), left.order.len()), (MAX_LEFT, MAX_LEFT));
        assert!(!left.take(9, start) && left.take(10, start));
        for _ in 0..100 {
            left.add(7, start + Duration::from_secs(301));
        }
        assert_eq!((left.since.len(), left.order.len()), (1, 100));
    }
}
