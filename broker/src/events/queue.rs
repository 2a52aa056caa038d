//! The queue of pending events. Owns its limits, and what is left out when they are reached: never the newest state of
//! a client or plugin. Calls nobody and takes no lock.

use elbus_plugin_api::EventKind;
use std::collections::{HashMap, VecDeque};

/// Clients that registered or left, at most; beyond that they are coalesced.
const MAX_PRESENCE: usize = 8192;
/// Bytes of their names and reasons, at most.
const MAX_PRESENCE_BYTES: usize = 4 << 20;
/// Events about plugins, slow receivers and refused connections, at most.
const MAX_ALERTS: usize = 1024;
/// Bytes of a detail that are kept.
const MAX_DETAIL_BYTES: usize = 256;

/// An event that was not dispatched yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) kind: EventKind,
    pub(super) subject: Box<str>,
    pub(super) detail: Box<str>,
    pub(super) unix_nanos: u64,
}

impl Pending {
    pub(super) fn new(kind: EventKind, subject: &str, detail: &str, unix_nanos: u64) -> Self {
        let end = (0..=detail.len().min(MAX_DETAIL_BYTES)).rev().find(|end| detail.is_char_boundary(*end));
        let detail = detail.get(..end.unwrap_or(0)).unwrap_or_default();
        Pending { kind, subject: subject.into(), detail: detail.into(), unix_nanos }
    }

    fn bytes(&self) -> usize {
        self.subject.len() + self.detail.len()
    }

    fn is_presence(&self) -> bool {
        matches!(self.kind, EventKind::ClientRegistered | EventKind::ClientLeft)
    }
}

/// Pending events in two lanes. Alerts are dispatched first, each lane in the order of the changes.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    alerts: VecDeque<Pending>,
    presence: VecDeque<Pending>,
    presence_bytes: usize,
    /// Presence events that were dropped since listeners were last told to read the list of clients again.
    missed: u64,
    /// Alerts that were dropped since that was last reported.
    dropped_alerts: u64,
    /// Whether the event that was taken out last may still be with the listeners.
    busy: bool,
}

impl EventQueue {
    /// Adds an event, within the limits.
    pub(super) fn push(&mut self, event: Pending) {
        if !event.is_presence() {
            return self.push_alert(event);
        }
        self.presence_bytes += event.bytes();
        self.presence.push_back(event);
        if self.is_over(MAX_PRESENCE, MAX_PRESENCE_BYTES) {
            self.coalesce();
            // at least half of the queue is free after that, so coalescing costs a constant for each event
            if self.is_over(MAX_PRESENCE / 2, MAX_PRESENCE_BYTES / 2) {
                self.missed += self.presence.len() as u64;
                self.presence.clear();
                self.presence_bytes = 0;
            }
        }
    }

    /// An event was taken out that not all listeners were told: they are told to read the list of clients again.
    pub(super) fn miss(&mut self) {
        self.missed += 1;
    }

    fn push_alert(&mut self, event: Pending) {
        if self.alerts.len() < MAX_ALERTS || event.kind == EventKind::Shutdown {
            return self.alerts.push_back(event);
        }
        let same = |other: &&mut Pending| other.kind == event.kind && other.subject == event.subject;
        match self.alerts.iter_mut().rev().find(same) {
            Some(older) => *older = event,
            // there are as many instances of plugins as the operator has declared
            None if event.kind == EventKind::PluginState => self.alerts.push_back(event),
            // instead of one client, all read the list of clients again
            None if event.kind == EventKind::PublicationsMissed => self.missed += 1,
            None => self.dropped_alerts += 1,
        }
    }

    fn is_over(&self, count: usize, bytes: usize) -> bool {
        self.presence.len() > count || self.presence_bytes > bytes
    }

    /// Leaves of each client what changes its presence: nothing if it came and went, `left` and `registered` if it
    /// restarted.
    fn coalesce(&mut self) {
        let mut ends: HashMap<&str, (usize, usize)> = HashMap::new();
        for (index, event) in self.presence.iter().enumerate() {
            ends.entry(&event.subject).or_insert((index, index)).1 = index;
        }
        let kind = |index: usize| self.presence.get(index).map(|event| event.kind);
        let stays: Vec<bool> = (0..self.presence.len())
            .map(|index| {
                let Some((first, last)) =
                    self.presence.get(index).and_then(|event| ends.get(&*event.subject)).copied()
                else {
                    return true;
                };
                match (kind(first), kind(last)) {
                    (Some(EventKind::ClientRegistered), Some(EventKind::ClientLeft)) => false,
                    (Some(EventKind::ClientLeft), Some(EventKind::ClientRegistered)) => {
                        index == first || index == last
                    }
                    (Some(EventKind::ClientLeft), _) => index == first,
                    _ => index == last,
                }
            })
            .collect();
        let mut stays = stays.into_iter();
        self.presence.retain(|_| stays.next().unwrap_or(true));
        self.presence_bytes = self.presence.iter().map(Pending::bytes).sum();
    }

    /// Takes the next event out. After dropped presence events that is one that says so.
    pub(super) fn pop(&mut self, unix_nanos: u64) -> Option<Pending> {
        let event = self.pop_next(unix_nanos);
        self.busy = event.is_some();
        event
    }

    fn pop_next(&mut self, unix_nanos: u64) -> Option<Pending> {
        if let Some(event) = self.alerts.pop_front() {
            return Some(event);
        }
        if self.missed > 0 {
            let detail = format!("{} events were dropped", std::mem::take(&mut self.missed));
            return Some(Pending::new(EventKind::EventsMissed, "", &detail, unix_nanos));
        }
        let event = self.presence.pop_front()?;
        self.presence_bytes = self.presence_bytes.saturating_sub(event.bytes());
        if self.presence.is_empty() {
            self.presence = VecDeque::new(); // memory of a burst
        }
        Some(event)
    }

    /// How many alerts were dropped since the last call.
    pub(super) fn take_dropped_alerts(&mut self) -> u64 {
        std::mem::take(&mut self.dropped_alerts)
    }

    /// Whether every event has been taken out, and its listeners have returned.
    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && !self.busy
    }

    pub(super) fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.presence.is_empty() && self.missed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn came(name: &str) -> Pending {
        Pending::new(EventKind::ClientRegistered, name, "", 1)
    }

    fn left(name: &str) -> Pending {
        Pending::new(EventKind::ClientLeft, name, "why", 1)
    }

    fn drain(queue: &mut EventQueue) -> Vec<(EventKind, String)> {
        std::iter::from_fn(|| queue.pop(0)).map(|event| (event.kind, event.subject.into())).collect()
    }

    #[test]
    fn below_the_limit_every_event_stays_and_alerts_come_first() {
        let mut queue = EventQueue::default();
        for event in [came("a"), left("a"), Pending::new(EventKind::SlowConsumer, "s", "", 1)] {
            queue.push(event);
        }
        let expected = [
            (EventKind::SlowConsumer, "s"),
            (EventKind::ClientRegistered, "a"),
            (EventKind::ClientLeft, "a"),
        ];
        assert_eq!(drain(&mut queue), expected.map(|(kind, name)| (kind, name.to_owned())));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_full_queue_coalesces_and_a_restart_stays_visible() {
        let mut queue = EventQueue::default();
        queue.push(left("restarted"));
        queue.push(came("restarted"));
        queue.push(left("gone"));
        for number in 0..MAX_PRESENCE {
            let name = format!("short.{}", number % 100);
            queue.push(if number / 100 % 2 == 0 { came(&name) } else { left(&name) });
        }
        queue.push(left("restarted"));
        queue.push(came("restarted"));
        let of = |events: &[(EventKind, String)], name: &str| -> Vec<_> {
            events.iter().filter(|(_, subject)| subject == name).map(|(kind, _)| *kind).collect()
        };
        let events = drain(&mut queue);
        assert!(events.len() < 300, "{}", events.len());
        let restarted = of(&events, "restarted");
        assert!(restarted.starts_with(&[EventKind::ClientLeft, EventKind::ClientRegistered]));
        assert_eq!(of(&events, "gone"), [EventKind::ClientLeft]);
    }

    #[test]
    fn more_clients_than_the_queue_holds_are_one_event_that_says_so() {
        let mut queue = EventQueue::default();
        for number in 0..10 * MAX_PRESENCE {
            queue.push(came(&format!("client.{number}")));
            assert!(queue.presence.len() <= MAX_PRESENCE);
        }
        let events = drain(&mut queue);
        assert_eq!(events[0].0, EventKind::EventsMissed);
        assert!(events[1..].iter().all(|(kind, _)| *kind == EventKind::ClientRegistered));
        assert_eq!(events.last().unwrap().1, format!("client.{}", 10 * MAX_PRESENCE - 1));
    }

    #[test]
    fn long_names_are_bounded_in_bytes() {
        let mut queue = EventQueue::default();
        for number in 0..1000 {
            queue.push(came(&format!("{number:060000}")));
            assert!(queue.presence_bytes <= MAX_PRESENCE_BYTES, "{number}");
        }
        assert_eq!(drain(&mut queue)[0].0, EventKind::EventsMissed);
    }

    #[test]
    fn a_flood_of_clients_that_missed_something_is_one_event_for_all() {
        let mut queue = EventQueue::default();
        for number in 0..2 * MAX_ALERTS {
            queue.push(Pending::new(EventKind::PublicationsMissed, &number.to_string(), "", 1));
        }
        let events = drain(&mut queue);
        assert_eq!(events.len(), MAX_ALERTS + 1);
        assert_eq!(events[MAX_ALERTS].0, EventKind::EventsMissed);
        assert_eq!(queue.take_dropped_alerts(), 0);
    }

    #[test]
    fn a_flood_of_refusals_hides_no_plugin_and_no_shutdown() {
        let mut queue = EventQueue::default();
        for number in 0..3 * MAX_ALERTS {
            queue.push(Pending::new(EventKind::ConnectionRefused, &number.to_string(), &"x".repeat(9999), 1));
        }
        for state in ["failed: a", "started", "failed: b"] {
            queue.push(Pending::new(EventKind::PluginState, "tcp", state, 1));
        }
        queue.push(Pending::new(EventKind::Shutdown, "", "", 1));
        assert_eq!(queue.take_dropped_alerts(), 2 * MAX_ALERTS as u64);
        let events: Vec<_> = std::iter::from_fn(|| queue.pop(0)).collect();
        assert_eq!(events.len(), MAX_ALERTS + 2);
        assert!(events.iter().all(|event| event.detail.len() <= MAX_DETAIL_BYTES));
        assert_eq!(&*events[MAX_ALERTS].detail, "failed: b", "the newest state");
        assert_eq!(events[MAX_ALERTS + 1].kind, EventKind::Shutdown);
    }

    proptest! {
        /// Whoever follows the events knows who is there, also after coalescing.
        #[test]
        fn coalescing_keeps_what_a_listener_knows(steps in prop::collection::vec((0..6u8, any::<bool>()), 0..200)) {
            let (mut queue, mut present) = (EventQueue::default(), BTreeSet::new());
            let mut known = BTreeSet::new();
            for (client, coalesce) in steps {
                let name = client.to_string();
                if present.remove(&name) {
                    queue.push(left(&name));
                } else {
                    queue.push(came(&name));
                    present.insert(name);
                }
                if coalesce {
                    queue.coalesce();
                }
            }
            while let Some(event) = queue.pop(0) {
                match event.kind {
                    EventKind::ClientRegistered => prop_assert!(known.insert(event.subject.to_string())),
                    _ => prop_assert!(known.remove(&*event.subject)),
                }
            }
            prop_assert_eq!(known, present);
        }
    }
}
