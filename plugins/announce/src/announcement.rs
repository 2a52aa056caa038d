//! Converts an event into its announcement: topic and payload (section 8). Never sends.

use elbus_plugin_api::{Event, EventKind, WARNINGS_TOPIC};
use serde::Serialize;

const INFO: &str = ".broker/info";
const ALERT: &str = ".broker/alert";
/// The start of the detail of a [`EventKind::PluginState`] event about a failed plugin.
const FAILED: &str = "failed";

/// One publication. Its payload has exactly the keys that existing clients expect.
#[derive(Debug, Serialize)]
pub(crate) struct Announcement<'a> {
    #[serde(skip)]
    topic: &'static str,
    /// The event.
    s: &'static str,
    /// The client or plugin that the event is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    d: Option<&'a str>,
    /// The time of the event, in nanoseconds since 1970.
    t: u64,
}

impl<'a> Announcement<'a> {
    /// Returns the announcement of an event, or `None` if the event is not announced.
    pub(crate) fn of(event: &Event<'a>) -> Option<Self> {
        let (topic, s, d) = match event.kind {
            EventKind::ClientRegistered => (INFO, "reg", Some(event.subject)),
            EventKind::ClientLeft => (INFO, "unreg", Some(event.subject)),
            EventKind::EventsMissed | EventKind::PublicationsMissed => (INFO, "resync", None),
            EventKind::Shutdown => (WARNINGS_TOPIC, "shutdown", None),
            EventKind::SlowConsumer => (ALERT, "slow", Some(event.subject)),
            EventKind::PluginState if event.detail.starts_with(FAILED) => {
                (ALERT, "plugin", Some(event.subject))
            }
            _ => return None,
        };
        Some(Announcement { topic, s, d, t: event.unix_nanos })
    }

    /// Returns the same announcement on the topic of alerts.
    pub(crate) fn into_alert(self) -> Self {
        Announcement { topic: ALERT, ..self }
    }

    pub(crate) fn topic(&self) -> &'static str {
        self.topic
    }

    /// Encodes the payload as a msgpack map.
    pub(crate) fn payload(&self) -> Result<Vec<u8>, rmp_serde::encode::Error> {
        rmp_serde::to_vec_named(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_section_8() {
        let event = Event::at(5, EventKind::ClientRegistered, "a", "");
        let announcement = Announcement::of(&event).unwrap();
        assert_eq!(announcement.topic(), ".broker/info");
        assert_eq!(announcement.payload().unwrap(), b"\x83\xA1s\xA3reg\xA1d\xA1a\xA1t\x05");
        let event = Event::at(u64::MAX, EventKind::Shutdown, "", "");
        let announcement = Announcement::of(&event).unwrap();
        assert_eq!(announcement.topic(), ".broker/warn");
        let expected = b"\x82\xA1s\xA8shutdown\xA1t\xCF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF";
        assert_eq!(announcement.payload().unwrap(), expected, "no subject");
    }
}
