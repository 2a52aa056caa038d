//! `elbus listen`: what it prints, and when it exits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::PluginDeclaration;
use elbus_client::{Client, Qos};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read},
    process::{ChildStdout, Command, Stdio},
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

/// Returns the subscriptions with options of a client.
fn options(client: &Client, bus: &Bus, name: &str) -> Vec<String> {
    let info = bus.runtime.block_on(client.call_as::<Value>(
        ".broker",
        "client.info",
        &HashMap::from([("name", name)]),
    ));
    let info = info.unwrap();
    let all = info["options"].as_array().unwrap().iter();
    all.map(|one| one["filter"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn topics_are_subscribed_to_lossily_unless_the_user_wants_another_option() {
    let bus = Bus::start();
    let (client, _frames) = bus.client("witness");
    for (arguments, expected) in [
        (&["-t", "a", "-t", "b/#"][..], &["$lossy/a", "$lossy/b/#"][..]),
        (&["-t", "a", "-t", "$every/5/b", "-t", ""], &["$every/5/b", "$lossy/a"]),
        (&["-t", "a", "--latest"], &["$latest/a"]),
        (&["-t", "a", "--lossless"], &[]),
    ] {
        for command in [&["listen"][..], &["rpc", "listen"]] {
            let all = [&["-n", "me"][..], command, arguments].concat();
            let listen = bus.listen(&all);
            assert_eq!(options(&client, &bus, "me"), expected, "{all:?}");
            if command == ["listen"] {
                bus.run(&["-n", "you", "publish", "a", "x"]).succeeded();
                assert_eq!(listen.shown(), "publish you a x");
            }
            listen.signal(Signal::INT);
            assert_eq!(listen.ended(), (0, vec![], vec![]));
        }
    }
    let failure = bus.failure(2, &["listen", "--latest", "--lossless"]);
    assert!(failure.contains("cannot be used with"), "{failure}");
}

#[test]
fn malformed_options_are_explained() {
    let bus = Bus::start();
    for (filter, reason) in [
        ("$every/0/x", "the interval must be 1 to 86400000 milliseconds"),
        ("$share//x", "the group must have 1 to 255 bytes and no wildcards"),
        ("$latest", "the options have no filter behind them"),
    ] {
        assert_eq!(bus.failure(2, &["listen", "-t", filter]), format!("error: --topic {filter:?}: {reason}"));
    }
    let failure = bus.failure(2, &["publish", "$latest/x", "1"]);
    assert!(
        failure.starts_with("error: \"$latest/x\" begins with what is an option of filters"),
        "{failure}"
    );
}

#[test]
fn a_broker_without_options_is_listened_to_without_them() {
    let mut bus = Bus::without_broker();
    bus.start_with(|builder| builder);
    let listen = Running::start(bus.command(&["-n", "me", "listen", "-t", "a"]));
    let line = listen.stderr_line();
    assert!(line.starts_with("the broker does not know $lossy: while this terminal is stopped"), "{line}");
    assert!(listen.stderr_line().starts_with("listening at "));
    bus.run(&["-n", "you", "publish", "a", "x"]).succeeded();
    assert_eq!(listen.shown(), "publish you a x");
    // it returns with options, then without them
    bus.stop_broker();
    bus.start_broker();
    while listen.stderr_line() != "reconnected" {}
    let (client, _frames) = bus.client("witness");
    while options(&client, &bus, "me") != ["$lossy/a"] {}
    bus.run(&["-n", "you", "publish", "a", "y"]).succeeded();
    while listen.shown() != "publish you a y" {}
    bus.runtime.block_on(client.close());
    bus.stop_broker();
    bus.start_with(|builder| builder);
    while !listen.stderr_line().starts_with("the broker does not know $lossy: ") {}
    let (client, _frames) = bus.client("witness");
    let shows = || {
        bus.runtime.block_on(client.publish("a", "z", Qos::PROCESSED)).unwrap();
        listen.shown().ends_with("publish witness a z")
    };
    while !shows() {}
}

/// A broker that does not disconnect a client for reading nothing within the time of a test.
fn patient_bus() -> (Bus, String) {
    let mut bus = Bus::without_broker();
    bus.start_with(|builder| {
        let tcp = PluginDeclaration::linked("tcp", elbus_tcp::plugin()).set("bind", "127.0.0.1:0");
        builder
            .plugin(tcp.set("timeout_seconds", 300.0).set("stall_seconds", 299.0))
            .plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin()))
    });
    let address = bus.tcp_address();
    (bus, address)
}

/// Publishes far more than all queues have room for; each publication is acknowledged.
fn publish_much(bus: &Bus) -> u64 {
    const COUNT: u64 = 800;
    let (client, _frames) = bus.client("publisher");
    bus.runtime.block_on(async {
        for _ in 0..COUNT {
            client.publish("t/a", vec![b'x'; 100_000], Qos::PROCESSED).await.unwrap();
        }
    });
    COUNT
}

/// Reads JSON lines until everything is printed or reported as missed.
fn count_all(bus: &Bus, stdout: ChildStdout, published: u64) {
    // the frame behind the last gap reports it
    let (client, _frames) = bus.client("witness");
    let more = bus.runtime.spawn(async move {
        while client.publish("t/more", "", Qos::PROCESSED).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    let (mut printed, mut missed) = (0, 0);
    let mut lines = BufReader::new(stdout).lines();
    while printed + missed < published {
        let line: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        match line["kind"].as_str().unwrap() {
            "missed" => missed += line["count"].as_u64().unwrap(),
            _ => printed += u64::from(line["topic"] != "t/more"),
        }
    }
    more.abort();
    assert!(missed > 0 && printed > 0, "{printed} {missed}");
}

#[test]
fn a_stopped_listener_holds_no_publisher_and_prints_what_it_has_missed() {
    for options in [&["listen", "-t", "t/#"][..], &["rpc", "listen", "-t", "t/#"]] {
        let (bus, address) = patient_bus();
        let arguments = [&["-n", "me", "--addr", &address, "--json"], options].concat();
        let mut child = bus.command(&arguments).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let listen = Running::attach(child);
        assert!(listen.stderr_line().starts_with("listening at "));
        listen.signal(Signal::STOP);
        let published = publish_much(&bus);
        listen.signal(Signal::CONT);
        count_all(&bus, stdout, published);
    }
}

#[test]
fn a_listener_whose_output_is_not_read_holds_no_publisher() {
    let (bus, address) = patient_bus();
    let arguments = ["-n", "me", "--addr", &address, "--json", "listen", "-t", "t/#"];
    let mut child = bus.command(&arguments).spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let listen = Running::attach(child);
    assert!(listen.stderr_line().starts_with("listening at "));
    let published = publish_much(&bus);
    // it goes on reading, so messages hold nobody either
    let (client, _frames) = bus.client("sender");
    bus.runtime.block_on(async {
        for _ in 0..200 {
            client.send("me", vec![b'x'; 100_000], Qos::PROCESSED).await.unwrap();
        }
    });
    count_all(&bus, stdout, published + 200);
    drop(listen);
}
