//! One node: a bridge, and a model of a broker with its clients.

use super::account::{Account, losses};
use bytes::Bytes;
use elbus_bridge::{
    Bridge, Delivery, Destination, Exports, Imports, Key, Limits, Outbox, OutgoingRun, Output, ProxyId,
    Pushed, Settings, Ticket, To,
};
use elbus_protocol::{Code, Op, Qos, topic};
use fastrand::Rng;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// Names of the nodes.
pub(crate) const NODES: [&str; 3] = ["alpha", "beta", "gamma"];
/// Exported clients of every node.
pub(crate) const CLIENTS: [&str; 3] = ["io.a", "io.b", "io.b%%1"];
/// A client that is not exported.
pub(crate) const HIDDEN: &str = "private";

/// What completes an acknowledgement: the messages of its run.
pub(crate) type Completion = Vec<u64>;

/// Limits so small that schedules reach them.
pub(crate) fn limits() -> Limits {
    Limits {
        batch_bytes: 512,
        piece_bytes: 1024,
        max_message_bytes: 16 << 10,
        pair_credit: 16 << 10,
        receiver_window: 4 << 10,
        publication_window: 4 << 10,
        node_window: 32 << 10,
        max_unlisted: 2,
        result_timeout: Duration::from_secs(10),
        ..Limits::default()
    }
}

pub(crate) fn settings(node: &str) -> Settings {
    let key = Key::new(b"0123456789abcdef").unwrap();
    let mut settings = Settings::new("plant", node, key).unwrap();
    settings.exports = Exports::new(&["io.*"], &["t/#"]).unwrap();
    settings.imports = Imports::new(&["@alpha.*", "@beta.*", "@gamma.*"], &["t/#"]).unwrap();
    settings.limits = limits();
    settings
}

/// A client of another node, as the broker knows it.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) name: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) is_listed: bool,
    pub(crate) outbox: Arc<Outbox<Completion>>,
    is_held: bool,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) bridge: Bridge<Completion>,
    /// Number of this start, unique among all nodes.
    pub(crate) start: u64,
    pub(crate) is_connected: bool,
    /// Until then its process does nothing.
    pub(crate) frozen_until: Duration,
    /// What has arrived meanwhile.
    pub(crate) unread: Vec<(Destination, Bytes)>,
    pub(crate) clients: BTreeSet<String>,
    pub(crate) proxies: BTreeMap<ProxyId, Proxy>,
    pub(crate) outboxes: BTreeMap<Arc<str>, Arc<Outbox<Completion>>>,
    /// Filters that other nodes want.
    pub(crate) interest: BTreeMap<Arc<str>, BTreeSet<String>>,
    /// Local receivers that are full.
    pub(crate) full: BTreeSet<String>,
    /// Results that the broker has not supplied.
    pending: Vec<(Ticket, Code)>,
    /// Losses that were counted, of messages and of what was refused.
    pub(crate) refused: u64,
    /// Windows for which senders wait.
    waiting: HashMap<(Arc<str>, Option<ProxyId>), ()>,
    subscriptions: BTreeSet<String>,
}

/// The number of a message, the start of its sender's node, and padding.
fn payload(id: u64, start: u64, len: usize) -> Vec<u8> {
    let mut payload = id.to_le_bytes().to_vec();
    payload.extend_from_slice(&start.to_le_bytes());
    payload.resize(payload.len().max(len), id as u8);
    payload
}

impl Node {
    pub(crate) fn new(index: usize, start: u64, now: Duration, random: &mut Rng) -> Self {
        let mut node = Node {
            index,
            bridge: Bridge::new(settings(NODES[index]), random.u64(1..), now),
            start,
            is_connected: false,
            frozen_until: now,
            unread: Vec::new(),
            clients: BTreeSet::new(),
            proxies: BTreeMap::new(),
            outboxes: BTreeMap::new(),
            interest: BTreeMap::new(),
            full: BTreeSet::new(),
            pending: Vec::new(),
            refused: 0,
            waiting: HashMap::new(),
            subscriptions: BTreeSet::new(),
        };
        for client in CLIENTS.into_iter().chain([HIDDEN]) {
            node.register(client);
        }
        node.subscribe("t/+");
        node
    }

    pub(crate) fn is_frozen(&self, now: Duration) -> bool {
        now < self.frozen_until
    }

    pub(crate) fn register(&mut self, client: &str) {
        if self.clients.insert(client.to_owned()) {
            self.bridge.local_registered(client);
        }
    }

    pub(crate) fn leave(&mut self, client: &str) {
        if self.clients.remove(client) {
            self.bridge.local_left(client);
        }
    }

    pub(crate) fn subscribe(&mut self, filter: &str) {
        if self.subscriptions.insert(filter.to_owned()) {
            self.bridge.interest_changed([], [filter]);
        }
    }

    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        if self.subscriptions.remove(filter) {
            self.bridge.interest_changed([filter], []);
        }
    }

    /// Returns messages that were counted as not delivered, or refused by the model of the broker.
    pub(crate) fn counted(&self) -> u64 {
        losses(self.bridge.counters()) + self.refused
    }

    /// Sends a run to a random proxy or topic.
    pub(crate) fn send(&mut self, account: &mut Account, random: &mut Rng) {
        let senders: Vec<&String> = self.clients.iter().collect();
        if senders.is_empty() || self.outboxes.is_empty() {
            return;
        }
        let sender = senders[random.usize(..senders.len())].clone();
        let qos = Qos::from_bits(random.u8(0..4));
        let count = if random.u8(..4) == 0 { random.usize(1..=12) } else { 1 };
        let proxies: Vec<ProxyId> = self.proxies.keys().copied().collect();
        let is_topic = proxies.is_empty() || random.u8(..4) == 0;
        let topics = ["t/1", "t/2/3"];
        let (outboxes, run): (Vec<_>, _) = if is_topic {
            let topic = topics[random.usize(..topics.len())];
            let wants = |node: &Arc<str>| {
                self.interest
                    .get(node)
                    .is_some_and(|all| all.iter().any(|filter| topic::matches(filter, topic)))
            };
            let outboxes = self.outboxes.iter().filter(|(node, _)| wants(node));
            let outboxes = outboxes.map(|(node, outbox)| (node.clone(), outbox.clone())).collect();
            (outboxes, OutgoingRun { op: Op::Publish, qos, sender: &sender, to: To::Topic(topic) })
        } else {
            let id = proxies[random.usize(..proxies.len())];
            let proxy = &self.proxies[&id];
            let op = if random.u8(..8) == 0 { Op::Broadcast } else { Op::Message };
            let run = OutgoingRun { op, qos, sender: &sender, to: To::Client(id) };
            (vec![(proxy.node.clone(), proxy.outbox.clone())], run)
        };
        for (node, outbox) in outboxes {
            let proxy = if let To::Client(id) = run.to { Some(id) } else { None };
            // senders wait for full receivers, unless they are real-time
            if outbox.is_full(proxy) && !qos.is_realtime() {
                continue;
            }
            let mut ids = Vec::new();
            let mut payloads = Vec::new();
            for _ in 0..count {
                let len = match random.u8(..24) {
                    0 => random.usize(1025..8000),
                    1..4 => random.usize(100..1025),
                    _ => random.usize(16..60),
                };
                ids.push(account.next_id());
                payloads.push(payload(*ids.last().unwrap(), self.start, len));
            }
            let is_acknowledged = qos.wants_ack() && run.op == Op::Message;
            let defer = || is_acknowledged.then(|| ids.clone());
            let to = NODES.iter().position(|name| *name == &*node).unwrap();
            match outbox.push(&run, payloads.iter().map(|payload| &payload[..]), defer) {
                Pushed::Taken { is_full, .. } => {
                    for id in &ids {
                        account.taken(*id, is_acknowledged, (self.index, self.start), to);
                    }
                    if is_full {
                        self.waiting.insert((node.clone(), proxy), ());
                    }
                }
                Pushed::Refused | Pushed::Closed => {}
                Pushed::Invalid => panic!("everything that is sent here is valid"),
            }
        }
    }

    /// Supplies results that the broker had not supplied.
    pub(crate) fn supply_results(&mut self) {
        for (ticket, code) in self.pending.drain(..) {
            self.bridge.result(&ticket, code);
        }
    }

    /// Lets all receivers drain.
    pub(crate) fn drain_receivers(&mut self) {
        self.full.clear();
        for (id, proxy) in &mut self.proxies {
            if std::mem::take(&mut proxy.is_held) {
                self.bridge.ready(*id);
            }
        }
    }

    /// Carries out all outputs. Returns what is to be published.
    pub(crate) fn poll(
        &mut self,
        now: Duration,
        account: &mut Account,
        random: &mut Rng,
    ) -> Vec<(Destination, Bytes)> {
        let mut published = Vec::new();
        while let Some(output) = self.bridge.poll_output(now) {
            match output {
                Output::Publish { to, bytes } => {
                    assert!(self.is_connected, "nothing is published without a connection");
                    assert!(bytes.len() <= limits().longest_batch(), "a batch has {} bytes", bytes.len());
                    published.push((to, bytes));
                }
                Output::NodeUp { node, outbox } => {
                    assert!(self.outboxes.insert(node, outbox).is_none(), "a node is up once");
                }
                Output::NodeLost { node, .. } => {
                    assert!(self.outboxes.remove(&node).is_some(), "only a node that is up is lost");
                    assert!(self.proxies.values().all(|proxy| proxy.node != node), "its proxies left before");
                    self.interest.remove(&node);
                    self.waiting.retain(|(other, _), ()| *other != node);
                }
                Output::RegisterProxy { proxy, node, name, is_listed, outbox } => {
                    let is_taken = self.proxies.values().any(|other| other.name == name);
                    if is_taken || random.u8(..50) == 0 {
                        self.bridge.proxy_refused(proxy);
                    } else {
                        self.proxies.insert(proxy, Proxy { name, node, is_listed, outbox, is_held: false });
                    }
                }
                Output::RemoveProxy { proxy, .. } => {
                    assert!(self.proxies.remove(&proxy).is_some(), "a proxy is removed once");
                    self.waiting.retain(|(_, other), ()| *other != Some(proxy));
                }
                Output::Interest { node, added, removed } => {
                    let filters = self.interest.entry(node).or_default();
                    for filter in removed {
                        assert!(filters.remove(&filter), "{filter} was there");
                    }
                    for filter in added {
                        assert!(filters.insert(filter.clone()), "{filter} is new");
                    }
                }
                Output::Dispatch(delivery) => self.dispatch(delivery, account, random),
                Output::Complete { completion, code } => account.completed(&completion, code),
                Output::Drained { node, proxy } => {
                    self.waiting.remove(&(node, proxy));
                }
                Output::ReplyError { .. } | Output::OwnName(_) | Output::Report(_) => {}
            }
        }
        published
    }

    fn dispatch(&mut self, delivery: Delivery, account: &mut Account, random: &mut Rng) {
        let proxy = self.proxies.get_mut(&delivery.sender).expect("a sender is registered");
        assert!(!proxy.is_held, "a sender that is held sends nothing");
        let count = delivery.payloads.len() as u64;
        let receivers: Vec<String> = match delivery.op {
            Op::Publish => {
                let matches = |filter: &String| topic::matches(filter, delivery.target());
                self.subscriptions.iter().any(matches).then(|| "subscriber".to_owned()).into_iter().collect()
            }
            _ => self.clients.get(delivery.target()).cloned().into_iter().collect(),
        };
        if receivers.iter().any(|receiver| self.full.contains(receiver)) && !delivery.qos.is_realtime() {
            proxy.is_held = true;
            self.bridge.blocked(delivery);
            return;
        }
        let code = match receivers.first() {
            None if delivery.op == Op::Message => Code::NotRegistered,
            Some(_) if random.u8(..30) == 0 => Code::NotDelivered,
            _ => Code::Ok,
        };
        if code != Code::Ok || receivers.is_empty() {
            self.refused += count;
        } else {
            for receiver in &receivers {
                let receiver = format!("{receiver}@{}/{}", self.index, self.start);
                for payload in delivery.payloads.iter() {
                    let (id, rest) = payload.split_first_chunk::<8>().unwrap();
                    let (start, rest) = rest.split_first_chunk::<8>().unwrap();
                    let id = u64::from_le_bytes(*id);
                    assert!(rest.iter().all(|byte| *byte == id as u8), "payload of {id}");
                    account.delivered(id, u64::from_le_bytes(*start), &proxy.name, &receiver);
                }
            }
        }
        if random.u8(..10) == 0 && delivery.wants_result() {
            self.bridge.dispatched(&delivery.ticket, None);
            self.pending.push((delivery.ticket, code));
        } else {
            self.bridge.dispatched(&delivery.ticket, Some(code));
        }
        // sometimes the receiver is full afterwards
        if receivers.iter().any(|receiver| self.full.contains(receiver)) {
            proxy.is_held = true;
            self.bridge.hold(delivery.sender);
        }
    }

    /// Returns the names of remote clients: of all, or of those that were listed when they were registered.
    pub(crate) fn known(&self, only_listed: bool) -> BTreeSet<String> {
        let proxies = self.proxies.values().filter(|proxy| proxy.is_listed || !only_listed);
        proxies.map(|proxy| proxy.name.to_string()).collect()
    }

    /// Checks limits that hold at any time.
    pub(crate) fn check_limits(&self, now: Duration) {
        let limits = limits();
        for status in self.bridge.nodes(now) {
            // each run can exceed the limit by its own length
            let run = 12 * 8100;
            assert!(status.queued_bytes <= 2 * limits.node_window + run + 4096, "{status:?}");
            assert!(status.in_flight_bytes <= limits.pair_credit + 2048, "{status:?}");
            assert!(status.parked_bytes <= 2 * limits.node_window + 2 * run, "{status:?}");
            assert!(status.names <= CLIENTS.len(), "{status:?}");
        }
    }

    /// Checks that everything has come to rest: all credit and all windows are returned.
    pub(crate) fn check_rest(&self, now: Duration) {
        for status in self.bridge.nodes(now) {
            assert!(status.is_up, "{} does not know {}", NODES[self.index], status.node);
            let rest = (status.queued_bytes, status.in_flight_bytes, status.parked_bytes, status.incomplete);
            assert_eq!(rest, (0, 0, 0, 0), "at {}: {status:?}", NODES[self.index]);
        }
        for (node, outbox) in &self.outboxes {
            assert_eq!(outbox.outstanding(None), 0, "{node} has publications outstanding");
            assert!(!outbox.is_full(None));
        }
        for (id, proxy) in &self.proxies {
            assert_eq!(proxy.outbox.outstanding(Some(*id)), 0, "{} has bytes outstanding", proxy.name);
            assert!(!proxy.outbox.is_full(Some(*id)));
        }
        assert!(self.waiting.is_empty(), "senders that wait were notified: {:?}", self.waiting.keys());
    }
}
