//! A bridge survives the batches of strangers, and whatever a node that has the key puts into batches.
#![no_main]

#[path = "../../bridge/tests/hostile_node/mod.rs"]
mod hostile_node;

use bytes::Bytes;
use elbus_bridge::{Destination, wire::BatchKind};
use hostile_node::HostileNode;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

/// The session of the other node.
const PEER_SESSION: u64 = 7;

fuzz_target!(|input: &[u8]| {
    let mut node = HostileNode::start();
    for to in [Destination::Node("press".into()), Destination::All] {
        node.bridge.received(&to, Bytes::copy_from_slice(input), node.now);
    }
    let session = node.link(PEER_SESSION).expect("a hello is answered");
    // A5 separates batches
    let mut sequence = 0;
    for records in input.split(|byte| *byte == 0xA5) {
        sequence += 1 + u64::from(records.first() == Some(&0xFF));
        node.receive(BatchKind::Link, (PEER_SESSION, session), sequence, records);
        node.poll();
        node.advance(Duration::from_millis(300));
    }
    node.check_limits();
    node.stop();
});
