//! What happens in the broker, told to whoever listens.

use abi_stable::std_types::RStr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::abi::RawEvent;

/// What kind of event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum EventKind {
    /// A primary client registered; subject: its name.
    ClientRegistered = 1,
    /// A primary client left; subject: its name, detail: why.
    ClientLeft = 2,
    /// A plugin came to another state; subject: the instance, detail: the state.
    PluginState = 3,
    /// A client was disconnected since it took nothing; subject: its name, detail: how long and how much waits.
    SlowConsumer = 4,
    /// A connection was refused; subject: where from, detail: why.
    ConnectionRefused = 5,
    /// The broker is ending.
    Shutdown = 6,
    /// Events about clients were dropped, since listeners were too slow: read the list of clients again.
    EventsMissed = 7,
}

impl EventKind {
    const ALL: [EventKind; 7] = [
        EventKind::ClientRegistered,
        EventKind::ClientLeft,
        EventKind::PluginState,
        EventKind::SlowConsumer,
        EventKind::ConnectionRefused,
        EventKind::Shutdown,
        EventKind::EventsMissed,
    ];
}

/// Something that happened in the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// What kind of event.
    pub kind: EventKind,
    /// Whom it is about: a client, an instance, an address; may be empty.
    pub subject: &'a str,
    /// More about it, for people; may be empty.
    pub detail: &'a str,
    /// When, in nanoseconds since 1970.
    pub unix_nanos: u64,
}

impl<'a> Event<'a> {
    /// An event of this moment.
    pub fn now(kind: EventKind, subject: &'a str, detail: &'a str) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        Event { kind, subject, detail, unix_nanos }
    }

    /// As it crosses the boundary.
    #[doc(hidden)]
    pub fn to_raw(&self) -> RawEvent<'a> {
        RawEvent {
            kind: self.kind as u32,
            flags: 0,
            subject: RStr::from_str(self.subject),
            detail: RStr::from_str(self.detail),
            unix_nanos: self.unix_nanos,
        }
    }

    /// From what crossed the boundary; `None` for a kind that is not known on this side.
    #[doc(hidden)]
    pub fn from_raw(raw: &RawEvent<'a>) -> Option<Self> {
        let kind = EventKind::ALL.into_iter().find(|kind| *kind as u32 == raw.kind)?;
        Some(Event {
            kind,
            subject: raw.subject.as_str(),
            detail: raw.detail.as_str(),
            unix_nanos: raw.unix_nanos,
        })
    }
}

/// Receives events, one at a time, from a thread of the broker; may dispatch. Events about clients come in the order
/// they happened, others may overtake them. A listener that blocks delays all later events; beyond 8,192 of them about
/// clients they are coalesced per client, and at last replaced by [`EventKind::EventsMissed`].
pub trait EventListener: Send + Sync + 'static {
    /// Takes note of an event.
    fn on_event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> EventListener for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_boundary() {
        for kind in EventKind::ALL {
            let event = Event::now(kind, "a.b", "why");
            assert_eq!(Event::from_raw(&event.to_raw()), Some(event));
        }
        let mut raw = Event::now(EventKind::Shutdown, "", "").to_raw();
        raw.kind = 1000;
        assert_eq!(Event::from_raw(&raw), None);
    }
}
