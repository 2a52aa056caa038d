//! Plugins whose `start` uses blocking clients, linked and loaded, in programs with and without tokio. After
//! such a plugin has stopped, no threads or descriptors of its clients are left. In a test program of its
//! own, because other tests would use the same threads.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_broker::{Broker, PluginDeclaration, PluginState};
use elbus_client::{Qos, blocking::Client};
use std::{collections::BTreeMap, time::Duration};
use support::wait_until;
use tokio::{
    runtime::{Builder, Runtime},
    task::{LocalSet, spawn_blocking, spawn_local},
};

/// More operations than tokio completes in one poll of a task.
const OPERATIONS: u32 = 300;

/// Starts a broker with the plugin `server`, which connects a blocking client when it starts.
fn start_broker(linked: bool) -> Broker {
    let server = if linked {
        PluginDeclaration::linked("server", elbus_serving::plugin())
    } else {
        let executable = std::env::current_exe().unwrap();
        let library = executable.parent().unwrap().join("libelbus_serving.so");
        PluginDeclaration::library("server", library.to_str().unwrap())
    };
    Broker::builder()
        .plugin(PluginDeclaration::linked("inproc", elbus_inproc::plugin()))
        .plugin(PluginDeclaration::linked("rpc", elbus_rpc::plugin()))
        .plugin(server)
        .start()
        .unwrap()
}

/// Starts a broker, uses blocking clients in the same thread, reloads the plugin and stops all.
fn use_blocking_clients(linked: bool) {
    let broker = start_broker(linked);
    assert!(broker.plugins().iter().all(|plugin| plugin.state == PluginState::Started));
    let (client, mut frames) = Client::builder("client").connect_in_process(broker.host()).unwrap();
    client.add_filters("numbers").unwrap();
    for number in 0..OPERATIONS {
        client.publish("numbers", number.to_string(), Qos::PROCESSED).unwrap();
        assert_eq!(frames.next().unwrap().payload(), number.to_string().as_bytes());
    }
    assert_eq!(client.call("server", "echo", "before the reload").unwrap(), "before the reload");
    client.call(".broker", "plugin.reload", msgpack(&[("name", "server")])).unwrap();
    assert_eq!(client.call("server", "echo", "after the reload").unwrap(), "after the reload");
    client.close().unwrap();
    broker.stop(Duration::from_secs(60)).wait();
}

fn msgpack(params: &[(&str, &str)]) -> Vec<u8> {
    rmp_serde::to_vec(&params.iter().copied().collect::<BTreeMap<_, _>>()).unwrap()
}

/// Returns the number of threads that serve blocking clients in this program, including those of loaded
/// libraries.
fn client_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // a thread can end meanwhile
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "elbus client").count()
}

/// Returns the open descriptors, except for the sealed copies of libraries, which stay open, and sockets: if
/// any crate of the build uses signals, tokio keeps two in each library. The clients' runtime would leave
/// others.
fn file_descriptors() -> Vec<String> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let targets = targets.map(|target| target.to_string_lossy().into_owned());
    targets.filter(|target| !target.contains("memfd:") && !target.contains("socket:")).collect()
}

fn runtime(builder: &mut Builder) -> Runtime {
    builder.enable_all().build().unwrap()
}

#[test]
fn plugins_use_blocking_clients_in_any_program() {
    type Program = fn(bool);
    let programs: [(&str, Program); 6] = [
        ("no runtime", use_blocking_clients),
        ("main of a multi-threaded runtime", |linked| {
            runtime(&mut Builder::new_multi_thread()).block_on(async { use_blocking_clients(linked) });
        }),
        ("task on the only worker", |linked| {
            let runtime = runtime(Builder::new_multi_thread().worker_threads(1));
            runtime.block_on(runtime.spawn(async move { use_blocking_clients(linked) })).unwrap();
        }),
        ("main of a current-thread runtime", |linked| {
            runtime(&mut Builder::new_current_thread()).block_on(async { use_blocking_clients(linked) });
        }),
        ("task of a local set", |linked| {
            let task = async move { spawn_local(async move { use_blocking_clients(linked) }).await.unwrap() };
            LocalSet::new().block_on(&runtime(&mut Builder::new_current_thread()), task);
        }),
        ("thread for blocking functions", |linked| {
            let blocking = async move { spawn_blocking(move || use_blocking_clients(linked)).await.unwrap() };
            runtime(&mut Builder::new_current_thread()).block_on(blocking);
        }),
    ];
    let before = file_descriptors().len();
    for (program, run) in programs {
        for linked in [true, false] {
            eprintln!("{program}, {}", if linked { "linked" } else { "loaded" });
            run(linked);
            wait_until("the threads of the clients have ended", || client_threads() == 0);
            let mut open = Vec::new();
            wait_until("file descriptors are closed", || {
                let now = file_descriptors();
                if now != open {
                    eprintln!("open: {now:?}");
                    open = now;
                }
                open.len() <= before
            });
        }
    }
}
