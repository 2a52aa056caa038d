//! The log: an output that is full, closed or unread delays nothing; clients can neither flood it nor forge
//! lines.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{
    daemon::{Daemon, folder, through_shell},
    wait_until,
    wire::Wire,
};

const BIND: [&str; 4] = ["--bind", "./bus.sock", "--log", "trace"];

#[test]
fn a_full_disk_or_a_closed_log_does_not_affect_clients() {
    for script in ["exec \"$@\" 2>/dev/full", "exec \"$@\" 2>&-"] {
        let folder = folder();
        let daemon = Daemon::start_command(folder.clone(), through_shell(folder.path(), script, &BIND), true);
        for number in 0..50 {
            let mut client = daemon.client(&format!("a{number}"));
            assert_eq!(client.send(&format!("a{number}"), b"x"), 0x01);
        }
        assert!(daemon.stop().0.success(), "{script}");
    }
}

#[test]
fn an_unread_log_blocks_nothing() {
    let folder = folder();
    let command = through_shell(folder.path(), "exec \"$@\"", &BIND);
    let mut daemon = Daemon::start_command(folder, command, false);
    // each connects and disconnects, which causes log lines: many times the capacity of a pipe
    for number in 0..1000 {
        let mut client = daemon.client(&format!("a{number}"));
        assert_eq!(client.send(&format!("a{number}"), b"x"), 0x01);
    }
    let unread = daemon.take_unread();
    assert!(daemon.stop().0.success());
    let log = String::from_utf8_lossy(&Daemon::unread_log(unread)).into_owned();
    let has = |number: u32| log.contains(&format!("client=\"a{number}\""));
    assert!(has(0) && !has(999), "the pipe was full long before the end: {} bytes", log.len());
}

#[test]
fn the_last_log_lines_are_written() {
    let daemon = Daemon::start("library", &[]);
    let (status, log) = daemon.stop();
    assert!(status.success() && log.trim_end().ends_with("elbusd: stopped"), "{log}");
}

#[test]
fn log_lines_of_plugins_name_their_instance() {
    for code in ["builtin = \"", "library = \"elbus_"] {
        let plugin = |name: &str, plugin: &str, path: &str| {
            format!("[[plugin]]\nname = \"{name}\"\n{code}{plugin}\"\n[plugin.config]\npath = \"{path}\"\n")
        };
        let text = plugin("first", "unix", "bus.sock")
            + &plugin("second", "unix", "b.sock")
            + &plugin("lines", "fifo", "f");
        let folder = folder();
        std::fs::write(folder.path().join("broker.toml"), text).unwrap();
        let daemon = Daemon::start_in(folder, &["--config", "broker.toml", "--log", "debug"]);
        for (index, instance) in ["first", "second"].into_iter().enumerate() {
            let address = daemon.addresses()[index].clone();
            drop(Wire::connect(&daemon, &address, &format!("client{index}")));
            // by the task that reads
            wait_for_line(&daemon, &format!("registered client=\"client{index}\""), instance);
            wait_for_line(&daemon, "connection ended ", instance);
        }
        // by create, and by a thread
        wait_for_line(&daemon, "neither mode nor group is set", "lines");
        std::fs::write(daemon.path("f"), "bad\n").unwrap();
        wait_for_line(&daemon, "line of the fifo skipped", "lines");
        let (_, log) = daemon.stop();
        let twice = log.lines().find(|line| line.matches("plugin=\"").count() > 1);
        assert_eq!(twice, None, "{code}");
        let core = log
            .lines()
            .filter(|line| line.contains(" elbusd"))
            .find(|line| line.contains(" plugin=\"first\""));
        assert_eq!(core, None, "{code}");
    }
}

/// Waits for a line with the text and the instance.
fn wait_for_line(daemon: &Daemon, text: &str, instance: &str) {
    let instance = format!("plugin=\"{instance}\"");
    wait_until(&format!("{text} {instance}"), || {
        daemon.log().lines().any(|line| line.contains(text) && line.contains(&instance))
    });
}

#[test]
fn a_thread_local_can_log_send_and_panic_when_its_thread_ends() {
    let config = "[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n[plugin.config]\npath = \"bus.sock\"\ntimeout_seconds = 600.0\n\
        [[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n\
        [[plugin]]\nname = \"f\"\nlibrary = \"elbus_faulty\"\n[plugin.config]\nlate = true\n";
    let daemon = Daemon::start_config(config);
    for number in 0..3 {
        // two calls, since a caller skips messages before its reply
        let mut listener = daemon.client(&format!("listener{number}"));
        listener.subscribe(&["late"]);
        let mut caller = daemon.client(&format!("caller{number}"));
        caller.call(".broker", "f.try", b"").unwrap();
        assert_eq!(listener.frame().payload(), b"early");
        assert_eq!(listener.frame().payload(), b"late");
    }
    for line in ["thread-local dropped", "thread-local panics as configured", "thread-local is gone"] {
        daemon.wait_for_log(line);
    }
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
}

#[test]
fn a_client_cannot_flood_the_log() {
    let daemon = Daemon::start("library", &[]);
    let mut noisy = daemon.client("noisy");
    let mut quiet = daemon.client("quiet");
    for _ in 0..2000 {
        noisy.control("client.kick", &[("name", "nobody")]).unwrap_err();
    }
    quiet.control("client.kick", &[("name", "nobody")]).unwrap_err();
    daemon.wait_for_log("caller=\"quiet\"");
    let (status, log) = daemon.stop();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert!(status.success() && lines("caller=\"noisy\"") <= 20, "{log}");
    assert!(lines("messages suppressed") >= 1, "{log}");
}

#[test]
fn one_identity_with_many_names_cannot_flood_the_log() {
    let daemon = Daemon::start("library", &[]);
    let tcp = daemon.addresses().into_iter().find(|address| address.starts_with("tcp:")).unwrap();
    for number in 0..300 {
        let mut noisy = Wire::connect(&daemon, &tcp, &format!("noisy.{number}"));
        noisy.control("client.kick", &[("name", "nobody")]).unwrap_err();
    }
    let (status, log) = daemon.stop();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("control method denied")).collect();
    // some may have been added in the meantime, one per two seconds
    assert!(status.success() && (40..100).contains(&lines.len()), "{} {log}", lines.len());
    assert!(lines[0].contains("source=\"127.0.0.1:"), "{}", lines[0]);
    assert!(log.contains("messages suppressed"), "{log}");
}

#[test]
fn a_name_cannot_forge_a_log_line() {
    let daemon = Daemon::start("library", &["--log", "debug"]);
    let name = "a\n2026-01-01T00:00:00Z ERROR forged\u{1b}[31m";
    let mut client = daemon.client(name);
    assert_eq!(client.send("nobody\nforged", b"x"), 0x71);
    daemon.client("other").control("client.kick", &[("name", name)]).unwrap();
    client.wait_closed();
    daemon.wait_for_log("forged");
    let (_, log) = daemon.stop();
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}

/// The file size limit does not end the broker; if it prevents the start, the error says so.
#[test]
fn a_log_file_at_its_size_limit_does_not_affect_clients() {
    let folder = folder();
    let arguments = ["--plugins", "builtin", "--bind", "./bus.sock", "--log", "trace"];
    let command = through_shell(folder.path(), "ulimit -f 4 && exec \"$@\" 2>log", &arguments);
    let daemon = Daemon::start_command(folder.clone(), command, true);
    for number in 0..200 {
        let name = format!("a{number}");
        assert_eq!(daemon.client(&name).send(&name, b"x"), 0x01);
    }
    let length = std::fs::metadata(folder.path().join("log")).unwrap().len();
    assert!((1000..=4096).contains(&length), "{length}");
    assert!(daemon.stop().0.success());
    for arguments in [&["--plugins", "library", "--bind", "./b.sock"][..], &["--check"]] {
        let mut command = through_shell(folder.path(), "ulimit -f 4 && exec \"$@\"", arguments);
        let refused = command.output().unwrap();
        let error = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{error}");
        assert!(error.contains("file too large: the library has ") && error.contains("ulimit -f"), "{error}");
    }
}
