//! Network outages: broker and clients in network namespaces of their own, with one link between them.

use elbus_client::ConnectionEvent;
use std::{
    io::Write,
    net::TcpStream,
    process::{Command, Stdio},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    child_process,
    ledger::{Senders, check, receive, reconnecting, send},
    support::{
        daemon::{Daemon, folder},
        level::Level,
        load::Load,
        wait_until,
        wire::Wire,
    },
};

const SENDERS: usize = 3;

/// Runs a test of this file in its own network namespace, if this machine permits it.
fn run_in_own_network(test: &str) {
    let possible = Command::new("unshare")
        .args(["-rn", "sh", "-c", "ip link add name here type veth peer name there && unshare -n true"])
        .output();
    match possible {
        Ok(output) if output.status.success() => {}
        why => {
            // not captured with the test's output, so that the skipped test is visible
            let _ = writeln!(std::io::stderr(), "SKIPPED, no network namespaces here: {test}: {why:?}");
            return;
        }
    }
    let output =
        child_process::command(&["unshare", "-rn"], test, "in it").stderr(Stdio::piped()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("done"), "{stderr}");
}

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Starts a broker at the other end of the link. Returns it and its address.
fn broker(more: &[&str]) -> (Daemon, String) {
    let arguments = [more, &["--plugins", "builtin", "--bind", "0.0.0.0:7777"]].concat();
    let daemon = Daemon::start_through(&["unshare", "-n"], folder(), &arguments);
    let pid = daemon.pid().to_string();
    run(&["ip", "link", "add", "name", "here", "type", "veth", "peer", "name", "there", "netns", &pid]);
    let there = ["nsenter", "-t", &pid, "-n"];
    run(&["ip", "address", "add", "10.77.0.1/24", "dev", "here"]);
    run(&[&there[..], &["ip", "address", "add", "10.77.0.2/24", "dev", "there"]].concat());
    run(&[&there[..], &["ip", "link", "set", "there", "up"]].concat());
    wire("up");
    let address = "10.77.0.2:7777".parse().unwrap();
    wait_until("the link works", || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok());
    (daemon, "tcp:10.77.0.2:7777".to_owned())
}

fn wire(state: &str) {
    run(&["ip", "link", "set", "here", state]);
}

#[test]
fn a_short_network_outage_loses_nothing() {
    run_in_own_network("network_outage::short_outage");
}

#[test]
#[ignore = "is run by a_short_network_outage_loses_nothing"]
fn short_outage() {
    if child_process::parameter().is_none() {
        return;
    }
    let (mut daemon, address) = broker(&["--timeout", "30"]);
    daemon.reached_at(&address);
    let load = Load::start(&daemon);
    let level = Level::of(&daemon);
    for _ in 0..5 {
        load.wait_for_more();
        wire("down");
        std::thread::sleep(Duration::from_millis(150));
        wire("up");
    }
    load.wait_for_more();
    level.wait_for(&daemon);
    load.stop();
    writeln!(std::io::stderr(), "done").unwrap();
}

#[test]
fn peers_that_vanish_silently_are_disconnected() {
    run_in_own_network("network_outage::permanent_outage");
}

#[test]
#[ignore = "is run by peers_that_vanish_silently_are_disconnected"]
fn permanent_outage() {
    if child_process::parameter().is_none() {
        return;
    }
    let (mut daemon, address) = broker(&["--timeout", "3", "--bind", "./bus.sock"]);
    let mut witness = daemon.client("witness");
    let level = Level::of(&daemon);
    daemon.reached_at(&address);
    let mut connect = |number: usize| {
        witness.ping();
        Wire::connect(&daemon, &address, &format!("vanishing.{number}"))
    };
    let mut peers: Vec<_> = (0..20).map(&mut connect).collect();
    peers[0].write(&[1, 0, 0, 0, 0x12, 100, 0, 0, 0, b'x']);
    // some have data in flight that their host never acknowledges
    wire("down");
    for peer in 0..5 {
        assert_eq!(witness.send(&format!("vanishing.{peer}"), &[7; 100_000]), 0x01);
    }
    for peer in 0..20 {
        wait_until("its name is free", || witness.send(&format!("vanishing.{peer}"), b"") == 0x71);
    }
    level.wait_for(&daemon);
    drop(peers);
    writeln!(std::io::stderr(), "done").unwrap();
}

#[test]
fn a_long_network_outage_loses_only_what_is_reported_to_both_sides() {
    run_in_own_network("network_outage::long_outage");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is run by a_long_network_outage_loses_only_what_is_reported_to_both_sides"]
async fn long_outage() {
    if child_process::parameter().is_none() {
        return;
    }
    let (daemon, address) = broker(&["--timeout", "1"]);
    let host = address.strip_prefix("tcp:").unwrap();
    let limit = Duration::from_secs(1);
    let before = daemon.descriptors();
    let (receiver, frames) = reconnecting("receiver", limit).connect(host).await.unwrap();
    let mut events = receiver.events();
    let receiving = tokio::spawn(receive(frames, SENDERS));
    let senders = Arc::<Senders>::default();
    let mut sending = vec![];
    for number in 0..SENDERS {
        let name = format!("sender.{number}");
        let (client, _) = reconnecting(&name, limit).connect(host).await.unwrap();
        sending.push((name, tokio::spawn(send(client, senders.clone()))));
    }
    let more = || {
        let enough = senders.acknowledged.load(Ordering::Relaxed) + 500;
        wait_until("messages", || senders.acknowledged.load(Ordering::Relaxed) >= enough);
    };
    for _ in 0..2 {
        tokio::task::block_in_place(more);
        wire("down");
        // the broker disconnects all of them
        tokio::task::block_in_place(|| {
            wait_until("all connections are closed", || daemon.descriptors() <= before)
        });
        while !matches!(events.next().await, Some(ConnectionEvent::Disconnected { .. })) {}
        wire("up");
    }
    tokio::task::block_in_place(more);
    senders.stopping.store(true, Ordering::Relaxed);
    let mut arrived = receiving.await.unwrap();
    for (name, sender) in sending {
        let sent = sender.await.unwrap();
        check(&name, &sent, &arrived.remove(&name).unwrap_or_default());
    }
    writeln!(std::io::stderr(), "done").unwrap();
}
