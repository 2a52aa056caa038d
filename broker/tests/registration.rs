//! Registration (protocol section 2): valid names, and what is removed with a client.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::Broker;
use elbus_plugin_api::{Code, Event, EventKind, Op};
use std::sync::{Arc, Mutex};
use support::{Peer, broker};

fn refused(broker: &Broker, name: &str) -> Code {
    Peer::try_new(broker, name).err().unwrap_or(Code::Ok)
}

#[test]
fn names_are_checked_and_become_free() {
    let broker = broker();
    let many_dots = vec!["x"; 61].join(".");
    for name in ["a", "a.b.c", "with space", "ünï", "?", "*", "a.+.#", &many_dots, &"n".repeat(1024)] {
        assert_eq!(refused(&broker, name), Code::Ok, "{name}");
        assert_eq!(refused(&broker, name), Code::Ok, "free again: {name}");
    }
    for name in ["", ".broker", ".x", "a\0b", &"n".repeat(1025), &"n".repeat(65_535)] {
        assert_eq!(refused(&broker, name), Code::BadData, "{name:?}");
    }
    let _owner = Peer::new(&broker, "taken");
    assert_eq!(refused(&broker, "taken"), Code::Busy);
    assert_eq!(refused(&broker, "Taken"), Code::Ok, "names are case-sensitive");
}

#[test]
fn secondaries_are_disconnected_with_their_primary() {
    let broker = broker();
    assert_eq!(refused(&broker, "a%%0"), Code::NotRegistered);
    let primary = Peer::new(&broker, "a");
    let first = Peer::new(&broker, "a%%0");
    let mut second = Peer::new(&broker, "a%%");
    let other = Peer::new(&broker, "ab");
    drop(first);
    assert_eq!(second.send("a", b"x"), Code::Ok, "the primary stays registered");
    assert_eq!(second.send("a%%0", b"x"), Code::NotRegistered);
    drop(primary);
    assert_eq!(second.closed(), ["its primary client a left"]);
    let gone = second.dispatch(Op::Message, Default::default(), "ab", "", &[b"late"]);
    assert!(gone.is_gone(), "its messages are not delivered any more");
    assert!(other.payloads().is_empty());
    assert_eq!(refused(&broker, "a%%"), Code::NotRegistered);
    drop(second);
    assert_eq!(refused(&broker, "a"), Code::Ok);
}

#[test]
fn a_draining_client_can_reply_and_receives_nothing() {
    let broker = broker();
    let mut server = Peer::new(&broker, "server");
    server.subscribe(&["t"]);
    let mut caller = Peer::new(&broker, "caller");
    assert_eq!(caller.send("server", b"call"), Code::Ok);
    server.client.drain();
    assert_eq!(caller.send("server", b"another"), Code::NotRegistered);
    assert_eq!((caller.publish("t", b"x"), caller.broadcast("server", b"x")), (0, 0));
    assert_eq!(server.payloads(), ["call"]);
    assert_eq!(server.send("caller", b"answer"), Code::Ok);
    assert_eq!(caller.payloads(), ["answer"]);
    for op in [Op::Publish, Op::Broadcast, Op::Subscribe] {
        let refused = server.dispatch(op, Default::default(), "caller", "", &[b"x"]);
        assert!(refused.code() == Code::NotSupported && !refused.is_gone(), "{op:?}");
    }
    assert!(server.closed().is_empty());
    assert_eq!(refused(&broker, "server"), Code::Ok, "the name is free");
    server.client.drain();
    // an evicted client cannot send
    assert_eq!(refused(&broker, "server"), Code::Ok);
    let mut kicked = Peer::new(&broker, "kicked");
    let old = kicked.closed();
    let call = elbus_plugin_api::Call::by_broker("client.kick", b"\x81\xa4name\xa6kicked");
    assert!(old.is_empty() && broker.host().call(&call).is_ok());
    kicked.client.drain();
    assert!(kicked.dispatch(Op::Message, Default::default(), "caller", "", &[b"x"]).is_gone());
}

#[test]
fn force_register_evicts_the_previous_owner() {
    let broker = Broker::builder().force_register(true).start().unwrap();
    let mut old = Peer::new(&broker, "a");
    old.subscribe(&["t"]);
    let secondary = Peer::new(&broker, "a%%0");
    let new = Peer::new(&broker, "a");
    assert_eq!(old.closed(), ["replaced by a newer client of the same name"]);
    assert_eq!(secondary.closed().len(), 1);
    let mut sender = Peer::new(&broker, "s");
    assert_eq!(sender.publish("t", b"x"), 0, "the subscriptions of the evicted client are removed");
    drop(old);
    assert_eq!(
        sender.send("a", b"hello"),
        Code::Ok,
        "the end of the previous client does not affect the new one"
    );
    assert_eq!(new.payloads(), ["hello"]);
    let _again = Peer::new(&broker, "a%%0");
    assert_eq!(refused(&broker, "a%%0"), Code::Busy, "secondaries are refused, not evicted");
}

#[test]
fn events_report_registrations_and_departures_in_order() {
    let broker = broker();
    let events = Arc::new(Mutex::new(Vec::new()));
    let listener_events = events.clone();
    broker.host().add_listener(move |event: &Event<'_>| {
        assert!(event.unix_nanos > 1_600_000_000_000_000_000);
        listener_events.lock().unwrap().push((event.kind, event.subject.to_owned()));
    });
    let a = Peer::new(&broker, "a");
    let secondary = Peer::new(&broker, "a%%0");
    let _ = Peer::try_new(&broker, "a");
    drop(a);
    drop(secondary);
    let names: Vec<_> = (0..50).map(|n| format!("n{n}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| drop(Peer::new(&broker, name)));
        }
    });
    drop(broker);
    let events = events.lock().unwrap();
    let of = |name: &str| events.iter().filter(|(_, n)| n == name).map(|(kind, _)| *kind).collect::<Vec<_>>();
    for name in names.iter().map(String::as_str).chain(["a"]) {
        assert_eq!(of(name), [EventKind::ClientRegistered, EventKind::ClientLeft], "{name}");
    }
    assert!(of("a%%0").is_empty(), "secondaries are not announced");
    assert_eq!(events.iter().filter(|(kind, _)| *kind == EventKind::Shutdown).count(), 1);
}

#[test]
fn a_blocking_listener_delays_no_registration_and_is_notified_of_missed_events() {
    let broker = broker();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (send, receive) = std::sync::mpsc::channel();
    let (wait, send) = (Mutex::new(wait), Mutex::new(send));
    broker.host().add_listener(move |event: &Event<'_>| {
        _ = wait.lock().unwrap().recv(); // until the sender is dropped
        _ = send.lock().unwrap().send((event.kind, event.subject.to_owned()));
    });
    let clients: Vec<_> = (0..20_000).map(|number| Peer::new(&broker, &format!("c{number}"))).collect();
    assert_eq!(broker.client_count(), clients.len());
    drop(go);
    let events: Vec<_> = std::iter::from_fn(|| receive.recv_timeout(std::time::Duration::from_secs(30)).ok())
        .take_while(|(_, name)| name != "c19999")
        .collect();
    assert!(events.len() < 10_000, "the queue is bounded: {}", events.len());
    assert!(events.iter().any(|(kind, _)| *kind == EventKind::EventsMissed));
}
