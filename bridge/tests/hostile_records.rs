//! Records that a node with the key could send, changed at random: nothing panics, and limits hold. A short
//! form of the fuzz target `bridge_batch`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use bytes::Bytes;
use elbus_bridge::{
    Bridge, Destination, Exports, Imports, Key, OutgoingRun, Output, Settings, To,
    wire::{BatchKey, BatchKind, Header, open},
};
use elbus_protocol::{Code, Op, Qos};
use fastrand::Rng;
use std::{path::Path, time::Duration};

const BRIDGES: u64 = 300;
const BATCHES: u64 = 40;

fn settings(node: &str) -> Settings {
    let key = Key::new(b"0123456789abcdef").unwrap();
    let mut settings = Settings::new("plant", node, key).unwrap();
    settings.exports = Exports::new(&["*"], &["#"]).unwrap();
    settings.imports = Imports::new(&["@mill.*"], &["#"]).unwrap();
    settings
}

/// Carries out all outputs. Returns the session of the last batch that was published to `key`'s node.
fn poll(bridge: &mut Bridge<u32>, key: &BatchKey, now: Duration) -> Option<u64> {
    let mut session = None;
    while let Some(output) = bridge.poll_output(now) {
        match output {
            Output::Publish { bytes, .. } => {
                session = open(&bytes, key).map(|(header, _)| header.from_session).ok().or(session);
            }
            Output::RegisterProxy { proxy, outbox, .. } => {
                let to = To::Client(proxy);
                let run = OutgoingRun { op: Op::Message, qos: Qos::PROCESSED, sender: "local", to };
                outbox.push(&run, [&b"\x01\x01\0\0\0m\0"[..]].into_iter(), || Some(1));
            }
            Output::Dispatch(delivery) => {
                assert!((1..=256).contains(&delivery.payloads.iter().count()));
                match delivery.target().len() % 3 {
                    0 => bridge.blocked(delivery),
                    1 => bridge.dispatched(&delivery.ticket, None),
                    _ => bridge.dispatched(&delivery.ticket, Some(Code::Ok)),
                }
            }
            _ => {}
        }
    }
    session
}

/// Changes some bytes, removes or repeats a part.
fn mutate(records: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(0..4) {
        if records.is_empty() {
            return;
        }
        let at = random.usize(..records.len());
        match random.u8(..6) {
            0 => records[at] = random.u8(..),
            1 => records[at] ^= 1 << random.u8(..8),
            2 => records[at] = [0, 1, 0x7F, 0xFF][random.usize(..4)],
            3 => records.truncate(at),
            4 => drop(records.drain(..at)),
            _ => {
                let part = records[at..].to_vec();
                records.extend_from_slice(&part);
            }
        }
    }
}

#[test]
fn changed_records_of_a_node_with_the_key_are_harmless() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/bridge_batch");
    let read = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read(entry.unwrap().path()).unwrap();
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(folder).unwrap().map(read).collect();
    seeds.sort_unstable();
    let (to_press, to_mill) =
        (BatchKey::new(&settings("press"), Some("press")), BatchKey::new(&settings("mill"), Some("mill")));
    let here = Destination::Node("press".into());
    for seed in 0..BRIDGES {
        let mut random = Rng::with_seed(seed);
        let mut now = Duration::from_secs(1);
        let mut bridge = Bridge::<u32>::new(settings("press"), 1, now);
        bridge.connected(now);
        bridge.local_registered("local");
        now += Duration::from_secs(3);
        bridge.tick(now);
        let batch = |kind, sessions: (u64, u64), sequence, records: &[u8]| {
            let header = Header {
                kind,
                from_epoch: 2,
                to_epoch: if kind == BatchKind::Hello { 0 } else { 1 },
                from_session: sessions.0,
                to_session: sessions.1,
                sequence,
                node: "mill",
            };
            let mut bytes = vec![0; 45 + 4];
            bytes.extend_from_slice(records);
            header.seal(&mut bytes, &to_press);
            Bytes::from(bytes)
        };
        let (mut peer_session, mut session, mut sequence) = (0, None, 0);
        for _ in 0..BATCHES {
            if bridge.nodes(now).first().is_none_or(|node| !node.is_up) {
                // after the penalty for malformed contents
                now += Duration::from_secs(11);
                (peer_session, sequence) = (peer_session + 1, 0);
                poll(&mut bridge, &to_mill, now);
                bridge.received(&here, batch(BatchKind::Hello, (peer_session, 0), 0, &[]), now);
                session = poll(&mut bridge, &to_mill, now);
            }
            let Some(session) = session else { continue };
            let mut records: Vec<u8> = seeds[random.usize(..seeds.len())].clone();
            records.retain(|byte| *byte != 0xA5);
            mutate(&mut records, &mut random);
            sequence += 1 + u64::from(random.u8(..8) == 0);
            bridge.received(&here, batch(BatchKind::Link, (peer_session, session), sequence, &records), now);
            poll(&mut bridge, &to_mill, now);
            now += Duration::from_millis(random.u64(..400));
            bridge.tick(now);
        }
        for status in bridge.nodes(now) {
            assert!(status.names <= 20_000 && status.filters <= 4096 && status.incomplete <= 64);
        }
        bridge.stop(now);
        poll(&mut bridge, &to_mill, now);
    }
}
