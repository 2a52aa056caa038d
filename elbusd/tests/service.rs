//! Under a service manager: the messages it receives, and the sockets it passes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{Address, blocking::Client};
use elbus_protocol::{Op, Qos, rpc};
use elbus_testing::rings::RingPeer;
use rustix::process::Signal;
use std::{
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixDatagram, UnixListener, UnixStream},
            process::CommandExt,
        },
    },
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use support::{
    PATIENCE,
    daemon::{BOTH, Daemon, folder, through_shell},
    wire::Wire,
};
use tempfile::TempDir;

struct Manager(UnixDatagram);

impl Manager {
    /// Returns the next message, except for watchdog messages, which can arrive at any time.
    fn next(&self) -> String {
        loop {
            let text = self.any();
            if text != "WATCHDOG=1" {
                return text;
            }
        }
    }

    fn any(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }
}

#[test]
fn the_service_manager_receives_ready_status_and_stopping() {
    let folder = folder();
    let manager = Manager(UnixDatagram::bind(folder.path().join("notify")).unwrap());
    manager.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let text =
        "[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n[plugin.config]\npath = \"bus.sock\"\n";
    std::fs::write(folder.path().join("broker.toml"), text).unwrap();
    let mut command = through_shell(folder.path(), "exec \"$@\"", &["--config", "broker.toml"]);
    command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("WATCHDOG_USEC", "100000");
    let daemon = Daemon::start_command(folder, command, true);
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving, 1 plugins");
    (0..3).for_each(|_| assert_eq!(manager.any(), "WATCHDOG=1"));
    let environment = std::fs::read(format!("/proc/{}/environ", daemon.pid())).unwrap();
    assert!(!environment.is_empty());
    let before = std::fs::read_to_string("/proc/uptime").unwrap();
    daemon.signal(Signal::HUP);
    let reloading = manager.next();
    let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{reloading}"));
    let microseconds: u64 = at.lines().next().unwrap().parse().unwrap();
    let uptime: f64 = before.split_whitespace().next().unwrap().parse().unwrap();
    // CLOCK_MONOTONIC, not the time of day
    assert!(microseconds as f64 / 1e6 < uptime + 3600.0, "{microseconds}");
    assert_eq!(manager.next(), "READY=1\nSTATUS=serving, 1 plugins");
    // a failed reload is not reported as success
    std::fs::write(daemon.path("broker.toml"), format!("{text}paht = 1\n")).unwrap();
    daemon.signal(Signal::HUP);
    manager.next();
    let failed = manager.next();
    let expected = "READY=1\nSTATUS=serving, 1 plugins; reload failed, the previous configuration is in force: \
                    broker.toml:6: plugin \"local\": paht = 1: unknown key";
    assert!(failed.starts_with(expected), "{failed}");
    daemon.signal(Signal::TERM);
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=shutting down");
    assert!(daemon.wait_end().0.success());
}

#[test]
fn a_hanging_broker_sends_no_watchdog_messages() {
    let folder = folder();
    let manager = Manager(UnixDatagram::bind(folder.path().join("notify")).unwrap());
    manager.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let text = "[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n[plugin.config]\npath = \"bus.sock\"\n\
        [[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n\
        [[plugin]]\nname = \"f\"\nlibrary = \"elbus_faulty\"\n[plugin.config]\nhang_in = \"status\"\n";
    std::fs::write(folder.path().join("broker.toml"), text).unwrap();
    let mut command = through_shell(folder.path(), "exec \"$@\"", &["--config", "broker.toml"]);
    command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("WATCHDOG_USEC", "100000");
    let daemon = Daemon::start_command(folder, command, true);
    manager.next();
    (0..3).for_each(|_| assert_eq!(manager.any(), "WATCHDOG=1"));
    let mut client = daemon.client("a");
    client.call(".broker", "f.try", b"").unwrap();
    // several watchdog intervals; earlier messages may still be queued
    manager.0.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = [0; 64];
    let messages = (0..60).take_while(|_| manager.0.recv(&mut buffer).is_ok()).count();
    assert!(messages < 60, "watchdog messages continue");
    assert_eq!(client.send("a", b"x"), 0x01, "other threads serve clients");
    daemon.signal(Signal::KILL);
}

/// Starts the broker with a socket as descriptor 3, as a service manager does.
fn with_socket(folder: &Arc<TempDir>, socket: OwnedFd, arguments: &[&str]) -> Daemon {
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    let mut command = through_shell(folder.path(), script, arguments);
    command.stdin(Stdio::from(socket));
    Daemon::start_command(folder.clone(), command, true)
}

#[test]
fn a_passed_unix_socket_is_served_and_not_removed() {
    for plugins in BOTH {
        let folder = folder();
        let path = folder.path().join("bus.sock");
        let listener = UnixListener::bind(&path).unwrap();
        // a client that connects before the broker runs waits for it
        let early = UnixStream::connect(&path).unwrap();
        let arguments = ["--plugins", plugins, "--bind", "./bus.sock?rings=true"];
        let daemon = with_socket(&folder, listener.try_clone().unwrap().into(), &arguments);
        assert_eq!(daemon.addresses(), ["unix:./bus.sock"]);
        let mut greeting = [0; 3];
        std::io::Read::read_exact(&mut &early, &mut greeting).unwrap();
        let mut client = daemon.client("a");
        assert_eq!(client.send("a", b"x"), 0x01);
        let mut ringed = Wire::of_rings(RingPeer::connect(&path, "ringed", 0).unwrap());
        assert_eq!(ringed.send("a", b"x"), 0x01);
        // a restarted instance gets the socket again
        let mut name = Vec::new();
        let map = rmpv::Value::Map(vec![("name".into(), "unix".into())]);
        rmpv::encode::write_value(&mut name, &map).unwrap();
        let call = rpc::encode_request(0, "plugin.reload", &name).unwrap();
        client.request(Op::Message, Qos::NO, ".broker", "", &call);
        client.wait_closed();
        ringed.wait_closed();
        let mut client = daemon.client("b");
        assert_eq!(client.send("b", b"x"), 0x01);
        assert_eq!(Wire::of_rings(RingPeer::connect(&path, "c", 0).unwrap()).send("b", b"x"), 0x01);
        let (status, log) = daemon.stop();
        assert!(status.success() && !log.contains("WARN"), "{log}");
        assert!(path.exists(), "the broker does not remove the file");
        let _later = UnixStream::connect(&path).unwrap();
        listener.set_nonblocking(false).unwrap();
        listener.accept().unwrap();
    }
}

#[test]
fn a_passed_tcp_socket_is_served() {
    for plugins in BOTH {
        for bound in ["127.0.0.1:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(bound) else { continue }; // without IPv6
            let real = listener.local_addr().unwrap();
            let configured =
                if real.is_ipv6() { format!("0.0.0.0:{}", real.port()) } else { real.to_string() };
            let folder = folder();
            let arguments = ["--plugins", plugins, "--bind", &configured];
            let daemon = with_socket(&folder, listener.try_clone().unwrap().into(), &arguments);
            let address = format!("tcp:127.0.0.1:{}", real.port());
            let mut client = Wire::connect(&daemon, &address, "a");
            assert_eq!(client.send("a", b"x"), 0x01);
            assert!(daemon.stop().0.success());
            // the passed socket still listens
            drop(TcpStream::connect(("127.0.0.1", real.port())).unwrap());
        }
    }
}

#[test]
fn an_unused_passed_socket_is_reported() {
    let folder = folder();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let real = listener.local_addr().unwrap();
    let daemon = with_socket(&folder, listener.into(), &["--bind", "./bus.sock"]);
    daemon.wait_for_log("inherited listening socket is not used");
    daemon.wait_for_log(&format!("address=tcp:{real}"));
    let mut client = daemon.client("a");
    assert_eq!(client.send("a", b"x"), 0x01);
}

#[test]
fn sockets_for_another_process_are_ignored() {
    let folder = folder();
    let listener = UnixListener::bind(folder.path().join("other.sock")).unwrap();
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=1 exec \"$@\"";
    let mut command = through_shell(folder.path(), script, &["--bind", "./bus.sock"]);
    command.stdin(Stdio::from(OwnedFd::from(listener)));
    let daemon = Daemon::start_command(folder, command, true);
    let mut client = daemon.client("a");
    assert_eq!(client.send("a", b"x"), 0x01);
    let (_, log) = daemon.stop();
    assert!(!log.contains("inherited listening socket"), "{log}");
}

#[test]
fn an_unresponsive_transport_is_named_and_stops_the_watchdog_messages() {
    let folder = folder();
    let manager = Manager(UnixDatagram::bind(folder.path().join("notify")).unwrap());
    manager.0.set_read_timeout(Some(PATIENCE)).unwrap();
    // one worker, which a plugin blocks
    let text = "[broker]\ncallback_seconds = 3600\n\
        [[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n[plugin.config]\npath = \"bus.sock\"\nworkers = 1\n\
        [[plugin]]\nname = \"f\"\nlibrary = \"elbus_faulty\"\n[plugin.config]\nclient = \"f\"\nhang_in = \"deliver\"\n";
    std::fs::write(folder.path().join("broker.toml"), text).unwrap();
    let mut command = through_shell(folder.path(), "exec \"$@\"", &["--config", "broker.toml"]);
    command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("WATCHDOG_USEC", "200000");
    let daemon = Daemon::start_command(folder, command, true);
    manager.next();
    (0..3).for_each(|_| assert_eq!(manager.any(), "WATCHDOG=1"));
    daemon.client("a").request(Op::Message, Qos::NO, "f", "", b"x");
    daemon.wait_for_log("unresponsive=\"runtime of local\"");
    manager.0.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = [0; 64];
    let messages = (0..60).take_while(|_| manager.0.recv(&mut buffer).is_ok()).count();
    assert!(messages < 60, "watchdog messages continue");
}

/// A default address that belongs to another user's broker is refused: any user could have created it.
#[test]
fn a_default_address_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return; // only root can change its user
    }
    let folder = folder();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    // in a folder that this user can read
    let program = folder.path().join("elbusd");
    std::fs::copy(env!("CARGO_BIN_EXE_elbusd"), &program).unwrap();
    let path = folder.path().join("elbus.sock");
    for (uid, served) in [(12345, false), (0, true)] {
        let mut command = std::process::Command::new(&program);
        command
            .args(["--plugins", "builtin", "--bind", "./elbus.sock", "--bind", "127.0.0.1:0"])
            .uid(uid)
            .gid(uid);
        command.current_dir(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let daemon = Daemon::start_command(folder.clone(), command, true);
        let found = Client::connect(Address::Default(path.clone()), "found");
        assert_eq!(found.is_ok(), served, "{uid}");
        if let Err(error) = found {
            assert!(error.to_string().contains("served by user 12345"), "{error}");
        }
        Client::connect(Address::Unix(path.clone()), "named").unwrap();
        assert!(daemon.stop().0.success());
    }
}
