//! `elbus listen`: what it prints, and when it exits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::Qos;
use rustix::process::Signal;
use serde_json::json;
use std::{
    io::Read,
    process::{Command, Stdio},
};
use support::{Bus, Running};

#[test]
fn every_kind_of_frame_is_one_line() {
    let bus = Bus::start();
    let listen = bus.listen(&["-n", "me", "listen", "-t", "a/+", "-t", "b/#", "--exclude", "b/secret"]);
    let (client, _frames) = bus.client("sender");
    bus.runtime.block_on(async {
        client.send("me", "hello", Qos::PROCESSED).await.unwrap();
        client.broadcast("*", "{\"to\": \"all\"}", Qos::PROCESSED).await.unwrap();
        client.publish("b/secret", "x", Qos::PROCESSED).await.unwrap();
        client.publish("c", "x", Qos::PROCESSED).await.unwrap();
        client.publish("a/1", &b"\x81\xa1k\x01"[..], Qos::PROCESSED).await.unwrap();
        client.publish("b/2", "", Qos::REALTIME_PROCESSED).await.unwrap();
        client.publish("a/\x1b[2J", "line\nline\u{202e}", Qos::PROCESSED).await.unwrap();
        client.send("me", vec![0xff; 20], Qos::PROCESSED).await.unwrap();
    });
    assert_eq!(listen.shown(), "message sender hello");
    assert_eq!(listen.shown(), "broadcast sender {\"to\": \"all\"}");
    assert_eq!(listen.shown(), "publish sender a/1 {\"k\":1}");
    assert_eq!(listen.shown(), "publish! sender b/2 (empty)");
    assert_eq!(listen.shown(), "publish sender a/\\x1b[2J line\\nline\\u{202e}");
    assert_eq!(listen.shown(), "message sender 20 bytes");
    assert!(listen.line().starts_with("    00000000  ff ff ff "));
    assert!(listen.line().starts_with("    00000010  ff ff ff ff "));
    listen.signal(Signal::INT);
    assert_eq!(listen.ended(), (0, vec![], vec![]));
}

#[test]
fn without_topics_messages_and_broadcasts_are_shown() {
    let bus = Bus::start();
    let listen = bus.listen(&["-n", "me", "listen"]);
    bus.run(&["publish", "a", "x"]).succeeded();
    bus.run(&["-n", "you", "send", "me", "x"]).succeeded();
    assert_eq!(listen.shown(), "message you x");
    listen.signal(Signal::TERM);
    assert_eq!(listen.ended(), (0, vec![], vec![]));
}

#[test]
fn json_is_one_object_a_line_and_count_ends_it() {
    let bus = Bus::start();
    let listen = bus.listen(&["-n", "me", "--json", "listen", "-t", "a", "--count", "4"]);
    for (topic, payload) in [("a", "{\"k\":[1]}"), ("a", "71.5"), ("a", ""), ("a", "no more")] {
        bus.run(&["-n", "you", "publish", topic, payload]).succeeded();
    }
    let expected = [
        json!({"payload": {"k": [1]}, "encoding": "json", "bytes": 9}),
        json!({"payload": "71.5", "encoding": "text", "bytes": 4}),
        json!({"payload": null, "encoding": "empty", "bytes": 0}),
        json!({"payload": "no more", "encoding": "text", "bytes": 7}),
    ];
    for expected in expected {
        let mut line = listen.json();
        let time = line.as_object_mut().unwrap().remove("time").unwrap();
        assert!(time.as_str().unwrap().ends_with('Z') && time.as_str().unwrap().starts_with("20"), "{time}");
        let mut all = json!({"kind": "publish", "realtime": false, "sender": "you", "topic": "a"});
        all.as_object_mut().unwrap().extend(expected.as_object().unwrap().clone());
        assert_eq!(line, all);
    }
    assert_eq!(listen.ended(), (0, vec![], vec![]));
}

#[test]
fn long_payloads_are_truncated_with_a_note() {
    let bus = Bus::start();
    let listen = bus.listen(&["-n", "me", "listen", "--max-bytes", "4"]);
    bus.run(&["-n", "you", "send", "me", "123456"]).succeeded();
    assert_eq!(listen.shown(), "message you 1234 ... 2 more bytes");
    let listen = bus.listen(&["-n", "them", "listen"]);
    bus.run(&["-n", "you", "send", "them", &"x".repeat(5000)]).succeeded();
    assert_eq!(listen.shown(), format!("message you {} ... 904 more bytes", "x".repeat(4096)));
}

#[test]
fn raw_output_is_the_payload_only() {
    let bus = Bus::start();
    let mut command = bus.command(&["-q", "-n", "me", "listen", "--raw", "--count", "2"]);
    let mut child = command.spawn().unwrap();
    let sent: [&[u8]; 2] = [b"\x1b\0\xff", b"second\n"];
    for payload in sent {
        // fails until the listener has registered
        while bus.run_with_input(&["send", "me"], payload).code != 0 {}
    }
    let mut all = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(all, sent.concat());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "", "-q prints nothing");
}

#[test]
fn a_closed_stdout_ends_listen_silently() {
    let bus = Bus::start();
    // as `elbus listen | head -1` does, even if nothing more arrives
    let mut command = bus.command(&["-n", "me", "listen"]);
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    while bus.run(&["send", "me", "one"]).code != 0 {}
    let mut byte = [0];
    stdout.read_exact(&mut byte).unwrap();
    drop(stdout);
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("listening at "), "{stderr}");
}

#[test]
fn a_closed_stdout_is_not_an_error() {
    let bus = Bus::start();
    for arguments in
        [&["broker", "clients"][..], &["broker", "info", "--json"], &["completions", "bash"], &["--help"]]
    {
        let mut shell = Command::new("sh");
        shell.args(["-c", "{ \"$@\" 2>stderr; echo $? >code; } | true", "sh", env!("CARGO_BIN_EXE_elbus")]);
        shell.args(arguments).current_dir(bus.folder.path()).env("ELBUS_ADDR", bus.address());
        assert!(shell.stdin(Stdio::null()).status().unwrap().success());
        let read = |name| std::fs::read_to_string(bus.path(name)).unwrap();
        assert_eq!((read("code").as_str(), read("stderr").as_str()), ("0\n", ""), "{arguments:?}");
    }
}

#[test]
fn a_lost_connection_is_reported_and_restored() {
    let mut bus = Bus::start();
    let listen = bus.listen(&["-n", "me", "listen", "-t", "a", "--exclude", "b"]);
    bus.stop_broker();
    let line = listen.stderr_line();
    assert!(line.starts_with("connection lost: ") && line.ends_with("; reconnecting"), "{line}");
    let line = listen.stderr_line();
    assert!(
        line.starts_with("cannot reconnect yet: no broker at ") && line.ends_with("; retrying"),
        "{line}"
    );
    bus.start_broker();
    loop {
        let line = listen.stderr_line();
        if line == "reconnected" {
            break;
        }
        // first refused, then missing: each reason is reported once
        assert!(line.starts_with("cannot reconnect yet: "), "{line}");
    }
    bus.run(&["-n", "you", "publish", "a", "after"]).succeeded();
    // announcements of the stopping broker come first
    while listen.shown() != "publish you a after" {}
    listen.signal(Signal::INT);
    assert_eq!(listen.ended().0, 0);
}

#[test]
fn a_lost_connection_is_an_error_without_reconnecting() {
    let mut bus = Bus::start();
    let listen = bus.listen(&["listen", "--no-reconnect"]);
    bus.stop_broker();
    let (code, _, stderr) = listen.ended();
    assert_eq!((code, stderr.len()), (1, 1), "{stderr:?}");
    assert!(stderr[0].starts_with("error: connection lost: "), "{stderr:?}");
    assert!(stderr[0].ends_with("is the broker still running?"), "{stderr:?}");
}

#[test]
fn a_kicked_listener_reconnects() {
    let bus = Bus::start();
    let listen = bus.listen(&["-n", "me", "listen"]);
    bus.run(&["client", "kick", "me"]);
    assert!(listen.stderr_line().starts_with("connection lost: "));
    assert_eq!(listen.stderr_line(), "reconnected");
    bus.run(&["-n", "you", "send", "me", "x"]).succeeded();
    assert_eq!(listen.shown(), "message you x");
}

#[test]
fn a_signal_ends_listen_although_its_stdout_is_full() {
    let bus = Bus::start();
    let mut command = bus.command(&["-n", "me", "listen", "--raw"]);
    let mut child = command.spawn().unwrap();
    // fills the pipe, which is not read
    while bus.run_with_input(&["send", "me"], &vec![b'x'; 1 << 20]).code != 0 {}
    let stdout = child.stdout.take().unwrap();
    let listen = Running::attach(child);
    listen.signal(Signal::TERM);
    assert_eq!(listen.code(), 0);
    drop(stdout);
}
