//! Peers that stay connected but neither send nor read any more, as with half-open TCP: they are disconnected
//! in every phase.

use elbus_protocol::{
    Op, Qos,
    handshake::{encode_client_greeting, encode_client_name},
    request::encode_request,
};

use crate::support::{daemon::Daemon, level::Level, load::Load, wait_until, wire::Wire};

/// Peers per phase and address.
const EACH: usize = 15;

/// Opens a connection that falls silent in a phase.
fn silent(daemon: &Daemon, address: &str, phase: usize, name: &str) -> Wire {
    if phase >= 3 {
        let mut client = Wire::connect(daemon, address, name);
        match phase {
            3 => {}
            4 => client.write(&[1, 0, 0]),
            5 => client.write(&[1, 0, 0, 0, 0x12, 100, 0, 0, 0, b'x']),
            _ => client.subscribe(&["flood"]),
        }
        return client;
    }
    let mut client = Wire::raw(daemon, address);
    match phase {
        0 => {}
        1 => client.write(&encode_client_greeting()),
        _ => {
            let name = encode_client_name(name).unwrap();
            client.write(&[&encode_client_greeting()[..], &name[..name.len() - 1]].concat());
        }
    }
    client
}

#[test]
fn silent_peers_are_disconnected_in_every_phase_and_leak_nothing() {
    let daemon = Daemon::start("library", &["--timeout", "3", "--queue-bytes", "100000", "--log", "warn"]);
    let load = Load::start(&daemon);
    let addresses = daemon.addresses();
    let mut publisher = daemon.client("publisher");
    let level = Level::of(&daemon);
    let mut peers = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        for phase in 0..7 {
            for n in 0..EACH {
                peers.push(silent(&daemon, address, phase, &format!("silent.{at}.{phase}.{n}")));
                publisher.ping();
            }
        }
    }
    assert!(daemon.descriptors() > level.descriptors, "the silent peers are connected");
    // more than the subscribers' queues and sockets hold: the publisher is held until they are disconnected
    let mut flood = Vec::new();
    for number in 0..200 {
        encode_request(&mut flood, number, Op::Publish, Qos::PROCESSED, "flood", "", &[7; 5000]).unwrap();
    }
    publisher.write(&flood);
    for number in 0..200 {
        assert_eq!(publisher.expect_ack(number), 0x01);
    }
    for at in 0..addresses.len() {
        for phase in 3..7 {
            for n in 0..EACH {
                let name = format!("silent.{at}.{phase}.{n}");
                wait_until("its name is free", || publisher.send(&name, b"") == 0x71);
            }
        }
    }
    load.wait_for_more();
    // while the other ends are still open
    level.wait_for(&daemon);
    drop(peers);
    load.stop();
}
