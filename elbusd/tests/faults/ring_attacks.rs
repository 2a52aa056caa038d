//! Clients that abuse what comes with rings of shared memory: wake-ups, flags, descriptors and memory. Others
//! go on, and nothing is left.

use elbus_client::{Client, Qos};
use elbus_protocol::{Op, Qos as WireQos};
use elbus_testing::rings::{RingPeer, word};
use rustix::fs::fstat;
use std::{
    io::{Read, Write},
    net::Shutdown,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::support::{
    daemon::Daemon,
    rounds, wait_until,
    wire::{Wire, numbered_frames},
};

const RING: u64 = 65_536;

fn start(keys: &str) -> Daemon {
    Daemon::start_config(&format!(
        r#"
        [[plugin]]
        name = "local"
        library = "elbus_unix"
        config = {{ path = "bus.sock", rings = true, ring_bytes = {RING}, max_source_share = 1.0, {keys} }}
        [[plugin]]
        name = "rpc"
        library = "elbus_rpc"
        "#
    ))
}

fn peer(daemon: &Daemon, name: &str) -> RingPeer {
    let mut peer = None;
    wait_until("the name is free", || {
        peer = RingPeer::connect(&daemon.path("bus.sock"), name, 0).ok();
        peer.is_some()
    });
    peer.unwrap()
}

/// Returns the lines of the broker's mappings of rings that begin with this, as a sum of numbers.
fn mapped(daemon: &Daemon, key: &str) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", daemon.pid())).unwrap();
    let (mut is_ring, mut sum) = (false, 0);
    for line in smaps.lines() {
        if line.split(' ').next().is_some_and(|range| range.contains('-')) {
            is_ring = line.contains("elbus-ring");
        } else if is_ring && let Some(rest) = line.strip_prefix(key) {
            sum += rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        }
    }
    sum
}

/// Returns the bytes that are allocated for a memory.
fn allocated(memory: &OwnedFd) -> u64 {
    fstat(memory).unwrap().st_blocks as u64 * 512
}

#[test]
fn wake_ups_without_end_and_flapping_flags_hold_nobody() {
    let daemon = start("");
    let ended = AtomicBool::new(false);
    let hostile = peer(&daemon, "hostile");
    let one = Wire::of_rings(peer(&daemon, "one"));
    let mut two = Wire::of_rings(peer(&daemon, "two"));
    let count = 50_000;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let [_, counter, _] = hostile.descriptors();
                rustix::io::write(counter, &1u64.to_ne_bytes()).unwrap();
            }
        });
        scope.spawn(|| {
            let flags = [
                word::TO_BROKER_WANTS_ROOM,
                word::TO_BROKER_SLEEPS,
                word::FROM_BROKER_WANTS_ROOM,
                word::FROM_BROKER_SLEEPS,
            ];
            let mut writer = hostile.clone();
            for value in (0..u32::MAX).take_while(|_| !ended.load(Ordering::Relaxed)) {
                flags.into_iter().for_each(|flag| hostile.forge(flag, value));
                let _ = writer.write_all(&[0; 9]);
            }
        });
        let mut writer = one.writer();
        scope.spawn(move || {
            let all = numbered_frames(Op::Message, WireQos::NO, "two", count, 200);
            all.chunks(5000).for_each(|piece| writer.write(piece));
        });
        for number in 0..count {
            assert_eq!(two.frame().payload()[..4], number.to_le_bytes());
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert!(!hostile.is_closed(), "all of that is legal");
}

#[test]
fn many_requests_for_rings_leave_nothing_and_do_not_use_them_up() {
    let daemon = start("max_rings = 8, timeout_seconds = 2.0");
    let (before, path) = (daemon.descriptors(), daemon.path("bus.sock"));
    for number in 0..rounds(500, 5000) {
        let name = format!("n{number}");
        match number % 4 {
            0 => drop(RingPeer::connect(&path, &name, 0)),
            // leaves after the greeting, after the name, and without reading the descriptors
            1 => Wire::raw(&daemon, "unix:bus.sock").write(&[0xEB, 1, 0x80]),
            2 => Wire::raw(&daemon, "unix:bus.sock").write(&[0xEB, 1, 0x81, 9]),
            _ => {
                let mut wire = Wire::raw(&daemon, "unix:bus.sock");
                wire.write(&[&[0xEB, 1, 0x80, name.len() as u8, 0], name.as_bytes()].concat());
                let _ = wire.read_exactly::<4>();
            }
        }
    }
    let mut good = None;
    wait_until("rings are free again", || {
        good = RingPeer::connect(&path, "good", 0).ok();
        good.is_some()
    });
    assert_eq!(Wire::of_rings(good.unwrap()).send("good", b"x"), 0x01);
    wait_until("all is given back", || daemon.descriptors() <= before && mapped(&daemon, "Size:") == 0);
}

#[test]
fn the_memory_of_an_ended_connection_is_given_back_although_its_descriptors_are_kept() {
    let daemon = start("");
    let mut kept = vec![];
    for round in 0..rounds(6, 60) {
        let mut hostile = peer(&daemon, "hostile");
        let [memory, counter, pipe] = hostile.descriptors().map(|fd| fd.try_clone().unwrap());
        // fills the ring to itself, and reads nothing
        hostile.write_all(&numbered_frames(Op::Message, WireQos::NO, "hostile", 100, 1000)).unwrap();
        wait_until("the ring is full", || allocated(&memory) > RING);
        if round % 2 == 0 {
            hostile.write_all(&[0xFF; 100]).unwrap();
            wait_until("it is disconnected", || hostile.is_closed());
        }
        drop(hostile);
        kept.push((memory, counter, pipe));
    }
    wait_until("all memory is given back", || kept.iter().all(|(memory, ..)| allocated(memory) == 0));
}

#[test]
fn unread_memory_of_ended_connections_counts_until_its_clients_close_their_descriptors() {
    let daemon = start("max_rings = 4");
    let before = daemon.descriptors();
    let (mut staying, mut memories, mut refused) = (vec![], vec![], 0);
    for round in 0..rounds(12, 60) {
        let Ok(mut hostile) = RingPeer::connect(&daemon.path("bus.sock"), &format!("n{round}"), 0) else {
            refused += 1;
            continue;
        };
        let memory = hostile.descriptors()[0].try_clone().unwrap();
        hostile
            .write_all(&numbered_frames(Op::Message, WireQos::NO, &format!("n{round}"), 100, 1000))
            .unwrap();
        wait_until("the ring is full", || allocated(&memory) > RING);
        hostile.shutdown(Shutdown::Write);
        wait_until("it is disconnected", || hostile.is_closed());
        memories.push(memory);
        staying.push(hostile);
    }
    assert_eq!((staying.len(), refused), (4, rounds(12, 60) - 4));
    // what is unread can still be read
    for hostile in &mut staying {
        let mut first = [0; 6];
        hostile.read_exact(&mut first).unwrap();
        assert_eq!(first[0], 0x12, "a message");
    }
    drop(staying);
    wait_until("all memory is given back", || memories.iter().all(|memory| allocated(memory) == 0));
    wait_until("all is given back", || daemon.descriptors() <= before && mapped(&daemon, "Size:") == 0);
    assert!(RingPeer::connect(&daemon.path("bus.sock"), "next", 0).is_ok());
}

#[test]
fn the_rings_of_a_client_that_has_read_everything_are_given_back_although_it_stays() {
    let daemon = start("max_rings = 1");
    let mut witness = daemon.client("witness");
    for round in 0..3 {
        let name = format!("n{round}");
        let peer = peer(&daemon, &name);
        let memory = peer.descriptors()[0].try_clone().unwrap();
        peer.clone().write_all(&numbered_frames(Op::Message, WireQos::NO, &name, 100, 1000)).unwrap();
        wait_until("the ring is full", || allocated(&memory) > RING);
        let mut stays = Wire::of_rings(peer);
        for number in 0..100u32 {
            assert_eq!(stays.frame().payload()[..4], number.to_le_bytes());
        }
        assert!(witness.control("client.kick", &[("name", &name)]).is_ok());
        stays.wait_closed();
        wait_until("its rings are given back", || allocated(&memory) <= 4096);
    }
}

#[test]
fn the_memory_of_a_burst_is_given_back_when_the_client_is_idle() {
    let daemon = start("timeout_seconds = 2.0");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let builder = Client::builder("busy").rings(true).ping_interval(Duration::from_millis(200));
        let (client, mut frames) = builder.connect(daemon.path("bus.sock").as_path()).await.unwrap();
        for _ in 0..20 {
            client.send("busy", vec![7; 60_000], Qos::PROCESSED).await.unwrap();
            assert_eq!(frames.next().await.unwrap().payload().len(), 60_000);
        }
        assert!(mapped(&daemon, "Rss:") > 2 * 48, "{} KiB", mapped(&daemon, "Rss:"));
        tokio::time::timeout(crate::support::PATIENCE, async {
            // one page of words, and the first four of each ring
            while mapped(&daemon, "Rss:") > 9 * 4 {
                assert!(client.is_connected());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the memory is given back");
        client.send("busy", vec![8; 60_000], Qos::PROCESSED).await.unwrap();
        assert!(frames.next().await.unwrap().payload() == [8; 60_000]);
    });
}
