//! `elbus monitor`: what it prints, what it says about brokers that cannot be monitored, and when it exits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::PluginDeclaration;
use elbus_client::{Qos, Router};
use rustix::process::Signal;
use serde_json::json;
use support::{Bus, Running};

/// Starts a broker that can be monitored.
fn monitored() -> Bus {
    let mut bus = Bus::without_broker();
    start_monitored(&mut bus);
    bus
}

fn start_monitored(bus: &mut Bus) {
    bus.start_with(|builder| {
        builder
            .plugin(PluginDeclaration::linked("tcp", elbus_tcp::plugin()).set("bind", "127.0.0.1:0"))
            .plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin()))
            .plugin(PluginDeclaration::linked("monitor", elbus_monitor::plugin()))
    });
}

/// Starts `elbus monitor`, and waits until it monitors.
fn monitor(bus: &Bus, arguments: &[&str]) -> Running {
    let running = Running::start(bus.command(arguments));
    let line = running.stderr_line();
    assert!(line.starts_with("monitoring ") && line.ends_with("press Ctrl-C to exit"), "{line}");
    running
}

/// Returns a line of the monitor, with the duration and the id of a call replaced.
fn shown(running: &Running) -> String {
    let line = running.shown();
    let words = line.split(' ').map(|word| match word.split_once('#') {
        Some((kind, id)) if id.parse::<u32>().is_ok() => format!("{kind}#ID"),
        _ => word.to_owned(),
    });
    let line = words.collect::<Vec<_>>().join(" ");
    match line.find("us)").or(line.find("ms)")) {
        Some(end) => {
            let begin = line[..end].rfind(['(', ',']).unwrap();
            format!("{}(took){}", line[..begin].trim_end(), &line[end + 3..])
        }
        None => line,
    }
}

#[test]
fn messages_of_all_clients_and_their_calls_are_printed() {
    let bus = monitored();
    let (callee, _frames) = bus.client("callee");
    async fn double(number: u32) -> Result<u32, elbus_client::RpcError> {
        number.checked_mul(2).ok_or_else(|| elbus_client::RpcError::new(7, "too large"))
    }
    callee.serve(Router::new().method("double", double)).unwrap();
    let (caller, _frames) = bus.client("caller");
    let monitor = monitor(&bus, &["-n", "me", "monitor"]);
    bus.runtime.block_on(async {
        callee.add_filters("t/#").await.unwrap();
        caller.publish("t/x", "71.5", Qos::PROCESSED).await.unwrap();
        caller.broadcast("nobody.*", "all", Qos::PROCESSED).await.unwrap();
        assert!(caller.send("nobody", "x", Qos::PROCESSED).await.is_err());
        let result: u32 = caller.call_as("callee", "double", &21).await.unwrap();
        assert_eq!(result, 42);
        assert!(caller.call_as::<u32>("callee", "double", &u32::MAX).await.is_err());
    });
    assert_eq!(shown(&monitor), "publish caller -> t/x (1 recipients) 71.5");
    assert_eq!(shown(&monitor), "broadcast caller -> nobody.* (0 recipients) all");
    assert_eq!(shown(&monitor), "message caller -> nobody (not registered) x");
    assert_eq!(shown(&monitor), "call#ID caller -> callee double 21");
    assert_eq!(shown(&monitor), "reply#ID callee -> caller double(took) 42");
    assert_eq!(shown(&monitor), "call#ID caller -> callee double 4294967295");
    assert_eq!(shown(&monitor), "error#ID callee -> caller double (7(took) too large");
    monitor.signal(Signal::INT);
    assert_eq!(monitor.ended(), (0, vec![], vec![]));
}

#[test]
fn json_lines_filters_and_count() {
    let bus = monitored();
    let monitor = monitor(&bus, &["--json", "monitor", "-t", "a/#", "--client", "me", "--count", "2"]);
    for (name, topic) in [("me", "a/1"), ("you", "a/1"), ("me", "b"), ("me", "a/2"), ("me", "a/3")] {
        bus.run(&["-n", name, "publish", topic, "{\"k\":1}"]).succeeded();
    }
    for topic in ["a/1", "a/2"] {
        let mut line = monitor.json();
        assert!(line.as_object_mut().unwrap().remove("time").unwrap().as_str().unwrap().ends_with('Z'));
        let expected = json!({"kind": "publish", "realtime": false, "sender": "me", "target": topic, "code": 1,
            "status": "ok", "recipients": 0, "payload": {"k": 1}, "encoding": "json", "bytes": 7});
        assert_eq!(line, expected);
    }
    assert_eq!(monitor.ended(), (0, vec![], vec![]));
}

#[test]
fn payloads_are_cut_unless_all_is_requested() {
    let bus = monitored();
    for (arguments, expected) in [
        (&["monitor", "--count", "1"][..], format!("{} ... 904 more bytes", "x".repeat(4096))),
        (&["monitor", "--count", "1", "--full"], "x".repeat(5000)),
    ] {
        let monitor = monitor(&bus, arguments);
        bus.run(&["-n", "me", "publish", "t", &"x".repeat(5000)]).succeeded();
        assert_eq!(monitor.shown(), format!("publish me -> t (0 recipients) {expected}"));
        assert_eq!(monitor.code(), 0);
    }
}

#[test]
fn a_slow_reader_learns_what_it_missed() {
    let bus = monitored();
    let mut command = bus.command(&["--json", "monitor", "--rpc", "--full"]);
    let mut child = command.spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let running = Running::attach(child);
    running.stderr_line();
    let (client, _frames) = bus.client("me");
    let (receiver, _receiver_frames) = bus.client("you");
    let total = 400;
    // far more than the window, the pipe and the queue of the monitor take
    bus.runtime.block_on(async {
        for _ in 0..total {
            client.notify("you", vec![b'x'; 100_000], Qos::PROCESSED).await.unwrap();
        }
    });
    drop(receiver);
    let (mut records, mut missed) = (0, 0);
    for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)) {
        let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        match line["kind"].as_str().unwrap() {
            "missed" => missed += line["count"].as_u64().unwrap(),
            _ => records += 1,
        }
        // renewals can be among what was missed
        if records + missed >= total {
            break;
        }
    }
    assert!(records >= 5 && missed > 0, "{records} {missed}");
    running.signal(Signal::INT);
    let (code, _, stderr) = running.ended();
    let reported = stderr.last().and_then(|line| line.strip_suffix(" messages missed")?.parse().ok());
    assert!(code == 0 && reported >= Some(missed), "{stderr:?} {missed}");
}

#[test]
fn a_session_that_the_broker_ends_is_an_error() {
    let mut bus = monitored();
    let running = monitor(&bus, &["monitor"]);
    bus.run(&["plugin", "stop", "monitor"]).succeeded();
    let (code, _, stderr) = running.ended();
    assert_eq!((code, stderr.len()), (1, 1), "{stderr:?}");
    assert_eq!(stderr[0], "error: the broker has ended the session: the plugin monitor stops");

    bus.run(&["plugin", "start", "monitor"]).succeeded();
    let running = monitor(&bus, &["monitor", "--no-reconnect"]);
    bus.stop_broker();
    let (code, _, stderr) = running.ended();
    assert_eq!((code, stderr.len()), (1, 1), "{stderr:?}");
}

#[test]
fn a_restarted_broker_is_monitored_again() {
    let mut bus = monitored();
    let running = monitor(&bus, &["-n", "me", "monitor", "-t", "t/#"]);
    for round in 0..2 {
        bus.run(&["-n", "you", "publish", "t/1", "before"]).succeeded();
        assert!(shown(&running).contains("before"), "{round}");
        bus.stop_broker();
        let line = running.stderr_line();
        assert!(line.starts_with("connection lost: ") && line.ends_with("; reconnecting"), "{line}");
        start_monitored(&mut bus);
        while running.stderr_line() != "reconnected" {}
        // the new session begins soon after that
        bus.wait_for_sessions(1);
    }
    running.signal(Signal::INT);
    assert_eq!(running.ended().0, 0);
}

#[test]
fn a_broker_that_comes_back_without_the_plugin_is_an_error() {
    let mut bus = monitored();
    let running = monitor(&bus, &["monitor"]);
    bus.stop_broker();
    bus.start_broker();
    let (code, _, stderr) = running.ended();
    assert_eq!(code, 1, "{stderr:?}");
    assert!(stderr.last().unwrap().ends_with("does not load the plugin elbus_monitor"), "{stderr:?}");
}

#[test]
fn a_broker_that_cannot_be_monitored_is_one_clear_sentence() {
    let bus = Bus::start();
    let failure = bus.failure(1, &["monitor"]);
    assert_eq!(
        failure,
        "error: the broker cannot be monitored: its configuration does not load the plugin elbus_monitor"
    );
    let mut bus = Bus::without_broker();
    bus.start_with(|builder| builder);
    let failure = bus.failure(1, &["monitor"]);
    assert!(failure.ends_with("does not load the plugin elbus_rpc"), "{failure}");
    let bus = monitored();
    let failure = bus.failure(1, &["--addr", &bus.tcp_address(), "monitor"]);
    assert!(failure.contains("access denied") && failure.contains("through its UNIX socket"), "{failure}");
    let failure = bus.failure(1, &["monitor", "-t", ""]);
    assert!(failure.contains("topics: \"\" matches nothing"), "{failure}");
}
