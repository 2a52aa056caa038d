//! Parts that fail: servers, nodes and links. Every acknowledged message has arrived exactly once, all others
//! were reported, and names leave with their node.

use elbus_protocol::{Op, Qos};
use rustix::process::Signal;
use std::time::{Duration, Instant};

use crate::{
    link_proxy::{DIRECTIONS, LinkProxy},
    network::{
        NatsServer, Options, free_port, has_nats_server, node, nodes, wait_for_client, wait_until_gone,
    },
    support::{daemon::Daemon, wait_until},
    traffic::Traffic,
};

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
    let traffic = Traffic::start(&mill, &press, 64, 100);
    for round in 0..3 {
        traffic.wait_for(500);
        server.kill();
        if round > 0 {
            // long enough for the nodes to lose each other
            wait_until_gone(&press, "@mill.to");
        }
        server.restart();
        wait_for_client(&press, "@mill.to");
    }
    traffic.wait_for(500);
    press.wait_for_log("connection to NATS lost");
    let account = traffic.end(&press);
    assert!(account.count(0x71) > 0, "a message to an absent client is refused");
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
    let traffic = Traffic::start(&mill, &press, 64, 100);
    for round in 0..4 {
        traffic.wait_for(500);
        proxy.cut();
        if round % 2 == 1 {
            // long enough for the node to be lost
            wait_until_gone(&press, "@mill.to");
        }
        proxy.restore();
    }
    traffic.wait_for(500);
    traffic.end(&press);
}

#[test]
fn a_link_that_is_cut_within_a_frame_delivers_nothing_of_the_frame() {
    if !has_nats_server("cut frames") {
        return;
    }
    let server = NatsServer::start();
    let proxy = LinkProxy::start(server.port());
    let mill = node("mill", &[proxy.url()], &Options::default());
    let press = node("press", &[server.url()], &Options::default());
    let traffic = Traffic::start(&mill, &press, 64, 100);
    for bytes in [7, 20_011] {
        for direction in DIRECTIONS {
            traffic.wait_for(500);
            proxy.cut_after(direction, bytes);
            proxy.restore();
        }
    }
    traffic.wait_for(500);
    traffic.end(&press);
}

#[test]
fn a_slow_link_loses_nothing() {
    if !has_nats_server("slow links") {
        return;
    }
    let server = NatsServer::start();
    let proxy = LinkProxy::start(server.port());
    let mill = node("mill", &[proxy.url()], &Options::default());
    let press = node("press", &[server.url()], &Options::default());
    let traffic = Traffic::start(&mill, &press, 32, 1000);
    for direction in DIRECTIONS {
        proxy.throttle(direction, 300_000);
        traffic.wait_for(200);
        proxy.restore();
        proxy.delay(direction, Duration::from_millis(100));
        traffic.wait_for(100);
        proxy.restore();
    }
    let account = traffic.end(&press);
    assert_eq!(account.count(0x01), account.codes.len(), "a slow link is not a lost one");
}

#[test]
fn a_link_that_stalls_as_if_packets_were_lost_loses_nothing() {
    if !has_nats_server("stalling links") {
        return;
    }
    let server = NatsServer::start();
    let proxy = LinkProxy::start(server.port());
    let mill = node("mill", &[proxy.url()], &Options::default());
    let press = node("press", &[server.url()], &Options::default());
    let traffic = Traffic::start(&mill, &press, 64, 1000);
    for direction in DIRECTIONS {
        proxy.lose(direction, 10);
        traffic.wait_for(500);
    }
    proxy.restore();
    let account = traffic.end(&press);
    assert_eq!(account.count(0x01), account.codes.len(), "a link that stalls is not a lost one");
}

#[test]
fn a_slow_link_to_a_server_with_frequent_pings_is_not_given_up() {
    if !has_nats_server("frequent pings") {
        return;
    }
    // a second without anything from the node, and the server closes its connection
    let server = NatsServer::with_config("ping_interval: \"500ms\"\nping_max: 1\n");
    let proxy = LinkProxy::start(server.port());
    let mill = node("mill", &[proxy.url()], &Options::default());
    let press = node("press", &[server.url()], &Options::default());
    let [to_mill, of_mill] =
        [(("press", &press), ("mill", &mill), ".a"), (("mill", &mill), ("press", &press), ".b")]
            .map(|(from, to, of)| Traffic::between(from, to, of, (64, 1800)));
    // what is in flight takes a second each way, and pings wait behind it
    for direction in DIRECTIONS {
        proxy.throttle(direction, 120_000);
    }
    to_mill.wait_for(300);
    of_mill.wait_for(300);
    proxy.restore();
    for (traffic, daemon) in [(to_mill, &press), (of_mill, &mill)] {
        let account = traffic.end(daemon);
        assert_eq!(account.count(0x01), account.codes.len(), "a slow link is not a lost one");
    }
    for daemon in [&mill, &press] {
        assert!(!daemon.log().contains("connection to NATS lost"), "{}", daemon.log());
    }
}

#[test]
fn every_acknowledged_message_arrives_once_although_the_plugin_is_reloaded_on_both_nodes() {
    if !has_nats_server("reloaded plugin") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let traffic = Traffic::start(&mill, &press, 64, 100);
    for daemon in [&mill, &press, &mill, &press] {
        traffic.wait_for(500);
        let mut operator = daemon.client("test.operator");
        operator.control("plugin.reload", &[("name", "bridge")]).unwrap();
    }
    traffic.wait_for(500);
    traffic.end(&press);
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
    let mut other = NatsServer::start_with(
        free_port(),
        &["--cluster_name", "plant", "--cluster", &cluster(others), "--routes", &cluster(routes)],
        None,
    );
    let servers = [one.url(), other.url()];
    let nodes = ["mill", "press"].map(|name| node(name, &servers, &Options::default()));
    let [mill, press] = &nodes;
    let traffic = Traffic::start(mill, press, 64, 100);
    traffic.wait_for(500);
    // the one that the mill is connected to, so that the mill must use the other one
    let is_first = mill.log().contains(&format!("server=\"127.0.0.1:{}\"", one.port()));
    let connected = if is_first { &mut one } else { &mut other };
    connected.kill();
    mill.wait_for_log("connection to NATS lost");
    traffic.wait_for(500);
    traffic.end(press);
}
