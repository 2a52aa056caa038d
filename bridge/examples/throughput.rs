//! Measures two bridges without an engine, in one thread: messages per second through outbox, batch, MAC and
//! decoding.
//!
//! `cargo run --release -p elbus-bridge --example throughput [BYTES] [MESSAGES IN A RUN] [acknowledged]`
#![allow(clippy::unwrap_used, reason = "an example ends by panicking")]

use elbus_bridge::{
    Bridge, Destination, Exports, Imports, Key, Outbox, OutgoingRun, Output, ProxyId, Pushed, Settings, To,
};
use elbus_protocol::{Code, Op, Qos};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Messages to measure, and bytes of them, at most.
const MOST: (usize, usize) = (10_000_000, 4 << 30);

struct Node {
    bridge: Bridge<()>,
    /// The client of the other node.
    client: Option<(ProxyId, Arc<Outbox<()>>)>,
    received: usize,
    bytes: usize,
    completed: usize,
}

impl Node {
    fn new(name: &str, epoch: u64) -> Self {
        let key = Key::new(b"0123456789abcdef").unwrap();
        let mut settings = Settings::new("plant", name, key).unwrap();
        settings.exports = Exports::new(&["*"], &[]).unwrap();
        settings.imports = Imports::new(&["@one.*", "@other.*"], &[]).unwrap();
        let mut bridge = Bridge::new(settings, epoch, Duration::ZERO);
        bridge.connected(Duration::ZERO);
        bridge.local_registered("client");
        Node { bridge, client: None, received: 0, bytes: 0, completed: 0 }
    }

    /// Carries out all outputs; what is published goes to the other node.
    fn poll(&mut self, other: &mut Node, now: Duration) -> bool {
        let mut is_idle = true;
        while let Some(output) = self.bridge.poll_output(now) {
            is_idle = false;
            match output {
                Output::Publish { to, bytes } => {
                    let to = if to == Destination::All { to } else { Destination::Node("".into()) };
                    other.bridge.received(&to, bytes, now);
                }
                Output::RegisterProxy { proxy, outbox, .. } => self.client = Some((proxy, outbox)),
                Output::Dispatch(delivery) => {
                    self.received += delivery.payloads.len();
                    self.bytes += delivery.payloads.iter().map(<[u8]>::len).sum::<usize>();
                    self.bridge.dispatched(&delivery.ticket, Some(Code::Ok));
                }
                Output::Complete { .. } => self.completed += 1,
                _ => {}
            }
        }
        is_idle
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let len = arguments.next().map_or(100, |bytes| bytes.parse().unwrap());
    let count = arguments.next().map_or(32, |count| count.parse().unwrap());
    let is_acknowledged = arguments.next().is_some();
    let messages = MOST.0.min(MOST.1 / len.max(1));
    let (mut one, mut other) = (Node::new("one", 1), Node::new("other", 2));
    let mut now = Duration::ZERO;
    while one.client.is_none() || other.client.is_none() {
        now += Duration::from_millis(10);
        one.bridge.tick(now);
        other.bridge.tick(now);
        one.poll(&mut other, now);
        other.poll(&mut one, now);
    }
    let (proxy, outbox) = one.client.clone().unwrap();
    let qos = if is_acknowledged { Qos::PROCESSED } else { Qos::NO };
    let run = OutgoingRun { op: Op::Message, qos, sender: "client", to: To::Client(proxy) };
    let payload = vec![7; len];
    let payloads = vec![&payload[..]; count];
    let start = Instant::now();
    let first = now;
    while other.received < messages {
        while let Pushed::Taken { is_full: false, .. } =
            outbox.push(&run, payloads.iter().copied(), || is_acknowledged.then_some(()))
        {}
        loop {
            now = first + start.elapsed();
            let is_idle = one.poll(&mut other, now) & other.poll(&mut one, now);
            if is_idle && !outbox.is_full(Some(proxy)) {
                break;
            }
            one.bridge.tick(now);
            other.bridge.tick(now);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = other.received as f64 / seconds / 1e6;
    println!("{rate:.2} M messages/s of {len} bytes in runs of {count}, {} results", one.completed);
    assert_eq!(other.bytes, other.received * len);
}
