//! Full receivers: they hold their own senders, across nodes as locally, and nobody else.

use elbus_protocol::{Op, Qos};
use std::time::Duration;

use crate::{
    link_proxy::LinkProxy,
    network::{NatsServer, Options, has_nats_server, node, wait_for_client, wait_until_gone},
    support::wire::{Frame, numbered_frames},
};

#[test]
fn a_full_receiver_of_another_node_holds_its_senders_only_and_nothing_is_lost() {
    if !has_nats_server("back-pressure") {
        return;
    }
    let server = NatsServer::start();
    let small = Options {
        unix: ", queue_bytes = 100000, stall_seconds = 60.0, timeout_seconds = 90.0",
        more: "[broker]\nhold_budget_seconds = 60.0\nhold_window_seconds = 120.0\n",
        ..Options::default()
    };
    let mill = node("mill", &[server.url()], &small);
    let press = node("press", &[server.url()], &small);
    let (mut slow, mut quick) = (mill.client("slow"), mill.client("quick"));
    let (mut from, mut other) = (press.client("from"), press.client("other"));
    wait_for_client(&press, "@mill.slow");
    wait_for_client(&press, "@mill.quick");
    const COUNT: u32 = 30_000;
    let mut writer = from.writer();
    let sending = std::thread::spawn(move || {
        writer.write(&numbered_frames(Op::Message, Qos::PROCESSED, "@mill.slow", COUNT, 1000));
    });
    let acknowledged = std::thread::spawn(move || {
        (0..COUNT).for_each(|number| assert_eq!(from.frame(), Frame::Ack(number, 0x01)));
    });
    // the receiver reads nothing; others are served meanwhile, in both directions
    for _ in 0..200 {
        assert_eq!(other.send("@mill.quick", b"quick"), 0x01);
        assert_eq!(quick.frame().payload(), b"quick");
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(!sending.is_finished(), "30 MB are not queued for a client with a limit of 100 kB");
    for number in 0..COUNT {
        let frame = slow.frame();
        assert_eq!(frame.payload()[..4], number.to_le_bytes());
    }
    sending.join().unwrap();
    acknowledged.join().unwrap();
}

#[test]
fn memory_does_not_grow_while_the_link_is_frozen() {
    if !has_nats_server("frozen link under load") {
        return;
    }
    let server = NatsServer::start();
    let proxy = LinkProxy::start(server.port());
    let press = node("press", &[proxy.url()], &Options::default());
    let mill = node("mill", &[server.url()], &Options::default());
    let (_to, from) = (mill.client("to"), press.client("from"));
    wait_for_client(&press, "@mill.to");
    proxy.freeze();
    let before = press.memory();
    let mut writer = from.writer();
    // 200 MB: the sender is held, and what it sends after the node is lost goes nowhere
    let sending = std::thread::spawn(move || {
        let frames = numbered_frames(Op::Message, Qos::NO, "@mill.to", 20_000, 10_000);
        writer.write(&frames);
    });
    let mut most = before;
    while !sending.is_finished() {
        most = most.max(press.memory());
        std::thread::sleep(Duration::from_millis(20));
    }
    sending.join().unwrap();
    assert!(most < before + (100 << 10), "{before} KiB before, {most} KiB at most");
    wait_until_gone(&press, "@mill.to");
    proxy.restore();
    wait_for_client(&press, "@mill.to");
}

#[test]
fn real_time_messages_to_another_node_hold_nobody_and_are_refused_beyond_twice_the_window() {
    if !has_nats_server("real-time messages") {
        return;
    }
    let server = NatsServer::start();
    let proxy = LinkProxy::start(server.port());
    let press = node("press", &[proxy.url()], &Options::default());
    let mill = node("mill", &[server.url()], &Options::default());
    let (_to, mut from) = (mill.client("to"), press.client("from"));
    wait_for_client(&press, "@mill.to");
    proxy.freeze();
    // 8 MB, of which twice `receiver_bytes` are taken
    const COUNT: u32 = 800;
    let mut writer = from.writer();
    let sending = std::thread::spawn(move || {
        writer.write(&numbered_frames(Op::Message, Qos::REALTIME_PROCESSED, "@mill.to", COUNT, 10_000));
    });
    let codes: Vec<u8> = (0..COUNT)
        .map(|number| match from.frame() {
            Frame::Ack(id, code) if id == number => code,
            other => panic!("{number}: {other:?}"),
        })
        .collect();
    sending.join().unwrap();
    let count = |code: u8| codes.iter().filter(|other| **other == code).count();
    // what was taken is lost with the node
    assert!(count(0x77) > 0 && count(0x78) > 0, "{codes:x?}");
    assert_eq!(count(0x77) + count(0x78) + count(0x71), codes.len(), "{codes:x?}");
}
