//! Results that a recipient supplies later, over real sockets: the order of acknowledgements, and recipients
//! that never supply one, fail or leave.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos, request::encode_request};
use std::time::Duration;
use support::{
    daemon::Daemon,
    wire::{Frame, Wire},
};

const OK: u8 = 0x01;
const NOT_REGISTERED: u8 = 0x71;
const OTHER: u8 = 0x74;
/// What `complete` makes of the results that are kept.
const COMPLETED: u8 = 0x76;
/// Enough for acknowledgements that do not wait.
const SHORT: Duration = Duration::from_millis(200);

fn start(more: &str) -> Daemon {
    Daemon::start_config(&format!(
        "[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n\
         config = {{ path = \"bus.sock\", workers = 2, timeout_seconds = 600.0 }}\n\
         [[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n\
         [[plugin]]\nname = \"slow\"\nlibrary = \"elbus_faulty\"\nrestart = \"never\"\n\
         config = {{ client = \"slow\", defers = true }}\n{more}"
    ))
}

/// Writes messages at once, with the ids 1 and up.
fn write_all(client: &mut Wire, messages: &[(&str, &str)]) {
    let mut out = Vec::new();
    for (id, (target, payload)) in (1..).zip(messages) {
        encode_request(&mut out, id, Op::Message, Qos::PROCESSED, target, "", payload.as_bytes()).unwrap();
    }
    client.write(&out);
}

/// Returns the codes of the next acknowledgements, from this id on and in order.
fn codes(client: &mut Wire, first: u32, count: u32) -> Vec<u8> {
    let code = |id: u32| match client.frame() {
        Frame::Ack(got, code) => {
            assert_eq!(got, id, "in the order of the requests");
            code
        }
        other => panic!("{other:?}"),
    };
    (first..first + count).map(code).collect()
}

#[test]
fn later_acknowledgements_of_the_sender_wait_and_those_of_others_do_not() {
    let daemon = start("");
    let (mut sender, mut other, mut receiver) =
        (daemon.client("sender"), daemon.client("other"), daemon.client("receiver"));
    // runs, and mixed runs
    for targets in [["receiver", "receiver"], ["receiver", "nobody"]] {
        let mut messages = vec![("slow", "keep"); 3];
        messages.extend((0..100).map(|at| (targets[at % 2], "x")));
        messages.push(("slow", "keep"));
        messages.push(("receiver", "last"));
        write_all(&mut sender, &messages);
        while receiver.frame().payload() != b"last" {}
        assert!(sender.frame_within(SHORT).is_none());
        assert_eq!(other.send("receiver", b"at once"), OK);
        // what is kept by then: the run of three, and the last one
        assert_eq!(other.send("slow", b"complete"), OK);
        let all = codes(&mut sender, 1, 105);
        assert_eq!((&all[..3], all[103], all[104]), (&[COMPLETED; 3][..], COMPLETED, OK));
        let expected = |at: usize| if targets[at % 2] == "nobody" { NOT_REGISTERED } else { OK };
        assert!((0..100).all(|at| all[at + 3] == expected(at)));
    }
    assert_eq!(sender.send("receiver", b"at once again"), OK);
}

#[test]
fn a_client_is_read_again_once_its_results_are_known() {
    let daemon = start("");
    let (mut sender, mut other, mut receiver) =
        (daemon.client("sender"), daemon.client("other"), daemon.client("receiver"));
    let mut messages = vec![("slow", "keep")];
    messages.extend(vec![("receiver", "x"); 5000]);
    write_all(&mut sender, &messages);
    let mut taken = 1000;
    (0..taken).for_each(|_| assert_eq!(receiver.frame().payload(), b"x"));
    while receiver.frame_within(SHORT).is_some() {
        taken += 1;
    }
    assert!(taken < 3000, "{taken} were read while the first result is unknown");
    assert_eq!(other.send("slow", b"complete"), OK);
    let all = codes(&mut sender, 1, 5001);
    assert!(all[0] == COMPLETED && all[1..].iter().all(|code| *code == OK));
    (taken..5000).for_each(|_| assert_eq!(receiver.frame().payload(), b"x"));
}

#[test]
fn a_result_that_is_dropped_is_an_error_and_so_is_that_of_a_plugin_that_stops() {
    let daemon = start("");
    let (mut sender, mut other) = (daemon.client("sender"), daemon.client("other"));
    write_all(&mut sender, &[("slow", "keep"), ("nobody", "x"), ("other", "dispatched")]);
    assert_eq!(other.frame().payload(), b"dispatched");
    assert!(sender.frame_within(SHORT).is_none());
    assert_eq!(other.send("slow", b"drop"), OK);
    assert_eq!(codes(&mut sender, 1, 3), [OTHER, NOT_REGISTERED, OK]);
    write_all(&mut sender, &[("slow", "keep"), ("other", "dispatched")]);
    assert_eq!(other.frame().payload(), b"dispatched");
    assert!(sender.frame_within(SHORT).is_none());
    other.control("plugin.stop", &[("name", "slow")]).unwrap();
    assert_eq!(codes(&mut sender, 1, 2), [OTHER, OK]);
}

#[test]
fn a_sink_that_panics_after_it_has_deferred_answers_at_once() {
    let daemon = start("");
    let mut sender = daemon.client("sender");
    assert_eq!(sender.send("slow", b"panic"), NOT_REGISTERED);
    daemon.wait_for_log("deferring panics");
    assert_eq!(sender.send("slow", b"keep"), NOT_REGISTERED);
}

#[test]
fn a_sender_that_leaves_while_its_result_is_unknown_leaves_nothing_behind() {
    let daemon = start("");
    let mut other = daemon.client("other");
    for _ in 0..support::rounds(20, 1000) {
        let mut sender = daemon.client("sender");
        write_all(&mut sender, &[("slow", "keep"), ("slow", "keep"), ("other", "x")]);
        assert_eq!(other.frame().payload(), b"x");
        drop(sender);
        support::wait_until("the sender has left", || other.send("sender", b"?") == NOT_REGISTERED);
    }
    assert_eq!(other.send("slow", b"complete"), OK);
    assert_eq!(other.send("slow", b"x"), OK);
}

#[test]
fn an_intercepted_run_has_its_own_codes_and_those_that_are_supplied_later() {
    let daemon = start(
        "[[plugin]]\nname = \"intercepts\"\nlibrary = \"elbus_faulty\"\nconfig = { intercepts = true }\n",
    );
    let (mut sender, mut other) = (daemon.client("sender"), daemon.client("other"));
    let kept = [("slow", "keep"), ("slow", "keep"), ("slow", "reject"), ("slow", "keep")];
    write_all(&mut sender, &[&kept[..], &[("other", "dispatched")]].concat());
    assert_eq!(other.frame().payload(), b"dispatched");
    assert!(sender.frame_within(SHORT).is_none());
    assert_eq!(other.send("slow", b"complete"), OK);
    assert_eq!(codes(&mut sender, 1, 5), [COMPLETED, COMPLETED, 0x72, COMPLETED, OK]);
}
