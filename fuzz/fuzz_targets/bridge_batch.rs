//! A bridge survives the batches of strangers, and whatever a node that has the key puts into batches.
#![no_main]

use bytes::Bytes;
use elbus_bridge::{
    Bridge, Destination, Exports, Imports, Key, OutgoingRun, Output, Settings, To,
    wire::{BatchKey, BatchKind, Header, open},
};
use elbus_protocol::{Code, Op, Qos};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

/// Epochs of the bridge under test and of the other node.
const EPOCHS: (u64, u64) = (1, 2);

fn settings(node: &str) -> Settings {
    let key = Key::new(b"0123456789abcdef").unwrap();
    let mut settings = Settings::new("plant", node, key).unwrap();
    settings.exports = Exports::new(&["*"], &["#"]).unwrap();
    settings.imports = Imports::new(&["@mill.*"], &["#"]).unwrap();
    settings
}

/// Carries out all outputs. Returns the session of the last welcome, if there was one.
fn poll(bridge: &mut Bridge<u32>, key: &BatchKey, now: Duration) -> Option<u64> {
    let mut session = None;
    for _ in 0..100_000 {
        match bridge.poll_output(now) {
            None => return session,
            Some(Output::Publish { bytes, .. }) => {
                if let Ok((header, _)) = open(&bytes, key) {
                    session = Some(header.from_session);
                }
            }
            Some(Output::RegisterProxy { proxy, outbox, .. }) => {
                let run =
                    OutgoingRun { op: Op::Message, qos: Qos::PROCESSED, sender: "local", to: To::Client(proxy) };
                outbox.push(&run, [&b"\x01\x01\0\0\0m\0"[..]].into_iter(), || Some(1));
            }
            Some(Output::Dispatch(delivery)) => {
                assert!(!delivery.payloads.is_empty() && delivery.payloads.iter().count() <= 256);
                match delivery.target().len() % 3 {
                    0 => bridge.blocked(delivery),
                    1 => bridge.dispatched(&delivery.ticket, None),
                    _ => bridge.dispatched(&delivery.ticket, Some(Code::Ok)),
                }
            }
            Some(_) => {}
        }
    }
    panic!("outputs do not end");
}

fuzz_target!(|input: &[u8]| {
    let mut now = Duration::from_secs(1);
    let mut bridge = Bridge::<u32>::new(settings("press"), EPOCHS.0, now);
    let (own, other) = (settings("press"), settings("mill"));
    let (to_press, to_mill) = (BatchKey::new(&own, Some("press")), BatchKey::new(&other, Some("mill")));
    bridge.connected(now);
    bridge.local_registered("local");
    now += Duration::from_secs(3);
    bridge.tick(now);
    poll(&mut bridge, &to_mill, now);
    let here = Destination::Node("press".into());
    bridge.received(&here, Bytes::copy_from_slice(input), now);
    bridge.received(&Destination::All, Bytes::copy_from_slice(input), now);

    let batch = |kind, to_session, sequence, records: &[u8]| {
        let header = Header {
            kind,
            from_epoch: EPOCHS.1,
            to_epoch: if kind == BatchKind::Hello { 0 } else { EPOCHS.0 },
            from_session: 7,
            to_session,
            sequence,
            node: "mill",
        };
        let mut bytes = vec![0; 45 + 4];
        bytes.extend_from_slice(records);
        header.seal(&mut bytes, &to_press);
        Bytes::from(bytes)
    };
    bridge.received(&here, batch(BatchKind::Hello, 0, 0, &[]), now);
    let session = poll(&mut bridge, &to_mill, now).expect("a hello is answered");
    // A5 separates batches
    let mut sequence = 0;
    for records in input.split(|byte| *byte == 0xA5) {
        sequence += 1 + u64::from(records.first() == Some(&0xFF));
        bridge.received(&here, batch(BatchKind::Link, session, sequence, records), now);
        poll(&mut bridge, &to_mill, now);
        now += Duration::from_millis(300);
        bridge.tick(now);
    }
    for status in bridge.nodes(now) {
        assert!(status.names <= 20_000 && status.filters <= 4096);
    }
    bridge.stop(now);
    poll(&mut bridge, &to_mill, now);
});
