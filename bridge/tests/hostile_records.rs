//! Records that a node with the key could send, changed at random: nothing panics, and limits hold. A short
//! form of the fuzz target `bridge_batch`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod hostile_node;

use elbus_bridge::wire::BatchKind;
use fastrand::Rng;
use hostile_node::HostileNode;
use std::{path::Path, time::Duration};

const BRIDGES: u64 = 300;
const BATCHES: u64 = 40;

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
    for seed in 0..BRIDGES {
        let mut random = Rng::with_seed(seed);
        let mut node = HostileNode::start();
        let (mut peer_session, mut session, mut sequence) = (0, None, 0);
        for _ in 0..BATCHES {
            if node.bridge.nodes(node.now).first().is_none_or(|status| !status.is_up) {
                // after the penalty for malformed contents
                node.now += Duration::from_secs(11);
                (peer_session, sequence) = (peer_session + 1, 0);
                node.poll();
                session = node.link(peer_session);
            }
            let Some(session) = session else { continue };
            let mut records: Vec<u8> = seeds[random.usize(..seeds.len())].clone();
            records.retain(|byte| *byte != 0xA5);
            mutate(&mut records, &mut random);
            sequence += 1 + u64::from(random.u8(..8) == 0);
            node.receive(BatchKind::Link, (peer_session, session), sequence, &records);
            node.poll();
            node.advance(Duration::from_millis(random.u64(..400)));
        }
        node.check_limits();
        node.stop();
    }
}
