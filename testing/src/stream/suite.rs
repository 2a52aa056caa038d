//! What every stream transport must do, as scripts: run over each of them, with a function that makes a bus
//! from the settings it needs.

use super::{Bus, LONG, Stream, ack, pattern, request};
use crate::attempts::with_growing_limits;
use elbus_plugin_api::{Code, DeliveryStatus, EventKind, FrameKind, Op, Qos};
use std::time::{Duration, Instant};

const MESSAGE: u8 = 0x12;
const ACKED: u8 = 64;

pub fn handshake_byte_by_byte<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let bus = make("");
    let mut peer = bus.raw();
    assert_eq!(peer.receive(3), [0xEB, 1, 0], "greeted unasked");
    let mut wire = b"\xEB\x01\x00\x03\x00a.b".to_vec();
    wire.extend(request(7, MESSAGE | ACKED, b"x\0hello"));
    for byte in wire {
        peer.send(&[byte]);
    }
    assert_eq!(peer.receive(2), [1, 1]);
    assert_eq!(peer.frame(), ack(7, 1));
    assert_eq!(bus.fake.clients(), ["a.b"]);
    let requests = bus.fake.requests();
    assert_eq!((requests.len(), requests[0].sender.as_str()), (1, "a.b"));
    assert_eq!((requests[0].target.as_str(), &requests[0].payloads[..]), ("x", &[b"hello".to_vec()][..]));
}

pub fn everything_sent_ahead<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let bus = make("");
    let mut peer = bus.raw();
    let frame = request(1, MESSAGE | ACKED, b"x\0");
    peer.send(&[&b"\xEB\x01\x00\x01\x00n"[..], &frame].concat());
    assert_eq!(peer.receive(5), [0xEB, 1, 0, 1, 1]);
    assert_eq!(peer.frame(), ack(1, 1));
    let longest = "n".repeat(65_535);
    drop(bus.client(&longest));
}

pub fn every_refusal_has_its_code<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let bus = make("");
    for greeting in [[0xEB, 2, 0], [0xEA, 1, 0], [b'G', b'E', b'T']] {
        let mut peer = bus.raw();
        peer.send(&greeting);
        assert_eq!(peer.rest(), [0xEB, 1, 0, 0x75]);
    }
    let mut peer = bus.raw();
    assert_eq!(peer.introduce(&[0xFF, 0xFE]), 0x72);
    assert_eq!(peer.rest(), []);
    for code in [Code::NotRegistered, Code::BadData, Code::Busy, Code::AccessDenied] {
        bus.fake.refuse_names(Some(code));
        let mut peer = bus.raw();
        assert_eq!(peer.introduce(b"name"), code as u8);
        // what was sent meanwhile does not turn the end into a reset
        let _ = std::io::Write::write_all(&mut peer.0, &request(1, MESSAGE, b"x\0y"));
        assert_eq!(peer.rest(), []);
    }
    bus.fake.refuse_names(None);
    let mut present = bus.client("name");
    assert_eq!(bus.raw().introduce(b"name"), Code::Busy as u8);
    present.send(&request(5, MESSAGE | ACKED, b"x\0"));
    assert_eq!(present.frame(), ack(5, 1), "the present owner is not affected");
    bus.wait("reports of refusals", |_| {
        let events = bus.events.lock().unwrap();
        events.iter().filter(|(kind, ..)| *kind == EventKind::ConnectionRefused).count() == 9
    });
    let requests = bus.fake.requests();
    assert_eq!(requests.len(), 1, "nothing of a refused client is dispatched: {requests:?}");
}

pub fn malformed_frames_close_only_their_client<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let bus = make("max_frame_bytes = 1000");
    let mut other = bus.client("other");
    let malformed: [(&str, Vec<u8>); 7] = [
        ("unknown operation", request(2, 0x3F, b"x\0")),
        ("operation 0 with bits", request(2, ACKED, b"x\0")),
        ("no NUL", request(2, MESSAGE | ACKED, b"xyz")),
        ("empty", request(2, MESSAGE | ACKED, b"")),
        ("one NUL of two", request(2, 6 | ACKED, b"topic\0receiver")),
        ("not UTF-8", request(2, MESSAGE | ACKED, b"\xFF\0x")),
        ("too long", [&[2, 0, 0, 0, MESSAGE | ACKED][..], &1001u32.to_le_bytes()].concat()),
    ];
    for (at, (what, frame)) in malformed.iter().enumerate() {
        let mut peer = bus.client("bad");
        peer.send(&[request(1, MESSAGE | ACKED, b"x\0before"), frame.clone()].concat());
        assert_eq!(peer.rest(), ack(1, 1), "{what}: what came before is valid, and no ack follows");
        bus.wait_gone("bad");
        other.send(&request(at as u32, MESSAGE | ACKED, b"x\0"));
        assert_eq!(other.frame(), ack(at as u32, 1), "{what}");
    }
    assert_eq!(bus.fake.requests().len(), 2 * malformed.len(), "nothing malformed is dispatched");
}

pub fn runs_are_dispatched_and_acknowledged_in_order<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let bus = make("");
    let mut peer = bus.client("a");
    let (mut wire, mut acks, mut expected) = (vec![], vec![], vec![]);
    for i in 0..1000u32 {
        let flags = MESSAGE | if i % 7 < 3 { ACKED } else { 0 } | if i % 11 == 0 { 128 } else { 0 };
        let target = if i % 50 < 40 { "left" } else { "right" };
        let payload = pattern(i as usize % 300, i);
        wire.extend(request(i, flags, &[target.as_bytes(), &[0], &payload].concat()));
        if i % 13 == 0 {
            wire.extend([9, 9, 9, 9, 0, 9, 9, 9, 9]); // a ping, its other bytes ignored
        }
        if flags & ACKED != 0 {
            acks.extend(ack(i, 1));
        }
        expected.push((target.to_owned(), flags >> 6, payload));
    }
    wire.extend(request(5000, 2 | ACKED, b"one/+\0#"));
    acks.extend(ack(5000, 1));
    // at odd places, so that frames are cut everywhere
    for chunk in wire.chunks(977) {
        peer.send(chunk);
    }
    assert!(peer.receive(acks.len()) == acks);
    let requests = bus.fake.requests();
    let last = requests.last().unwrap();
    assert_eq!((last.op, last.target.as_str(), last.payloads.len()), (Op::Subscribe, "one/+\0#", 0));
    let seen: Vec<_> = requests
        .iter()
        .filter(|request| request.op == Op::Message)
        .flat_map(|r| r.payloads.iter().map(|p| (r.target.clone(), r.qos.bits(), p.clone())))
        .collect();
    assert!(seen == expected, "content and order");
    assert!(requests.len() < 700, "consecutive frames make runs: {}", requests.len());

    bus.fake.answer_with(Some(Code::NotRegistered));
    peer.send(&[request(1, MESSAGE | ACKED, b"x\0"), request(2, MESSAGE, b"x\0")].concat());
    peer.send(&request(3, 6 | 192, b"topic\0receiver\0payload"));
    assert_eq!([peer.frame(), peer.frame()], [ack(1, 0x71), ack(3, 0x71)]);
    let last = bus.fake.requests().pop().unwrap();
    assert_eq!(
        (last.op, last.target.as_str(), last.receiver.as_str()),
        (Op::PublishFor, "topic", "receiver")
    );
    assert_eq!(last.qos, Qos::REALTIME_PROCESSED);
}

pub fn calls_of_the_broker_are_dispatched_in_short_runs<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    const CALLS: u32 = 1000;
    let bus = make("");
    let mut peer = bus.client("a");
    for target in [".broker", "other"] {
        let (mut wire, mut acks) = (vec![], vec![]);
        for number in 0..CALLS {
            let body = [target.as_bytes(), b"\0", &number.to_le_bytes()].concat();
            wire.extend(request(number, MESSAGE | ACKED, &body));
            acks.extend(ack(number, 1));
        }
        peer.send(&wire);
        assert!(peer.receive(acks.len()) == acks);
    }
    let requests = bus.fake.requests();
    let to =
        |target: &str| requests.iter().filter(|r| r.target == target).map(|r| r.payloads.len()).collect();
    let (calls, messages): (Vec<_>, Vec<_>) = (to(".broker"), to("other"));
    assert_eq!((calls.iter().sum::<usize>(), messages.iter().sum::<usize>()), (1000, 1000));
    assert!(calls.iter().all(|len| *len <= 32), "{calls:?}");
    assert!(messages.iter().any(|len| *len > 32), "other messages make longer runs: {messages:?}");
}

pub fn large_payloads_arrive_whole<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let bus = make("");
    let mut peer = bus.client("a");
    let sizes = [65_530, 65_536, 70_000, 131_072, 200_000, 1_000_003, 5_000_000];
    for (i, size) in sizes.into_iter().enumerate() {
        let payload = pattern(size, i as u32);
        let frame = request(i as u32, MESSAGE | ACKED, &[b"x\0", &payload[..]].concat());
        // a small frame on either side, and pieces that cut all of them
        let small = request(1000, MESSAGE | ACKED, b"y\0small");
        let wire = [&small[..], &frame, &small].concat();
        for chunk in wire.chunks(100_003) {
            peer.send(chunk);
        }
        assert_eq!(
            [peer.frame(), peer.frame(), peer.frame()],
            [ack(1000, 1), ack(i as u32, 1), ack(1000, 1)]
        );
        let requests = bus.fake.requests();
        let large = requests.iter().rev().find(|request| request.target == "x").unwrap();
        assert!(large.payloads == [payload], "{size}");
    }
}

pub fn a_slow_reader_gets_everything_in_order<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let bus = make("queue_bytes = 8000000");
    let mut peer = bus.client("slow");
    let mut expected = vec![];
    let mut full = false;
    for i in 0..60u32 {
        // small and large ones, beyond what any socket buffers
        let payload = pattern(if i % 5 == 0 { 900_000 } else { 50_000 + i as usize }, i);
        let delivery =
            bus.fake.deliver("slow", FrameKind::Publish, "me", "t/u", &[&payload, b"tail"]).unwrap();
        assert!(delivery.is_taken());
        full |= delivery.has(DeliveryStatus::FULL);
        for payload in [&payload[..], b"tail"] {
            expected.push([&b"me\0t/u\0"[..], payload].concat());
        }
    }
    assert!(full, "over its limit, a queue says so");
    for (i, body) in expected.iter().enumerate() {
        let frame = peer.frame();
        assert_eq!((frame[0], frame.len()), (1, 6 + body.len()), "frame {i}");
        assert!(frame[6..] == body[..], "frame {i}");
    }
    // and the connection goes on as before
    bus.fake.deliver("slow", FrameKind::Message, "me", "", &[b"again"]).unwrap();
    assert_eq!(peer.frame(), b"\x12\x08\0\0\0\0me\0again");
}

pub fn a_client_that_takes_nothing_is_disconnected<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let bus = make("timeout_seconds = 60\nstall_seconds = 0.2\nqueue_bytes = 1000");
    let mut stalled = bus.client("stalled");
    let payload = vec![0; 500_000];
    for _ in 0..40 {
        bus.fake.deliver("stalled", FrameKind::Message, "me", "", &[&payload]);
    }
    bus.wait_gone("stalled");
    bus.wait("the report", |_| !bus.events.lock().unwrap().is_empty());
    let (kind, subject, detail) = bus.events.lock().unwrap()[0].clone();
    assert_eq!((kind, subject.as_str()), (EventKind::SlowConsumer, "stalled"));
    assert!(detail.contains("waiting bytes") && detail.contains("stall_seconds"), "{detail}");
    let status = bus.instance.status().detail;
    assert!(status.contains("1 slow consumers disconnected"), "{status}");
    assert!(stalled.rest().len() < 20_000_000, "the rest is dropped");
    bus.client("stalled");
}

pub fn a_client_that_reads_slowly_is_not_disconnected<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    with_growing_limits(Duration::from_millis(500), |stall| reads_slowly(&make, stall));
}

fn reads_slowly<S: Stream>(make: impl Fn(&str) -> Bus<S>, limit: Duration) {
    const LEN: usize = 8_000_000;
    let stall = limit.as_secs_f64();
    let bus = make(&format!("timeout_seconds = 60\nstall_seconds = {stall:?}\nqueue_bytes = 1000"));
    let mut slow = bus.client("slow");
    let payload = vec![0; LEN];
    bus.fake.deliver("slow", FrameKind::Message, "me", "", &[&payload]);
    let (start, mut got) = (Instant::now(), 0);
    // far longer than the limit, and never faster than it must be
    while start.elapsed() < 3 * limit && got < LEN - 100_000 {
        got += slow.receive(100_000).len();
        std::thread::sleep(limit / 25);
    }
    assert_eq!(bus.fake.clients(), ["slow"]);
    assert_eq!(got + slow.receive(6 + 3 + LEN - got).len(), LEN + 9);
}

pub fn a_silent_client_is_disconnected<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    with_growing_limits(Duration::from_millis(200), |timeout| falls_silent(&make, timeout));
}

fn falls_silent<S: Stream>(make: impl Fn(&str) -> Bus<S>, timeout: Duration) {
    let bus = make(&format!("timeout_seconds = {:?}", timeout.as_secs_f64()));
    let millis = timeout.as_millis();
    let body = request(1, MESSAGE | ACKED, b"x\0hello");
    let silent: [(&str, &[u8], u128); 4] = [
        ("no greeting", b"", millis),
        ("half a greeting", b"\xEB", millis),
        ("no name", b"\xEB\x01\x00\x05", millis),
        ("half a name", b"\xEB\x01\x00\x05\x00a", millis),
    ];
    for (what, wire, least) in silent {
        let start = Instant::now();
        let mut peer = bus.raw();
        peer.send(wire);
        peer.rest();
        assert!(start.elapsed().as_millis() >= least, "{what}: {:?}", start.elapsed());
    }
    for (what, wire, least) in [
        ("nothing", &b""[..], millis * 5 / 4),
        ("half a header", &body[..5], millis * 5 / 4),
        ("half a body", &body[..12], millis),
    ] {
        let mut peer = bus.client("a");
        let start = Instant::now();
        peer.send(wire);
        peer.rest();
        assert!(start.elapsed().as_millis() >= least - 5, "{what}: {:?}", start.elapsed());
        bus.wait_gone("a");
    }
    // bytes of an unfinished header are no sign of life
    let mut peer = bus.client("trickle");
    for byte in &body[..8] {
        let _ = std::io::Write::write_all(&mut peer.0, &[*byte]);
        std::thread::sleep(timeout * 3 / 10);
    }
    bus.wait_gone("trickle");
    assert!(bus.fake.requests().is_empty());
}

pub fn pings_keep_a_client_and_nops_come<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    with_growing_limits(Duration::from_millis(300), |timeout| pings_in_time(&make, timeout));
}

fn pings_in_time<S: Stream>(make: impl Fn(&str) -> Bus<S>, timeout: Duration) {
    let bus = make(&format!("timeout_seconds = {:?}", timeout.as_secs_f64()));
    let mut peer = bus.client("a");
    let (start, mut nops) = (Instant::now(), 0);
    let mut twin = peer.0.twin();
    let pinging = std::thread::spawn(move || {
        while twin.write_all(&[0; 9]).is_ok() {
            std::thread::sleep(timeout / 6);
        }
    });
    while nops < 8 {
        assert_eq!(peer.receive(6), [0; 6]);
        nops += 1;
    }
    let took = start.elapsed();
    assert!(took >= 3 * timeout, "8 NOPs, one in each half of the timeout, took {took:?}");
    assert_eq!(bus.fake.clients(), ["a"]);
    bus.fake.close("a", "enough");
    peer.rest();
    pinging.join().unwrap();
}

pub fn either_side_can_close<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let bus = make("");
    let half = bus.client("half");
    half.0.half_close();
    bus.wait_gone("half");
    drop(bus.client("gone"));
    bus.wait_gone("gone");
    let mut cut = bus.client("cut");
    cut.send(&request(1, MESSAGE | ACKED, b"x\0hello")[..12]);
    drop(cut);
    bus.wait_gone("cut");
    let mut kicked = bus.client("kicked");
    bus.fake.deliver("kicked", FrameKind::Message, "me", "", &[b"last words"]);
    bus.fake.close("kicked", "for a test");
    assert_eq!(kicked.rest(), b"\x12\x0D\0\0\0\0me\0last words");
    bus.wait_gone("kicked");
    bus.wait("an empty census", |_| bus.instance.status().detail.starts_with("0 connections"));
    assert!(bus.fake.failures().is_empty());
}

pub fn overflow_policies<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let payload = vec![7; 600_000];
    let bus = make("overflow = 'drop_newest'\nqueue_bytes = 1000000\ntimeout_seconds = 60");
    let mut peer = bus.client("a");
    let mut taken = 0usize;
    let refused = (0..100).any(|_| {
        let delivery = bus.fake.deliver("a", FrameKind::Message, "me", "", &[&payload]).unwrap();
        taken += usize::from(delivery.is_taken());
        delivery == DeliveryStatus::REFUSED
    });
    assert!(refused && taken >= 1);
    for _ in 0..taken {
        assert_eq!(peer.frame().len(), 600_009);
    }
    bus.wait("room", |fake| {
        fake.deliver("a", FrameKind::Message, "me", "", &[b"again"]).is_some_and(DeliveryStatus::is_taken)
    });

    let bus = make("overflow = 'disconnect'\nqueue_bytes = 1000000\ntimeout_seconds = 60");
    let mut peer = bus.client("a");
    let closed = (0..100).any(|_| {
        bus.fake.deliver("a", FrameKind::Message, "me", "", &[&payload]).is_none_or(|d| !d.is_taken())
    });
    assert!(closed);
    bus.wait_gone("a");
    peer.rest();
    let events = bus.events.lock().unwrap();
    assert!(events.iter().any(|(kind, subject, detail)| {
        *kind == EventKind::SlowConsumer && subject == "a" && detail.contains("queue_bytes")
    }));
}

pub fn a_client_that_reads_no_acknowledgements_is_held<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let bus = make("queue_bytes = 10000\ntimeout_seconds = 60");
    let mut peer = bus.client("a");
    let mut twin = peer.0.twin();
    const COUNT: u32 = 50_000;
    let sending = std::thread::spawn(move || {
        for i in 0..COUNT {
            twin.write_all(&request(i, MESSAGE | ACKED, b"x\0")).unwrap();
        }
    });
    // held back or not: every ack comes, in order
    for i in 0..COUNT {
        assert_eq!(peer.frame(), ack(i, 1));
        if i == 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    sending.join().unwrap();
}

pub fn stop_drains_and_closes<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let bus = make("");
    let mut reader = bus.client("reader");
    let mut idle = bus.client("idle");
    let mut greeted = bus.raw();
    let payload = pattern(6_000_000, 3);
    bus.fake.deliver("reader", FrameKind::Message, "me", "", &[&payload]);
    let reading = std::thread::spawn(move || reader.rest());
    let start = Instant::now();
    bus.instance.stop(LONG);
    assert!(start.elapsed() < LONG / 2, "not longer than needed");
    let all = reading.join().unwrap();
    assert!(all.len() == 6_000_009 && all[9..] == payload[..], "what was queued has arrived");
    idle.rest();
    assert_eq!(greeted.rest(), [0xEB, 1, 0]);
    assert!(bus.fake.clients().is_empty());
    assert!(bus.fake.failures().is_empty());
}

pub fn stop_does_not_wait_indefinitely<S: Stream>(make: impl Fn(&str) -> Bus<S>) {
    let bus = make("timeout_seconds = 60");
    let _stalled = bus.client("stalled");
    bus.fake.deliver("stalled", FrameKind::Message, "me", "", &[&vec![0; 50_000_000]]);
    let start = Instant::now();
    bus.instance.stop(Duration::from_millis(300));
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
    bus.wait_gone("stalled");
}
