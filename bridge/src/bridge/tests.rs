//! Two nodes that exchange batches directly, and a hostile node that has the key.

mod calls_and_results;
mod hostile;
mod names;
mod overload;
mod repeated;

use super::*;
use crate::{
    Exports, Imports, Key, Limits, Outbox, OutgoingRun, Pushed, To,
    wire::{Record, open},
};
use elbus_protocol::{Op, Qos};

/// A node whose outputs the test reads.
struct Node {
    bridge: Bridge<u32>,
    name: &'static str,
    outputs: Vec<Output<u32>>,
    /// What it has published and nobody has received.
    published: Vec<(Destination, Bytes)>,
}

fn settings(name: &str) -> Settings {
    let key = Key::new(b"0123456789abcdef").unwrap();
    let mut settings = Settings::new("plant", name, key).unwrap();
    settings.exports = Exports::new(&["io.*"], &["t/#"]).unwrap();
    settings.imports = Imports::new(&["@mill.*", "@press.*"], &["t/#"]).unwrap();
    settings
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

impl Node {
    fn new(name: &'static str, epoch: u64, now: Duration) -> Self {
        Self::with(settings(name), name, epoch, now)
    }

    fn with(settings: Settings, name: &'static str, epoch: u64, now: Duration) -> Self {
        let mut bridge = Bridge::new(settings, epoch, now);
        bridge.connected(now);
        Node { bridge, name, outputs: Vec::new(), published: Vec::new() }
    }

    fn poll(&mut self, now: Duration) {
        while let Some(output) = self.bridge.poll_output(now) {
            match output {
                Output::Publish { to, bytes } => self.published.push((to, bytes)),
                output => self.outputs.push(output),
            }
        }
    }

    /// Takes the outputs that `select` returns something for; drops the others.
    fn take<T>(&mut self, select: impl FnMut(Output<u32>) -> Option<T>) -> Vec<T> {
        std::mem::take(&mut self.outputs).into_iter().filter_map(select).collect()
    }

    fn outbox(&self, node: &str) -> Arc<Outbox<u32>> {
        Arc::clone(&self.bridge.peers[node].link.as_ref().unwrap().outbox)
    }

    /// Returns the proxy of a remote client.
    fn proxy(&self, node: &str, client: &str) -> ProxyId {
        self.bridge.peers[node].link.as_ref().unwrap().proxies[client]
    }

    fn send(&self, sender: &str, (node, client): (&str, &str), payload: &[u8], completion: u32) -> Pushed {
        let to = To::Client(self.proxy(node, client));
        let run = OutgoingRun { op: Op::Message, qos: Qos::PROCESSED, sender, to };
        self.outbox(node).push(&run, [payload].into_iter(), || Some(completion))
    }

    fn is_up(&self, node: &str) -> bool {
        self.bridge.peers.get(node).is_some_and(|peer| peer.link.is_some())
    }

    /// Takes what is to be dispatched: sender's name at its node, target and messages.
    fn dispatches(&mut self) -> Vec<Delivery> {
        self.take(|output| if let Output::Dispatch(delivery) = output { Some(delivery) } else { None })
    }

    fn completions(&mut self) -> Vec<(u32, Code)> {
        self.take(|output| match output {
            Output::Complete { completion, code } => Some((completion, code)),
            _ => None,
        })
    }

    fn count(&self, kind: ReportKind) -> u64 {
        self.bridge.counters().get(kind)
    }
}

/// Hands over everything that is published, until nothing is.
fn exchange(nodes: &mut [&mut Node], now: Duration) {
    loop {
        nodes.iter_mut().for_each(|node| node.poll(now));
        let mut is_idle = true;
        for from in 0..nodes.len() {
            for (to, bytes) in std::mem::take(&mut nodes[from].published) {
                is_idle = false;
                let receivers = nodes.iter_mut().filter(|node| match &to {
                    Destination::All => true,
                    Destination::Node(name) => **name == *node.name,
                });
                receivers.for_each(|node| node.bridge.received(&to, bytes.clone(), now));
            }
        }
        if is_idle {
            return;
        }
    }
}

/// Lets time pass in steps of 10 ms.
fn pass(nodes: &mut [&mut Node], from: Duration, time: f64) -> Duration {
    let mut now = from;
    while now < from + seconds(time) {
        now += Duration::from_millis(10);
        nodes.iter_mut().for_each(|node| node.bridge.tick(now));
        exchange(nodes, now);
    }
    now
}

/// Returns two nodes with a link. `mill` has the client `io.a`, `press` has `io.b` and `hidden`.
fn pair() -> (Node, Node, Duration) {
    let start = seconds(10.0);
    let (mut mill, mut press) = (Node::new("mill", 11, start), Node::new("press", 22, start));
    mill.bridge.local_registered("io.a");
    press.bridge.local_registered("io.b");
    press.bridge.local_registered("hidden");
    let now = pass(&mut [&mut mill, &mut press], start, 3.0);
    assert!(mill.is_up("press") && press.is_up("mill"));
    (mill, press, now)
}

/// Returns a batch that the node `from` could have sealed for `to`.
fn forge(from: &Node, to: &str, sequence: u64, records: &[u8]) -> Bytes {
    let link = from.bridge.peers[to].link.as_ref().unwrap();
    let mut bytes = vec![0; Header::len(from.name)];
    bytes.extend_from_slice(records);
    let header = Header {
        kind: BatchKind::Link,
        from_epoch: from.bridge.epoch,
        to_epoch: link.peer_epoch,
        from_session: link.session,
        to_session: link.peer_session,
        sequence,
        node: from.name,
    };
    header.seal(&mut bytes, &BatchKey::new(from.bridge.settings(), Some(to)));
    bytes.into()
}

/// Returns the number of a batch of a link.
fn number(bytes: &Bytes, to: &str) -> u64 {
    open(bytes, &BatchKey::new(&settings(to), Some(to))).unwrap().0.sequence
}

fn here() -> Destination {
    Destination::Node("here".into())
}
