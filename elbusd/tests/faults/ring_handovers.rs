//! What happens while rings are passed: reloads, kicks, a lack of file descriptors, and programs that would
//! inherit them.

use elbus_client::{Client, Qos};
use elbus_protocol::{Op, Qos as WireQos};
use elbus_testing::rings::{Refused, RingPeer};
use std::{
    collections::HashSet,
    io::Write,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use crate::support::{
    daemon::{Daemon, folder, through_shell},
    field, plugin, rounds, wait_until,
    wire::{Wire, numbered_frames},
};

const OK: u8 = 0x01;
/// The limit of file descriptors of a broker.
const DESCRIPTORS: usize = 100;

/// The transports: one with rings, and one for what must go on.
const CONFIG: &str = r#"
    [[plugin]]
    name = "local"
    builtin = "unix"
    config = { path = "bus.sock", rings = true, ring_bytes = 65536, max_source_share = 1.0 }
    [[plugin]]
    name = "plain"
    builtin = "unix"
    config = { path = "plain.sock", timeout_seconds = 600.0 }
    [[plugin]]
    name = "rpc"
    builtin = "rpc"
"#;

fn witness(daemon: &Daemon) -> Wire {
    Wire::connect(daemon, "unix:plain.sock", "witness")
}

/// Returns whether clients of the transport have rings.
fn are_in_use(witness: &mut Wire) -> bool {
    !plugin(witness, "local").unwrap().to_string().contains(" 0 with rings")
}

fn mappings(daemon: &Daemon) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
    maps.lines().filter(|line| line.contains("elbus-ring")).count()
}

#[test]
fn reloads_and_kicks_while_rings_are_passed_leave_nothing() {
    let daemon = Daemon::start_config(CONFIG);
    let mut witness = witness(&daemon);
    // an instance that is started again has a runtime of its own
    witness.control("plugin.reload", &[("name", "local")]).unwrap();
    let before = daemon.descriptors();
    let (ended, passed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let path = daemon.path("bus.sock");
    thread::scope(|scope| {
        for thread in 0..3 {
            let (ended, passed, path) = (&ended, &passed, &path);
            scope.spawn(move || {
                let name = format!("n{thread}");
                while !ended.load(Ordering::Relaxed) {
                    let Ok(Ok(mut peer)) = RingPeer::attempt(path, &name, 0) else { continue };
                    passed.fetch_add(1, Ordering::Relaxed);
                    let _ = peer.write_all(&numbered_frames(Op::Message, WireQos::NO, &name, 20, 1000));
                }
            });
        }
        for round in 0..rounds(20, 200) {
            let until = passed.load(Ordering::Relaxed) + 5;
            wait_until("clients get rings", || passed.load(Ordering::Relaxed) >= until);
            for thread in 0..3 {
                // it may not be registered now
                let _ = witness.control("client.kick", &[("name", &format!("n{thread}"))]);
            }
            if round % 4 == 0 {
                witness.control("plugin.reload", &[("name", "local")]).unwrap();
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
    wait_until("no rings are left", || !are_in_use(&mut witness) && mappings(&daemon) == 0);
    wait_until("all descriptors are closed", || daemon.descriptors() <= before);
    let mut last = Wire::of_rings(RingPeer::connect(&path, "last", 0).unwrap());
    assert_eq!(last.send("witness", b"works"), OK);
    assert_eq!(witness.frame().payload(), b"works");
}

#[test]
fn a_broker_without_descriptors_for_rings_refuses_them_and_serves_the_client_on_its_socket() {
    let folder = folder();
    std::fs::write(folder.path().join("broker.toml"), CONFIG).unwrap();
    let script = format!("ulimit -n {DESCRIPTORS} && exec \"$@\"");
    let command = through_shell(folder.path(), &script, &["--config", "broker.toml"]);
    let daemon = Daemon::start_command(folder, command, true);
    let (mut witness, path) = (witness(&daemon), daemon.path("bus.sock"));
    let before = daemon.descriptors();
    let mut idle = vec![];
    // one for the next client, and fewer than its rings need
    while daemon.descriptors() < DESCRIPTORS - 3 {
        idle.push(Wire::connect(&daemon, "unix:plain.sock", &format!("idle{}", idle.len())));
    }
    for _ in 0..3 {
        assert_eq!(RingPeer::connect(&path, "a", 0).err(), Some(Refused(0x75)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, _frames) = Client::builder("rust").rings(true).connect(path.as_path()).await.unwrap();
        let info = witness.control("client.info", &[("name", "rust")]).unwrap();
        assert_eq!(field(&info, "rings").as_bool(), Some(false));
        client.send("witness", "on the socket", Qos::PROCESSED).await.unwrap();
        assert_eq!(witness.frame().payload(), b"on the socket");
    });
    drop(runtime);
    drop(idle);
    wait_until("descriptors are closed", || daemon.descriptors() <= before);
    let mut ringed = Wire::of_rings(RingPeer::connect(&path, "a", 0).unwrap());
    assert_eq!(ringed.send("witness", b"in a ring"), OK);
}

/// Returns the descriptors of a process that a program would inherit which it executes, except the standard
/// ones.
fn inherited(process: &str) -> HashSet<String> {
    let folder = Path::new("/proc").join(process);
    let descriptors = std::fs::read_dir(folder.join("fd")).unwrap();
    let names = descriptors.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let is_inherited = |name: &String| {
        // it can be closed meanwhile
        let info = std::fs::read_to_string(folder.join("fdinfo").join(name)).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.map(|flags| u32::from_str_radix(flags.trim(), 8).unwrap());
        flags.is_some_and(|flags| flags & rustix::fs::OFlags::CLOEXEC.bits() == 0)
    };
    names.filter(|name| name.parse::<u32>().is_ok_and(|number| number > 2)).filter(is_inherited).collect()
}

#[test]
fn no_program_inherits_the_descriptors_of_rings() {
    let daemon = Daemon::start_config(CONFIG);
    let (broker, before) = (daemon.pid().to_string(), inherited("self"));
    let of_broker = inherited(&broker);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let path = daemon.path("bus.sock");
        let (client, mut frames) = Client::builder("rust").rings(true).connect(path.as_path()).await.unwrap();
        assert!(mappings(&daemon) > 0);
        // a full ring, for which the writers of both ends have descriptors of their own
        for _ in 0..20 {
            client.send("rust", vec![7; 200_000], Qos::NO).await.unwrap();
        }
        for _ in 0..20 {
            assert_eq!(frames.next().await.unwrap().payload().len(), 200_000);
            assert_eq!(inherited(&broker), of_broker);
            assert!(inherited("self").is_subset(&before));
        }
    });
}
