//! Hooks in a broker with sockets: codes of intercepted messages, interceptors that fail or block, and hooks
//! that come and go under load.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos, request::encode_request};
use std::path::Path;
use support::{
    daemon::{BOTH, Daemon, folder},
    field,
    load::Load,
    plugin, wait_until,
    wire::{Frame, Wire},
};

const OK: u8 = 0x01;
const BAD_DATA: u8 = 0x72;
const OTHER: u8 = 0x74;

/// Returns a configuration with a UNIX transport, RPC, and more.
fn config(origin: &str, more: &str) -> String {
    let library = if origin == "library" { "elbus_" } else { "" };
    format!(
        "[broker]\nplugin_dirs = [\".\"]\ncallback_seconds = 1.0\n\
         [[plugin]]\nname = \"local\"\n{origin} = \"{library}unix\"\nconfig = {{ path = \"bus.sock\", workers = 2, timeout_seconds = 600.0 }}\n\
         [[plugin]]\nname = \"rpc\"\n{origin} = \"{library}rpc\"\n{more}"
    )
}

fn examples_in(folder: &Path) {
    let built = std::env::current_exe().unwrap();
    for name in ["librange_check.so", "librecorder.so"] {
        std::fs::copy(built.parent().unwrap().join(name), folder.join(name)).unwrap();
    }
}

fn start(text: &str) -> Daemon {
    let home = folder();
    examples_in(home.path());
    std::fs::write(home.path().join("broker.toml"), text).unwrap();
    Daemon::start_in(home, &["--config", "broker.toml"])
}

/// Writes publications of topic and payload at once; returns the code of each.
fn publish_all(client: &mut Wire, publications: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, (topic, payload)) in (1..).zip(publications) {
        let (qos, payload) = (Qos::PROCESSED, payload.as_bytes());
        encode_request(&mut out, id, Op::Publish, qos, topic, "", payload).unwrap();
    }
    client.write(&out);
    let code = |id: u32| match client.frame() {
        Frame::Ack(got, code) => {
            assert_eq!(got, id, "in the order of the requests");
            code
        }
        other => panic!("{other:?}"),
    };
    (1..=publications.len() as u32).map(code).collect()
}

const RANGE: &str = "[[plugin]]\nname = \"range\"\nlibrary = \"range_check\"\n\
                     config = { filters = [\"t/#\"], min = 0.0, max = 10.0 }\n";

#[test]
fn each_publication_of_a_write_has_its_own_code() {
    for origin in BOTH {
        let daemon = start(&config(origin, RANGE));
        let (mut sender, mut receiver) = (daemon.client("sender"), daemon.client("receiver"));
        receiver.subscribe(&["#"]);
        // runs, and mixed runs
        for topics in [["t/a", "t/a"], ["t/a", "u"]] {
            let publications: Vec<_> =
                (0..200).map(|at| (topics[at % 2], ["5", "11", "x", "0"][at / 2 % 4])).collect();
            let expected: Vec<_> = publications
                .iter()
                .map(
                    |(topic, payload)| {
                        if topic.starts_with('t') && ["11", "x"].contains(payload) { BAD_DATA } else { OK }
                    },
                )
                .collect();
            assert_eq!(publish_all(&mut sender, &publications), expected);
            for ((topic, payload), _) in publications.iter().zip(&expected).filter(|(_, code)| **code == OK) {
                let frame = receiver.frame();
                let Frame::Data(_, _, received, ..) = &frame else { panic!("{frame:?}") };
                assert_eq!((&**received, frame.payload()), (*topic, payload.as_bytes()));
            }
        }
        let mut operator = daemon.client("operator");
        // a plugin that does not answer in time has its last status
        wait_until("its status is up to date", || {
            let range = plugin(&mut operator, "range").unwrap();
            field(&range, "detail").as_str() == Some("150 values refused")
        });
    }
}

fn faulty(more: &str, place: &str) -> String {
    format!(
        "[[plugin]]\nname = \"bad\"\nlibrary = \"elbus_faulty\"\nrestart = \"never\"\n{more}\n[plugin.config]\n\
         intercepts = true\n{place} = \"intercept\"\n"
    )
}

#[test]
fn messages_pass_or_are_rejected_after_an_interceptor_has_failed() {
    for (more, expected) in [("", OTHER), ("on_failure = \"open\"", OK), ("on_failure = \"closed\"", OTHER)] {
        for place in ["panic_in", "hang_in"] {
            let daemon = start(&config("library", &faulty(more, place)));
            let (mut client, mut other) = (daemon.client("client"), daemon.client("other"));
            assert_eq!(other.send("other", b"x"), OK);
            client.request(Op::Message, Qos::PROCESSED, "other", "", b"now");
            // the client whose message it never returns from stays blocked
            let passes = expected == OK;
            daemon.wait_for_log(if passes { "messages pass its interceptors" } else { "are rejected until" });
            let bad = plugin(&mut other, "bad").unwrap();
            assert_eq!(field(&bad, "state").as_str(), Some("failed"));
            assert_eq!(other.send("other", b"x"), expected, "{more} {place}");
            // the broker can be managed, and a restart ends it
            other.control("plugin.start", &[("name", "bad")]).unwrap();
            assert_eq!(other.send("other", b"x"), OK, "{more} {place}");
        }
    }
}

#[test]
fn explain_names_interceptors_their_places_and_those_that_reject_everything() {
    let text = config("library", RANGE) + &faulty("", "panic_in");
    let daemon = start(&text);
    let is_of = |place: &str, name: &str| {
        let line: usize = place.rsplit_once("broker.toml:").unwrap().1.parse().unwrap();
        let names = text.lines().take(line).filter(|line| line.starts_with("name = "));
        names.last() == Some(&*format!("name = \"{name}\""))
    };
    let (mut client, mut other) = (daemon.client("client"), daemon.client("other"));
    let mut explain = |action: &str, target: &str| {
        let answer = other.control("explain", &[("action", action), ("name", "client"), ("target", target)]);
        let answer = answer.unwrap();
        let interceptors = field(&answer, "interceptors").as_array().unwrap();
        let text = |value: &rmpv::Value, key: &str| field(value, key).as_str().unwrap().to_owned();
        let interceptors: Vec<_> = interceptors
            .iter()
            .map(|one| {
                let (plugin, place) = (text(one, "plugin"), text(one, "place"));
                assert!(is_of(&place, &plugin), "{plugin}: {place}");
                (plugin, text(one, "on_failure"), field(one, "serves").as_bool().unwrap())
            })
            .collect();
        (field(&answer, "allowed").as_bool().unwrap(), text(&answer, "why"), interceptors)
    };
    let bad = |serves| ("bad".to_owned(), "closed".to_owned(), serves);
    let range = ("range".to_owned(), "closed".to_owned(), true);
    let (allowed, _, interceptors) = explain("publish", "t/x");
    assert!(allowed);
    assert_eq!(interceptors, [bad(true), range]);
    assert_eq!(explain("send", "other").2, [bad(true)]);
    // not intercepted
    assert!(explain("send", ".broker").2.is_empty() && explain("call", "test").2.is_empty());
    client.request(Op::Message, Qos::PROCESSED, "other", "", b"now");
    daemon.wait_for_log("are rejected until");
    let (allowed, why, interceptors) = explain("broadcast", "*");
    assert_eq!((allowed, interceptors), (false, vec![bad(false)]));
    assert!(why.starts_with("rejected: the interceptor of plugin \"bad\" does not serve"), "{why}");
}

#[test]
fn no_message_passes_unchecked_while_an_interceptor_is_reloaded() {
    let daemon = start(&config("library", RANGE));
    let (mut sender, mut operator) = (daemon.client("sender"), daemon.client("operator"));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..support::rounds(20, 500) {
                operator.control("plugin.reload", &[("name", "range")]).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let (mut checked, mut rejected) = (0, 0);
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            for code in publish_all(&mut sender, &[("t/x", "warm"); 64]) {
                match code {
                    BAD_DATA => checked += 1,
                    OTHER => rejected += 1,
                    code => panic!("{code:x}: a value that is out of range has passed"),
                }
            }
        }
        assert!(checked > 0, "{checked} checked, {rejected} rejected");
    });
    assert_eq!(publish_all(&mut sender, &[("t/x", "5"), ("t/x", "50")]), [OK, BAD_DATA]);
}

#[test]
fn hooks_that_come_and_go_under_load_lose_nothing() {
    let daemon = start(&config("library", ""));
    let load = Load::start(&daemon);
    let mut operator = daemon.client("operator");
    let without = std::fs::read_to_string(daemon.path("broker.toml")).unwrap();
    let range = RANGE.replace("t/#", "nobody/#");
    let recorder = "[[plugin]]\nname = \"recorder\"\nlibrary = \"recorder\"\n\
                    config = { file = \"recorded\", filters = [\"never\"], masks = [\"*\"] }\n";
    for round in 0..support::rounds(6, 200) {
        let more = [recorder, &range][round % 2];
        std::fs::write(daemon.path("broker.toml"), format!("{without}{more}")).unwrap();
        operator.control("config.reload", &[]).unwrap();
        load.wait_for_more();
    }
    std::fs::write(daemon.path("broker.toml"), &without).unwrap();
    operator.control("config.reload", &[]).unwrap();
    let recorded = std::fs::read_to_string(daemon.path("recorded")).unwrap();
    assert!(
        recorded.lines().any(|line| line.contains("load.0.sender -> load.0.receiver")),
        "{recorded:.200}"
    );
    let counts = load.stop();
    assert!(counts.acknowledged > 0, "{counts:?}");
}
