//! A plugin that answers calls is reloaded under load: every acknowledged call is answered, and of previous
//! builds only their memory remains: no thread, and no descriptor except that of the sealed copy.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, rpc};
use std::{
    collections::BTreeMap,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};
use support::{
    daemon::{Daemon, folder},
    wait_until,
    wire::{Frame, Wire},
};

const RELOADS: usize = 4;

/// Makes calls one after another until it is stopped: each acknowledged call is answered, each other one
/// refused.
fn call(mut client: Wire, stopping: &AtomicBool, answered: &AtomicU32) {
    let mut id = 1_000_000;
    while !stopping.load(Ordering::Relaxed) {
        id += 1;
        let request = rpc::encode_request(id, "echo", &id.to_le_bytes()).unwrap();
        match client.acked(Op::Message, "server", &request) {
            0x01 => {}
            0x71 => continue,
            code => panic!("{code:#x}"),
        }
        loop {
            let Frame::Data(_, sender, _, payload, _) = client.frame() else { continue };
            if sender == "server" {
                let reply = rpc::decode_rpc(&payload).unwrap();
                let expected = id.to_le_bytes();
                assert_eq!(reply, rpc::RpcFrame::Reply { call_id: id, result: &expected }, "in order");
                break;
            }
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Threads of the runtime of blocking clients.
fn client_threads(daemon: &Daemon) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "elbus client").count()
}

/// Returns how many of the broker's descriptors are sealed copies of the plugin's builds, and what the others
/// are.
fn descriptors(daemon: &Daemon) -> (usize, BTreeMap<String, usize>) {
    let mut others = BTreeMap::new();
    let mut copies = 0;
    for entry in std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap() {
        // closed in the meantime
        let Ok(target) = std::fs::read_link(entry.unwrap().path()) else { continue };
        let target = target.to_string_lossy();
        if target.contains("memfd:libserving.so") {
            copies += 1;
        } else {
            // without the number of a socket or pipe
            *others.entry(target.split(":[").next().unwrap().to_owned()).or_default() += 1;
        }
    }
    (copies, others)
}

#[test]
fn reloads_under_load_answer_every_acknowledged_call() {
    let home = folder();
    let executable = std::env::current_exe().unwrap();
    let library = home.path().join("libserving.so");
    std::fs::copy(executable.parent().unwrap().join("libelbus_serving.so"), &library).unwrap();
    // long enough that no stop is abandoned on a busy machine; it also limits reloads
    let config = "[broker]\nshutdown_seconds = 60.0\n[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\nconfig = { path = \"bus.sock\", timeout_seconds = 600.0 }\n\
                  [[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n\
                  [[plugin]]\nname = \"inproc\"\nlibrary = \"elbus_inproc\"\n\
                  [[plugin]]\nname = \"server\"\nlibrary = \"./libserving.so\"\n";
    std::fs::write(home.path().join("broker.toml"), config).unwrap();
    let daemon = Daemon::start_in(home, &["--config", "broker.toml"]);
    let mut operator = daemon.client("operator");
    let (stopping, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let callers: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            let (client, stopping, answered) = (daemon.client(name), stopping.clone(), answered.clone());
            std::thread::spawn(move || call(client, &stopping, &answered))
        })
        .into();
    let more = || {
        let before = answered.load(Ordering::Relaxed);
        wait_until("calls are answered", || answered.load(Ordering::Relaxed) > before + 20);
    };
    more();
    let (_, before) = descriptors(&daemon);
    for _ in 0..RELOADS {
        more();
        // another build, by its contents
        std::fs::OpenOptions::new().append(true).open(&library).unwrap().write_all(b"x").unwrap();
        operator.control("plugin.reload", &[("name", "server")]).unwrap();
        more();
    }
    // of each build, only the sealed copy remains
    let expected = (RELOADS + 1, before);
    // if any crate of the build uses signals, tokio keeps two sockets in each library
    let mut with_signals = expected.clone();
    *with_signals.1.entry("socket".to_owned()).or_default() += 2 * RELOADS;
    let mut open = expected.clone();
    wait_until("descriptors are closed", || {
        let now = descriptors(&daemon);
        if now != open {
            eprintln!("open descriptors: {now:?}, expected: {expected:?}");
            open = now;
        }
        open == expected || open == with_signals
    });
    stopping.store(true, Ordering::Relaxed);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    assert!(client_threads(&daemon) > 0);
    operator.control("plugin.stop", &[("name", "server")]).unwrap();
    wait_until("threads have ended", || client_threads(&daemon) == 0);
    let (status, log) = daemon.stop();
    assert!(status.success() && !log.contains("ERROR"), "{log}");
}
