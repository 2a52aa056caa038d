//! Reloads of broker.toml by signal and by `config.reload`: plugins that are added, removed, restarted and
//! kept.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use rustix::process::Signal;
use std::path::Path;
use support::{
    daemon::{Daemon, folder},
    field, is_started, names, plugin, wait_until,
    wire::Wire,
};

/// Clients in these tests do not ping.
const LOCAL: &str = "[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n\
                     config = { path = \"bus.sock\", timeout_seconds = 600.0 }\n\
                     [[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n";

fn faulty(name: &str, config: &str) -> String {
    format!("[[plugin]]\nname = \"{name}\"\nlibrary = \"elbus_faulty\"\n[plugin.config]\n{config}\n")
}

fn unix(name: &str, source: &str, path: &str) -> String {
    format!("[[plugin]]\nname = \"{name}\"\n{source}\n[plugin.config]\npath = \"{path}\"\n")
}

fn write(daemon: &Daemon, text: &str) {
    std::fs::write(daemon.path("broker.toml"), text).unwrap();
}

fn reload(daemon: &Daemon, client: &mut Wire, text: &str) -> Result<rmpv::Value, (i16, String)> {
    write(daemon, text);
    client.control("config.reload", &[])
}

#[test]
fn a_reload_adds_removes_restarts_and_keeps_plugins() {
    let text = [LOCAL, &faulty("gone", "client = \"gone.client\""), &faulty("changed", "client = \"old\"")];
    let daemon = Daemon::start_config(&text.concat());
    let mut client = daemon.client("a");
    client.subscribe(&["news"]);
    let text = [
        "# a line more\n",
        LOCAL,
        &unix("added", "library = \"elbus_unix\"", "second.sock"),
        &unix("linked", "builtin = \"unix\"", "third.sock"),
        &faulty("changed", "client = \"new\""),
    ];
    let answer = reload(&daemon, &mut client, &text.concat()).unwrap();
    assert_eq!(names(&answer, "added"), ["added", "linked"]);
    assert_eq!(names(&answer, "removed"), ["gone"]);
    assert_eq!(names(&answer, "restarted"), ["changed"]);
    assert_eq!(names(&answer, "unchanged"), ["local", "rpc"]);
    assert_eq!(names(&answer, "refreshed"), ["local", "rpc"]);
    assert_eq!(names(&answer, "errors"), Vec::<String>::new());
    // connected clients stay connected, with all subscriptions
    for path in ["unix:second.sock", "unix:third.sock"] {
        let mut other = Wire::connect(&daemon, path, "b");
        assert_eq!(other.acked(elbus_protocol::Op::Publish, "news", b"x"), 0x01);
        assert_eq!(client.frame().payload(), b"x");
    }
    assert_eq!(client.send("gone.client", b"x"), 0x71);
    assert_eq!(client.send("old", b"x"), 0x71);
    assert_eq!(client.send("new", b"x"), 0x01);
    assert!(plugin(&mut client, "gone").is_none());
    let answer = reload(&daemon, &mut client, &text.concat()).unwrap();
    assert_eq!(names(&answer, "unchanged"), ["local", "rpc", "added", "linked", "changed"]);
    let answer = reload(&daemon, &mut client, LOCAL).unwrap();
    assert_eq!(names(&answer, "removed"), ["added", "linked", "changed"]);
    assert!(!daemon.path("second.sock").exists() && !daemon.path("third.sock").exists());
}

#[test]
fn a_broken_file_changes_nothing() {
    let daemon = Daemon::start_config(&[LOCAL, &faulty("f", "client = \"f\"")].concat());
    let mut client = daemon.client("a");
    // each also changes `f`, which comes first and is valid
    let before = [LOCAL, &faulty("f", "client = \"other\"")].concat();
    for (wrong, why) in [
        ("[broker\n", "broker.toml:13: "),
        ("[[plugin]]\nname = \"x\"\n", "broker.toml:13: plugin \"x\": missing key `library`"),
        (
            "[[plugin]]\nname = \"f\"\nlibrary = \"elbus_rpc\"\n",
            "broker.toml:14: plugin \"f\": name = \"f\": another",
        ),
        (
            "[[plugin]]\nname = \"x\"\nlibrary = \"elbus_nothing\"\n",
            "broker.toml:15: plugin \"x\": library = \"elbus_nothing\": libelbus_nothing.so not found",
        ),
        (
            "[[plugin]]\nname = \"x\"\nlibrary = \"elbus_unix\"\n[plugin.config]\npaht = \"x\"\n",
            "broker.toml:17: plugin \"x\": paht = \"x\": unknown key; did you mean path?",
        ),
        (
            "[[plugin]]\nname = \"x\"\nlibrary = \"elbus_faulty\"\n[plugin.config]\nfail_in = \"create\"\n",
            "broker.toml:17: plugin \"x\": fail_in = \"create\": create fails as configured",
        ),
    ] {
        let (_, error) = reload(&daemon, &mut client, &[&before, wrong].concat()).unwrap_err();
        assert!(error.starts_with(why), "{wrong}: {error}");
        assert_eq!(client.send("f", b"x"), 0x01, "nothing has changed");
        assert_eq!(client.send("other", b"x"), 0x71);
        assert!(plugin(&mut client, "x").is_none());
        assert!(is_started(&mut client, "f"));
    }
    daemon.signal(Signal::HUP);
    daemon.wait_for_log("reload failed error=broker.toml:17: plugin \"x\"");
    std::fs::remove_file(daemon.path("broker.toml")).unwrap();
    let (_, error) = client.control("config.reload", &[]).unwrap_err();
    assert!(error.contains("broker.toml: cannot be read"), "{error}");
    assert_eq!(client.send("f", b"x"), 0x01);
}

#[test]
fn an_emptied_file_is_refused() {
    let daemon = Daemon::start_config(&[LOCAL, &faulty("f", "client = \"f\"")].concat());
    let mut client = daemon.client("a");
    for text in ["", "# nothing\n", "[broker]\nname = \"x\"\n"] {
        let (_, error) = reload(&daemon, &mut client, text).unwrap_err();
        assert!(error.contains("the file declares no plugins"), "{error}");
        assert_eq!(client.send("f", b"x"), 0x01, "nothing has changed");
    }
}

#[test]
fn a_file_that_is_being_written_removes_no_plugins() {
    let whole = ["broker.reload_settle_seconds = 3.0\n", LOCAL, &faulty("f", "client = \"f\"")].concat();
    let daemon = Daemon::start_config(&whole);
    let mut client = daemon.client("a");
    // valid up to here
    write(&daemon, &["broker.reload_settle_seconds = 3.0\n", LOCAL].concat());
    daemon.signal(Signal::HUP);
    daemon.wait_for_log("waiting until the file is unchanged removed=[\"f\"]");
    write(&daemon, &[&whole, "# all of it\n"].concat());
    daemon.wait_for_log("reloaded added=[] removed=[] restarted=[] recovered=[] unchanged=3");
    assert_eq!(client.send("f", b"x"), 0x01);
}

#[test]
fn plugins_stop_in_reverse_order() {
    let all = ["one", "two", "three"].map(|name| faulty(name, ""));
    let daemon = Daemon::start_config(&[LOCAL, &all.concat()].concat());
    let mut client = daemon.client("a");
    let order = |log: &str| {
        let stops = log.lines().filter_map(|line| line.split("faulty stops instance=").nth(1));
        stops.map(|name| name.split('"').nth(1).unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    reload(&daemon, &mut client, &[LOCAL, &all[0]].concat()).unwrap();
    wait_until("two plugins are stopped", || order(&daemon.log()).len() >= 2);
    assert_eq!(order(&daemon.log()), ["three", "two"]);
    reload(&daemon, &mut client, &[LOCAL, &all.concat()].concat()).unwrap();
    let (_, log) = daemon.stop();
    assert_eq!(order(&log)[2..], ["three", "two", "one"], "{log}");
}

#[test]
fn a_plugin_that_cannot_start_with_its_new_declaration_keeps_the_previous_one() {
    for source in ["library = \"elbus_unix\"", "builtin = \"unix\""] {
        let daemon = Daemon::start_config(&[LOCAL, &unix("other", source, "other.sock")].concat());
        let mut client = daemon.client("a");
        let wrong = [LOCAL, &unix("other", source, "nowhere/other.sock")].concat();
        let answer = reload(&daemon, &mut client, &wrong).unwrap();
        let errors = names(&answer, "errors");
        let expected = "broker.toml:12: plugin \"other\" could not start: path = \"nowhere/other.sock\": ";
        assert!(errors.len() == 1 && errors[0].starts_with(expected), "{errors:?}");
        let mut other = Wire::connect(&daemon, "unix:other.sock", "b");
        assert_eq!(other.send("a", b"x"), 0x01);
        assert!(is_started(&mut client, "other"));
        // the file is valid now, and differs from the running configuration
        std::fs::create_dir(daemon.path("nowhere")).unwrap();
        let answer = reload(&daemon, &mut client, &wrong).unwrap();
        assert_eq!(
            (names(&answer, "restarted"), names(&answer, "errors").len()),
            (vec!["other".to_owned()], 0)
        );
        other.wait_closed();
        drop(Wire::connect(&daemon, "unix:nowhere/other.sock", "b"));
    }
}

#[test]
fn an_added_plugin_that_cannot_start_is_retried() {
    let daemon = Daemon::start_config(LOCAL);
    let mut client = daemon.client("a");
    let text = [LOCAL, &unix("late", "library = \"elbus_unix\"", "later/late.sock")].concat();
    let answer = reload(&daemon, &mut client, &text).unwrap();
    assert!(names(&answer, "errors")[0].contains("plugin \"late\" could not start"), "{answer}");
    std::fs::create_dir(daemon.path("later")).unwrap();
    wait_until("the plugin is started", || is_started(&mut client, "late"));
    drop(Wire::connect(&daemon, "unix:later/late.sock", "b"));
}

#[test]
fn unchanged_plugins_reread_their_files() {
    let text = [LOCAL, &faulty("good", ""), &faulty("bad", "fail_in = \"refresh\"")].concat();
    let daemon = Daemon::start_config(&text);
    let mut client = daemon.client("a");
    let answer = reload(&daemon, &mut client, &text).unwrap();
    assert_eq!(names(&answer, "unchanged"), ["local", "rpc", "good", "bad"]);
    assert_eq!(names(&answer, "refreshed"), ["local", "rpc", "good"]);
    let errors = names(&answer, "errors");
    let expected =
        "plugin \"bad\" could not read its files again: fail_in = \"refresh\": refresh fails as configured";
    assert!(errors.len() == 1 && errors[0].ends_with(expected), "{errors:?}");
    daemon.wait_for_log("faulty refreshed instance=\"good\"");
    assert!(is_started(&mut client, "bad"), "the plugin keeps the previous contents");
    daemon.wait_for_log_times("refresh fails as configured", 1);
}

#[test]
fn a_failed_reload_is_logged_once_with_its_location() {
    let daemon = Daemon::start_config(LOCAL);
    let mut client = daemon.client("a");
    let failing = "[[plugin]]\nname = \"bad\"\nlibrary = \"elbus_faulty\"\nrestart = \"never\"\n\
                   [plugin.config]\nfail_in = \"start\"\n";
    let text = [LOCAL, failing].concat();
    let answer = reload(&daemon, &mut client, &text).unwrap();
    // the table, since the error is about no key
    let location = format!("broker.toml:{}", text.lines().count() - 1);
    assert!(names(&answer, "errors")[0].starts_with(&location), "{answer}");
    daemon.wait_for_log(&format!("plugin could not be started plugin=\"bad\" location=\"{location}\""));
    daemon.wait_for_log_times("start fails as configured", 1);
}

#[test]
fn a_signal_reloads_the_file() {
    let daemon = Daemon::start_config(LOCAL);
    let mut client = daemon.client("a");
    write(&daemon, &[LOCAL, &faulty("new", "client = \"new\"")].concat());
    daemon.signal(Signal::HUP);
    daemon.wait_for_log("reloaded added=[\"new\"]");
    assert_eq!(client.send("new", b"x"), 0x01);
    let alone = Daemon::start("library", &[]);
    alone.signal(Signal::HUP);
    alone.wait_for_log("there is no file to reload: the broker was started without --config");
    let (_, error) = alone.client("a").control("config.reload", &[]).unwrap_err();
    assert!(error.starts_with("there is no file to reload"), "{error}");
}

#[test]
fn broker_settings_change_immediately() {
    let daemon = Daemon::start_config(LOCAL);
    let mut client = daemon.client("a");
    let text = ["[broker]\nname = \"renamed\"\nmax_filters = 2\nforce_register = true\n", LOCAL].concat();
    let answer = reload(&daemon, &mut client, &text).unwrap();
    assert_eq!(names(&answer, "unchanged"), ["local", "rpc"]);
    let health = client.control("health", &[]).unwrap();
    assert_eq!(field(&health, "name").as_str(), Some("renamed"));
    // one of the subscriptions is .broker/warn
    assert_eq!(client.filters(elbus_protocol::Op::Subscribe, &["1"]), 0x01);
    assert_ne!(client.filters(elbus_protocol::Op::Subscribe, &["2"]), 0x01);
    let mut newer = daemon.client("a");
    client.wait_closed();
    assert_eq!(newer.send("a", b"x"), 0x01);
    // plugin folders change too: this library is found only there
    let plugins = daemon.path("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let executable = std::env::current_exe().unwrap();
    let library = Path::new(&executable).parent().unwrap().join("liblast_value.so");
    std::fs::copy(library, plugins.join("libelsewhere.so")).unwrap();
    let last = "[[plugin]]\nname = \"last\"\nlibrary = \"elsewhere\"\n[plugin.config]\nfilters = [\"#\"]\n";
    assert!(reload(&daemon, &mut newer, &[LOCAL, last].concat()).is_err());
    let text = ["[broker]\nplugin_dirs = [\"plugins\"]\n", LOCAL, last].concat();
    assert_eq!(names(&reload(&daemon, &mut newer, &text).unwrap(), "added"), ["last"]);
}

/// Returns the smallest latency requested of the kernel, in microseconds, or `None` if it cannot be read.
fn cpu_latency_us() -> Option<i32> {
    let mut number = [0; 4];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/cpu_dma_latency").ok()?, &mut number).ok()?;
    Some(i32::from_ne_bytes(number))
}

#[test]
fn cpu_latency_is_requested_from_the_kernel() {
    let asking = |microseconds: u32| format!("[broker]\ncpu_latency_us = {microseconds}\n{LOCAL}");
    let Some(before) = cpu_latency_us().filter(|others| *others > 70) else {
        eprintln!("skipped: /dev/cpu_dma_latency cannot be used, or another process uses it");
        let daemon = Daemon::start_config(&asking(70));
        daemon.client("a"); // the broker serves nevertheless
        return;
    };
    let daemon = Daemon::start_config(&asking(70));
    let mut client = daemon.client("a");
    assert_eq!(cpu_latency_us(), Some(70));
    reload(&daemon, &mut client, &asking(60)).unwrap();
    assert_eq!(cpu_latency_us(), Some(60));
    reload(&daemon, &mut client, LOCAL).unwrap();
    assert_eq!(cpu_latency_us(), Some(before));
}

#[test]
fn plugins_of_the_command_line_survive_a_reload() {
    let folder = folder();
    std::fs::write(folder.path().join("broker.toml"), LOCAL).unwrap();
    let daemon = Daemon::start_in(folder, &["--config", "broker.toml", "--bind", "./more.sock"]);
    let mut client = Wire::connect(&daemon, "unix:./more.sock", "a");
    let answer = reload(&daemon, &mut client, &[LOCAL, &faulty("f", "")].concat()).unwrap();
    assert_eq!(names(&answer, "unchanged"), ["local", "rpc", "bind-unix"]);
    assert_eq!(client.send("a", b"x"), 0x01);
}

#[test]
fn plugins_that_hang_while_stopping_do_not_block_a_reload() {
    let hanging = |name: &str| faulty(name, &format!("hang_in = \"stop\"\nclient = \"{name}.client\""));
    let names_of_all: Vec<_> = (0..12).map(|n| format!("hangs{n}")).collect();
    let text = names_of_all.iter().map(|name| hanging(name)).collect::<String>();
    let daemon = Daemon::start_config(&[LOCAL, &text].concat());
    let mut client = daemon.client("a");
    let answer = reload(&daemon, &mut client, LOCAL).unwrap();
    assert_eq!(names(&answer, "removed"), names_of_all);
    assert_eq!(client.send("hangs0.client", b"x"), 0x71, "its client is unregistered");
    daemon.wait_for_log("plugin abandoned");
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}

#[test]
fn reloads_under_load_lose_nothing() {
    let daemon = Daemon::start_config(LOCAL);
    let (mut receiver, mut operator) = (daemon.client("receiver"), daemon.client("operator"));
    let texts = ["client = \"x\"", ""].map(|config| [LOCAL, &faulty("f", config)].concat());
    let mut sender = daemon.client("sender");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let sending = std::thread::spawn(move || {
        let mut sent = 0u32;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            assert_eq!(sender.send("receiver", &sent.to_le_bytes()), 0x01);
            sent += 1;
        }
        sent
    });
    let reading = std::thread::spawn(move || {
        let mut next = 0u32;
        loop {
            let frame = receiver.frame();
            if frame.payload() == b"end" {
                return next;
            }
            assert_eq!(frame.payload(), next.to_le_bytes());
            next += 1;
        }
    });
    for round in 0..20 {
        let answer = reload(&daemon, &mut operator, &texts[round % 2]).unwrap();
        assert_eq!(names(&answer, "unchanged"), ["local", "rpc"]);
        assert_eq!(names(&answer, "errors").len(), 0, "{answer}");
    }
    drop(stop);
    let sent = sending.join().unwrap();
    assert_eq!(operator.send("receiver", b"end"), 0x01);
    assert_eq!(reading.join().unwrap(), sent);
    assert!(sent > 0);
}

#[test]
fn a_plugin_that_hangs_while_starting_does_not_prevent_the_exit() {
    let daemon = Daemon::start_config(LOCAL);
    let mut client = daemon.client("a");
    write(&daemon, &[LOCAL, &faulty("hangs", "hang_in = \"start\"")].concat());
    daemon.signal(Signal::HUP);
    wait_until("the start is in progress", || plugin(&mut client, "hangs").is_some());
    assert_eq!(client.send("a", b"x"), 0x01, "other clients are served");
    let (status, log) = daemon.stop();
    assert!(status.success() && log.contains("abandoned: the broker is ending"), "{log}");
}

#[test]
fn a_reload_can_restart_the_transport_of_its_caller() {
    let daemon = Daemon::start_config(LOCAL);
    let mut client = daemon.client("a");
    for restart in ["never", "on_failure"] {
        let rpc = format!("library = \"elbus_rpc\"\nrestart = \"{restart}\"\n");
        let text = LOCAL.replace("library = \"elbus_rpc\"\n", &rpc);
        let answer = reload(&daemon, &mut client, &text).unwrap();
        assert_eq!(
            (names(&answer, "restarted"), names(&answer, "errors").len()),
            (vec!["rpc".to_owned()], 0)
        );
        client.control("test", &[]).unwrap();
    }
}

/// A removed socket file is bound again by the next reload at the latest. Connected clients are not affected.
#[test]
fn a_socket_that_was_removed_is_bound_again() {
    for source in ["library = \"elbus_unix\"", "builtin = \"unix\""] {
        let daemon = Daemon::start_config(&format!(
            "[[plugin]]\nname = \"local\"\n{source}\n[plugin.config]\npath = \"bus.sock\"\ntimeout_seconds = 600.0\n"
        ));
        let mut before = daemon.client("before");
        std::fs::remove_file(daemon.path("bus.sock")).unwrap();
        daemon.signal(Signal::HUP);
        daemon.wait_for_log("socket file is gone; binding it again");
        wait_until("the socket", || daemon.path("bus.sock").exists());
        daemon.wait_for_log(" reloaded added=[]");
        let mut after = daemon.client("after");
        assert_eq!(after.send("before", b"x"), 0x01);
        assert_eq!(before.frame().payload(), b"x");
        assert_eq!(before.send("after", b"y"), 0x01);
        assert!(daemon.stop().0.success());
    }
}
