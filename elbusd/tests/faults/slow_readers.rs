//! Readers of different speeds that subscribe to one topic, and a client that writes and reads byte by byte.

use elbus_protocol::{Op, Qos, request::encode_request};
use std::time::Duration;

use crate::support::{
    daemon::{BOTH, Daemon},
    level::Level,
    load::Load,
    wait_until,
    wire::{Frame, Wire},
};

const PUBLICATIONS: u32 = 4000;
const BYTES: usize = 1000;

/// Reads all publications and checks their order. A slow reader reads little at a time and pauses.
fn read_all(mut client: Wire, slow: bool) {
    let mut pings = client.writer();
    let pinging = std::thread::spawn(move || {
        while pings.try_write(&[0; 9]) {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    if slow {
        client.read_in_pieces(3000);
    }
    let mut number = 0;
    while number < PUBLICATIONS {
        let frame = client.frame();
        let Frame::Data(_, sender, topic, payload, _) = &frame else { panic!("{frame:?}") };
        if sender == ".broker" {
            continue;
        }
        assert_eq!((&**topic, payload.len()), ("feed", BYTES));
        assert_eq!(payload[..4], number.to_le_bytes(), "in order, none missing");
        number += 1;
        if slow && number % 100 == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    client.shutdown(std::net::Shutdown::Both);
    pinging.join().unwrap();
}

#[test]
fn stuck_and_slow_readers_do_not_slow_fast_ones() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &["--timeout", "5", "--queue-bytes", "200000", "--log", "warn"]);
        let load = Load::start(&daemon);
        let mut publisher = daemon.client("publisher");
        let level = Level::of(&daemon);
        let (mut readers, mut stuck) = (Vec::new(), Vec::new());
        for (at, address) in daemon.addresses().iter().enumerate() {
            for (kind, count) in [("fast", 3), ("slow", 2), ("stuck", 1)] {
                for n in 0..count {
                    let mut client = Wire::connect(&daemon, address, &format!("{kind}.{at}.{n}"));
                    client.subscribe(&["feed"]);
                    if kind == "stuck" {
                        stuck.push(client);
                    } else {
                        readers.push(std::thread::spawn(move || read_all(client, kind == "slow")));
                    }
                }
            }
        }
        let mut writer = publisher.writer();
        let writing = std::thread::spawn(move || {
            for number in 0..PUBLICATIONS {
                let (mut out, mut payload) = (Vec::new(), [0; BYTES]);
                payload[..4].copy_from_slice(&number.to_le_bytes());
                encode_request(&mut out, number, Op::Publish, Qos::PROCESSED, "feed", "", &payload).unwrap();
                writer.write(&out);
            }
        });
        for number in 0..PUBLICATIONS {
            assert_eq!(publisher.expect_ack(number), 0x01);
        }
        writing.join().unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
        for at in 0..stuck.len() {
            wait_until("the stuck receiver is disconnected", || {
                publisher.send(&format!("stuck.{at}.0"), b"") == 0x71
            });
        }
        load.wait_for_more();
        level.wait_for(&daemon);
        drop(stuck);
        load.stop();
    }
}

#[test]
fn reading_and_writing_byte_by_byte_loses_nothing() {
    let daemon = Daemon::start("library", &[]);
    let load = Load::start(&daemon);
    let mut witness = daemon.client("witness");
    let level = Level::of(&daemon);
    for address in daemon.addresses() {
        let mut client = Wire::connect(&daemon, &address, "dripping");
        client.read_in_pieces(1);
        client.subscribe(&["drip"]);
        for number in 0..100u32 {
            let mut out = Vec::new();
            for (op, target) in [(Op::Message, "dripping"), (Op::Publish, "drip")] {
                let payload = number.to_le_bytes();
                encode_request(&mut out, number, op, Qos::PROCESSED, target, "", &payload).unwrap();
            }
            for byte in out {
                client.write(&[byte]);
            }
        }
        for number in 0..100 {
            assert_eq!([client.expect_ack(number), client.expect_ack(number)], [0x01; 2]);
        }
        let expected = (0..100u32).flat_map(|number| [number; 2]);
        for number in expected {
            assert_eq!(client.frame().payload(), number.to_le_bytes());
        }
        drop(client);
        wait_until("its name is free", || witness.send("dripping", b"") == 0x71);
    }
    level.wait_for(&daemon);
    load.stop();
}
