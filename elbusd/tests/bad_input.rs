//! Invalid input: every malformed handshake and frame ends only its own connection, costs no memory and is
//! not acted upon; silent and slow clients are disconnected (protocol sections 2, 3 and 5).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos, request::encode_request};
use elbus_testing::attempts::with_growing_limits;
use std::{net::Shutdown, time::Duration};
use support::{
    daemon::{BOTH, Daemon},
    wire::{Frame, Wire},
};

fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![7, 0, 0, 0, flags];
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

/// Returns a value of `--timeout`.
fn seconds(timeout: Duration) -> String {
    timeout.as_secs_f64().to_string()
}

#[test]
fn malformed_frames_end_only_their_own_connection() {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &[]);
        for (index, address) in daemon.addresses().iter().enumerate() {
            let mut witness = Wire::connect(&daemon, address, &format!("witness{index}"));
            witness.subscribe(&["t"]);
            let target = format!("witness{index}");
            let good = frame(0x12, &[target.as_bytes(), b"\0before"].concat());
            for (case, bad) in [
                ("unknown op", frame(0x55 & 0x3f, b"x\0y")),
                ("op 0 with qos", frame(0x40, b"")),
                ("no NUL in a message", frame(0x52, b"witness")),
                ("empty message", frame(0x52, b"")),
                ("no NUL in a broadcast", frame(0x53, b"*")),
                ("no NUL in a publication", frame(0x41, b"t")),
                ("one NUL in a limited publication", frame(0x46, b"t\0witness")),
                ("target not UTF-8", frame(0x52, b"\xff\0x")),
                ("mask not UTF-8", frame(0x53, b"\xff\0x")),
                ("topic not UTF-8", frame(0x41, b"t\xff\0x")),
                ("receiver not UTF-8", frame(0x46, b"t\0\xff\0x")),
                ("filter not UTF-8", frame(0x42, b"a\0\xff")),
                ("longer than the limit", vec![7, 0, 0, 0, 0x12, 0xff, 0xff, 0xff, 0xff]),
            ] {
                let mut sender = Wire::connect(&daemon, address, "sender");
                // frames before it are delivered, frames after it are not
                let after = frame(0x12, &[target.as_bytes(), b"\0after"].concat());
                assert!(sender.try_write(&[&good[..], &bad, &after].concat()), "{case}");
                sender.wait_closed();
                assert_eq!(witness.frame().payload(), b"before", "{case}");
                assert_eq!(witness.send("sender", b"free?"), 0x71, "{case}: the name is free");
            }
        }
    }
}

#[test]
fn a_frame_with_a_too_long_target_is_refused_without_closing_the_connection() {
    let daemon = Daemon::start("library", &[]);
    let longer = "t".repeat(65_536);
    for address in daemon.addresses() {
        let mut client = Wire::connect(&daemon, &address, "client");
        for op in [Op::Publish, Op::Broadcast, Op::Message] {
            assert_eq!(client.acked(op, &longer, b"x"), 0x72, "{op:?}");
        }
        assert_eq!(client.send("client", b"x"), 0x01);
        assert_eq!(client.frame().payload(), b"x");
    }
}

#[test]
fn a_flood_of_garbage_does_not_fill_the_log() {
    let daemon = Daemon::start("library", &[]);
    let address = daemon.addresses().into_iter().find(|address| address.starts_with("tcp:")).unwrap();
    for number in 0..60 {
        let mut sender = Wire::connect(&daemon, &address, &format!("sender{number}"));
        sender.write(&frame(0x55 & 0x3f, b"x\0y"));
        sender.wait_closed();
    }
    // another kind of line, so the flood does not suppress it
    let mut other = Wire::raw(&daemon, &address);
    other.write(&[0x16, 3, 1, 2, 0, 1]);
    other.wait_closed();
    daemon.wait_for_log("sent a TLS handshake to a port that has no TLS");
    assert_eq!(daemon.log().matches("protocol error").count(), 10, "{}", daemon.log());
}

#[test]
fn failed_handshakes_are_answered_with_their_code() {
    let daemon = Daemon::start("library", &[]);
    let many_dots = vec!["x"; 61].join(".");
    for address in daemon.addresses() {
        let mut wrong = Wire::raw(&daemon, &address);
        wrong.read_exactly::<3>();
        wrong.write(&[0xEB, 2, 0]);
        assert_eq!(wrong.read_exactly::<1>(), [0x75]);
        wrong.wait_closed();
        let _owner = Wire::connect(&daemon, &address, "taken");
        for (name, code) in [
            (&b""[..], 0x72),
            (b".broker", 0x72),
            (b".x", 0x72),
            (b"a\0b", 0x72),
            (b"\xff\xfe", 0x72),
            (b"taken", 0x76),
            (b"nobody%%0", 0x71),
            (&[b'n'; 1025], 0x72),
            (&[b'n'; 65_535], 0x72),
        ] {
            let mut sender = Wire::raw(&daemon, &address);
            assert_eq!(sender.greet(name), code, "{name:?}");
            sender.wait_closed();
        }
        for name in [&many_dots, &"n".repeat(1024), "a b", "ü.*", "?"] {
            let mut odd = Wire::connect(&daemon, &address, name);
            assert_eq!(odd.send(name, b"self"), 0x01);
            assert_eq!(odd.frame().payload(), b"self");
        }
    }
}

#[test]
fn a_handshake_can_arrive_byte_by_byte_or_at_once() {
    let daemon = Daemon::start("library", &[]);
    let all = [&[0xEB, 1, 0][..], &[1, 0], b"a", &frame(0x52, b"a\0hi")].concat();
    for address in daemon.addresses() {
        for chunk in [1, all.len()] {
            let mut client = Wire::raw(&daemon, &address);
            for bytes in all.chunks(chunk) {
                client.write(bytes);
            }
            assert_eq!(client.read_exactly::<3>(), [0xEB, 1, 0]);
            assert_eq!(client.read_exactly::<2>(), [1, 1]);
            let (mut frames, mut acks) = (vec![client.frame(), client.frame()], 0);
            frames.retain(|frame| {
                !matches!(frame, Frame::Ack(7, 1)) || {
                    acks += 1;
                    false
                }
            });
            assert_eq!((acks, frames[0].payload()), (1, &b"hi"[..]));
            drop(client);
            let mut other = Wire::connect(&daemon, &address, "other");
            support::wait_until("the name is free", || other.send("a", b"") == 0x71);
        }
    }
}

#[test]
fn a_declared_length_allocates_nothing() {
    let daemon = Daemon::start("library", &[]);
    let before = daemon.memory();
    let mut clients: Vec<_> = (0..100).map(|n| daemon.client(&format!("s{n}"))).collect();
    for sender in &mut clients {
        // declares 255 MiB, which is below the limit, and sends a few bytes
        sender.write(&[7, 0, 0, 0, 0x12, 0, 0, 0xf0, 0x0f]);
        sender.write(&[b'x'; 5000]);
    }
    let mut witness = daemon.client("witness");
    assert_eq!(witness.send("witness", b"x"), 0x01);
    let grown = daemon.memory().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for 25 GiB of announced lengths");
}

#[test]
fn unusual_topics_and_filters_work() {
    let daemon = Daemon::start("library", &[]);
    let mut client = daemon.client("a");
    let deep = vec!["x"; 1000].join("/");
    let wild = vec!["+"; 1000].join("/");
    client.subscribe(&[&deep, &wild, "", "#"]);
    for topic in [&deep[..], "", "/", "a//b"] {
        let id = client.request(Op::Publish, Qos::NO, topic, "", b"x");
        let Frame::Data(_, _, got, ..) = client.frame() else { panic!("no publication of {id}") };
        assert_eq!(got, topic);
    }
    let long = "x".repeat(65_536);
    assert_eq!(client.filters(Op::Subscribe, &[&long]), 0x72);
    assert_eq!(client.filters(Op::Exclude, &[]), 0x01, "an empty body is one empty filter");
    client.request(Op::Publish, Qos::NO, "", "", b"excluded");
    client.request(Op::Publish, Qos::NO, "y", "", b"next");
    assert_eq!(client.frame().payload(), b"next");
}

#[test]
fn silent_and_slow_clients_are_disconnected() {
    with_growing_limits(Duration::from_millis(400), fall_silent);
}

fn fall_silent(timeout: Duration) {
    let daemon = Daemon::start("library", &["--timeout", &seconds(timeout), "--log", "debug"]);
    for address in daemon.addresses() {
        // sends nothing at all
        let mut silent = Wire::raw(&daemon, &address);
        // stops in the middle of the handshake
        let mut halfway = Wire::raw(&daemon, &address);
        halfway.write(&[0xEB, 1]);
        let mut nameless = Wire::raw(&daemon, &address);
        nameless.write(&[0xEB, 1, 0, 5, 0, b'x']);
        // registers, then sends nothing or an incomplete frame
        let mut idle = Wire::connect(&daemon, &address, "idle");
        let mut stuck = Wire::connect(&daemon, &address, "stuck");
        stuck.write(&frame(0x12, b"stuck\0x")[..10]);
        let mut header = Wire::connect(&daemon, &address, "header");
        header.write(&[0, 0, 0]);
        for client in [&mut silent, &mut halfway, &mut nameless, &mut idle, &mut stuck, &mut header] {
            client.wait_closed();
        }
    }
}

#[test]
fn a_long_frame_can_arrive_at_the_minimum_rate() {
    with_growing_limits(Duration::from_secs(1), send_at_the_minimum_rate);
}

fn send_at_the_minimum_rate(timeout: Duration) {
    let seconds = seconds(timeout);
    let daemon = Daemon::start("library", &["--timeout", &seconds, "--log", "debug"]);
    for address in daemon.addresses() {
        let mut slow = Wire::connect(&daemon, &address, "slow");
        // twice the timeout, and a quarter of it between pieces of more than 64 KiB
        let all = frame(0x52, &[&b"slow\0"[..], &[7; 900_000]].concat());
        let begin = std::time::Instant::now();
        for piece in all.chunks(100_000) {
            slow.write(piece);
            std::thread::sleep(timeout * 9 / 40);
        }
        assert_eq!(slow.expect_ack(7), 0x01);
        assert!(begin.elapsed() > 2 * timeout);
        assert_eq!(slow.frame().payload(), [7; 900_000]);

        // even if it sends small parts often
        let mut trickling = Wire::connect(&daemon, &address, "trickling");
        trickling.write(&all[..200_000]);
        let begin = std::time::Instant::now();
        while trickling.try_write(&[7; 100]) {
            assert!(begin.elapsed() < support::PATIENCE, "still connected");
            std::thread::sleep(timeout / 40);
        }
        assert!(begin.elapsed() > timeout / 2);
        let line = format!("no complete frame body in time, nor 64 KiB of it (timeout_seconds is {seconds})");
        daemon.wait_for_log(&line);
    }
}

#[test]
fn a_broker_out_of_file_descriptors_logs_it_and_recovers() {
    let daemon = Daemon::start("library", &[]);
    let pid = rustix::process::Pid::from_raw(daemon.pid() as i32);
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count() as u64;
    let limit = rustix::process::Rlimit { current: Some(open + 10), maximum: Some(open + 10) };
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    for address in daemon.addresses() {
        let connections: Vec<_> = (0..40).map(|_| Wire::raw(&daemon, &address)).collect();
        daemon.wait_for_log("cannot accept connections for now");
        drop(connections);
        let mut client = Wire::connect(&daemon, &address, "late");
        assert_eq!(client.send("late", b"x"), 0x01);
    }
}

#[test]
fn clients_that_ping_stay_connected() {
    with_growing_limits(Duration::from_millis(400), ping_in_time);
}

fn ping_in_time(timeout: Duration) {
    let daemon = Daemon::start("library", &["--timeout", &seconds(timeout)]);
    let mut client = daemon.client("pinging");
    // three times as long as a client may be silent
    for _ in 0..15 {
        client.ping();
        assert_eq!(client.frame_within(timeout / 4), None, "it receives only NOPs");
    }
    assert_eq!(client.send("pinging", b"x"), 0x01);
}

#[test]
fn a_frame_can_arrive_byte_by_byte_within_its_time_limit() {
    with_growing_limits(Duration::from_millis(500), drip);
}

fn drip(timeout: Duration) {
    let daemon = Daemon::start("library", &["--timeout", &seconds(timeout)]);
    let mut client = daemon.client("dripping");
    let mut message = Vec::new();
    encode_request(&mut message, 5, Op::Message, Qos::PROCESSED, "dripping", "", b"drip").unwrap();
    for byte in &message {
        client.write(&[*byte]);
    }
    let (first, second) = (client.frame(), client.frame());
    assert!([&first, &second].iter().any(|frame| matches!(frame, Frame::Ack(5, 1))));
    assert!([&first, &second].iter().any(|frame| matches!(frame, Frame::Data(..))));
    // four bytes in a timeout: no header is complete within 1.25 timeouts
    let mut writer = client.writer();
    let dripping = std::thread::spawn(move || {
        while writer.try_write(&[0]) {
            std::thread::sleep(timeout * 3 / 10);
        }
    });
    client.wait_closed();
    drop(client);
    dripping.join().unwrap();
}

#[test]
fn every_way_of_disconnecting_frees_the_name() {
    let daemon = Daemon::start("library", &[]);
    for address in daemon.addresses() {
        let mut witness = Wire::connect(&daemon, &address, "witness");
        for how in [None, Some(Shutdown::Write), Some(Shutdown::Both)] {
            let gone = Wire::connect(&daemon, &address, "gone");
            if let Some(how) = how {
                gone.shutdown(how);
            } else {
                drop(gone);
            }
            support::wait_until("the name is free", || witness.send("gone", b"") == 0x71);
        }
    }
}
