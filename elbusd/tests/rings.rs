//! Rings of shared memory over real brokers: every operation, large payloads, time limits, back-pressure, the
//! fallback to the socket, and hostile clients, which end nothing but their own connection.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use elbus_client::{Client, Reconnect, blocking};
use elbus_protocol::{FrameKind, Op, Qos};
use elbus_testing::{
    attempts::with_growing_limits,
    rings::{Refused, RingPeer, word},
};
use std::{
    io::{Read, Write},
    net::Shutdown,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};
use support::{
    PATIENCE,
    daemon::Daemon,
    field, rounds, wait_until,
    wire::{Frame, Wire, numbered_frames},
};

const OK: u8 = 0x01;
/// The path of the socket whose clients get rings, for a client in a process of its own.
const CLIENT_PATH: &str = "ELBUS_TEST_RING_CLIENT";

/// Starts a broker with rings of 64 KiB at `bus.sock`, and none at `plain.sock`.
fn start(keys: &str) -> Daemon {
    Daemon::start_config(&format!(
        r#"
        [[plugin]]
        name = "local"
        library = "elbus_unix"
        config = {{ path = "bus.sock", rings = true, ring_bytes = 65536, {keys} }}
        [[plugin]]
        name = "plain"
        library = "elbus_unix"
        config = {{ path = "plain.sock" }}
        [[plugin]]
        name = "rpc"
        library = "elbus_rpc"
        "#
    ))
}

fn ringed(daemon: &Daemon, name: &str) -> Wire {
    Wire::with_rings(daemon, "bus.sock", name, 0)
}

fn peer(daemon: &Daemon, name: &str) -> RingPeer {
    let mut peer = None;
    wait_until("the name is free", || {
        peer = RingPeer::connect(&daemon.path("bus.sock"), name, 0).ok();
        peer.is_some()
    });
    peer.unwrap()
}

/// Returns whether `client.info` says that a client has rings.
fn has_rings(witness: &mut Wire, name: &str) -> bool {
    field(&witness.control("client.info", &[("name", name)]).unwrap(), "rings").as_bool().unwrap()
}

/// Returns the number of clients that have rings.
fn rings_in_use(witness: &mut Wire) -> String {
    let local = support::plugin(witness, "local").unwrap();
    let status = local.to_string();
    let before = status.find(" with rings").unwrap_or_else(|| panic!("{status}"));
    status[..before].rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn every_operation_works_between_clients_with_and_without_rings() {
    let daemon = start("");
    let (mut one, mut two) = (ringed(&daemon, "one"), ringed(&daemon, "two"));
    let mut plain = daemon.client("plain");
    let mut elsewhere = Wire::connect(&daemon, "unix:plain.sock", "elsewhere");
    assert!(has_rings(&mut plain, "one") && has_rings(&mut one, "two") && !has_rings(&mut two, "plain"));
    assert_eq!(rings_in_use(&mut plain), "2");
    for receiver in ["one", "two", "plain", "elsewhere"] {
        assert_eq!(one.send(receiver, receiver.as_bytes()), OK);
    }
    assert_eq!(one.send("nobody", b""), 0x71);
    for (wire, name) in
        [(&mut one, "one"), (&mut two, "two"), (&mut plain, "plain"), (&mut elsewhere, "elsewhere")]
    {
        let expected =
            Frame::Data(FrameKind::Message, "one".into(), String::new(), name.as_bytes().to_vec(), false);
        assert_eq!(wire.frame(), expected);
    }
    two.subscribe(&["a/+"]);
    plain.subscribe(&["a/#"]);
    for (op, target, code) in [
        (Op::Publish, "a/b", OK),
        (Op::Broadcast, "*", OK),
        (Op::Exclude, "a/x", OK),
        (Op::Unexclude, "a/x", OK),
        (Op::Subscribe, "b/#", OK),
        (Op::Unsubscribe, "b/#", OK),
    ] {
        let got = match op {
            Op::Publish | Op::Broadcast => one.acked(op, target, b"all"),
            _ => one.filters(op, &[target]),
        };
        assert_eq!(got, code, "{op:?}");
    }
    let id = one.request(Op::PublishFor, Qos::PROCESSED, "a/b", "two", b"only");
    assert_eq!(one.expect_ack(id), OK);
    let topics: Vec<_> = [two.frame(), two.frame(), two.frame()].map(|frame| frame.payload().to_vec()).into();
    assert_eq!(topics, [&b"all"[..], b"all", b"only"]);
    assert_eq!([plain.frame(), plain.frame()].map(|frame| frame.payload().to_vec()), [b"all", b"all"]);
    let real_time = one.request(Op::Message, Qos::REALTIME, "two", "", b"now");
    assert!(real_time > 0 && two.frame().payload() == b"now");
}

#[test]
fn payloads_larger_than_a_ring_pass_in_both_directions() {
    let daemon = start("");
    let (mut sender, mut receiver) = (ringed(&daemon, "sender"), ringed(&daemon, "receiver"));
    let mut plain = daemon.client("plain");
    for size in [0, 1, 4095, 65_535, 65_536, 65_537, 1 << 20, 9 << 20] {
        let payload: Vec<u8> = (0..size).map(|at: u32| ((at * 7) >> 3) as u8).collect();
        for target in ["receiver", "plain"] {
            let mut writer = sender.writer();
            let wire = if target == "plain" { &mut plain } else { &mut receiver };
            std::thread::scope(|scope| {
                scope.spawn(|| writer.request(Op::Message, Qos::NO, target, "", &payload));
                assert!(wire.frame().payload() == payload, "{size} to {target}");
            });
        }
        let mut writer = plain.writer();
        std::thread::scope(|scope| {
            scope.spawn(|| writer.request(Op::Message, Qos::NO, "sender", "", &payload));
            assert!(sender.frame().payload() == payload, "{size} to the sender");
        });
    }
}

#[test]
fn a_stream_through_full_rings_loses_nothing_and_keeps_its_order() {
    let daemon = start("queue_bytes = 100000");
    let (sender, mut receiver) = (ringed(&daemon, "sender"), ringed(&daemon, "receiver"));
    let count = 100_000;
    let mut writer = sender.writer();
    let writing = std::thread::spawn(move || {
        let all = numbered_frames(Op::Message, Qos::NO, "receiver", count, 100);
        for piece in all.chunks(70_001) {
            writer.write(piece);
        }
    });
    for number in 0..count {
        assert_eq!(receiver.frame().payload()[..4], number.to_le_bytes());
    }
    writing.join().unwrap();
}

#[test]
fn a_receiver_that_does_not_read_holds_its_sender_and_is_disconnected() {
    let daemon = start("queue_bytes = 100000, timeout_seconds = 1.0, stall_seconds = 0.5");
    let slow = peer(&daemon, "slow");
    let mut pinging = slow.clone();
    let mut witness = Wire::connect(&daemon, "unix:plain.sock", "witness");
    let mut sender = ringed(&daemon, "sender");
    let mut writer = sender.writer();
    let writing = std::thread::spawn(move || {
        writer.write(&numbered_frames(Op::Message, Qos::NO, "slow", 10_000, 1000));
    });
    wait_until("it is disconnected", || {
        let _ = pinging.write_all(&[0; 9]); // it is alive, and reads nothing
        slow.is_closed()
    });
    daemon.wait_for_log("(stall_seconds)");
    writing.join().unwrap();
    assert_eq!(sender.send("slow", b""), 0x71);
    assert_eq!(witness.send("sender", b"goes on"), OK);
    assert_eq!(sender.frame().payload(), b"goes on");
}

#[test]
fn a_silent_client_is_disconnected_and_one_that_pings_is_not() {
    with_growing_limits(Duration::from_millis(400), silent_and_lively);
}

fn silent_and_lively(timeout: Duration) {
    let daemon = start(&format!("timeout_seconds = {:?}", timeout.as_secs_f64()));
    let (silent, lively) = (peer(&daemon, "silent"), peer(&daemon, "lively"));
    let mut pinging = lively.clone();
    wait_until("the silent one is disconnected", || {
        pinging.write_all(&[0; 9]).unwrap();
        silent.is_closed()
    });
    for _ in 0..20 {
        pinging.write_all(&[0; 9]).unwrap();
        std::thread::sleep(timeout / 8);
    }
    assert!(!lively.is_closed());
    let mut wire = Wire::of_rings(lively);
    assert_eq!(wire.send("silent", b""), 0x71);
}

#[test]
fn what_a_client_has_written_before_its_end_is_delivered() {
    let daemon = start("");
    let mut receiver = daemon.client("receiver");
    for how in ["half", "both", "drop"] {
        let sender = peer(&daemon, "sender");
        let mut frames = numbered_frames(Op::Message, Qos::NO, "receiver", 100, 100);
        frames.truncate(frames.len() - 1); // the last one is not complete
        sender.clone().write_all(&frames).unwrap();
        match how {
            "half" => sender.shutdown(Shutdown::Write),
            "both" => sender.shutdown(Shutdown::Both),
            _ => {}
        }
        drop(sender);
        for number in 0..99u32 {
            assert_eq!(receiver.frame().payload()[..4], number.to_le_bytes(), "{how}");
        }
        wait_until("its name is free", || receiver.send("sender", b"") == 0x71);
    }
}

#[test]
fn clients_beyond_the_limit_and_at_transports_without_rings_use_the_socket() {
    let daemon = start("max_rings = 2, max_source_share = 1.0");
    let path = daemon.path("bus.sock");
    let (one, _two) = (peer(&daemon, "one"), peer(&daemon, "two"));
    for _ in 0..3 {
        assert_eq!(RingPeer::connect(&path, "three", 0).err(), Some(Refused(0x75)));
    }
    daemon.wait_for_log_times("max_rings and its share per user", 1);
    assert_eq!(RingPeer::connect(&daemon.path("plain.sock"), "x", 0).err(), Some(Refused(0x75)));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (three, _) = runtime.block_on(Client::builder("three").rings(true).connect(path.as_path())).unwrap();
    let mut witness = daemon.client("witness");
    assert!(!has_rings(&mut witness, "three") && has_rings(&mut witness, "one"));
    runtime.block_on(three.send("witness", "over the socket", Qos::PROCESSED)).unwrap();
    assert_eq!(witness.frame().payload(), b"over the socket");
    drop(one);
    let again = peer(&daemon, "four");
    assert_eq!(again.ring_bytes(), 65_536);
}

#[test]
fn refused_clients_get_no_descriptors() {
    let daemon = start("");
    let path = daemon.path("bus.sock");
    let _owner = daemon.client("taken");
    for (name, code) in [("taken", 0x76), ("", 0x72), (".broker", 0x72), ("nobody%%1", 0x71)] {
        assert_eq!(RingPeer::connect(&path, name, 0).err(), Some(Refused(code)), "{name}");
    }
    // requests before there are rings
    let mut early = Wire::raw(&daemon, "unix:bus.sock");
    assert_eq!(early.read_exactly::<3>(), [0xEB, 1, 0]);
    early.write(&[0xEB, 1, 0x80, 5, 0, b'e', b'a', b'r', b'l', b'y', 0]);
    assert_eq!(early.read_exactly::<2>(), [0x01, 0x72]);
    early.wait_closed();
    let mut witness = daemon.client("witness");
    wait_until("none is in use", || rings_in_use(&mut witness) == "0");
}

#[test]
fn access_rules_apply_and_a_client_that_is_denied_gets_no_rings() {
    let daemon = Daemon::start_config(
        r#"
        [[plugin]]
        name = "local"
        library = "elbus_unix"
        config = { path = "bus.sock", rings = true }
        [[plugin]]
        name = "rpc"
        library = "elbus_rpc"
        [[plugin]]
        name = "access"
        library = "elbus_acl"
        [plugin.config]
        default = "deny"
        [[plugin.config.client]]
        name = "good"
        send = ["allow good"]
        call = ["allow *"]
        "#,
    );
    let path = daemon.path("bus.sock");
    assert_eq!(RingPeer::connect(&path, "bad", 0).err(), Some(Refused(0x79)));
    let mut good = ringed(&daemon, "good");
    assert_eq!(good.send("good", b"mine"), OK);
    assert_eq!(good.send("other", b"no"), 0x79);
}

/// Does what a test says, again and again, next to two clients that exchange messages; these must not notice.
fn next_to_others(daemon: &Daemon, mut hostile: impl FnMut(usize)) {
    let (one, mut two) = (ringed(daemon, "one"), ringed(daemon, "two"));
    let mut writer = one.writer();
    let count = 20_000;
    let writing = std::thread::spawn(move || {
        let all = numbered_frames(Op::Message, Qos::NO, "two", count, 200);
        all.chunks(3000).for_each(|piece| writer.write(piece));
    });
    let reading = std::thread::spawn(move || {
        for number in 0..count {
            assert_eq!(two.frame().payload()[..4], number.to_le_bytes());
        }
    });
    for round in 0..rounds(8, 100) {
        hostile(round);
    }
    writing.join().unwrap();
    reading.join().unwrap();
    drop(one);
    let mut witness = Wire::connect(daemon, "unix:plain.sock", "witness");
    wait_until("no rings are left", || rings_in_use(&mut witness) == "0");
}

#[test]
fn forged_words_end_the_own_connection_at_most() {
    let daemon = start("");
    let before = daemon.descriptors();
    let mut seed = 1u32;
    let mut random = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed
    };
    next_to_others(&daemon, |round| {
        for forged in word::ALL {
            let mut hostile = peer(&daemon, "hostile");
            hostile.write_all(&numbered_frames(Op::Message, Qos::NO, "hostile", 50, 100)).unwrap();
            for _ in 0..20 {
                hostile.forge(forged, random());
                let _ = hostile.write_all(&[0; 9]);
            }
            if round % 2 == 0 {
                // the whole page at once
                word::ALL.iter().for_each(|word| hostile.forge(*word, random()));
            }
            // some of that is legal, but not this
            if forged == word::TO_BROKER_TAIL {
                hostile.forge(forged, 0x8000_0000);
                wait_until("it is disconnected", || hostile.is_closed());
            }
        }
    });
    let mut bad = peer(&daemon, "bad");
    bad.write_all(&[0; 9]).unwrap();
    bad.forge(word::TO_BROKER_TAIL, 0x8000_0000);
    wait_until("it is disconnected", || bad.is_closed());
    daemon.wait_for_log("an index in the peer's ring is out of bounds");
    drop(bad);
    wait_until("all descriptors are closed", || daemon.descriptors() <= before);
}

#[test]
fn garbage_and_bytes_on_the_socket_end_the_own_connection() {
    let daemon = start("");
    next_to_others(&daemon, |_| {
        let mut garbage = peer(&daemon, "garbage");
        garbage.write_all(&[0xFF; 1000]).unwrap();
        wait_until("it is disconnected", || garbage.is_closed());
        let talkative = peer(&daemon, "talkative");
        assert!(talkative.write_on_socket(&[0]));
        wait_until("it is disconnected", || talkative.is_closed());
    });
    daemon.wait_for_log("bytes on the socket of a client with rings");
}

#[test]
fn nothing_that_a_client_does_to_its_descriptors_stops_the_broker() {
    use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_setfl, ftruncate};
    let daemon = start("");
    next_to_others(&daemon, |_| {
        let hostile = peer(&daemon, "hostile");
        let [memory, counter, pipe] = hostile.descriptors();
        assert!(ftruncate(memory, 0).is_err() && ftruncate(memory, 1 << 20).is_err());
        // blocking descriptors, a full counter, a pipe that nobody empties
        fcntl_setfl(counter, OFlags::empty()).unwrap();
        fcntl_setfl(pipe, OFlags::empty()).unwrap();
        rustix::io::write(counter, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let mut sender = Wire::of_rings(peer(&daemon, "sender"));
        for _ in 0..200 {
            rustix::io::pwrite(memory, &1u32.to_ne_bytes(), word::FROM_BROKER_SLEEPS).unwrap();
            assert_eq!(sender.send("hostile", b"wake up"), OK);
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(memory, hole, 0, 4096 + 2 * 65_536).unwrap();
        let _ = sender.send("hostile", b"wake up");
        assert_eq!(sender.send("one", b""), OK);
    });
}

/// Not a test by itself: the client of the next one, in a process that can be killed.
#[test]
fn a_client_of_its_own_process() {
    let Some(path) = std::env::var_os(CLIENT_PATH) else { return };
    let name = format!("killed.{}", std::process::id());
    let peer = RingPeer::connect(&PathBuf::from(path), &name, 0).unwrap();
    let frames = numbered_frames(Op::Message, Qos::NO, &name, 1000, 300);
    let (mut reader, mut writer) = (peer.clone(), peer);
    std::thread::spawn(move || {
        loop {
            writer.write_all(&frames).unwrap();
        }
    });
    println!("ready");
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
}

fn start_client(daemon: &Daemon) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_client_of_its_own_process", "--nocapture"]);
    command.env(CLIENT_PATH, daemon.path("bus.sock"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let is_ready = lines.map_while(Result::ok).any(|line| line.contains("ready"));
    assert!(is_ready);
    child
}

#[test]
fn clients_that_are_killed_in_full_stream_leave_nothing() {
    let daemon = start("");
    let before = daemon.descriptors();
    let maps = || {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).unwrap();
        maps.lines().filter(|line| line.contains("elbus-ring")).count()
    };
    next_to_others(&daemon, |_| {
        let mut children = [start_client(&daemon), start_client(&daemon)];
        assert!(maps() >= 2);
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    });
    wait_until("all is given back", || daemon.descriptors() <= before && maps() == 0);
}

#[test]
fn clients_that_do_not_read_and_are_disconnected_leave_nothing_but_what_they_can_still_read() {
    let daemon = start("");
    let before = daemon.descriptors();
    let mut witness = Wire::connect(&daemon, "unix:plain.sock", "witness");
    let mut staying = vec![];
    for (index, how) in ["invalid", "half-closed", "kicked"].into_iter().enumerate() {
        let name = format!("stays{index}");
        let mut silent = peer(&daemon, &name);
        witness.write(&numbered_frames(Op::Message, Qos::NO, &name, 30, 10_000));
        wait_until("its ring is full", || {
            let info = witness.control("client.info", &[("name", &name)]).unwrap();
            field(&info, "queue_bytes").as_u64() > Some(0)
        });
        match how {
            "invalid" => silent.write_all(&[0, 0, 0, 0, 0x15, 4, 0, 0, 0, b'x', 0, b'y', 0]).unwrap(),
            "half-closed" => silent.shutdown(Shutdown::Write),
            _ => drop(witness.control("client.kick", &[("name", &name)]).unwrap()),
        }
        wait_until(how, || silent.is_closed());
        // one that has broken the protocol is owed nothing; the others count until they close their pipes
        wait_until(how, || rings_in_use(&mut witness) == index.to_string());
        staying.push(silent);
    }
    for silent in &mut staying[1..] {
        let mut unread = vec![];
        silent.read_to_end(&mut unread).unwrap();
        assert_eq!((unread.len(), unread[0]), (65_536, 0x12), "as long as a ring, from the first message on");
    }
    drop(staying);
    wait_until("none is in use", || rings_in_use(&mut witness) == "0");
    drop(witness);
    wait_until("all is given back", || daemon.descriptors() <= before);
}

#[test]
fn a_stopped_client_is_disconnected_like_any_that_is_silent() {
    let daemon = start("timeout_seconds = 1.0, stall_seconds = 0.5");
    let mut witness = Wire::connect(&daemon, "unix:plain.sock", "witness");
    let mut child = start_client(&daemon);
    wait_until("it has rings", || rings_in_use(&mut witness) == "1");
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::STOP).unwrap();
    let name = format!("killed.{}", child.id());
    wait_until("it is disconnected", || witness.control("client.info", &[("name", &name)]).is_err());
    // it finds that out when it runs again
    rustix::process::kill_process(id, rustix::process::Signal::CONT).unwrap();
    child.wait().unwrap();
    wait_until("no rings are left", || rings_in_use(&mut witness) == "0");
}

#[test]
fn a_reload_and_a_shutdown_end_clients_with_rings_and_deliver_what_is_queued() {
    let daemon = start("");
    let mut witness = Wire::connect(&daemon, "unix:plain.sock", "witness");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let path = daemon.path("bus.sock");
    let builder = Client::builder("lasting").rings(true).reconnect(Reconnect::backoff());
    let (client, _frames) = runtime.block_on(builder.connect(path.as_path())).unwrap();
    assert!(has_rings(&mut witness, "lasting"));
    let stays = peer(&daemon, "stays");
    witness.control("plugin.reload", &[("name", "local")]).unwrap();
    wait_until("it is disconnected", || stays.is_closed());
    wait_until("it is connected again", || {
        witness
            .control("client.info", &[("name", "lasting")])
            .is_ok_and(|info| field(&info, "rings").as_bool().unwrap())
    });
    // the library notices that it is registered a little later than the broker
    wait_until("it can send", || runtime.block_on(client.send("witness", "again", Qos::PROCESSED)).is_ok());
    assert_eq!(witness.frame().payload(), b"again");

    let mut last = ringed(&daemon, "last");
    let frames = numbered_frames(Op::Message, Qos::NO, "last", 100, 10_000);
    let mut writer = witness.writer();
    writer.write(&frames);
    assert_eq!(witness.send("last", b"the end"), OK);
    let stopping = std::thread::spawn(move || daemon.stop());
    for number in 0..100u32 {
        assert_eq!(last.frame().payload()[..4], number.to_le_bytes());
    }
    assert_eq!(last.frame().payload(), b"the end");
    last.wait_closed();
    assert!(stopping.join().unwrap().0.success());
}

#[test]
fn many_clients_of_the_library_have_rings_and_an_address_can_ask() {
    let daemon = start("max_rings = 100");
    let address = format!("{}?rings", daemon.path("bus.sock").display());
    let mut witness = Wire::connect(&daemon, "unix:plain.sock", "witness");
    let mut clients: Vec<_> = (0..40)
        .map(|number| {
            let name = format!("many.{number}");
            if number % 2 == 0 {
                blocking::Client::connect(address.as_str(), &name).unwrap()
            } else {
                let builder = blocking::Client::builder(&name).rings(true);
                builder.connect(daemon.path("bus.sock").as_path()).unwrap()
            }
        })
        .collect();
    assert_eq!(rings_in_use(&mut witness), "40");
    let count = 200u32;
    std::thread::scope(|scope| {
        for (index, (client, frames)) in clients.iter_mut().enumerate() {
            let target = format!("many.{}", (index + 1) % 40);
            scope.spawn(move || {
                for number in 0..count {
                    let qos = if number % 50 == 0 { Qos::PROCESSED } else { Qos::NO };
                    client.send(&target, number.to_le_bytes().to_vec(), qos).unwrap();
                }
            });
            scope.spawn(move || {
                for number in 0..count {
                    let frame = frames.next_timeout(PATIENCE).unwrap();
                    assert_eq!(frame.payload(), number.to_le_bytes());
                }
            });
        }
    });
    drop(clients);
    wait_until("none is left", || rings_in_use(&mut witness) == "0");
}
