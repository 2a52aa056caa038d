//! Events of the broker and their listeners.

use abi_stable::std_types::RStr;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::abi::{FromRaw, IntoRaw, RawEvent, convert::sealed::Sealed};

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum EventKind {
    /// A primary client registered; subject: its name.
    ClientRegistered = 1,
    /// A primary client left; subject: its name, detail: why.
    ClientLeft = 2,
    /// The state of a plugin changed; subject: the instance, detail: the state.
    PluginState = 3,
    /// A client was disconnected because it read nothing; subject: its name, detail: for how long and how
    /// much was queued.
    SlowConsumer = 4,
    /// A connection was refused; subject: its address, detail: why.
    ConnectionRefused = 5,
    /// The broker shuts down.
    Shutdown = 6,
    /// Events about clients were dropped because listeners were too slow: read the list of clients again.
    EventsMissed = 7,
    /// [Best-effort](crate::Request::best_effort) publications have skipped a client, and its queue has
    /// drained since; subject: its name.
    PublicationsMissed = 8,
}

impl EventKind {
    const ALL: [EventKind; 8] = [
        EventKind::ClientRegistered,
        EventKind::ClientLeft,
        EventKind::PluginState,
        EventKind::SlowConsumer,
        EventKind::ConnectionRefused,
        EventKind::Shutdown,
        EventKind::EventsMissed,
        EventKind::PublicationsMissed,
    ];
}

/// Returns the time of day in nanoseconds since 1970, for timestamps that people read. Intervals are measured
/// with [`Instant`](std::time::Instant).
pub fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Something that happened in the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<'a> {
    /// Kind of event.
    pub kind: EventKind,
    /// What it is about: a client, an instance, an address; can be empty.
    pub subject: &'a str,
    /// Details for people; can be empty.
    pub detail: &'a str,
    /// Time in nanoseconds since 1970.
    pub unix_nanos: u64,
}

impl<'a> Event<'a> {
    /// Creates an event that happens now.
    pub fn now(kind: EventKind, subject: &'a str, detail: &'a str) -> Self {
        Event { kind, subject, detail, unix_nanos: unix_nanos() }
    }

    /// Creates an event that happened at `unix_nanos`, in nanoseconds since 1970.
    pub fn at(unix_nanos: u64, kind: EventKind, subject: &'a str, detail: &'a str) -> Self {
        Event { kind, subject, detail, unix_nanos }
    }
}

impl Sealed for &Event<'_> {}

impl<'a> IntoRaw for &Event<'a> {
    type Raw = RawEvent<'a>;

    fn into_raw(self) -> RawEvent<'a> {
        RawEvent {
            kind: self.kind as u32,
            flags: 0,
            subject: RStr::from_str(self.subject),
            detail: RStr::from_str(self.detail),
            unix_nanos: self.unix_nanos,
        }
    }
}

impl Sealed for Option<Event<'_>> {}

/// `None` for a kind that this side does not know.
impl<'a> FromRaw<&RawEvent<'a>> for Option<Event<'a>> {
    fn from_raw(raw: &RawEvent<'a>) -> Self {
        let kind = EventKind::ALL.into_iter().find(|kind| *kind as u32 == raw.kind)?;
        Some(Event {
            kind,
            subject: raw.subject.as_str(),
            detail: raw.detail.as_str(),
            unix_nanos: raw.unix_nanos,
        })
    }
}

/// Receives events, one at a time, in a thread of the broker; can dispatch requests.
///
/// Events about clients arrive in the order in which they happened; others can overtake them. A listener
/// that blocks delays all later events. From 8,192 pending events about clients on they are coalesced per
/// client, and finally replaced by [`EventKind::EventsMissed`].
///
/// # Examples
/// ```
/// use elbus_plugin_api::{Event, EventKind, testing::FakeHost};
/// use std::sync::mpsc;
///
/// let (sender, left) = mpsc::channel();
/// let fake = FakeHost::new();
/// fake.host("demo").add_listener(move |event: &Event<'_>| {
///     if event.kind == EventKind::ClientLeft {
///         _ = sender.send(event.subject.to_owned());
///     }
/// });
/// fake.emit(&Event::now(EventKind::ClientLeft, "plant.sensor", "disconnected"));
/// assert_eq!(left.try_recv().as_deref(), Ok("plant.sensor"));
/// ```
pub trait EventListener: Send + Sync + 'static {
    /// Handles an event.
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
    fn events_cross_the_boundary_unchanged() {
        for kind in EventKind::ALL {
            let event = Event::now(kind, "a.b", "why");
            assert_eq!(Option::<Event<'_>>::from_raw(&event.into_raw()), Some(event));
        }
        let mut raw = Event::now(EventKind::Shutdown, "", "").into_raw();
        raw.kind = 1000;
        assert_eq!(Option::<Event<'_>>::from_raw(&raw), None);
    }
}
