//! Parts that fail: servers, nodes and links. Every acknowledged message has arrived exactly once, all others
//! were reported, and names leave with their node.

use elbus_protocol::{Op, Qos};
use rustix::process::Signal;
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    link_proxy::LinkProxy,
    network::{
        NatsServer, Options, free_port, has_nats_server, node, nodes, wait_for_client, wait_for_nodes,
        wait_until_gone,
    },
    support::{
        daemon::Daemon,
        wait_until,
        wire::{Frame, Wire},
    },
};

/// What a sender knows of its messages.
struct Account {
    stop: Arc<AtomicBool>,
    sending: std::thread::JoinHandle<Vec<(u32, u8)>>,
}

/// Sends numbered messages one after the other, and notes their codes.
fn account(daemon: &Daemon, name: &str, target: &'static str) -> Account {
    let mut client = daemon.client(name);
    let stop = Arc::<AtomicBool>::default();
    let stopping = stop.clone();
    let sending = std::thread::spawn(move || {
        let mut codes = vec![];
        for number in 0u32.. {
            if stopping.load(Ordering::SeqCst) {
                break;
            }
            codes.push((number, client.send(target, &number.to_le_bytes())));
        }
        codes
    });
    Account { stop, sending }
}

impl Account {
    fn end(self) -> Vec<(u32, u8)> {
        self.stop.store(true, Ordering::SeqCst);
        self.sending.join().unwrap()
    }
}

/// Reads everything that has arrived; checks that the order is kept and nothing is repeated.
fn arrived(client: &mut Wire) -> HashSet<u32> {
    let mut numbers = vec![];
    while let Some(frame) = client.frame_within(Duration::from_millis(500)) {
        numbers.push(u32::from_le_bytes(frame.payload().try_into().unwrap()));
    }
    assert!(numbers.is_sorted_by(|one, other| one < other), "repeated or out of order");
    numbers.into_iter().collect()
}

/// Returns the numbers of `@press.from` that arrive before a message of `@press.test.end`.
fn read_until_the_end(mut client: Wire) -> Vec<u32> {
    let mut numbers = vec![];
    loop {
        let Frame::Data(_, sender, _, payload, _) = client.frame() else { panic!("no message") };
        match &*sender {
            "@press.from" => numbers.push(u32::from_le_bytes(payload.try_into().unwrap())),
            "@press.test.end" => return numbers,
            _ => {}
        }
    }
}

fn check(codes: &[(u32, u8)], arrived: &HashSet<u32>) {
    for (number, code) in codes {
        match code {
            0x01 => assert!(arrived.contains(number), "{number} was acknowledged and has not arrived"),
            // it may have been delivered
            0x78 => {}
            0x71 | 0x77 => assert!(!arrived.contains(number), "{number} was refused and has arrived"),
            code => panic!("{number}: {code:#x}"),
        }
    }
    assert!(codes.iter().any(|(_, code)| *code == 0x01), "nothing was acknowledged");
}

/// Waits until a message is delivered.
fn wait_for_delivery(daemon: &Daemon, target: &str) {
    let mut client = daemon.client("test.delivery");
    wait_until(&format!("{target} gets a message"), || client.send(target, &u32::MAX.to_le_bytes()) == 0x01);
}

#[test]
fn a_server_that_is_killed_and_restarted_loses_nothing_that_was_acknowledged() {
    if !has_nats_server("killed server") {
        return;
    }
    let mut server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let mut to = mill.client("to");
    wait_for_client(&press, "@mill.to");
    let account = account(&press, "from", "@mill.to");
    for _ in 0..2 {
        assert!(to.frame_within(Duration::from_secs(30)).is_some());
        server.kill();
        press.wait_for_log("connection to NATS lost");
        wait_until_gone(&press, "@mill.to");
        server.restart();
        wait_for_client(&press, "@mill.to");
    }
    wait_until("messages arrive again", || to.frame_within(Duration::from_secs(1)).is_some());
    let codes = account.end();
    // some were read above; acknowledged ones can be checked by what is refused
    let refused = codes.iter().filter(|(_, code)| *code == 0x71).count();
    assert!(refused > 0 && codes.iter().any(|(_, code)| *code == 0x01));
    drop(arrived(&mut to));
}

#[test]
fn every_acknowledged_message_arrives_once_although_the_link_is_cut_again_and_again() {
    if !has_nats_server("cut links") {
        return;
    }
    let server = NatsServer::start();
    let proxy = LinkProxy::start(server.port());
    let mill = node("mill", &[proxy.url()], &Options::default());
    let press = node("press", &[server.url()], &Options::default());
    let to = mill.client("to");
    wait_for_client(&press, "@mill.to");
    let reading = std::thread::spawn(move || read_until_the_end(to));
    let account = account(&press, "from", "@mill.to");
    for round in 0..4 {
        std::thread::sleep(Duration::from_millis(300));
        proxy.cut();
        if round % 2 == 1 {
            // long enough for the node to be lost
            wait_until_gone(&press, "@mill.to");
        }
        proxy.restore();
        wait_for_client(&press, "@mill.to");
        wait_for_delivery(&press, "@mill.to");
    }
    let codes = account.end();
    let mut end = press.client("test.end");
    wait_until("the end arrives", || end.send("@mill.to", b"end") == 0x01);
    let frames = reading.join().unwrap();
    assert!(frames.is_sorted_by(|one, other| one < other), "repeated or out of order");
    check(&codes, &frames.into_iter().collect());
}

#[test]
fn every_acknowledged_message_arrives_once_although_the_plugin_is_reloaded_on_both_nodes() {
    if !has_nats_server("reloaded plugin") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let to = mill.client("to");
    wait_for_client(&press, "@mill.to");
    let reading = std::thread::spawn(move || read_until_the_end(to));
    let account = account(&press, "from", "@mill.to");
    for daemon in [&mill, &press, &mill, &press] {
        wait_for_delivery(&press, "@mill.to");
        let mut operator = daemon.client("test.operator");
        operator.control("plugin.reload", &[("name", "bridge")]).unwrap();
        wait_for_client(&press, "@mill.to");
    }
    wait_for_delivery(&press, "@mill.to");
    let codes = account.end();
    let mut end = press.client("test.end");
    wait_until("the end arrives", || end.send("@mill.to", b"end") == 0x01);
    let frames = reading.join().unwrap();
    assert!(frames.is_sorted_by(|one, other| one < other), "repeated or out of order");
    check(&codes, &frames.into_iter().collect());
}

#[test]
fn names_of_a_killed_node_leave_within_seconds_and_what_is_in_flight_is_reported() {
    if !has_nats_server("killed node") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let (_callee, mut from, mut caller) =
        (mill.client("callee"), press.client("from"), press.client("caller"));
    wait_for_client(&press, "@mill.callee");
    let calling = std::thread::spawn(move || caller.call("@mill.callee", "never.answered", b""));
    wait_for_delivery(&press, "@mill.callee");
    // frozen: what is sent now stays in flight
    mill.signal(Signal::STOP);
    let id = from.request(Op::Message, Qos::PROCESSED, "@mill.callee", "", b"in flight");
    let killed = Instant::now();
    mill.signal(Signal::KILL);
    assert_eq!(from.expect_ack(id), 0x78);
    wait_until_gone(&press, "@mill.callee");
    let took = killed.elapsed();
    press.wait_for_log("node lost");
    // three heartbeats and one check; generous, since the machine can be busy
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(from.send("@mill.callee", b"later"), 0x71);
    let (code, text) = calling.join().unwrap().unwrap_err();
    assert!(text.contains("is lost"), "{code} {text}");
}

#[test]
fn a_node_that_stops_says_so_and_leaves_at_once() {
    if !has_nats_server("stopped node") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let _client = mill.client("client");
    wait_for_client(&press, "@mill.client");
    let (status, log) = mill.stop();
    assert!(status.success(), "{log}");
    press.wait_for_log("reason=\"it has stopped\"");
    wait_until_gone(&press, "@mill.client");
}

#[test]
fn a_frozen_link_is_noticed_and_used_again() {
    if !has_nats_server("frozen link") {
        return;
    }
    let server = NatsServer::start();
    let proxy = LinkProxy::start(server.port());
    let mill = node("mill", &[proxy.url()], &Options::default());
    let press = node("press", &[server.url()], &Options::default());
    let _to = mill.client("to");
    wait_for_client(&press, "@mill.to");
    proxy.freeze();
    wait_until_gone(&press, "@mill.to");
    proxy.restore();
    wait_for_client(&press, "@mill.to");
    wait_for_delivery(&press, "@mill.to");
    // a slow link is not a lost one
    proxy.delay(Duration::from_millis(100));
    let mut from = press.client("from");
    for _ in 0..5 {
        assert_eq!(from.send("@mill.to", b"slow"), 0x01);
    }
}

#[test]
fn the_servers_of_a_cluster_replace_each_other() {
    if !has_nats_server("cluster") {
        return;
    }
    let (routes, others) = (free_port(), free_port());
    let cluster = |own: u16| format!("nats://127.0.0.1:{own}");
    let mut one = NatsServer::start_with(
        free_port(),
        &["--cluster_name", "plant", "--cluster", &cluster(routes), "--routes", &cluster(others)],
        None,
    );
    let other = NatsServer::start_with(
        free_port(),
        &["--cluster_name", "plant", "--cluster", &cluster(others), "--routes", &cluster(routes)],
        None,
    );
    let servers = [one.url(), other.url()];
    let mill = node("mill", &servers, &Options::default());
    let press = node("press", &[other.url()], &Options::default());
    wait_for_nodes(&mill, 1);
    let _to = mill.client("to");
    wait_for_client(&press, "@mill.to");
    wait_for_delivery(&press, "@mill.to");
    one.kill();
    // whichever server it was connected to, it is reached by the other one
    wait_until("messages arrive by the other server", || {
        wait_for_client(&press, "@mill.to");
        press.client("again").send("@mill.to", b"x") == 0x01
    });
}
