//! Limits of a stream transport, over UNIX sockets: number of clients, rates, and the common budget of queued
//! bytes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use elbus_plugin_api::{DeliveryStatus, EventKind, FrameKind, QueueBudget, testing::FakeHost};
use elbus_testing::stream::{Bus, LONG, Stream, ack, pattern, request};
use elbus_unix::Unix;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

const ACKED_MESSAGE: u8 = 0x52;
const MIB: usize = 1 << 20;

fn bus_of(fake: FakeHost, settings: &str) -> Bus<UnixStream> {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("path = '{}'\n{settings}", folder.path().join("s").display());
    let instance = fake.create::<Unix>("local", &config).unwrap();
    Bus::over(fake, instance, move |address| {
        // the function that connects keeps the folder
        assert!(folder.path().exists());
        UnixStream::connect(address.strip_prefix("unix:").unwrap()).unwrap()
    })
}

fn bus(settings: &str) -> Bus<UnixStream> {
    bus_of(FakeHost::new(), settings)
}

#[test]
fn max_clients_limits_the_number_of_clients() {
    let bus = bus("max_clients = 2");
    let (_first, second) = (bus.client("first"), bus.client("second"));
    for _ in 0..3 {
        let mut third = bus.raw();
        assert_eq!(third.introduce(b"third"), 0x74);
        assert_eq!(third.rest(), []);
    }
    bus.wait_detail("3 connections refused");
    let refused = |(kind, _, detail): &(EventKind, String, String)| {
        *kind == EventKind::ConnectionRefused && detail == "2 clients are registered already (max_clients)"
    };
    assert_eq!(bus.events.lock().unwrap().iter().filter(|events| refused(events)).count(), 3);
    drop(second);
    bus.wait_gone("second");
    // its place is free at the latest when the broker has closed its side
    let until = Instant::now() + LONG;
    while bus.raw().introduce(b"third") != 1 {
        assert!(Instant::now() < until);
    }
}

#[test]
fn unregistered_connections_take_no_client_place_and_new_ones_are_accepted() {
    let bus = bus("max_clients = 3\nmax_pending = 5\ntimeout_seconds = 60");
    let _first = bus.client("first");
    let mut silent: Vec<_> = (0..12).map(|_| bus.raw()).collect();
    let _second = bus.client("second");
    // a client that has sent something outlives those that have not
    let mut slow = bus.raw();
    slow.send(&[0xEB, 1, 0]);
    assert_eq!(slow.receive(4), [0xEB, 1, 0, 1]);
    silent.extend((0..4).map(|_| bus.raw()));
    for peer in &mut silent[..12] {
        assert_eq!(peer.rest(), [0xEB, 1, 0], "evicted");
    }
    slow.send(b"\x05\0third");
    assert_eq!(slow.receive(1), [1]);
    bus.wait_detail("12 connections refused");
    assert!(bus.events.lock().unwrap().iter().all(|(kind, ..)| *kind != EventKind::ConnectionRefused));
}

#[test]
fn silent_connections_do_not_use_up_the_connect_rate() {
    let bus = bus("connects_per_second = 2\ntimeout_seconds = 60");
    let silent: Vec<_> = (0..200).map(|_| bus.raw()).collect();
    let start = Instant::now();
    let _clients = [bus.client("a"), bus.client("b")];
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // data sent ahead is read when it is the client's turn
    let mut ahead = bus.raw();
    ahead.send(&[&b"\xEB\x01\0\x01\0c"[..], &request(7, ACKED_MESSAGE, b"x\0")].concat());
    assert_eq!(ahead.receive(5), [0xEB, 1, 0, 1, 1]);
    assert_eq!(ahead.frame(), ack(7, 1));
    drop(silent);
}

#[test]
fn connections_beyond_the_rate_wait_and_none_is_lost() {
    let bus = bus("connects_per_second = 20");
    let start = Instant::now();
    let by_count: Vec<_> = (0..30).map(|number| bus.client(&format!("c{number}"))).collect();
    // twenty at once, then one by one
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    assert_eq!(bus.fake.clients().len(), by_count.len());
}

#[test]
fn a_client_over_its_message_rate_is_read_more_slowly() {
    let bus = bus("messages_per_second = 1000");
    let mut peer = bus.client("a");
    let start = Instant::now();
    let all: Vec<_> = (0..1500).flat_map(|number| request(number, ACKED_MESSAGE, b"x\0")).collect();
    peer.send(&all);
    for number in 0..1500 {
        assert_eq!(peer.frame(), ack(number, 1));
    }
    peer.send(&request(7, ACKED_MESSAGE, b"x\0"));
    assert_eq!(peer.frame(), ack(7, 1));
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
}

#[test]
fn a_client_over_its_byte_rate_is_read_more_slowly_even_within_a_frame() {
    // the timeout covers the rest of a frame, but not time in which the broker does not read
    let bus = bus("bytes_per_second = 1000000\ntimeout_seconds = 0.3");
    let mut peer = bus.client("a");
    let payload = pattern(2_000_000, 5);
    let start = Instant::now();
    let mut twin = Stream::twin(&peer.0);
    let frame = request(1, ACKED_MESSAGE, &[b"x\0", &payload[..]].concat());
    let sending = std::thread::spawn(move || {
        use std::io::Write;
        twin.write_all(&frame).unwrap();
    });
    assert_eq!(peer.frame(), ack(1, 1));
    sending.join().unwrap();
    assert!(bus.fake.requests()[0].payloads[0] == payload);
    peer.send(&request(2, ACKED_MESSAGE, b"x\0"));
    assert_eq!(peer.frame(), ack(2, 1));
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
}

fn wait(what: &str, ready: impl Fn() -> bool) {
    let until = Instant::now() + LONG;
    while !ready() {
        assert!(Instant::now() < until, "timed out: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Delivers to a client that reads nothing until it is over its limit; returns the number of bytes.
fn fill(bus: &Bus<UnixStream>, name: &str) -> usize {
    let payload = vec![7; 100_000];
    for count in 1..1000 {
        let delivery = bus.fake.deliver(name, FrameKind::Message, "me", "", &[&payload]).unwrap();
        assert!(delivery.is_taken());
        if delivery.has(DeliveryStatus::FULL) {
            return count * (payload.len() + 9);
        }
    }
    panic!("{name} is never full");
}

#[test]
fn clients_with_long_queues_share_the_budget_and_return_all_of_it() {
    let bus = bus_of(FakeHost::with_queue_budget(4 * MIB), "timeout_seconds = 60\nqueue_bytes = 100000000");
    let budget: QueueBudget = bus.fake.queue_budget().clone();
    let mut rank = bus.client("greedy");
    let first = fill(&bus, "greedy");
    assert!(budget.queued() > 4 * MIB && budget.queued() < 4 * MIB + 200_000, "alone: {}", budget.queued());
    let second = bus.client("second");
    let share = fill(&bus, "second");
    // half of the budget, plus what the socket accepted before it was full
    assert!(share > 2 * MIB && share < 3 * MIB, "{share}");
    assert_eq!(budget.blocked(), 2);
    let realtime = |name| {
        let payload = vec![0; 100_000];
        bus.fake.deliver_realtime(name, "me", &payload).unwrap()
    };
    assert_eq!(realtime("greedy"), DeliveryStatus::REFUSED, "real-time frames are refused instead of queued");
    assert_eq!(realtime("second"), DeliveryStatus::REFUSED);
    // a client that reads is not affected
    let mut quick = bus.client("quick");
    for _ in 0..100 {
        assert!(
            !bus.fake
                .deliver("quick", FrameKind::Message, "me", "", &[&[1; 50_000]])
                .unwrap()
                .has(DeliveryStatus::FULL)
        );
        assert_eq!(quick.frame().len(), 50_009);
    }
    // one reads everything, the other disconnects
    let mut read = 0;
    while read < first {
        read += rank.frame().len();
    }
    wait("the bytes of the client that has read", || budget.blocked() == 1);
    drop(second);
    bus.wait_gone("second");
    wait("all bytes", || budget.blocked() == 0 && budget.queued() == 0);
    assert!(bus.fake.deliver("greedy", FrameKind::Message, "me", "", &[b"x"]).unwrap().is_taken());
}

#[test]
fn the_budget_is_complete_after_any_kind_of_disconnect() {
    let bus = bus_of(FakeHost::with_queue_budget(8 * MIB), "timeout_seconds = 60\nqueue_bytes = 1000000");
    let budget = bus.fake.queue_budget().clone();
    let mut state = 1u32;
    for round in 0..20 {
        let names = (0..5).map(|number| format!("c{round}.{number}"));
        let mut peers: Vec<_> = names.map(|name| (name.clone(), bus.client(&name), 0)).collect();
        for _ in 0..60 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (name, peer, sent) = &mut peers[(state >> 16) as usize % 5];
            if state >> 30 == 0 && *sent > 0 {
                peer.frame();
                *sent -= 1;
            } else {
                let payload = vec![1; (state >> 12) as usize % 100_000];
                if bus.fake.deliver(name, FrameKind::Message, "me", "", &[&payload]).unwrap().is_taken() {
                    *sent += 1;
                }
            }
        }
        for (number, (_, mut peer, sent)) in peers.into_iter().enumerate() {
            if number % 2 == 0 {
                (0..sent).for_each(|_| drop(peer.frame()));
            }
        }
        wait("the budget", || bus.fake.clients().is_empty() && budget.queued() == 0);
        assert_eq!(budget.blocked(), 0);
    }
    let _stays = bus.client("stays");
    fill(&bus, "stays");
    bus.instance.stop(Duration::from_millis(50));
    wait("the budget", || budget.queued() == 0 && budget.blocked() == 0);
}

/// Sends bytes together with a file descriptor, which ends a read.
fn send_with_descriptor(stream: &UnixStream, bytes: &[u8]) {
    let descriptor = io::stdin();
    let descriptors = [descriptor.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    assert!(with.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(stream, &[IoSlice::new(bytes)], &mut with, SendFlags::empty()).unwrap();
}

#[test]
fn descriptors_do_not_keep_a_silent_client_connected() {
    let bus = bus("timeout_seconds = 0.3");
    let mut silent: Vec<_> = (0..2).map(|_| bus.raw()).collect();
    for byte in [0xEB, 1] {
        send_with_descriptor(&silent[0].0, &[byte]);
    }
    silent[1].send(&[0xEB]);
    send(&silent[1].0, &[1], SendFlags::OOB).unwrap();
    for name in ["pings", "part", "oob"] {
        silent.push(bus.client(name));
    }
    (0..50).for_each(|_| send_with_descriptor(&silent[2].0, &[0; 9]));
    (0..3).for_each(|_| send_with_descriptor(&silent[3].0, &[0]));
    send(&silent[4].0, &[0], SendFlags::OOB).unwrap();
    for mut peer in silent {
        // receives what was sent to it, then the end; a reset would mean that the broker left data unread
        let mut rest = vec![];
        match io::Read::read_to_end(&mut peer.0, &mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
}
