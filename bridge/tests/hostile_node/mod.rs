//! A bridge of the node `press`, and batches that the node `mill` sends to it with the right key. Used by the
//! tests of this crate and by the fuzz target `bridge_batch`.

use bytes::Bytes;
use elbus_bridge::{
    Bridge, Destination, Exports, Imports, Key, OutgoingRun, Output, Settings, To,
    wire::{BatchKey, BatchKind, HEADER_BYTES, Header, open},
};
use elbus_protocol::{Code, Op, Qos};
use std::time::Duration;

/// Epochs of the bridge under test and of the other node.
const EPOCHS: (u64, u64) = (1, 2);
/// Outputs of one call that are certainly too many.
const TOO_MANY_OUTPUTS: usize = 100_000;

/// The bridge under test, and the time.
pub(crate) struct HostileNode {
    pub(crate) bridge: Bridge<u32>,
    pub(crate) now: Duration,
    to_press: BatchKey,
    to_mill: BatchKey,
}

fn settings(node: &str) -> Settings {
    let key = Key::new(b"0123456789abcdef").unwrap();
    let mut settings = Settings::new("plant", node, key).unwrap();
    settings.exports = Exports::new(&["*"], &["#"]).unwrap();
    settings.imports = Imports::new(&["@mill.*"], &["#"]).unwrap();
    settings
}

impl HostileNode {
    /// Starts a bridge that has its name and a local client.
    pub(crate) fn start() -> Self {
        let now = Duration::from_secs(1);
        let (own, other) = (settings("press"), settings("mill"));
        let (to_press, to_mill) = (BatchKey::new(&own, Some("press")), BatchKey::new(&other, Some("mill")));
        let mut bridge = Bridge::new(own, EPOCHS.0, now);
        bridge.connected(now);
        bridge.local_registered("local");
        let mut node = HostileNode { bridge, now, to_press, to_mill };
        node.advance(Duration::from_secs(3));
        node.poll();
        node
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, time: Duration) {
        self.now += time;
        self.bridge.tick(self.now);
    }

    /// Links the other node by a new session of it. Returns the session of the bridge, if it answers.
    pub(crate) fn link(&mut self, peer_session: u64) -> Option<u64> {
        self.receive(BatchKind::Hello, (peer_session, 0), 0, &[]);
        self.poll()
    }

    /// Lets a batch of these records arrive. `sessions` are those of the other node and of the bridge.
    pub(crate) fn receive(&mut self, kind: BatchKind, sessions: (u64, u64), sequence: u64, records: &[u8]) {
        let node = "mill";
        let header = Header {
            kind,
            from_epoch: EPOCHS.1,
            to_epoch: if kind == BatchKind::Hello { 0 } else { EPOCHS.0 },
            from_session: sessions.0,
            to_session: sessions.1,
            sequence,
            node,
        };
        let mut bytes = vec![0; HEADER_BYTES + node.len()];
        bytes.extend_from_slice(records);
        header.seal(&mut bytes, &self.to_press);
        self.bridge.received(&Destination::Node("press".into()), Bytes::from(bytes), self.now);
    }

    /// Carries out all outputs. Returns the session of the last batch to the other node, if there was one.
    pub(crate) fn poll(&mut self) -> Option<u64> {
        let mut session = None;
        for _ in 0..TOO_MANY_OUTPUTS {
            match self.bridge.poll_output(self.now) {
                None => return session,
                Some(Output::Publish { bytes, .. }) => {
                    session =
                        open(&bytes, &self.to_mill).map(|(header, _)| header.from_session).ok().or(session);
                }
                Some(Output::RegisterProxy { proxy, outbox, .. }) => {
                    let to = To::Client(proxy);
                    let run = OutgoingRun { op: Op::Message, qos: Qos::PROCESSED, sender: "local", to };
                    outbox.push(&run, [&b"\x01\x01\0\0\0m\0"[..]].into_iter(), || Some(1));
                }
                Some(Output::Dispatch(delivery)) => {
                    assert!((1..=256).contains(&delivery.payloads.iter().count()));
                    match delivery.target().len() % 3 {
                        0 => self.bridge.blocked(delivery),
                        1 => self.bridge.dispatched(&delivery.ticket, None),
                        _ => self.bridge.dispatched(&delivery.ticket, Some(Code::Ok)),
                    }
                }
                Some(_) => {}
            }
        }
        panic!("outputs do not end");
    }

    /// Checks that the limits of a node hold.
    pub(crate) fn check_limits(&self) {
        for status in self.bridge.nodes(self.now) {
            assert!(status.names <= 20_000 && status.filters <= 4096 && status.incomplete <= 64);
        }
    }

    /// Stops the bridge.
    pub(crate) fn stop(&mut self) {
        self.bridge.stop(self.now);
        self.poll();
    }
}
