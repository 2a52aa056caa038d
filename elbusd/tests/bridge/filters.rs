//! Subscriptions that change all the time: while links are lost and made again, and faster than nodes follow.

use elbus_protocol::Op;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    link_proxy::LinkProxy,
    network::{
        NatsServer, Options, has_nats_server, node, nodes, wait_for_client, wait_for_filters, wait_for_nodes,
    },
    support::{
        daemon::Daemon,
        wire::{Frame, Wire},
    },
};

fn topics(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("sensors/line/{number:05}/value")).collect()
}

fn change(client: &mut Wire, op: Op, topics: &[String]) {
    let filters: Vec<&str> = topics.iter().map(String::as_str).collect();
    assert_eq!(client.filters(op, &filters), 0x01);
}

/// Publishes to all topics at one node; returns those that arrive at a client of another one.
fn arriving(publisher: &mut Wire, all: &[String], subscriber: &mut Wire) -> BTreeSet<String> {
    for topic in all {
        assert_eq!(publisher.acked(Op::Publish, topic, b"x"), 0x01);
    }
    assert_eq!(publisher.acked(Op::Publish, "sensors/end", b"end"), 0x01);
    let mut arrived = BTreeSet::new();
    loop {
        let Frame::Data(_, _, topic, ..) = subscriber.frame() else { panic!("no publication") };
        if topic == "sensors/end" {
            return arrived;
        }
        assert!(arrived.insert(topic), "twice");
    }
}

fn is_reachable(from: &Daemon, target: &str) -> bool {
    from.client("test.reach").send(target, b"x") == 0x01
}

#[test]
fn filters_that_change_while_links_are_lost_are_right_in_the_end() {
    if !has_nats_server("filters and lost links") {
        return;
    }
    let server = NatsServer::start();
    let proxy = Arc::new(LinkProxy::start(server.port()));
    let mill = node("mill", &[server.url()], &Options::default());
    let press = node("press", &[proxy.url()], &Options::default());
    wait_for_nodes(&mill, 1);
    let (mut publisher, mut client, mut helper) =
        (mill.client("publisher"), press.client("client"), press.client("helper"));
    let is_over = Arc::<AtomicBool>::default();
    let (cutting, ending) = (proxy.clone(), is_over.clone());
    let cuts = std::thread::spawn(move || {
        while !ending.load(Ordering::SeqCst) {
            cutting.cut();
            cutting.restore();
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    // more than 8 KiB each, and some that two clients hand to each other
    for round in 0..20 {
        change(&mut client, Op::Subscribe, &topics(round * 100..round * 100 + 1000));
        change(&mut helper, Op::Subscribe, &topics(round * 100..round * 100 + 50));
        change(&mut client, Op::Unsubscribe, &topics(round * 100..round * 100 + 900));
        change(&mut helper, Op::Unsubscribe, &topics(round * 100..round * 100 + 50));
        std::thread::sleep(Duration::from_millis(50));
    }
    is_over.store(true, Ordering::SeqCst);
    cuts.join().unwrap();
    client.subscribe(&["sensors/end"]);
    wait_for_filters(&mill, "press", 101);
    let expected: BTreeSet<_> = topics(2800..2900).into_iter().collect();
    assert_eq!(arriving(&mut publisher, &topics(2000..2901), &mut client), expected);
}

#[test]
fn a_client_that_changes_thousands_of_filters_all_the_time_disturbs_nobody() {
    if !has_nats_server("filters all the time") {
        return;
    }
    let server = NatsServer::start();
    let [mill, press] = nodes(["mill", "press"], &server);
    let (_other, mut client) = (mill.client("other"), press.client("client"));
    wait_for_client(&press, "@mill.other");
    let before = [&mill, &press].map(Daemon::memory);
    // beyond the limit of filters and back
    for round in 0..60 {
        change(&mut client, Op::Subscribe, &topics(0..5000));
        assert!(is_reachable(&press, "@mill.other"));
        change(&mut client, Op::Unsubscribe, &topics(round..5000));
    }
    wait_for_filters(&mill, "press", 59);
    for (daemon, before) in [&mill, &press].into_iter().zip(before) {
        let after = daemon.memory();
        assert!(after < before + (48 << 10), "{before} KiB, then {after} KiB");
        assert!(!daemon.log().contains("node lost"), "{}", daemon.log());
    }
}
