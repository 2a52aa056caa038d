//! Messages that wait for a name, over real sockets: floods, senders that leave, resolvers that fail or are
//! reloaded, and names that are taken over.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos, request::encode_request};
use std::time::{Duration, Instant};
use support::{
    daemon::Daemon,
    wire::{Frame, Wire},
};

const OK: u8 = 0x01;
const NOT_REGISTERED: u8 = 0x71;
const NOT_DELIVERED: u8 = 0x77;
/// Enough for acknowledgements that do not wait.
const SHORT: Duration = Duration::from_millis(200);

/// Starts a broker with a resolver that has messages to `late.*` wait.
fn start(seconds: f64, broker: &str) -> Daemon {
    Daemon::start_config(&format!(
        "[broker]\ncallback_seconds = 1.0\n{broker}\n\
         [[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n\
         config = {{ path = \"bus.sock\", workers = 2, timeout_seconds = 600.0 }}\n\
         [[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n\
         [[plugin]]\nname = \"names\"\nlibrary = \"elbus_faulty\"\nrestart = \"never\"\n\
         config = {{ resolves = {seconds:?} }}\n"
    ))
}

/// Writes messages at once, with the ids 1 and up.
fn write_all(client: &mut Wire, qos: Qos, messages: &[(&str, &str)]) {
    let mut out = Vec::new();
    for (id, (target, payload)) in (1..).zip(messages) {
        encode_request(&mut out, id, Op::Message, qos, target, "", payload.as_bytes()).unwrap();
    }
    client.write(&out);
}

fn code(client: &mut Wire) -> u8 {
    match client.frame() {
        Frame::Ack(_, code) => code,
        other => panic!("{other:?}"),
    }
}

fn payloads(client: &mut Wire, count: usize) -> Vec<String> {
    (0..count).map(|_| String::from_utf8(client.frame().payload().to_vec()).unwrap()).collect()
}

#[test]
fn messages_arrive_before_everything_that_is_sent_later_and_are_acknowledged_then() {
    let daemon = start(60.0, "");
    let (mut sender, mut other) = (daemon.client("sender"), daemon.client("other"));
    // runs, and mixed runs
    let mut messages = vec![("late.a", "1"), ("late.a", "2"), ("other", "x"), ("late.a", "3")];
    messages.extend([("other", "x"), ("late.b", "1"), ("other", "x"), ("late.a", "4"), ("other", "x")]);
    write_all(&mut sender, Qos::PROCESSED, &messages);
    assert_eq!(payloads(&mut other, 4), ["x"; 4], "others do not wait");
    assert!(sender.frame_within(SHORT).is_none());
    let mut late = daemon.client("late.a");
    assert_eq!(other.send("late.a", b"5"), OK);
    assert_eq!(payloads(&mut late, 5), ["1", "2", "3", "4", "5"]);
    // those before the message to the name that is still awaited
    assert_eq!([(); 5].map(|()| code(&mut sender)), [OK; 5]);
    assert!(sender.frame_within(SHORT).is_none());
    let mut late = daemon.client("late.b");
    assert_eq!(payloads(&mut late, 1), ["1"]);
    assert_eq!([(); 4].map(|()| code(&mut sender)), [OK; 4]);
    assert_eq!(other.send("late.unknown", b"x"), NOT_REGISTERED);
}

#[test]
fn messages_that_are_not_acknowledged_wait_as_well() {
    let daemon = start(60.0, "");
    let mut sender = daemon.client("sender");
    write_all(&mut sender, Qos::NO, &[("late.a", "1"), ("late.a", "2")]);
    write_all(&mut sender, Qos::REALTIME, &[("late.a", "3")]);
    // they have been dispatched
    assert_eq!(sender.send("sender", b"x"), OK);
    let mut late = daemon.client("late.a");
    assert_eq!(payloads(&mut late, 3), ["1", "2", "3"]);
}

#[test]
fn a_name_that_does_not_register_is_refused_in_time() {
    let daemon = start(0.3, "");
    let mut sender = daemon.client("sender");
    let begin = Instant::now();
    write_all(&mut sender, Qos::PROCESSED, &[("late.a", "1"), ("late.b", "1"), ("nobody", "1")]);
    assert_eq!([(); 3].map(|()| code(&mut sender)), [NOT_REGISTERED; 3]);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    let mut late = daemon.client("late.a");
    assert!(late.frame_within(SHORT).is_none());
}

#[test]
fn a_flood_to_names_that_never_register_is_bounded() {
    let daemon = start(60.0, "");
    let mut operator = daemon.client("operator");
    let before = daemon.memory();
    let mut senders: Vec<_> = (0..8).map(|at| daemon.client(&format!("sender{at}"))).collect();
    let payload = "x".repeat(10_000);
    let (mut waiting, mut refused) = (0, 0);
    for (at, sender) in senders.iter_mut().enumerate() {
        let names: Vec<_> = (0..300).map(|name| format!("late.{at}.{name}")).collect();
        let messages: Vec<_> = names.iter().flat_map(|name| [(&**name, &*payload); 3]).collect();
        write_all(sender, Qos::NO, &messages);
        // the broker has read them all
        write_all(sender, Qos::PROCESSED, &[("operator", "x")]);
        assert_eq!(code(sender), OK);
        operator.forget_frames();
    }
    for sender in &mut senders {
        let name = "late.7.299";
        write_all(sender, Qos::PROCESSED, &[(name, "x")]);
        match sender.frame_within(support::PATIENCE) {
            None => waiting += 1,
            Some(Frame::Ack(_, NOT_REGISTERED | NOT_DELIVERED)) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((waiting, refused), (0, 8), "no more can wait");
    assert!(daemon.memory() < before + (64 << 20));
    assert!(support::queued_bytes(&mut operator) <= 17 << 20);
    // one that is awaited gets what waits for it, and the room is free again
    let mut late = daemon.client("late.0.0");
    assert_eq!(payloads(&mut late, 3), [&*payload; 3]);
    operator.control("plugin.stop", &[("name", "names")]).unwrap();
    assert!(support::queued_bytes(&mut operator) < 1 << 20);
    assert_eq!(operator.send("late.0.1", b"x"), NOT_REGISTERED);
}

#[test]
fn messages_of_senders_that_have_left_arrive() {
    let daemon = start(60.0, "");
    let mut operator = daemon.client("operator");
    for at in 0..support::rounds(10, 500) {
        let mut sender = daemon.client("sender");
        let text = at.to_string();
        write_all(&mut sender, Qos::PROCESSED, &[("late.a", &*text), ("operator", "x")]);
        assert_eq!(operator.frame().payload(), b"x");
        drop(sender);
        support::wait_until("the sender has left", || operator.send("sender", b"?") == NOT_REGISTERED);
    }
    let mut late = daemon.client("late.a");
    let expected: Vec<_> = (0..support::rounds(10, 500)).map(|at| at.to_string()).collect();
    assert_eq!(payloads(&mut late, expected.len()), expected);
}

#[test]
fn a_resolver_that_is_reloaded_or_fails_refuses_what_waits() {
    let daemon = start(60.0, "");
    let (mut sender, mut operator) = (daemon.client("sender"), daemon.client("operator"));
    let dispatched = |sender: &mut Wire, operator: &mut Wire, payload| {
        write_all(sender, Qos::PROCESSED, &[("late.a", payload), ("operator", "x")]);
        assert_eq!(operator.frame().payload(), b"x");
        assert!(sender.frame_within(SHORT).is_none());
    };
    dispatched(&mut sender, &mut operator, "1");
    operator.control("plugin.reload", &[("name", "names")]).unwrap();
    assert_eq!([(); 2].map(|()| code(&mut sender)), [NOT_REGISTERED, OK]);
    // the new instance is asked
    dispatched(&mut sender, &mut operator, "2");
    assert_eq!(operator.send("late.panic", b"x"), NOT_REGISTERED);
    assert_eq!([(); 2].map(|()| code(&mut sender)), [NOT_REGISTERED, OK]);
    assert_eq!(sender.send("late.a", b"3"), NOT_REGISTERED);
    operator.control("plugin.start", &[("name", "names")]).unwrap();
    write_all(&mut sender, Qos::PROCESSED, &[("late.a", "4")]);
    assert!(sender.frame_within(SHORT).is_none());
    assert_eq!(payloads(&mut daemon.client("late.a"), 1), ["4"]);
}

#[test]
fn a_resolver_that_blocks_holds_its_callers_only_and_fails() {
    let daemon = start(60.0, "");
    let (mut sender, mut other, mut operator) =
        (daemon.client("sender"), daemon.client("other"), daemon.client("operator"));
    write_all(&mut other, Qos::PROCESSED, &[("late.a", "1")]);
    write_all(&mut sender, Qos::PROCESSED, &[("late.hang", "x")]);
    assert_eq!(operator.send("operator", b"x"), OK, "the other worker goes on");
    daemon.wait_for_log("resolve");
    assert_eq!(code(&mut other), NOT_REGISTERED, "its instance has failed");
}

#[test]
fn a_name_that_is_taken_over_while_messages_arrive_loses_no_order() {
    let daemon = start(60.0, "force_register = true");
    let mut operator = daemon.client("operator");
    let mut senders: Vec<_> = (0..4).map(|at| daemon.client(&format!("sender{at}"))).collect();
    for round in 0..support::rounds(10, 300) {
        let texts: Vec<_> = (0..50).map(|at| format!("{round} {at}")).collect();
        for sender in &mut senders {
            let messages: Vec<_> = texts.iter().map(|text| ("late.a", &**text)).collect();
            write_all(sender, Qos::PROCESSED, &messages);
        }
        let (first, second) = (daemon.client("late.a"), daemon.client("late.a"));
        let mut codes: Vec<Vec<u8>> = vec![];
        for sender in &mut senders {
            codes.push((0..50).map(|_| code(sender)).collect());
        }
        assert!(codes.iter().flatten().all(|code| [OK, NOT_REGISTERED].contains(code)), "{codes:?}");
        drop(first);
        drop(second);
        support::wait_until("nobody has the name", || {
            let clients = operator.control("client.list", &[("filter", "^late.a$")]).unwrap();
            support::field(&clients, "clients").as_array().unwrap().is_empty()
        });
    }
}
