//! Events passed to the plugin, and the publications expected from it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_announce::Announce;
use elbus_plugin_api::{
    Event, EventKind, Op, Qos,
    testing::{FakeHost, Recorded},
};
use std::time::Duration;

fn event(kind: EventKind, subject: &'static str, detail: &'static str) -> Event<'static> {
    Event::at(1_700_000_000_000_000_001, kind, subject, detail)
}

/// Returns topic and payload, the payload as text.
fn shown(request: &Recorded) -> (String, String) {
    assert_eq!((request.sender.as_str(), request.op, request.qos), (".broker", Op::Publish, Qos::NO));
    assert_eq!(request.payloads.len(), 1);
    let value = rmpv::decode::read_value(&mut &*request.payloads[0]).unwrap();
    (request.target.clone(), value.to_string())
}

#[test]
fn every_announced_event_has_its_topic_and_keys() {
    const T: &str = "\"t\": 1700000000000000001";
    let fake = FakeHost::new();
    let announce = fake.create::<Announce>("announce", "").unwrap();
    announce.start().unwrap();
    announce.serve();
    let table = [
        (
            event(EventKind::ClientRegistered, "a.b", ""),
            Some((".broker/info", r#"{"s": "reg", "d": "a.b", T}"#)),
        ),
        (
            event(EventKind::ClientLeft, "ü b", "eof"),
            Some((".broker/info", r#"{"s": "unreg", "d": "ü b", T}"#)),
        ),
        (
            event(EventKind::SlowConsumer, "s", "4 s"),
            Some((".broker/alert", r#"{"s": "slow", "d": "s", T}"#)),
        ),
        (
            event(EventKind::PluginState, "tcp", "failed"),
            Some((".broker/alert", r#"{"s": "plugin", "d": "tcp", T}"#)),
        ),
        (event(EventKind::PluginState, "tcp", "serving"), None),
        (event(EventKind::ConnectionRefused, "10.0.0.1:5", "no"), None),
        (event(EventKind::EventsMissed, "", "9"), Some((".broker/info", r#"{"s": "resync", T}"#))),
        (event(EventKind::Shutdown, "", ""), Some((".broker/warn", r#"{"s": "shutdown", T}"#))),
    ];
    let mut expected = Vec::new();
    for (event, publication) in table {
        fake.emit(&event);
        expected.extend(publication.map(|(topic, map)| (topic.to_owned(), map.replace('T', T))));
    }
    let found: Vec<_> = fake.requests().iter().map(shown).collect();
    assert_eq!(found, expected);
    assert!(fake.failures().is_empty());
}

#[test]
fn announcements_never_wait_and_missed_ones_cause_resync() {
    let fake = FakeHost::new();
    let announce = fake.create::<Announce>("announce", "").unwrap();
    announce.start().unwrap();
    for kind in [EventKind::ClientRegistered, EventKind::SlowConsumer, EventKind::EventsMissed] {
        fake.emit(&event(kind, "a", ""));
    }
    fake.emit(&event(EventKind::PublicationsMissed, "slow", ""));
    fake.emit(&event(EventKind::Shutdown, "", ""));
    let requests = fake.requests();
    let skipping: Vec<_> = requests.iter().map(|request| request.best_effort).collect();
    assert_eq!(skipping, [true, true, true, true, true, false]);
    for (request, topic) in requests[3..5].iter().zip([".broker/info", ".broker/alert"]) {
        let value = rmpv::decode::read_value(&mut &*request.payloads[0]).unwrap();
        assert_eq!((request.op, request.target.as_str()), (Op::PublishFor, topic));
        assert_eq!((request.receiver.as_str(), value["s"].as_str()), ("slow", Some("resync")));
    }
}

#[test]
fn nothing_is_announced_before_start_or_after_stop() {
    let fake = FakeHost::new();
    let announce = fake.create::<Announce>("announce", "").unwrap();
    fake.emit(&event(EventKind::Shutdown, "", ""));
    announce.start().unwrap();
    announce.stop(Duration::ZERO);
    fake.emit(&event(EventKind::Shutdown, "", ""));
    assert_eq!(fake.requests(), []);
    assert!(fake.clients().is_empty(), "it publishes without being registered");
}

#[test]
fn configuration_keys_are_refused() {
    let error = FakeHost::new().create::<Announce>("announce", "topic = 'x'").err().unwrap();
    assert_eq!(error.key, "topic");
}
