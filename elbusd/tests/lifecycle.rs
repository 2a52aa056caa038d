//! Start and exit of a broker: the files it creates, finds and removes, and its announcements.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::FrameKind;
use rustix::process::Signal;
use std::{
    io::Write,
    os::unix::{fs::FileTypeExt, net::UnixListener},
};
use support::{
    daemon::{BOTH, Daemon, folder, run_to_end, through_shell},
    wire::{Frame, Wire},
};

fn announcement(frame: &Frame) -> (String, Vec<(String, rmpv::Value)>) {
    let Frame::Data(FrameKind::Publish, sender, topic, payload, _) = frame else { panic!("{frame:?}") };
    assert_eq!(sender, ".broker");
    let value = rmpv::decode::read_value(&mut &payload[..]).unwrap();
    let map =
        value.as_map().unwrap().iter().map(|(k, v)| (k.as_str().unwrap().to_owned(), v.clone())).collect();
    (topic.clone(), map)
}

#[test]
fn the_shutdown_is_announced_and_leaves_no_files() {
    for plugins in BOTH {
        for signal in [Signal::TERM, Signal::INT] {
            let daemon = Daemon::start(plugins, &["--bind", "fifo:./commands", "--pid-file", "pid"]);
            let folder = daemon.folder.clone();
            let at = |name: &str| folder.path().join(name);
            support::wait_until("the pid file", || at("pid").exists());
            assert_eq!(std::fs::read_to_string(at("pid")).unwrap().trim(), daemon.pid().to_string());
            assert!(at("bus.sock").metadata().unwrap().file_type().is_socket());
            assert!(at("commands").metadata().unwrap().file_type().is_fifo());
            let mut client = daemon.client("a");
            assert_eq!(client.send("a", b"x"), 0x01);
            client.frame();
            daemon.signal(signal);
            let (topic, map) = announcement(&client.frame());
            assert_eq!(topic, ".broker/warn");
            assert_eq!((map[0].0.as_str(), map[0].1.as_str()), ("s", Some("shutdown")));
            assert!(
                map.iter().all(|(key, _)| key != "d") && map.iter().any(|(key, t)| key == "t" && t.is_u64())
            );
            client.wait_closed();
            let (status, log) = daemon.wait_end();
            assert!(status.success(), "{log}");
            let left: Vec<_> =
                std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

#[test]
fn registrations_and_disconnects_are_announced() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &[]);
        let mut listener = daemon.client("listener");
        listener.subscribe(&[".broker/info"]);
        let mut arrived = daemon.client("arrived");
        arrived.subscribe(&["x"]);
        let _secondary = daemon.client("arrived%%0");
        drop(arrived);
        let mut next = || {
            let (topic, map) = announcement(&listener.frame());
            assert_eq!(topic, ".broker/info");
            let text = |key: &str| map.iter().find(|(k, _)| k == key).unwrap().1.as_str().unwrap().to_owned();
            (text("s"), text("d"))
        };
        for event in ["reg", "unreg"] {
            assert_eq!(next(), (event.to_owned(), "arrived".to_owned()));
        }
    }
}

#[test]
fn a_stale_socket_is_replaced_but_a_live_one_is_not() {
    for plugins in BOTH {
        let folder = folder();
        drop(UnixListener::bind(folder.path().join("bus.sock")).unwrap());
        let arguments = ["--plugins", plugins, "--bind", "./bus.sock"];
        let first = Daemon::start_in(folder.clone(), &arguments);
        let mut client = first.client("a");
        let second = run_to_end(folder.path(), &arguments);
        assert!(!second.status.success());
        assert!(second.stderr.contains("bus.sock"), "{}", second.stderr);
        assert_eq!(client.send("a", b"untouched"), 0x01);
        drop(first.client("still reachable"));
        let (status, _) = first.stop();
        assert!(status.success());
        // a file that is not a socket is not removed
        std::fs::write(folder.path().join("bus.sock"), "precious").unwrap();
        let refused = run_to_end(folder.path(), &arguments);
        assert!(!refused.status.success() && refused.stderr.contains("bus.sock"), "{}", refused.stderr);
        assert_eq!(std::fs::read_to_string(folder.path().join("bus.sock")).unwrap(), "precious");
    }
}

#[test]
fn a_failed_start_leaves_no_files() {
    for plugins in BOTH {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().to_string();
        let folder = folder();
        let binds =
            ["--bind", "./bus.sock", "--bind", "fifo:./commands", "--bind", &port, "--pid-file", "pid"];
        let refused = run_to_end(folder.path(), &[&["--plugins", plugins][..], &binds].concat());
        assert!(!refused.status.success());
        assert!(refused.stderr.contains(&port) && refused.stderr.contains("in use"), "{}", refused.stderr);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{}", refused.stderr);
    }
}

#[test]
fn the_default_socket_is_served_without_arguments() {
    let folder = folder();
    let daemon = Daemon::start_in(folder.clone(), &[]);
    let address = daemon.address();
    assert_eq!(address, format!("unix:{}", folder.path().join("elbus.sock").display()));
    let mut client = Wire::connect(&daemon, &address, "a");
    let plugins = client.control("plugin.list", &[]).unwrap().to_string();
    for library in ["elbus_unix", "elbus_rpc", "elbus_announce"] {
        assert!(plugins.contains(library), "loaded as libraries: {plugins}");
    }
}

#[test]
fn a_pid_file_is_in_use_only_if_it_is_locked() {
    let folder = folder();
    let path = folder.path().join("pid");
    // process ids are reused: this one belongs to a running process that is not a broker
    std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
    let arguments = ["--pid-file", "pid", "--bind", "./bus.sock"];
    let daemon = Daemon::start_in(folder.clone(), &arguments);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", daemon.pid()));
    let refused = run_to_end(folder.path(), &["--pid-file", "pid", "--bind", "./other.sock"]);
    let expected = format!("elbusd: pid file pid: process {} is running and has locked it\n", daemon.pid());
    assert_eq!((refused.status.success(), refused.stderr), (false, expected));
    assert!(!folder.path().join("other.sock").exists());
    assert!(daemon.stop().0.success());
    assert!(!path.exists());
    // another file in its place is not removed
    let daemon = Daemon::start_in(folder.clone(), &arguments);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "17\n").unwrap();
    assert!(daemon.stop().0.success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "17\n");
}

#[test]
fn a_pid_file_that_is_not_a_regular_file_is_refused() {
    let folder = folder();
    let path = folder.path().join("pid");
    let target = folder.path().join("target");
    std::fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let arguments = ["--pid-file", "pid", "--bind", "./bus.sock"];
    let refused = run_to_end(folder.path(), &arguments);
    assert!(refused.stderr.contains("pid file pid: the file is a symbolic link"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    let refused = run_to_end(folder.path(), &arguments);
    assert!(refused.stderr.contains("pid file pid: the file is not a regular file"), "{}", refused.stderr);
    assert!(!folder.path().join("bus.sock").exists());
}

#[test]
fn unused_signals_do_not_end_the_process() {
    let folder = folder();
    // raises a low descriptor limit to the hard limit
    let command = through_shell(folder.path(), "ulimit -Sn 64 && exec \"$@\"", &["--bind", "./bus.sock"]);
    let daemon = Daemon::start_command(folder, command, true);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{files}");
    let mut client = daemon.client("a");
    for signal in [
        Signal::USR1,
        Signal::USR2,
        Signal::ALARM,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
        Signal::PIPE,
        Signal::XFSZ,
        Signal::TTOU,
        Signal::TTIN,
        Signal::HUP,
    ] {
        daemon.signal(signal);
        assert_eq!(client.send("a", b"x"), 0x01, "{signal:?}");
        client.frame();
    }
    daemon.wait_for_log("reload failed error=there is no file to reload");
    // signals without a name here: SIGSTKFLT and the real-time signals
    for signal in [16, 34, 50, 64] {
        let kill = format!("kill -{signal} {}", daemon.pid());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_eq!(client.send("a", b"x"), 0x01, "{signal}");
        client.frame();
    }
    // a handler would not suffice for these
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    for signal in [Signal::TTOU, Signal::TTIN] {
        assert_ne!(ignored & 1 << (signal.as_raw() - 1), 0, "{signal:?}");
    }
    assert!(daemon.stop().0.success());
}

#[test]
fn terminating_signals_leave_no_files() {
    for (signal, name) in [
        (Signal::QUIT, "SIGQUIT"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::POWER, "SIGPWR"),
        (Signal::INT, "SIGINT"),
    ] {
        let folder = folder();
        let arguments = ["--bind", "./bus.sock", "--bind", "fifo:./commands", "--pid-file", "pid"];
        let daemon = Daemon::start_in(folder.clone(), &arguments);
        let client = daemon.client("a");
        daemon.signal(signal);
        daemon.wait_for_log("shutting down");
        // the kernel repeats this signal
        if signal == Signal::XCPU {
            daemon.signal(signal);
        }
        drop(client);
        let (status, log) = daemon.wait_end();
        assert!(status.success() && log.contains(name), "{signal:?} {status}: {log}");
        for file in ["bus.sock", "commands", "pid"] {
            assert!(!folder.path().join(file).exists(), "{signal:?} leaves {file}");
        }
    }
}

#[test]
fn permissions_can_follow_a_path() {
    for plugins in BOTH {
        let daemon =
            Daemon::start(plugins, &["--bind", "./b.sock?mode=0640", "--bind", "fifo:./f?mode=0620&group=0"]);
        let mode = |name: &str| {
            let file = std::fs::metadata(daemon.path(name)).unwrap();
            std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777
        };
        support::wait_until("the FIFO", || daemon.path("f").exists());
        assert_eq!((mode("b.sock"), mode("f")), (0o640, 0o620));
        let (status, log) = daemon.stop();
        assert!(status.success() && !log.contains("neither mode nor group is set"), "{log}");
    }
    let refused = run_to_end(folder().path(), &["--bind", "fifo:./f?mode=rw"]);
    assert!(
        refused.stderr.contains("plugin \"fifo\": mode: \"rw\" is not a file mode"),
        "{}",
        refused.stderr
    );
    let refused = run_to_end(folder().path(), &["--bind", "./b.sock?mod=0640"]);
    assert!(refused.stderr.contains("plugin \"unix\": mod: unknown key"), "{}", refused.stderr);
}

#[test]
fn force_register_evicts_the_previous_owner() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &["--force-register"]);
        for address in daemon.addresses() {
            let mut old = Wire::connect(&daemon, &address, "a");
            let mut new = Wire::connect(&daemon, &address, "a");
            old.wait_closed();
            assert_eq!(new.send("a", b"mine"), 0x01);
            assert_eq!(new.frame().payload(), b"mine");
        }
    }
}

#[test]
fn lines_of_a_fifo_are_commands() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &["--bind", "fifo:./commands"]);
        let mut client = daemon.client("group.a");
        client.subscribe(&["news/#"]);
        let mut fifo = std::fs::OpenOptions::new().write(true).open(daemon.path("commands")).unwrap();
        let lines = "group.a two words\ngroup.* to all\nbad\n=news/today it is sunny\ngroup.a .note\n\
                     group.a :set x=1 y=2.5 name=a=b on=true\n";
        fifo.write_all(lines.as_bytes()).unwrap();
        let mut next = || match client.frame() {
            Frame::Data(kind, sender, topic, payload, _) => {
                assert_eq!(sender, ".broker");
                (kind, topic, payload)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(next(), (FrameKind::Message, String::new(), b"two words".to_vec()));
        assert_eq!(next(), (FrameKind::Broadcast, String::new(), b"to all".to_vec()));
        assert_eq!(next(), (FrameKind::Publish, "news/today".to_owned(), b"it is sunny".to_vec()));
        assert_eq!(next(), (FrameKind::Message, String::new(), b"\0note".to_vec()));
        let (.., call) = next();
        assert_eq!(call[..9], *b"\x01\0\0\0\0set\0");
        let params = rmpv::decode::read_value(&mut &call[9..]).unwrap().to_string();
        for pair in ["\"x\": 1", "\"y\": 2.5", "\"name\": \"a=b\"", "\"on\": true"] {
            assert!(params.contains(pair), "{params}");
        }
        daemon.wait_for_log("bad");
    }
}

/// Starts a broker with a client that has four megabytes queued, far more than its socket holds.
fn with_a_slow_reader(shutdown: &str) -> (Daemon, Wire) {
    let text = format!(
        "[broker]\nshutdown_seconds = {shutdown}\n[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n\
         [plugin.config]\npath = \"bus.sock\"\ntimeout_seconds = 600.0\n"
    );
    let daemon = Daemon::start_config(&text);
    let slow = daemon.client("slow");
    let mut sender = daemon.client("sender");
    for number in 0..256u32 {
        let payload = [&number.to_le_bytes()[..], &[0; 16 * 1024]].concat();
        assert_eq!(sender.send("slow", &payload), 0x01);
    }
    (daemon, slow)
}

#[test]
fn a_slow_reader_receives_its_queue_before_the_exit() {
    let (daemon, mut slow) = with_a_slow_reader("30");
    daemon.signal(Signal::TERM);
    daemon.wait_for_log("shutting down");
    // slower than the default time limit permits
    std::thread::sleep(std::time::Duration::from_millis(2500));
    for number in 0..256u32 {
        assert_eq!(slow.frame().payload()[..4], number.to_le_bytes());
    }
    slow.wait_closed();
    let (status, log) = daemon.wait_end();
    assert!(status.success() && log.contains("elbusd: stopped"), "{log}");
}

#[test]
fn the_process_exits_even_if_receivers_do_not_read() {
    let (daemon, slow) = with_a_slow_reader("0.5");
    let (status, log) = daemon.stop();
    assert!(status.success() && log.contains("elbusd: stopped"), "{log}");
    drop(slow);
}
