//! The log of a broker whose standard error is full, closed, or read by nobody: it holds nobody up.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should not")]

mod support;

use support::daemon::{Daemon, folder, through_shell};

const BIND: [&str; 4] = ["--bind", "./bus.sock", "--log", "trace"];

#[test]
fn a_full_disk_or_a_closed_descriptor_for_the_log_harms_nobody() {
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
fn a_log_that_nobody_reads_holds_nobody_up() {
    let folder = folder();
    let command = through_shell(folder.path(), "exec \"$@\"", &BIND);
    let mut daemon = Daemon::start_command(folder, command, false);
    // each comes and goes with some lines of the log: many times what a pipe holds
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
fn the_last_lines_are_written() {
    let daemon = Daemon::start("library", &[]);
    let (status, log) = daemon.stop();
    assert!(status.success() && log.trim_end().ends_with("elbusd: ended"), "{log}");
}

#[test]
fn a_thread_local_may_log_send_and_panic_when_its_thread_ends() {
    let config = "[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n[plugin.config]\npath = \"bus.sock\"\n\
        [[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n\
        [[plugin]]\nname = \"f\"\nlibrary = \"elbus_faulty\"\n[plugin.config]\nlate = true\n";
    let daemon = Daemon::start_config(config);
    for number in 0..3 {
        // two, since a caller leaves aside what comes before its reply
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
