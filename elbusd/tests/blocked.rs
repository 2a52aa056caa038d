//! Plugins that block a thread of the broker: other clients are served meanwhile, and the log names the
//! plugin.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos, rpc};
use std::{
    io::{BufRead, BufReader, Read},
    time::{Duration, Instant},
};
use support::{
    daemon::{BOTH, Daemon, folder, refused_config, through_shell},
    field, plugin, wait_until,
    wire::Wire,
};

/// Far less than an exit takes if a limit is not kept: without it, it would never end.
const PROMPT: Duration = Duration::from_secs(20);

/// Starts a broker with `workers` threads for its clients and a plugin that never returns from `place`.
fn hanging(origin: &str, workers: u32, place: &str, more: &str) -> Daemon {
    Daemon::start_config(&format!(
        "{more}\n[[plugin]]\nname = \"local\"\n{origin} = \"{}\"\n[plugin.config]\npath = \"bus.sock\"\ntimeout_seconds = 600.0\n\
         workers = {workers}\n[[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n\
         [[plugin]]\nname = \"bad\"\nlibrary = \"elbus_faulty\"\n[plugin.config]\nclient = \"bad.client\"\n\
         hang_in = \"{place}\"\n",
        if origin == "library" { "elbus_unix" } else { "unix" }
    ))
}

#[test]
fn a_blocked_worker_does_not_stop_the_others() {
    for origin in BOTH {
        // linked in, the workers are those of the program
        let daemon = hanging(origin, 4, "deliver", "");
        let mut clients: Vec<_> = (0..3).map(|number| daemon.client(&format!("c{number}"))).collect();
        let blocked = if origin == "library" { 3 } else { 1 };
        let mut held = vec![];
        for number in 0..blocked {
            let mut blocked = daemon.client(&format!("blocked{number}"));
            blocked.request(Op::Message, Qos::NO, "bad.client", "", b"x");
            held.push(blocked);
            // each is requested by a single event, so that the thread that polls for it runs it
            for client in &mut clients {
                assert_eq!(client.send("c0", b"x"), 0x01, "{origin}, {number} blocked");
            }
        }
        drop(daemon.client("new"));
    }
}

fn config(place: &str, more: &str) -> String {
    format!(
        "{more}\n[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n[plugin.config]\npath = \"bus.sock\"\ntimeout_seconds = 600.0\n\
         workers = 2\n[[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n\
         [[plugin]]\nname = \"bad\"\nlibrary = \"elbus_faulty\"\nrestart = \"never\"\n[plugin.config]\n\
         client = \"bad.client\"\nhang_in = \"{place}\"\n"
    )
}

fn line_with<'a>(log: &'a str, parts: &[&str]) -> Option<&'a str> {
    log.lines().find(|line| parts.iter().all(|part| line.contains(part)))
}

fn wait_for_line(daemon: &Daemon, parts: &[&str]) {
    wait_until(&format!("a line with {parts:?}"), || line_with(&daemon.log(), parts).is_some());
}

/// Causes the call of the hanging callback.
fn reach(daemon: &Daemon, place: &str) -> Wire {
    let mut blocked = daemon.client("blocked");
    match place {
        "event" => {}
        "method" | "status" => {
            let call = rpc::encode_request(0, "bad.try", b"").unwrap();
            blocked.request(Op::Message, Qos::NO, ".broker", "", &call);
        }
        _ => _ = blocked.request(Op::Message, Qos::NO, "bad.client", "", b"x"),
    }
    blocked
}

#[test]
fn a_callback_that_does_not_return_is_reported_and_its_plugin_fails() {
    for (place, callback) in [
        ("deliver", "callback=\"deliver\""),
        ("flush", "callback=\"flush\""),
        ("event", "callback=\"on_event\""),
        ("method", "callback=\"a control method\""),
    ] {
        let daemon = Daemon::start_config(&config(place, "[broker]\ncallback_seconds = 1"));
        let blocked = reach(&daemon, place);
        let warned = ["slow callback: has not returned", "milliseconds=100", "plugin=\"bad\"", callback];
        wait_for_line(&daemon, &warned);
        if place != "event" {
            wait_for_line(&daemon, &[&warned[..], &["caller=\"blocked\""]].concat());
        }
        let mut client = daemon.client("client");
        assert_eq!(client.send("client", b"x"), 0x01, "{place}: other clients are served");
        wait_for_line(
            &daemon,
            &["plugin failed", "has not returned within 1 s (callback_seconds)", "plugin=\"bad\""],
        );
        // from the client that does not hang, and for an event from the thread that replaced the hanging one
        let listed = plugin(&mut client, "bad").unwrap();
        assert_eq!(field(&listed, "state").as_str(), Some("failed"), "{place}");
        assert!(field(&listed, "slow_callbacks").as_u64().unwrap() >= 1, "{place}: {listed}");
        wait_until("its client is unregistered", || client.send("bad.client", b"x") == 0x71);
        assert_eq!(client.send("client", b"x"), 0x01);
        drop(blocked);
        let (status, log) = daemon.stop();
        assert!(status.success(), "{place}: {log}");
    }
}

/// Starts a broker with a plugin that has many clients, and with this line in its table.
fn with_clients(line: &str) -> Daemon {
    let config = config("nowhere", "[broker]\ncallback_seconds = 1");
    Daemon::start_config(&config.replace("hang_in = \"nowhere\"", &format!("clients = 1000\n{line}")))
}

#[test]
fn short_callbacks_that_hold_up_a_thread_together_are_reported_and_their_plugin_fails() {
    let daemon = with_clients("linger_in = \"deliver\"");
    let mut sender = daemon.client("sender");
    // one message for a thousand clients, each of which takes a moment
    sender.request(Op::Broadcast, Qos::NO, "bad.*", "", b"x");
    let of_whom = ["plugin=\"bad\"", "callback=\"deliver\"", "caller=\"sender\""];
    let warned = ["slow callbacks without a pause", "milliseconds=100"];
    wait_for_line(&daemon, &[&warned[..], &of_whom].concat());
    let failed = "deliver has been called without a pause for 1 s (callback_seconds)";
    wait_for_line(&daemon, &["plugin failed", failed, "plugin=\"bad\""]);
    // the thread is free again once these clients are unregistered
    assert_eq!(sender.send("sender", b"x"), 0x01);
}

#[test]
fn a_callback_that_makes_endless_short_calls_is_reported_itself() {
    let daemon = with_clients("loop_in = \"deliver\"");
    let mut sender = daemon.client("sender");
    sender.request(Op::Message, Qos::NO, "bad.client1", "", b"x");
    wait_for_line(&daemon, &["slow callback: has not returned", "plugin=\"bad\"", "deliver"]);
    wait_for_line(&daemon, &["plugin failed", "deliver has not returned within 1 s", "plugin=\"bad\""]);
    daemon.signal(rustix::process::Signal::KILL);
}

#[test]
fn a_status_that_does_not_return_delays_only_the_list() {
    let daemon = Daemon::start_config(&config("status", "[broker]\ncallback_seconds = 1"));
    let mut client = daemon.client("client");
    client.call(".broker", "bad.try", b"").unwrap();
    assert_eq!(field(&plugin(&mut client, "bad").unwrap(), "state").as_str(), Some("started"));
    wait_for_line(&daemon, &["plugin failed", "status has not returned", "plugin=\"bad\""]);
    assert_eq!(field(&plugin(&mut client, "bad").unwrap(), "state").as_str(), Some("failed"));
}

#[test]
fn a_start_reports_the_plugin_it_waits_for_and_times_out() {
    for place in ["create", "start"] {
        let refused = refused_config(&config(place, "[broker]\nstart_seconds = 1"));
        let line = line_with(&refused, &["slow callback: has not returned", "plugin=\"bad\"", place]);
        assert!(line.is_some(), "{refused}");
        assert!(
            refused.contains(&format!("{place} has not returned within 1 s (start_seconds)")),
            "{refused}"
        );
    }
}

/// Starts `elbusd` without waiting until it is ready.
fn spawn(folder: &std::path::Path, text: &str) -> std::process::Child {
    std::fs::write(folder.join("broker.toml"), text).unwrap();
    let mut command = through_shell(folder, "exec \"$@\"", &["--config", "broker.toml"]);
    command.spawn().unwrap()
}

/// Sends SIGTERM. Returns how long the exit took, the exit code, and the log since the signal.
fn terminate(mut child: std::process::Child, mut log: impl Read) -> (Duration, Option<i32>, String) {
    let begun = Instant::now();
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    let took = begun.elapsed();
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    (took, status.code(), text)
}

#[test]
fn time_while_the_process_is_suspended_does_not_count() {
    let (folder, begun) = (folder(), Instant::now());
    let mut child = spawn(folder.path(), &config("start", "[broker]\nstart_seconds = 2"));
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut wait_for = |text: &str| {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0);
        }
    };
    wait_for("slow callback: has not returned");
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let stopped = Duration::from_secs(3);
    std::thread::sleep(stopped);
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    wait_for("start has not returned within 2 s");
    // a millisecond of difference between the clocks
    assert!(begun.elapsed() + Duration::from_millis(10) >= stopped + Duration::from_secs(2));
    child.wait().unwrap();
}

#[test]
fn a_hanging_start_ends_on_a_signal_and_names_the_plugin() {
    for place in ["create", "start"] {
        let folder = folder();
        let mut child = spawn(folder.path(), &config(place, "[broker]\nshutdown_seconds = 1"));
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("slow callback: has not returned") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0);
        }
        let (took, code, log) = terminate(child, log);
        assert_eq!(code, Some(0), "{place}: {log}");
        assert!(took < PROMPT, "{place}: {took:?}");
        assert!(
            line_with(&log, &["callback abandoned", "plugin=\"bad\"", place]).is_some(),
            "{place}: {log}"
        );
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["broker.toml"], "{place}: plugins that had started were stopped");
    }
}

#[test]
fn the_process_exits_in_time_even_if_a_callback_hangs() {
    for place in ["deliver", "event", "method", "stop"] {
        let more = "[broker]\nshutdown_seconds = 1";
        let daemon = Daemon::start_config(&config(place, more));
        let blocked = reach(&daemon, if place == "stop" { "event" } else { place });
        if place != "stop" {
            wait_for_line(&daemon, &["slow callback: has not returned"]);
        }
        let begun = Instant::now();
        let (_, log) = daemon.stop();
        let took = begun.elapsed();
        assert!(took < PROMPT, "{place}: {took:?} {log}");
        assert!(
            line_with(&log, &["bad", if place == "event" { "on_event" } else { place }]).is_some(),
            "{log}"
        );
        drop(blocked);
    }
}

#[test]
fn a_second_signal_ends_the_process_immediately() {
    let daemon = Daemon::start_config(&config("stop", "[broker]\nshutdown_seconds = 3600"));
    daemon.signal(rustix::process::Signal::TERM);
    daemon.wait_for_log("shutting down");
    daemon.signal(rustix::process::Signal::INT);
    let (status, log) = daemon.wait_end();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("second signal (SIGINT): exiting immediately"), "{log}");
}
