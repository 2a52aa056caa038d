//! What has happened: the events of the broker and the warnings of its log, numbered. Bounded in number and
//! bytes.

use elbus_plugin_api::{Event, EventKind, Host};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

use crate::figures::{ask, encode};

/// Events that are kept.
const MAX_EVENTS: usize = 1000;
/// Bytes of a subject, and of a text; longer ones are cut.
const MAX_SUBJECT_BYTES: usize = 256;
const MAX_TEXT_BYTES: usize = 1024;
/// The part of the program that reloads its configuration.
const RELOADING: &str = "elbusd::reload";

/// What an event is about, which decides who may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A client has registered.
    Connect,
    /// A client has left.
    Disconnect,
    /// A client was disconnected because it read nothing.
    Stall,
    /// A client has missed publications of the broker.
    Missed,
    /// A connection was refused.
    Refused,
    /// The state of a plugin has changed.
    Plugin,
    /// The configuration was reloaded, or could not be.
    Reload,
    /// The broker shuts down.
    Shutdown,
    /// A warning or an error of the log.
    Log,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LoggedEvent {
    number: u64,
    /// Unix time in milliseconds.
    at_ms: u64,
    pub(crate) kind: Kind,
    /// `info`, `warn` or `error`.
    level: &'static str,
    /// A client, an address, or the instance of a plugin; empty for the broker itself.
    pub(crate) subject: String,
    text: String,
}

/// The last events.
#[derive(Default)]
pub(crate) struct EventLog(Mutex<State>);

#[derive(Default)]
struct State {
    events: VecDeque<LoggedEvent>,
    newest: u64,
    /// The number of the last line of the log that was read.
    last_line: u64,
}

/// The result of `web.events`.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    pub(crate) events: Vec<LoggedEvent>,
    newest: u64,
    /// Events after the number that are no longer kept.
    missed: u64,
}

/// What is needed of the result of `log.recent`.
#[derive(Deserialize)]
struct RecentLines {
    lines: Vec<Line>,
    newest: u64,
}

#[derive(Deserialize)]
struct Line {
    at_ms: u64,
    level: String,
    target: String,
    plugin: String,
    text: String,
}

/// The parameters of `log.recent`.
#[derive(Serialize)]
struct After {
    after: u64,
}

impl EventLog {
    /// Adds an event of the broker.
    pub(crate) fn add(&self, event: &Event<'_>) {
        let (kind, level) = match event.kind {
            EventKind::ClientRegistered => (Kind::Connect, "info"),
            EventKind::ClientLeft => (Kind::Disconnect, "info"),
            EventKind::PluginState if event.detail.starts_with("failed") => (Kind::Plugin, "error"),
            EventKind::PluginState => (Kind::Plugin, "info"),
            EventKind::SlowConsumer => (Kind::Stall, "warn"),
            EventKind::ConnectionRefused => (Kind::Refused, "warn"),
            EventKind::Shutdown => (Kind::Shutdown, "info"),
            EventKind::PublicationsMissed => (Kind::Missed, "warn"),
            _ => return,
        };
        self.push(kind, level, event.unix_nanos / 1_000_000, event.subject, event.detail);
    }

    /// Adds what the log has since the last call. Without the method `log.recent`, which an embedding program
    /// may not have, there is nothing.
    pub(crate) fn read_log(&self, host: &Host) {
        let after = self.0.lock().last_line;
        let recent =
            encode(&After { after }).and_then(|params| ask::<RecentLines>(host, "log.recent", &params));
        let Ok(RecentLines { lines, newest }) = recent else { return };
        for Line { at_ms, level, target, plugin, text } in lines {
            let level = match &*level {
                "error" => "error",
                "warn" => "warn",
                _ => "info",
            };
            // its steps are not worth an event each
            let is_result = text.starts_with("reloaded") || text.starts_with("reload ");
            let kind = if target == RELOADING && is_result { Kind::Reload } else { Kind::Log };
            if kind == Kind::Reload || level != "info" {
                self.push(kind, level, at_ms, &plugin, &text);
            }
        }
        self.0.lock().last_line = newest;
    }

    fn push(&self, kind: Kind, level: &'static str, at_ms: u64, subject: &str, text: &str) {
        let (subject, text) = (cut(subject, MAX_SUBJECT_BYTES), cut(text, MAX_TEXT_BYTES));
        let mut state = self.0.lock();
        if state.events.len() >= MAX_EVENTS {
            state.events.pop_front();
        }
        state.newest += 1;
        let number = state.newest;
        state.events.push_back(LoggedEvent { number, at_ms, kind, level, subject, text });
    }

    /// Returns the events after the one with the number `after` that may be seen.
    pub(crate) fn answer(&self, after: u64, is_visible: impl Fn(&LoggedEvent) -> bool) -> Answer {
        let state = self.0.lock();
        let oldest = state.events.front().map_or(state.newest + 1, |event| event.number);
        let (newest, missed) = (state.newest, (oldest - 1).saturating_sub(after));
        let found: Vec<_> = state.events.iter().filter(|event| event.number > after).cloned().collect();
        drop(state);
        let events = found.into_iter().filter(is_visible).collect();
        Answer { events, newest, missed }
    }
}

fn cut(text: &str, most: usize) -> String {
    let end = (0..=text.len().min(most)).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use elbus_plugin_api::{Call, Method, testing::FakeHost};
    use serde_json::json;

    #[test]
    fn the_last_events_are_kept_and_the_others_counted() {
        let log = EventLog::default();
        for number in 0..MAX_EVENTS + 5 {
            log.add(&Event::at(7_000_000, EventKind::ClientRegistered, &format!("c{number}"), ""));
        }
        log.add(&Event::now(EventKind::EventsMissed, "", ""));
        let answer = log.answer(2, |event| event.subject != "c6");
        assert_eq!((answer.events.len(), answer.newest, answer.missed), (MAX_EVENTS - 1, 1005, 3));
        let first = &answer.events[0];
        assert_eq!((first.number, first.at_ms, &*first.subject), (6, 7, "c5"));
        assert!(log.answer(1005, |_| true).events.is_empty());
        log.add(&Event::now(EventKind::PluginState, "p", "failed: why"));
        assert_eq!(log.answer(1005, |_| true).events[0].level, "error");
    }

    #[test]
    fn warnings_and_reloads_of_the_log_are_events_once() {
        let fake = FakeHost::new();
        let host = fake.host("web");
        let line = |number: u64, level: &str, target: &str, text: &str| {
            let plugin = "p";
            json!({
                "number": number, "at_ms": 5, "level": level, "target": target, "plugin": plugin, "text": text,
            })
        };
        let lines = [
            line(1, "info", "elbusd", "not worth an event"),
            line(2, "warn", "elbus_unix", "receiver stalled"),
            line(3, "info", RELOADING, "reloading"),
            line(4, "info", RELOADING, "reloaded added=[]"),
            line(5, "error", RELOADING, "reload failed error=\"x\""),
        ];
        let recent = move |call: &Call<'_>| {
            let params: serde_json::Value = rmp_serde::from_slice(call.params).unwrap();
            let after = usize::try_from(params["after"].as_u64().unwrap()).unwrap();
            encode(&json!({"lines": &lines[after..], "newest": 5, "missed": 0}))
        };
        host.add_method(&Method::new("log.recent"), recent).unwrap();
        let log = EventLog::default();
        log.read_log(&host);
        log.read_log(&host);
        let events = log.answer(0, |_| true).events;
        let events: Vec<_> = events.iter().map(|event| (event.kind, event.level, &*event.text)).collect();
        let expected = [
            (Kind::Log, "warn", "receiver stalled"),
            (Kind::Reload, "info", "reloaded added=[]"),
            (Kind::Reload, "error", "reload failed error=\"x\""),
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn a_program_without_a_log_has_no_warnings() {
        let log = EventLog::default();
        log.read_log(&FakeHost::new().host("web"));
        assert!(log.answer(0, |_| true).events.is_empty());
    }
}
