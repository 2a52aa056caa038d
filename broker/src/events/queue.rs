//! The queue of pending events. Owns its limits and drops events when they are reached, never the newest
//! state of a client or plugin. Calls nothing and takes no lock.

use elbus_plugin_api::EventKind;
use std::collections::{HashMap, VecDeque};

/// The limit of presence events (clients that registered or left); beyond it they are coalesced.
const MAX_PRESENCE: usize = 8192;
/// The limit of their names and reasons, in bytes.
const MAX_PRESENCE_BYTES: usize = 4 << 20;
/// The limit of alerts (plugins, slow receivers, refused connections).
const MAX_ALERTS: usize = 1024;
/// Longer details are cut.
const MAX_DETAIL_BYTES: usize = 256;

/// An event that is not dispatched yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PendingEvent {
    pub(super) kind: EventKind,
    pub(super) subject: Box<str>,
    pub(super) detail: Box<str>,
    pub(super) unix_nanos: u64,
}

impl PendingEvent {
    pub(super) fn new(kind: EventKind, subject: &str, detail: &str, unix_nanos: u64) -> Self {
        let end = (0..=detail.len().min(MAX_DETAIL_BYTES)).rev().find(|end| detail.is_char_boundary(*end));
        let detail = detail.get(..end.unwrap_or(0)).unwrap_or_default();
        PendingEvent { kind, subject: subject.into(), detail: detail.into(), unix_nanos }
    }

    fn bytes(&self) -> usize {
        self.subject.len() + self.detail.len()
    }

    fn is_presence(&self) -> bool {
        matches!(self.kind, EventKind::ClientRegistered | EventKind::ClientLeft)
    }
}

/// Pending events in two queues, each in the order of the changes. Alerts are dispatched first.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    alerts: VecDeque<PendingEvent>,
    presence: VecDeque<PendingEvent>,
    presence_bytes: usize,
    /// Presence events that were dropped since listeners were last notified to read the list of clients
    /// again.
    missed: u64,
    /// Alerts that were dropped since that was last reported.
    dropped_alerts: u64,
    /// Whether listeners may still be processing the last event that was taken out.
    busy: bool,
}

impl EventQueue {
    /// Adds an event, within the limits.
    pub(super) fn push(&mut self, event: PendingEvent) {
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

    /// Records that an event did not reach all listeners: they are notified to read the list of clients
    /// again.
    pub(super) fn mark_missed(&mut self) {
        self.missed += 1;
    }

    fn push_alert(&mut self, event: PendingEvent) {
        if self.alerts.len() < MAX_ALERTS || event.kind == EventKind::Shutdown {
            return self.alerts.push_back(event);
        }
        let same = |other: &&mut PendingEvent| other.kind == event.kind && other.subject == event.subject;
        match self.alerts.iter_mut().rev().find(same) {
            Some(older) => *older = event,
            // bounded by the number of instances that the operator has declared
            None if event.kind == EventKind::PluginState => self.alerts.push_back(event),
            // instead of one client, all read the list of clients again
            None if event.kind == EventKind::PublicationsMissed => self.missed += 1,
            None => self.dropped_alerts += 1,
        }
    }

    fn is_over(&self, count: usize, bytes: usize) -> bool {
        self.presence.len() > count || self.presence_bytes > bytes
    }

    /// Keeps of each client the events that change its presence: none if it registered and left, `left` and
    /// `registered` if it restarted.
    fn coalesce(&mut self) {
        let mut ends: HashMap<&str, (usize, usize)> = HashMap::new();
        for (index, event) in self.presence.iter().enumerate() {
            ends.entry(&event.subject).or_insert((index, index)).1 = index;
        }
        let kind = |index: usize| self.presence.get(index).map(|event| event.kind);
        let keeps: Vec<bool> = (0..self.presence.len())
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
        let mut keeps = keeps.into_iter();
        self.presence.retain(|_| keeps.next().unwrap_or(true));
        self.presence_bytes = self.presence.iter().map(PendingEvent::bytes).sum();
    }

    /// Takes the next event out. If presence events were dropped, that is first an event which says so.
    pub(super) fn pop(&mut self, unix_nanos: u64) -> Option<PendingEvent> {
        let event = self.pop_next(unix_nanos);
        self.busy = event.is_some();
        event
    }

    fn pop_next(&mut self, unix_nanos: u64) -> Option<PendingEvent> {
        if let Some(event) = self.alerts.pop_front() {
            return Some(event);
        }
        if self.missed > 0 {
            let detail = format!("{} events were dropped", std::mem::take(&mut self.missed));
            return Some(PendingEvent::new(EventKind::EventsMissed, "", &detail, unix_nanos));
        }
        let event = self.presence.pop_front()?;
        self.presence_bytes = self.presence_bytes.saturating_sub(event.bytes());
        if self.presence.is_empty() {
            self.presence = VecDeque::new(); // frees the memory of a burst
        }
        Some(event)
    }

    /// Returns the number of alerts that were dropped since the last call.
    pub(super) fn take_dropped_alerts(&mut self) -> u64 {
        std::mem::take(&mut self.dropped_alerts)
    }

    /// Returns whether all events have been taken out and their listeners have returned.
    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && !self.busy
    }

    /// Returns whether no event is pending.
    pub(super) fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.presence.is_empty() && self.missed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn registered(name: &str) -> PendingEvent {
        PendingEvent::new(EventKind::ClientRegistered, name, "", 1)
    }

    fn left(name: &str) -> PendingEvent {
        PendingEvent::new(EventKind::ClientLeft, name, "why", 1)
    }

    fn drain(queue: &mut EventQueue) -> Vec<(EventKind, String)> {
        std::iter::from_fn(|| queue.pop(0)).map(|event| (event.kind, event.subject.into())).collect()
    }

    #[test]
    fn below_the_limit_all_events_are_kept_and_alerts_come_first() {
        let mut queue = EventQueue::default();
        for event in [registered("a"), left("a"), PendingEvent::new(EventKind::SlowConsumer, "s", "", 1)] {
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
        queue.push(registered("restarted"));
        queue.push(left("gone"));
        for number in 0..MAX_PRESENCE {
            let name = format!("short.{}", number % 100);
            queue.push(if number / 100 % 2 == 0 { registered(&name) } else { left(&name) });
        }
        queue.push(left("restarted"));
        queue.push(registered("restarted"));
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
    fn more_clients_than_the_queue_holds_become_one_missed_event() {
        let mut queue = EventQueue::default();
        for number in 0..10 * MAX_PRESENCE {
            queue.push(registered(&format!("client.{number}")));
            assert!(queue.presence.len() <= MAX_PRESENCE);
        }
        let events = drain(&mut queue);
        assert_eq!(events[0].0, EventKind::EventsMissed);
        assert!(events[1..].iter().all(|(kind, _)| *kind == EventKind::ClientRegistered));
        assert_eq!(events.last().unwrap().1, format!("client.{}", 10 * MAX_PRESENCE - 1));
    }

    #[test]
    fn the_names_in_the_queue_are_bounded_in_bytes() {
        let mut queue = EventQueue::default();
        for number in 0..1000 {
            queue.push(registered(&format!("{number:060000}")));
            assert!(queue.presence_bytes <= MAX_PRESENCE_BYTES, "{number}");
        }
        assert_eq!(drain(&mut queue)[0].0, EventKind::EventsMissed);
    }

    #[test]
    fn many_missed_events_are_reported_as_one() {
        let mut queue = EventQueue::default();
        for number in 0..2 * MAX_ALERTS {
            queue.push(PendingEvent::new(EventKind::PublicationsMissed, &number.to_string(), "", 1));
        }
        let events = drain(&mut queue);
        assert_eq!(events.len(), MAX_ALERTS + 1);
        assert_eq!(events[MAX_ALERTS].0, EventKind::EventsMissed);
        assert_eq!(queue.take_dropped_alerts(), 0);
    }

    #[test]
    fn a_flood_of_refusals_drops_no_plugin_state_and_no_shutdown() {
        let mut queue = EventQueue::default();
        for number in 0..3 * MAX_ALERTS {
            queue.push(PendingEvent::new(
                EventKind::ConnectionRefused,
                &number.to_string(),
                &"x".repeat(9999),
                1,
            ));
        }
        for state in ["failed: a", "started", "failed: b"] {
            queue.push(PendingEvent::new(EventKind::PluginState, "tcp", state, 1));
        }
        queue.push(PendingEvent::new(EventKind::Shutdown, "", "", 1));
        assert_eq!(queue.take_dropped_alerts(), 2 * MAX_ALERTS as u64);
        let events: Vec<_> = std::iter::from_fn(|| queue.pop(0)).collect();
        assert_eq!(events.len(), MAX_ALERTS + 2);
        assert!(events.iter().all(|event| event.detail.len() <= MAX_DETAIL_BYTES));
        assert_eq!(&*events[MAX_ALERTS].detail, "failed: b", "the newest state");
        assert_eq!(events[MAX_ALERTS + 1].kind, EventKind::Shutdown);
    }

    proptest! {
        /// A listener knows which clients are registered, also after coalescing.
        #[test]
        fn coalescing_preserves_the_presence_of_clients(
            steps in prop::collection::vec((0..6u8, any::<bool>()), 0..200),
        ) {
            let (mut queue, mut present) = (EventQueue::default(), BTreeSet::new());
            let mut known = BTreeSet::new();
            for (client, coalesce) in steps {
                let name = client.to_string();
                if present.remove(&name) {
                    queue.push(left(&name));
                } else {
                    queue.push(registered(&name));
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
