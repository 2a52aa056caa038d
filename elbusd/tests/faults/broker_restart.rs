//! A broker that is killed repeatedly under load, with clients that reconnect.

use elbus_client::ConnectionEvent;
use rustix::process::Signal;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    ledger::{Senders, check, receive, reconnecting, send},
    support::{PATIENCE, daemon::Daemon, daemon::folder},
};

const SENDERS: usize = 4;
const KILLS: u64 = 5;
/// Acknowledged messages between two kills.
const MESSAGES: u32 = 800;

async fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let ready = async {
        while !ready() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.unwrap_or_else(|_| panic!("timeout: {what}"));
}

/// Returns how many clients have rings, by the mappings of the broker.
fn mapped_rings(broker: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{broker}/maps")).unwrap();
    maps.lines().filter(|line| line.contains("elbus-ring")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_messages_arrive_or_their_loss_is_reported() {
    kill_repeatedly(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_messages_in_rings_arrive_or_their_loss_is_reported() {
    kill_repeatedly(true).await;
}

async fn kill_repeatedly(rings: bool) {
    let folder = folder();
    let local = format!(
        r#"
        [[plugin]]
        name = "local"
        builtin = "unix"
        config = {{ path = "bus.sock", rings = {rings}, ring_bytes = 65536, max_source_share = 1.0 }}
        [[plugin]]
        name = "rpc"
        builtin = "rpc"
        "#
    );
    std::fs::write(folder.path().join("broker.toml"), local).unwrap();
    let arguments = ["--config", "broker.toml", "--log", "warn"];
    let mut daemon = Daemon::start_in(folder.clone(), &arguments);
    let path = folder.path().join("bus.sock");
    let reconnecting = |name: &str, limit| reconnecting(name, limit).rings(rings);
    let (receiver, frames) = reconnecting("receiver", PATIENCE).connect(path.clone()).await.unwrap();
    let mut events = receiver.events();
    let receiving = tokio::spawn(receive(frames, SENDERS));
    let senders = Arc::<Senders>::default();
    let (mut clients, mut sending) = (vec![], vec![]);
    for number in 0..SENDERS {
        let name = format!("sender.{number}");
        let (client, _) = reconnecting(&name, PATIENCE).connect(path.clone()).await.unwrap();
        clients.push(client.clone());
        sending.push((name, tokio::spawn(send(client, senders.clone()))));
    }
    for kill in 1..=KILLS {
        let enough = senders.acknowledged.load(Ordering::Relaxed) + MESSAGES;
        wait_for("messages", || senders.acknowledged.load(Ordering::Relaxed) >= enough).await;
        daemon.signal(Signal::KILL);
        assert!(!daemon.wait_end().0.success());
        daemon = Daemon::start_in(folder.clone(), &arguments);
        wait_for("all are back", || {
            clients.iter().chain([&receiver]).all(|client| client.stats().reconnects == kill)
        })
        .await;
        assert_eq!(mapped_rings(daemon.pid()) > SENDERS, rings, "of all clients, after kill {kill}");
    }
    let enough = senders.acknowledged.load(Ordering::Relaxed) + MESSAGES;
    wait_for("messages", || senders.acknowledged.load(Ordering::Relaxed) >= enough).await;
    senders.stopping.store(true, Ordering::Relaxed);

    let mut arrived = tokio::time::timeout(PATIENCE, receiving).await.expect("all ends").unwrap();
    for (name, sender) in sending {
        let sent = sender.await.unwrap();
        assert_eq!(sent.len() as u64, KILLS + 1, "{name} got acknowledgements over each connection");
        check(&name, &sent, &arrived.remove(&name).unwrap_or_default());
    }
    let mut losses = 0;
    while losses < KILLS {
        let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        losses += match event {
            ConnectionEvent::Disconnected { .. } => 1,
            // without requests, reconnecting continues
            ConnectionEvent::Missed(_) => KILLS,
            _ => 0,
        };
    }
}
