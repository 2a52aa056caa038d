//! The state machine of a bridge: what arrives and what changes locally goes in, actions for the plugin come
//! out.

mod candidates;
mod claim;
mod handshake;
mod inbound;
mod link;
mod lists;
mod local;
mod pieces;
mod presence;
mod proxies;
mod receiving;
mod reports;
#[cfg(test)]
mod tests;

use crate::{
    delivery::Delivery,
    output::{Destination, LostReason, NodeStatus, Output, OwnName, RemoveReason},
    proxy_id::ProxyId,
    report::{Counters, ReportKind},
    settings::Settings,
    wire::{BatchKey, BatchKind, Header, Record, append_record},
};
use bytes::Bytes;
use claim::{Beacon, Claim};
use elbus_protocol::Code;
use handshake::Peer;
use link::Sender;
use lists::{ListLimits, OwnInterest, OwnList};
use proxies::Proxies;
use reports::Reports;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// Changes of a node that wait to be carried out: some for each name that it can announce, and some more. A
/// list of all names leaves and returns within a fraction of it.
const CHANGES_PER_NAME: usize = 8;
const SPARE_CHANGES: usize = 65_536;

/// A bridge of one broker to one bus.
///
/// Times are since any moment that the caller chooses, and never decrease. After each call the caller polls
/// [outputs](Self::poll_output) until there are none, and it polls again when an [`Outbox`](crate::Outbox)
/// wakes it or [`next_deadline`](Self::next_deadline) has come (with [`tick`](Self::tick)).
///
/// `C` is what completes a pending acknowledgement.
#[derive(Debug)]
pub struct Bridge<C> {
    settings: Settings,
    epoch: u64,
    now: Duration,
    is_connected: bool,
    key_of_all: BatchKey,
    own_key: BatchKey,
    claim: Claim,
    peers: BTreeMap<Arc<str>, Peer<C>>,
    /// The nodes of links, by number.
    links: HashMap<u64, Arc<str>>,
    last_link: u64,
    last_session: u64,
    names: OwnList,
    interest: OwnInterest,
    proxies: Proxies,
    /// Runs and what must keep its order with them.
    arrivals: VecDeque<Arrival<C>>,
    /// How many arrivals other than runs there are of each node.
    changes: HashMap<Arc<str>, usize>,
    outputs: VecDeque<Output<C>>,
    reports: Reports,
    next_beat: Duration,
    /// The node whose batch was published last.
    last_turn: Option<Arc<str>>,
}

/// Something that has arrived, in order.
#[derive(Debug)]
enum Arrival<C> {
    Run(Delivery),
    Removal(Arc<str>, ProxyId, RemoveReason),
    /// Something else that a node has changed.
    Change(Arc<str>, Output<C>),
}

impl<C> Bridge<C> {
    /// Creates a bridge that is not connected. `epoch` is random, other than 0, and chosen for each start.
    pub fn new(settings: Settings, epoch: u64, now: Duration) -> Self {
        let limits = &settings.limits;
        Bridge {
            epoch: epoch.max(1),
            now,
            is_connected: false,
            key_of_all: BatchKey::new(&settings, None),
            own_key: BatchKey::new(&settings, Some(&settings.node)),
            claim: Claim::new(epoch.max(1), limits.listen, limits.lost_after, limits.beat),
            peers: BTreeMap::new(),
            links: HashMap::new(),
            last_link: 0,
            last_session: 0,
            names: OwnList::new(ListLimits::of_names(limits)),
            interest: OwnInterest::new(ListLimits::of_filters(limits), settings.imports.topics()),
            proxies: Proxies::default(),
            arrivals: VecDeque::new(),
            changes: HashMap::new(),
            outputs: VecDeque::new(),
            reports: Reports::default(),
            next_beat: now,
            last_turn: None,
            settings,
        }
    }

    /// Returns the settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the epoch of this start. It changes when a name that was refused is claimed.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The engine is connected and both subjects are subscribed to.
    pub fn connected(&mut self, now: Duration) {
        self.now = now;
        self.is_connected = true;
        let changed = self.claim.connected(now);
        self.own_name(changed);
        // what was lost with the connection is found out by the next batch of each link
        for peer in self.peers.values_mut() {
            if let Some(link) = &mut peer.link {
                link.sending.wants_ping = true;
            }
        }
        self.tick(now);
    }

    /// The engine is not connected: nothing is published until [`connected`](Self::connected). Nodes stay up
    /// until they are silent for too long.
    pub fn lost(&mut self, now: Duration) {
        self.now = now;
        self.is_connected = false;
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        self.now = now;
        if self.is_connected {
            let changed = self.claim.tick(now, || self.own_key.next_epoch(self.epoch));
            self.own_name(changed);
            if let Some(beacon) = self.claim.due(now) {
                self.publish_beacon(beacon);
            }
        }
        let is_beat = now >= self.next_beat;
        if is_beat {
            self.next_beat = now + self.settings.limits.beat;
        }
        let nodes: Vec<Arc<str>> = self.peers.keys().cloned().collect();
        for node in nodes {
            self.tick_peer(&node, is_beat);
        }
    }

    fn tick_peer(&mut self, node: &Arc<str>, is_beat: bool) {
        let now = self.now;
        let (lost_after, timeout) = (self.settings.limits.lost_after, self.settings.limits.result_timeout);
        let Some(peer) = self.peers.get_mut(node) else { return };
        if let Some(link) = &mut peer.link {
            if link.is_silent(lost_after, now) {
                self.lose(node, LostReason::Silent);
                return;
            }
            if is_beat {
                link.sending.wants_ping = true;
                let mut completed = Vec::new();
                if let Some(upto) = link.time_out(timeout, now) {
                    link.outbox.time_out(upto, &mut completed);
                }
                let calls = link.outbox.take_calls_dropped();
                self.count(ReportKind::ResultsTimedOut, Some(node), completed.len() as u64);
                self.count(ReportKind::CallsOverLimit, Some(node), calls);
                self.complete(completed);
            }
            self.resend_snapshots(node);
            return;
        }
        self.tick_handshake(node);
    }

    /// Returns when [`tick`](Self::tick) should be called at the latest.
    pub fn next_deadline(&self) -> Duration {
        let lost_after = self.settings.limits.lost_after;
        let mut deadline = self.next_beat.min(self.reports.deadline());
        for link in self.peers.values().filter_map(|peer| peer.link.as_ref()) {
            deadline = deadline.min(link.alive_at + lost_after);
        }
        if !self.is_connected {
            return deadline;
        }
        deadline = deadline.min(self.claim.deadline());
        for peer in self.peers.values() {
            deadline = deadline.min(peer.deadline());
            if let Some(link) = &peer.link {
                deadline = deadline.min(link.sending.deadline()).min(link.receiving.due());
            }
        }
        deadline
    }

    /// A batch has arrived on the subject of all nodes or on that of this node. `to` names the subject;
    /// [`Destination::Node`] is this node, whatever its name.
    pub fn received(&mut self, to: &Destination, bytes: Bytes, now: Duration) {
        self.now = now;
        self.receive(*to == Destination::All, bytes);
    }

    /// Announces that the node stops, and loses all others.
    pub fn stop(&mut self, now: Duration) {
        self.now = now;
        let nodes: Vec<Arc<str>> = self.peers.keys().cloned().collect();
        for node in nodes {
            if let Some(peer) = self.peers.get_mut(&node)
                && let Some(link) = &mut peer.link
            {
                let from = Sender { node: &self.settings.node, epoch: self.epoch, key: &peer.key };
                let bytes = link.stop_batch(&from, now);
                if self.is_connected {
                    self.outputs
                        .push_back(Output::Publish { to: Destination::Node(Arc::clone(&node)), bytes });
                }
            }
            self.lose(&node, LostReason::Local);
        }
        self.claim.stop();
        self.peers.clear();
    }

    /// Returns the next action. Assembles batches of what outboxes have: whatever is ready.
    pub fn poll_output(&mut self, now: Duration) -> Option<Output<C>> {
        if let Some(output) = self.poll_other_output(now) {
            return Some(output);
        }
        if self.is_connected { self.next_batch() } else { None }
    }

    /// Returns the next action that is not a batch of a link: what can be carried out while the engine takes
    /// no more. [`Output::Publish`] can be dropped then; the node says it again.
    pub fn poll_other_output(&mut self, now: Duration) -> Option<Output<C>> {
        self.now = now;
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if let Some(output) = self.next_arrival() {
            return Some(output);
        }
        self.reports.next(now).map(Output::Report)
    }

    /// Returns the next batch of the nodes, in turn.
    fn next_batch(&mut self) -> Option<Output<C>> {
        let last = self.last_turn.take();
        let is_behind = |node: &Arc<str>| last.as_ref().is_none_or(|last| node > last);
        let mut nodes: Vec<Arc<str>> = Vec::new();
        for is_second_half in [false, true] {
            let half = self
                .peers
                .iter()
                .filter(|(node, peer)| peer.link.is_some() && is_behind(node) != is_second_half);
            nodes.extend(half.map(|(node, _)| Arc::clone(node)));
        }
        for node in nodes {
            let Some(peer) = self.peers.get_mut(&node) else { continue };
            let Some(link) = &mut peer.link else { continue };
            let from = Sender { node: &self.settings.node, epoch: self.epoch, key: &peer.key };
            if let Some(bytes) = link.next_batch(&from, self.now) {
                self.last_turn = Some(Arc::clone(&node));
                return Some(Output::Publish { to: Destination::Node(node), bytes });
            }
        }
        self.last_turn = last;
        None
    }

    /// Returns what is known of other nodes, in the order of their names.
    pub fn nodes(&self, now: Duration) -> Vec<NodeStatus> {
        let status = |(node, peer): (&Arc<str>, &Peer<C>)| {
            let link = peer.link.as_deref();
            let (queued_bytes, in_flight_bytes) = link.map_or((0, 0), |link| link.outbox.loads());
            NodeStatus {
                node: Arc::clone(node),
                is_up: link.is_some(),
                silent_for: now.saturating_sub(link.map_or(peer.beacon_at, |link| link.alive_at)),
                names: link.map_or(0, |link| link.names.len()),
                filters: link.map_or(0, |link| link.filters.len()),
                queued_bytes,
                in_flight_bytes,
                parked_bytes: link.map_or(0, |link| link.untaken),
                unacknowledged: link.map_or(0, |link| link.sending.unacknowledged()),
                incomplete: link.map_or(0, |link| link.pieces.len()),
                counters: peer.counters.clone(),
            }
        };
        self.peers.iter().map(status).collect()
    }

    /// Returns what was counted, for all nodes and for what belongs to none.
    pub fn counters(&self) -> &Counters {
        &self.reports.counters
    }

    /// Counts occurrences, for the node as well if it is known.
    fn count(&mut self, kind: ReportKind, node: Option<&Arc<str>>, count: u64) {
        if count == 0 {
            return;
        }
        self.reports.add(kind, node, count);
        if let Some(peer) = node.and_then(|node| self.peers.get_mut(node)) {
            peer.counters.add(kind, count);
        }
    }

    fn complete(&mut self, completed: Vec<(C, Code)>) {
        let outputs = completed.into_iter().map(|(completion, code)| Output::Complete { completion, code });
        self.outputs.extend(outputs);
    }

    fn publish_beacon(&mut self, beacon: Beacon) {
        let node = &self.settings.node;
        let mut bytes = vec![0; Header::len(node)];
        let Beacon { has_name, count, contender } = beacon;
        append_record(&mut bytes, &Record::Beacon { has_name, count, contender });
        let header = Header {
            kind: BatchKind::Beacon,
            from_epoch: self.epoch,
            to_epoch: 0,
            from_session: 0,
            to_session: 0,
            sequence: 0,
            node,
        };
        header.seal(&mut bytes, &self.key_of_all);
        self.outputs.push_back(Output::Publish { to: Destination::All, bytes: bytes.into() });
    }

    /// Handles a change of the state of the own name.
    fn own_name(&mut self, changed: Option<OwnName>) {
        let Some(state) = changed else { return };
        self.epoch = self.claim.epoch();
        self.outputs.push_back(Output::OwnName(state));
        if state == OwnName::Taken {
            self.count(ReportKind::DuplicateNode, None, 1);
            let nodes: Vec<Arc<str>> = self.peers.keys().cloned().collect();
            for node in nodes {
                self.lose(&node, LostReason::Local);
            }
            self.peers.clear();
        }
    }

    /// Ends the link to a node, if there is one: everything in flight gets a result, its names leave.
    fn lose(&mut self, node: &Arc<str>, reason: LostReason) {
        let Some(link) = self.peers.get_mut(node).and_then(|peer| peer.link.take()) else { return };
        self.links.remove(&link.number);
        let leftovers = link.outbox.end();
        let uncertain = link.sending.messages_in_flight();
        self.count(ReportKind::MessagesUncertain, Some(node), uncertain);
        self.count(ReportKind::MessagesDropped, Some(node), leftovers.messages);
        self.complete(leftovers.completed);
        for call in leftovers.calls {
            let callee = ProxyId(call.window);
            if self.proxies.get(callee).is_some() {
                let error = Output::ReplyError { caller: call.caller, callee, call_id: call.call_id };
                self.push_change(node, error);
            }
        }
        let mut ids = self.proxies.of_node(node);
        // secondaries were registered after their primaries
        ids.sort_unstable_by(|one, other| other.cmp(one));
        let (mut dropped, mut free) = (0, Vec::new());
        for id in ids {
            if let Some(proxy) = self.proxies.remove(id) {
                dropped += proxy.parked.iter().map(|run| run.payloads.len() as u64).sum::<u64>();
                if !proxy.is_refused {
                    let reason = RemoveReason::NodeLost(reason);
                    self.push_change(node, Output::RemoveProxy { proxy: id, reason });
                    free.push(proxy.local);
                }
            }
        }
        // clients of other nodes can have waited for these names
        free.iter().for_each(|name| self.retry_name(name));
        self.count(ReportKind::DeliveriesDropped, Some(node), dropped);
        self.push_change(node, Output::NodeLost { node: Arc::clone(node), reason });
    }

    /// Appends an output that keeps its order with the runs of its node.
    fn push_change(&mut self, node: &Arc<str>, output: Output<C>) {
        *self.changes.entry(Arc::clone(node)).or_insert(0) += 1;
        self.arrivals.push_back(Arrival::Change(Arc::clone(node), output));
    }

    /// Appends the removal of a proxy, which keeps its order with the runs of the client.
    fn push_removal(&mut self, node: &Arc<str>, id: ProxyId, reason: RemoveReason) {
        *self.changes.entry(Arc::clone(node)).or_insert(0) += 1;
        self.arrivals.push_back(Arrival::Removal(Arc::clone(node), id, reason));
    }

    /// Notes that a change of a node was carried out.
    fn change_done(&mut self, node: &Arc<str>) {
        if let Some(count) = self.changes.get_mut(node) {
            *count -= 1;
            if *count == 0 {
                self.changes.remove(node);
            }
        }
    }

    /// Returns whether a node changes its names and filters faster than the broker can follow.
    fn has_too_many_changes(&self, node: &str) -> bool {
        self.waiting_changes(node) > self.most_changes()
    }

    /// Returns whether the changes of a node that wait are too many for it to begin another link.
    fn has_many_changes(&self, node: &str) -> bool {
        self.waiting_changes(node) > self.most_changes() / 2
    }

    fn waiting_changes(&self, node: &str) -> usize {
        self.changes.get(node).copied().unwrap_or_default()
    }

    fn most_changes(&self) -> usize {
        self.settings.limits.max_names.saturating_mul(CHANGES_PER_NAME).saturating_add(SPARE_CHANGES)
    }
}
