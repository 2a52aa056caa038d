//! Queue limits, exact to the byte: a queue exceeds its limit by at most one run. Frames that were read but
//! could not be dispatched are delivered later, even after their sender has left. Partially received frames
//! count too.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_protocol::{Op, Qos};
use std::{
    net::Shutdown,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use support::{
    daemon::{BOTH, Daemon},
    field, queued_bytes, wait_until,
    wire::{Frame, Wire, numbered_frames},
};

/// The maximum size of a run of several frames.
const RUN_BYTES: u64 = 256 * 1024;

const MIB: usize = 1 << 20;

fn number(frame: &Frame) -> u32 {
    u32::from_le_bytes(frame.payload()[..4].try_into().unwrap())
}

fn queued(witness: &mut Wire, name: &str) -> u64 {
    let info = witness.control("client.info", &[("name", name)]);
    info.map_or(0, |info| field(&info, "queue_bytes").as_u64().unwrap())
}

/// Starts a broker whose queues hold `bytes` bytes in total, with these limits of its transport.
fn with_budget(bytes: usize, limits: &str) -> Daemon {
    Daemon::start_config(&format!(
        "broker.max_queued_bytes = {bytes}\n[[plugin]]\nname = \"local\"\nlibrary = \"elbus_unix\"\n\
         config = {{ path = \"bus.sock\", {limits} }}\n[[plugin]]\nname = \"rpc\"\nlibrary = \"elbus_rpc\"\n"
    ))
}

#[test]
fn a_queue_exceeds_its_limit_by_at_most_one_run() {
    let daemon = Daemon::start("library", &["--queue-bytes", "1000000"]);
    let mut witness = daemon.client("witness");
    for address in daemon.addresses() {
        let mut receiver = Wire::connect(&daemon, &address, "r");
        let writing: Vec<_> = (0..3)
            .map(|at| {
                let mut sender = Wire::connect(&daemon, &address, &format!("{at}{}", "n".repeat(1023)));
                std::thread::spawn(move || {
                    sender.try_write(&numbered_frames(Op::Message, Qos::NO, "r", 20_000, 0));
                    sender
                })
            })
            .collect();
        wait_until("the receiver is full", || queued(&mut witness, "r") > 1_000_000);
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(500) {
            // two workers, each of which may have seen room at the same moment
            let queued = queued(&mut witness, "r");
            assert!(queued <= 1_000_000 + 2 * RUN_BYTES, "{queued} bytes");
        }
        for _ in 0..3 * 20_000 {
            assert_eq!(receiver.frame().payload().len(), 4);
        }
        writing.into_iter().for_each(|writing| drop(writing.join().unwrap()));
    }
}

/// Frames of a client that leaves.
const LEFT: u32 = 300;
/// 50,000 bytes each, in total more than the buffers of a TCP connection hold.
const FILL: u32 = 400;

/// Fills the receiver, lets another client send to it, and disconnects that one by `leave` before the
/// receiver reads.
fn sent_before_leaving(qos: Qos, leave: impl Fn(Wire)) {
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &["--queue-bytes", "300000"]);
        let mut witness = daemon.client("witness");
        // a TCP client that closes with unread data resets the connection: data the broker has not read yet
        // is lost
        let unix = |address: &String| qos == Qos::NO || address.starts_with("unix:");
        for address in daemon.addresses().into_iter().filter(unix) {
            let mut receiver = Wire::connect(&daemon, &address, "receiver");
            let mut filling = Wire::connect(&daemon, &address, "filling");
            let mut filler = filling.writer();
            let filling_up = std::thread::spawn(move || {
                filler.write(&numbered_frames(Op::Message, Qos::NO, "receiver", FILL, 50_000))
            });
            wait_until("the receiver is full", || queued(&mut witness, "receiver") > 300_000);
            let mut leaving = Wire::connect(&daemon, &address, "leaving");
            // so little that it is read at once: when the first frame has arrived, the broker has all of them
            let mut bytes = numbered_frames(Op::Message, Qos::NO, "witness", 1, 0);
            bytes.extend(numbered_frames(Op::Message, qos, "receiver", LEFT, 60));
            leaving.write(&bytes);
            let arrived = witness.frame();
            assert_eq!(arrived.payload(), [0; 4]);
            leave(leaving);
            let mut next = [0, 0];
            while next != [FILL, LEFT] {
                let frame = receiver.frame();
                let Frame::Data(_, sender, ..) = &frame else { panic!("{frame:?}") };
                let at = usize::from(sender == "leaving");
                assert_eq!(number(&frame), next[at], "from {sender}, in order, none missing");
                next[at] += 1;
            }
            filling_up.join().unwrap();
            assert_eq!(filling.send("receiver", b"last"), 0x01);
            assert_eq!(receiver.frame().payload(), b"last");
        }
    }
}

#[test]
fn messages_sent_before_a_disconnect_are_delivered_once_the_receiver_has_room() {
    sent_before_leaving(Qos::NO, |client| client.shutdown(Shutdown::Write));
    sent_before_leaving(Qos::NO, drop);
}

#[test]
fn a_client_that_closes_without_reading_its_acknowledgements_loses_no_message() {
    sent_before_leaving(Qos::PROCESSED, drop);
}

#[test]
fn a_full_subscriber_holds_the_publisher_and_nothing_arrives_twice() {
    const COUNT: u32 = 20_000;
    for plugins in BOTH {
        let daemon = Daemon::start(plugins, &["--queue-bytes", "100000"]);
        let addresses = daemon.addresses();
        let mut publisher = daemon.client("publisher");
        let reading: Vec<_> = (0..4)
            .map(|at| {
                let mut reader = Wire::connect(&daemon, &addresses[at % 2], &format!("reader{at}"));
                reader.subscribe(&["t"]);
                std::thread::spawn(move || {
                    for expected in 0..COUNT {
                        if at > 1 && expected % 4000 == 0 {
                            std::thread::sleep(Duration::from_millis(30));
                        }
                        assert_eq!(number(&reader.frame()), expected, "once, in order");
                    }
                    assert_eq!(reader.frame_within(Duration::from_millis(20)), None);
                })
            })
            .collect();
        let mut writer = publisher.writer();
        let writing = std::thread::spawn(move || {
            writer.write(&numbered_frames(Op::Publish, Qos::PROCESSED, "t", COUNT, 100))
        });
        for number in 0..COUNT {
            assert_eq!(publisher.expect_ack(number), 0x01);
        }
        writing.join().unwrap();
        reading.into_iter().for_each(|reading| reading.join().unwrap());
    }
}

#[test]
fn frames_being_received_count_against_the_limit_and_wait_for_room() {
    const FRAME: usize = 6 * MIB;
    let daemon = with_budget(8 * MIB, "timeout_seconds = 20.0");
    let mut witness = daemon.client("witness");
    let mut receiver = daemon.client("receiver");
    let before = daemon.memory();
    // all but the last byte of each
    let frame = numbered_frames(Op::Message, Qos::NO, "receiver", 1, FRAME);
    let (most, last) = frame.split_at(frame.len() - 1);
    let sending: Vec<_> = (0..16)
        .map(|at| {
            let (mut sender, most, last) = (daemon.client(&format!("s{at}")), most.to_vec(), last.to_vec());
            std::thread::spawn(move || {
                sender.write(&most);
                sender.write(&last);
                sender
            })
        })
        .collect();
    let mut most_queued = 0;
    let reading = std::thread::spawn(move || {
        for _ in 0..16 {
            assert_eq!(receiver.frame().payload().len(), FRAME);
        }
    });
    while !reading.is_finished() {
        most_queued = most_queued.max(queued_bytes(&mut witness));
        let grown = daemon.memory().saturating_sub(before);
        assert!(grown < 48 * 1024, "{grown} KiB");
    }
    reading.join().unwrap();
    sending.into_iter().for_each(|sending| drop(sending.join().unwrap()));
    // the limit, twice the reserve of a queue below its own limit, and the frame that continued without
    // budget
    assert!(most_queued <= (8 * MIB + 3 * FRAME) as u64, "{most_queued} bytes");
    wait_until("all frames are released", || queued_bytes(&mut witness) == 0);
}

#[test]
fn large_frames_in_queues_stay_within_the_limit_and_block_no_others() {
    const FRAME: usize = 6 << 20;
    const LIMIT: usize = 8 << 20;
    const READ: usize = 192 << 10;
    let text = r#"
        broker.max_queued_bytes = 8388608
        [[plugin]]
        name = "local"
        library = "elbus_unix"
        config = { path = "bus.sock", timeout_seconds = 20.0, stall_seconds = 19.0, queue_bytes = 1000000 }
        [[plugin]]
        name = "rpc"
        library = "elbus_rpc"
    "#;
    let daemon = Daemon::start_config(text);
    let mut witness = daemon.client("witness");
    let sending: Vec<_> = (0..8)
        .map(|at| {
            let name = format!("c{at}");
            let mut client = daemon.client(&name);
            std::thread::spawn(move || {
                // fails if it was disconnected; it reads nothing
                client.try_write(&numbered_frames(Op::Message, Qos::NO, &name, 1, FRAME));
                client
            })
        })
        .collect();
    let mut most_queued = 0;
    let mut sample = |witness: &mut Wire| {
        let health = witness.control("health", &[]).unwrap();
        most_queued = most_queued.max(field(&health, "queued_bytes").as_u64().unwrap());
    };
    while !sending.iter().all(|sending| sending.is_finished()) {
        sample(&mut witness);
    }
    let clients: Vec<_> = sending.into_iter().map(|sending| sending.join().unwrap()).collect();
    sample(&mut witness);
    // one frame at a time exceeds the limit, and one read of each client does not wait for room
    assert!(most_queued <= (LIMIT + FRAME + 8 * READ) as u64, "{most_queued} bytes");
    daemon.wait_for_log("when others needed memory");
    witness.request(Op::Message, Qos::NO, "witness", "", &vec![1; 900_000]);
    assert_eq!(witness.frame().payload().len(), 900_000);
    drop(clients);
}

#[test]
fn incomplete_frames_release_their_memory() {
    let daemon = with_budget(MIB, "timeout_seconds = 3.0, stall_seconds = 0.5");
    let frame = numbered_frames(Op::Message, Qos::NO, "nobody", 1, 900_000);
    let mut stuck: Vec<_> = (0..6)
        .map(|at| {
            let mut sender = daemon.client(&format!("s{at}"));
            let part = frame[..800_000].to_vec();
            std::thread::spawn(move || {
                sender.try_write(&part);
                sender.wait_closed();
            })
        })
        .collect();
    stuck.drain(..).for_each(|stuck| stuck.join().unwrap());
    daemon.wait_for_log("max_queued_bytes");
    let mut witness = daemon.client("witness");
    wait_until("all frames are released", || queued_bytes(&mut witness) == 0);
    // a frame that is completed arrives
    witness.request(Op::Message, Qos::NO, "witness", "", &vec![1; 900_000]);
    assert_eq!(witness.frame().payload().len(), 900_000);
}

#[test]
fn incomplete_frames_do_not_block_other_clients() {
    let daemon = with_budget(24 * MIB, "timeout_seconds = 2.0, stall_seconds = 1.5");
    let (mut witness, mut other) = (daemon.client("witness"), daemon.client("other"));
    let endless = numbered_frames(Op::Message, Qos::NO, "nobody", 1, 8 * MIB);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for at in 0..8 {
            let (daemon, endless, stop) = (&daemon, &endless, &stop);
            scope.spawn(move || {
                for number in 0.. {
                    let mut hostile = daemon.client(&format!("hostile.{at}.{number}"));
                    // the rest arrives at the minimum rate; when this client is disconnected, the next one
                    // follows
                    let (much, rest) = endless.split_at(5 * MIB);
                    let mut goes_on = hostile.try_write(much);
                    let mut rest = rest.chunks(40_000);
                    while goes_on && !stop.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(500));
                        goes_on = rest.next().is_some_and(|piece| hostile.try_write(piece));
                    }
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        wait_until("memory is used up", || {
            other.ping(); // nothing else is sent for it meanwhile
            queued_bytes(&mut witness) > 20 * MIB as u64
        });
        for bytes in [50_000, 1_000_000].repeat(10) {
            let frame = numbered_frames(Op::Message, Qos::NO, "other", 1, bytes);
            let (most, last) = frame.split_at(frame.len() - 10);
            other.write(most);
            witness.control("health", &[]).unwrap();
            other.write(last);
            assert_eq!(other.frame().payload().len(), bytes);
        }
        stop.store(true, Ordering::Relaxed);
    });
    daemon.wait_for_log("when others needed memory");
}

/// A client that listens to announcements and does not read, while other clients register and leave.
#[test]
fn announcements_stop_at_the_limit_of_a_queue_and_resync_follows() {
    const LIMIT: u64 = 65_536;
    const NAME: usize = 1000;
    let daemon = Daemon::start_config(&format!(
        "[[plugin]]\nname = \"local\"\nbuiltin = \"unix\"\n\
         config = {{ path = \"bus.sock\", queue_bytes = {LIMIT}, stall_seconds = 50, timeout_seconds = 60 }}\n[[plugin]]\nname = \"rpc\"\n\
         builtin = \"rpc\"\n[[plugin]]\nname = \"announce\"\nbuiltin = \"announce\"\n"
    ));
    let address = daemon.addresses().remove(0);
    let mut witness = daemon.client("witness");
    let mut listener = Wire::connect(&daemon, &address, "listener");
    listener.subscribe(&[".broker/info"]);
    let refused = |witness: &mut Wire| {
        field(&witness.control("health", &[]).unwrap(), "refused_frames").as_u64().unwrap()
    };
    let mut number = 0;
    while refused(&mut witness) < 20 {
        for _ in 0..20 {
            number += 1;
            drop(Wire::connect(&daemon, &address, &format!("{number:0NAME$}")));
        }
        let queued = queued(&mut witness, "listener");
        assert!(queued <= LIMIT + NAME as u64 + 100, "{queued} bytes");
    }
    let mut announced = 0;
    loop {
        let frame = listener.frame();
        let payload = frame.payload();
        announced += 1;
        if payload.windows(6).any(|bytes| bytes == b"resync") {
            break;
        }
    }
    assert!(announced > 60, "the queued announcements precede it: {announced}");
}
