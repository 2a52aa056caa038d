//! Bursts, slow receivers and stalled ones: nothing is lost while the receiver reads at all, and a stalled
//! one does not hold others for long.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{
    Op, Qos,
    handshake::{encode_client_greeting, encode_client_name},
    request::encode_request,
};
use std::time::{Duration, Instant};
use support::{
    daemon::{BOTH, Daemon},
    wait_until,
    wire::{Wire, numbered_frames},
};

fn expect_in_order(client: &mut Wire, count: u32, bytes: usize) {
    for number in 0..count {
        let frame = client.frame();
        assert_eq!(frame.payload().len(), bytes);
        assert_eq!(frame.payload()[..4], number.to_le_bytes(), "in order, none missing");
    }
}

#[test]
fn bursts_to_itself_and_to_a_slow_reader_arrive() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &[]);
        for (index, address) in daemon.addresses().iter().enumerate() {
            let (sender, slow) = (format!("sender{index}"), format!("slow{index}"));
            let mut sending = Wire::connect(&daemon, address, &sender);
            let mut reading = Wire::connect(&daemon, address, &slow);
            // everything is written before anything is read
            sending.write(&numbered_frames(Op::Message, Qos::NO, &sender, 20_000, 100));
            expect_in_order(&mut sending, 20_000, 100);
            sending.write(&numbered_frames(Op::Message, Qos::NO, &slow, 20_000, 100));
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(5));
                let frame = reading.frame();
                assert_eq!(frame.payload().len(), 100);
                // the first of a thousand, then the others
                for _ in 1..1000 {
                    reading.frame();
                }
            }
            assert_eq!(reading.frame_within(Duration::from_millis(50)), None, "no message arrives twice");
        }
    }
}

#[test]
fn a_reconnecting_client_gets_its_name_once_its_last_messages_are_delivered() {
    for plugins in BOTH {
        let more = ["--queue-bytes", "1000000", "--log", "info,elbus_stream=debug"];
        let daemon = Daemon::start(plugins, &more);
        let (mut slow, mut watch) = (daemon.client("slow"), daemon.client("watch"));
        let mut first = daemon.client("again");
        let end = first.writer();
        // until the broker stops reading
        let flood = std::thread::spawn(move || {
            while first.try_write(&numbered_frames(Op::Message, Qos::NO, "slow", 1, 50_000)) {}
        });
        wait_until("the flood is held back", || {
            let info = watch.control("client.info", &[("name", "slow")]).unwrap();
            info["queue_bytes"].as_u64().unwrap() > 1_000_000
        });
        end.shutdown(std::net::Shutdown::Both);
        flood.join().unwrap();
        drop(end);

        let mut again = Wire::raw(&daemon, &daemon.address());
        // receives everything so far and one more message
        let mut ahead = encode_client_greeting().to_vec();
        ahead.extend(encode_client_name("again").unwrap());
        encode_request(&mut ahead, 7, Op::Message, Qos::PROCESSED, "again", "", b"x").unwrap();
        let registered = std::thread::spawn(move || {
            assert_eq!(again.read_exactly::<3>(), [0xEB, 1, 0]);
            again.write(&ahead);
            assert_eq!(again.read_exactly::<2>(), [1, 1]);
            (again.expect_ack(7), again)
        });
        daemon.wait_for_log("name is being released by its previous owner");
        // its previous messages are delivered before its name is released
        wait_until("everything is delivered", || {
            while let Some(frame) = slow.frame_within(Duration::from_millis(50)) {
                assert_eq!(frame.payload().len(), 50_000);
            }
            registered.is_finished()
        });
        let (code, mut again) = registered.join().unwrap();
        assert_eq!(code, 1, "{plugins}");
        assert_eq!(again.frame().payload(), b"x");
    }
}

#[test]
fn a_paused_reader_loses_nothing() {
    let daemon = Daemon::start("library", &["--queue-bytes", "1000000"]);
    for address in daemon.addresses() {
        let mut sending = Wire::connect(&daemon, &address, "sending");
        let mut pausing = Wire::connect(&daemon, &address, "pausing");
        let mut others = (Wire::connect(&daemon, &address, "x"), Wire::connect(&daemon, &address, "y"));
        // far more than its queue and the socket buffers hold
        let flood = std::thread::spawn(move || {
            sending.write(&numbered_frames(Op::Message, Qos::NO, "pausing", 150_000, 200));
            sending
        });
        let paused = Instant::now();
        while paused.elapsed() < Duration::from_secs(3) {
            assert_eq!(others.0.send("y", b"meanwhile"), 0x01);
            assert_eq!(others.1.frame().payload(), b"meanwhile", "others are served");
        }
        expect_in_order(&mut pausing, 150_000, 200);
        drop(flood.join().unwrap());
    }
    assert!(!daemon.log().contains("stall"), "{}", daemon.log());
}

#[test]
fn a_stalled_receiver_is_disconnected_with_a_reason() {
    for transport in 0..2 {
        let daemon = Daemon::start("library", &["--queue-bytes", "100000"]);
        let address = daemon.addresses()[transport].clone();
        let mut listener = Wire::connect(&daemon, &address, "listener");
        listener.subscribe(&[".broker/alert"]);
        let mut dead = Wire::connect(&daemon, &address, "dead");
        let mut pinging = dead.writer();
        let keeping_alive = std::thread::spawn(move || {
            while pinging.try_write(&[0; 9]) {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let mut sending = Wire::connect(&daemon, &address, "sending");
        let mut others = (Wire::connect(&daemon, &address, "x"), Wire::connect(&daemon, &address, "y"));
        // announcements go only to the listener
        for client in [&mut sending, &mut others.0, &mut others.1] {
            client.filters(Op::Exclude, &["#"]);
        }
        let flood = std::thread::spawn(move || {
            sending.write(&numbered_frames(Op::Message, Qos::NO, "dead", 100_000, 100));
            // held until the stalled receiver was disconnected, then answered correctly
            wait_until("the stalled receiver is unregistered", || sending.send("dead", b"?") == 0x71);
        });
        while !daemon.log().contains("stall_seconds") {
            assert_eq!(others.0.send("y", b"meanwhile"), 0x01);
            assert_eq!(others.1.frame().payload(), b"meanwhile");
        }
        flood.join().unwrap();
        assert!(daemon.log().contains("dead"), "{}", daemon.log());
        dead.wait_closed();
        drop(dead);
        keeping_alive.join().unwrap();
        // its disconnect is announced too
        let announced = loop {
            let frame = listener.frame();
            if frame.payload().windows(4).any(|bytes| bytes == b"slow") {
                break frame;
            }
        };
        assert!(announced.payload().windows(4).any(|bytes| bytes == b"dead"));
        drop((listener, others));
        let mut witness = Wire::connect(&daemon, &address, "witness");
        assert_eq!(witness.send("witness", b"x"), 0x01);
        assert_eq!(witness.frame().payload(), b"x");
    }
}

#[test]
fn a_client_that_does_not_read_its_acknowledgements_is_held() {
    let daemon = Daemon::start("library", &["--queue-bytes", "200000"]);
    let before = daemon.memory();
    let mut client = daemon.client("greedy");
    let mut writer = client.writer();
    let count = 300_000u32;
    let writing = std::thread::spawn(move || {
        let mut out = Vec::new();
        for number in 0..count {
            encode_request(&mut out, number, Op::Message, Qos::PROCESSED, "nobody", "", b"x").unwrap();
            if out.len() > 100_000 {
                writer.write(&out);
                out.clear();
            }
        }
        writer.write(&out);
    });
    // its acknowledgements are queued, so it is held as well
    let mut witness = daemon.client("witness");
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_millis(500) {
        assert_eq!(witness.send("witness", b"x"), 0x01);
        witness.frame();
    }
    let grown = daemon.memory().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    for number in 0..count {
        assert_eq!(client.expect_ack(number), 0x71);
    }
    writing.join().unwrap();
}

#[test]
fn large_payloads_arrive_whole_and_in_order() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &[]);
        let addresses = daemon.addresses();
        let mut sending = Wire::connect(&daemon, &addresses[0], "sending");
        let mut receivers: Vec<_> = addresses
            .iter()
            .enumerate()
            .map(|(n, address)| Wire::connect(&daemon, address, &format!("r{n}")))
            .collect();
        receivers.iter_mut().for_each(|receiver| receiver.subscribe(&["big"]));
        let sizes = [10, 65_535, 65_536, 1 << 20, 5, 3 << 20, 100];
        let payload = |size: usize| (0..size).map(|i| (i * 31 + size) as u8).collect::<Vec<u8>>();
        let writing = std::thread::spawn(move || {
            for size in sizes {
                sending.request(Op::Publish, Qos::NO, "big", "", &payload(size));
            }
            sending
        });
        for receiver in &mut receivers {
            for size in sizes {
                assert!(receiver.frame().payload() == payload(size), "{size} bytes");
            }
        }
        drop(writing.join().unwrap());
    }
}
