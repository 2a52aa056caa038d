//! Other nodes: how they are found, and how links to them begin (section 5).
//!
//! A link begins when each node has proof that the other one answers now: a batch that contains the own epoch
//! and a session number that was never used before. What was published earlier and is repeated proves
//! nothing.

use super::{
    Bridge,
    candidates::{Answer, Candidates},
    claim::Beacon,
    link::{Link, LinkIds},
    receiving::Violation,
};
use crate::{
    output::{Destination, LostReason, Output},
    report::{Counters, ReportKind},
    wire::{BatchError, BatchKey, BatchKind, Header, Record, next_record, open},
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};

/// The longest batch that is examined at all, in bytes.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Time between two attempts to begin a link.
const HELLO_INTERVAL: Duration = Duration::from_millis(500);
/// Time for which no link begins after a node has sent what only a defective node sends.
const PENALTY: Duration = Duration::from_secs(10);
/// Time after which a node without a link is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// Another node.
#[derive(Debug)]
pub(super) struct Peer<C> {
    pub(super) key: BatchKey,
    pub(super) link: Option<Box<Link<C>>>,
    pub(super) counters: Counters,
    /// When a beacon arrived last.
    pub(super) beacon_at: Duration,
    /// Session of the own attempt to begin a link.
    hello: Option<u64>,
    next_hello: Duration,
    candidates: Candidates,
    /// No link begins before.
    blocked_until: Duration,
}

impl<C> Peer<C> {
    /// Returns when the next attempt to begin a link is due.
    pub(super) fn deadline(&self) -> Duration {
        if self.hello.is_some() && self.link.is_none() { self.next_hello } else { Duration::MAX }
    }
}

impl<C> Bridge<C> {
    /// Handles what has arrived on a subject.
    pub(super) fn receive(&mut self, is_to_all: bool, bytes: Bytes) {
        let key = if is_to_all { &self.key_of_all } else { &self.own_key };
        let opened = match bytes.len() <= MAX_BATCH_BYTES {
            true => open(&bytes, key),
            false => Err(BatchError::Stranger),
        };
        let (header, records) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let kind = match error {
                    BatchError::Stranger => ReportKind::Stranger,
                    BatchError::Version { .. } => ReportKind::Version,
                    BatchError::Malformed => ReportKind::Malformed,
                };
                return self.count(kind, None, 1);
            }
        };
        match (header.kind, is_to_all) {
            (BatchKind::Beacon, true) => self.receive_beacon(&header, records),
            (BatchKind::Hello, false) => self.receive_hello(&header),
            (BatchKind::Welcome, false) => self.receive_welcome(&header),
            (BatchKind::Link, false) => self.receive_link(&header, &bytes, records),
            _ => self.count(ReportKind::Malformed, None, 1),
        }
    }

    fn receive_beacon(&mut self, header: &Header<'_>, mut records: &[u8]) {
        let Some(Record::Beacon { has_name, count, contender }) = next_record(&mut records) else {
            return self.count(ReportKind::Malformed, None, 1);
        };
        let beacon = Beacon { has_name, count, contender };
        if header.node == self.settings.node {
            if header.from_epoch != self.epoch {
                let (changed, answer) = self.claim.answer_to(header.from_epoch, beacon, self.now);
                self.own_name(changed);
                if let Some(answer) = answer.filter(|_| self.is_connected) {
                    self.count(ReportKind::DuplicateNode, None, u64::from(has_name));
                    self.publish_beacon(answer);
                }
            }
            return;
        }
        if !has_name || !self.claim.has_name() {
            return;
        }
        let now = self.now;
        let Some((node, peer)) = self.peer(header.node) else { return };
        peer.beacon_at = now;
        let is_hello_due = now >= peer.next_hello.max(peer.blocked_until);
        match &peer.link {
            None => {
                // a start that wants a link already is about to confirm it
                let is_wanted = peer.candidates.is_wanted_by(header.from_epoch, now);
                if peer.hello.is_none() && !is_wanted && now >= peer.blocked_until {
                    // both attempts have the same session, so that both nodes agree whichever succeeds
                    peer.hello = peer.candidates.session_of(header.from_epoch);
                    self.say_hello(&node);
                }
            }
            Some(link) if link.peer_epoch != header.from_epoch => {
                if self.is_alive(&node) {
                    self.count(ReportKind::DuplicateNode, Some(&node), 1);
                } else if is_hello_due {
                    // it may have restarted, or its beacon is repeated: its answer ends the link, or silence
                    self.say_hello(&node);
                }
            }
            Some(_) => {}
        }
    }

    /// Returns whether the link to a node has given a sign of life within the last one and a half beats.
    fn is_alive(&self, node: &Arc<str>) -> bool {
        let beat = self.settings.limits.beat;
        let link = self.peers.get(node).and_then(|peer| peer.link.as_ref());
        link.is_some_and(|link| self.now < link.alive_at + beat + beat / 2)
    }

    /// Returns a peer, which is added if it is new and there are not too many.
    fn peer(&mut self, name: &str) -> Option<(Arc<str>, &mut Peer<C>)> {
        if !self.peers.contains_key(name) {
            if self.peers.len() >= self.settings.limits.max_nodes {
                self.count(ReportKind::NodesOverLimit, None, 1);
                return None;
            }
            let peer = Peer {
                key: BatchKey::new(&self.settings, Some(name)),
                link: None,
                counters: Counters::default(),
                beacon_at: self.now,
                hello: None,
                next_hello: self.now,
                candidates: Candidates::default(),
                blocked_until: Duration::ZERO,
            };
            self.peers.insert(Arc::from(name), peer);
        }
        let node = self.peers.get_key_value(name).map(|(node, _)| Arc::clone(node))?;
        self.peers.get_mut(name).map(|peer| (node, peer))
    }

    /// Repeats the attempt to begin a link, and forgets a node that is silent.
    pub(super) fn tick_handshake(&mut self, node: &Arc<str>) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(node) else { return };
        if now >= peer.beacon_at + FORGET_AFTER && now >= peer.blocked_until {
            self.peers.remove(node);
            return;
        }
        if now >= peer.beacon_at + self.settings.limits.lost_after {
            peer.hello = None;
        }
        if peer.hello.is_some() && now >= peer.next_hello {
            self.say_hello(node);
        }
    }

    /// Begins or repeats the attempt to begin a link.
    fn say_hello(&mut self, node: &Arc<str>) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        let session = *peer.hello.get_or_insert_with(|| {
            self.last_session += 1;
            self.last_session
        });
        peer.next_hello = self.now + HELLO_INTERVAL;
        self.publish_handshake(node, BatchKind::Hello, session, 0, 0);
    }

    fn publish_handshake(
        &mut self,
        node: &Arc<str>,
        kind: BatchKind,
        session: u64,
        to_epoch: u64,
        to_session: u64,
    ) {
        let Some(peer) = self.peers.get(node).filter(|_| self.is_connected) else { return };
        let header = Header {
            kind,
            from_epoch: self.epoch,
            to_epoch,
            from_session: session,
            to_session,
            sequence: 0,
            node: &self.settings.node,
        };
        let mut bytes = Vec::new();
        header.seal(&mut bytes, &peer.key);
        let to = Destination::Node(Arc::clone(node));
        self.outputs.push_back(Output::Publish { to, bytes: bytes.into() });
    }

    fn receive_hello(&mut self, header: &Header<'_>) {
        let is_valid = header.node != self.settings.node && header.from_session != 0;
        if !is_valid || !self.claim.has_name() {
            return;
        }
        let now = self.now;
        let session = self.last_session + 1;
        if self.has_many_changes(header.node) {
            return;
        }
        let Some((node, peer)) = self.peer(header.node) else { return };
        if now < peer.blocked_until {
            return;
        }
        if let Some(link) = &peer.link {
            if link.peer_epoch == header.from_epoch {
                if header.from_session <= link.peer_session {
                    return self.count(ReportKind::Replay, Some(&node), 1);
                }
            } else if self.is_alive(&node) {
                return self.count(ReportKind::DuplicateNode, Some(&node), 1);
            }
        }
        let Some(peer) = self.peers.get_mut(&node) else { return };
        // an attempt of the own is continued
        let session = peer.hello.unwrap_or(session);
        let candidate = match peer.candidates.hello(header.from_epoch, header.from_session, session, now) {
            Answer::Welcome(candidate) => candidate,
            Answer::Replay => return self.count(ReportKind::Replay, Some(&node), 1),
            Answer::None => return,
        };
        self.last_session = self.last_session.max(candidate.session);
        self.publish_handshake(
            &node,
            BatchKind::Welcome,
            candidate.session,
            candidate.epoch,
            candidate.peer_session,
        );
    }

    fn receive_welcome(&mut self, header: &Header<'_>) {
        let is_for_this_start = header.to_epoch == self.epoch && self.claim.has_name();
        let Some((node, peer)) = self.peers.get_key_value(header.node) else { return };
        let node = Arc::clone(node);
        // the link of a start that has fallen silent is replaced by that of a later one
        let is_free = peer
            .link
            .as_ref()
            .is_none_or(|link| link.peer_epoch != header.from_epoch && !self.is_alive(&node));
        let is_answer = is_for_this_start
            && is_free
            && !self.has_many_changes(&node)
            && header.from_session != 0
            && peer.hello == Some(header.to_session)
            && self.now >= peer.blocked_until;
        if is_answer {
            self.begin_link(&node, header.from_epoch, header.from_session, header.to_session);
        } else {
            self.count(ReportKind::Replay, Some(&node), 1);
        }
    }

    fn begin_link(&mut self, node: &Arc<str>, peer_epoch: u64, peer_session: u64, session: u64) {
        self.lose(node, LostReason::Restarted);
        self.last_link += 1;
        let ids = LinkIds { number: self.last_link, peer_epoch, peer_session, session };
        let link = Link::new(ids, &self.settings, self.now);
        self.links.insert(link.number, Arc::clone(node));
        let outbox = Arc::clone(&link.outbox);
        if let Some(peer) = self.peers.get_mut(node) {
            peer.link = Some(Box::new(link));
            peer.hello = None;
            peer.candidates.clear();
        }
        self.begin_outputs(node, outbox);
    }

    fn receive_link(&mut self, header: &Header<'_>, batch: &Bytes, records: &[u8]) {
        let Some((node, peer)) = self.peers.get_key_value(header.node) else {
            return self.count(ReportKind::Replay, None, 1);
        };
        let node = Arc::clone(node);
        let (from, to) = ((header.from_epoch, header.from_session), header.to_session);
        let is_for_this_start = header.to_epoch == self.epoch;
        let is_current = peer
            .link
            .as_ref()
            .is_some_and(|link| (link.peer_epoch, link.peer_session) == from && link.session == to);
        let confirms = peer.candidates.confirms(from, to);
        let confirms = confirms && !self.has_many_changes(&node);
        if !is_for_this_start || !(is_current || confirms) || self.now < peer.blocked_until {
            return self.count(ReportKind::Replay, Some(&node), 1);
        }
        if !is_current {
            self.begin_link(&node, from.0, from.1, to);
        }
        let Some(mut link) = self.peers.get_mut(&node).and_then(|peer| peer.link.take()) else { return };
        let result = self.receive_records(&node, &mut link, header.sequence, batch, records);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.link = Some(link);
        }
        match result {
            Ok(None) => {}
            Ok(Some(reason)) => self.lose(&node, reason),
            Err(Violation) => {
                self.count(ReportKind::Malformed, Some(&node), 1);
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.blocked_until = self.now + PENALTY;
                }
                self.lose(&node, LostReason::Violation);
            }
        }
    }

    /// Handles the records of a batch. Returns why the link ends, if it does.
    fn receive_records(
        &mut self,
        node: &Arc<str>,
        link: &mut Link<C>,
        sequence: u64,
        batch: &Bytes,
        mut records: &[u8],
    ) -> Result<Option<LostReason>, Violation> {
        let now = self.now;
        let Some(missing) = link.receiving.arrived(sequence, now)? else {
            self.count(ReportKind::Replay, Some(node), 1);
            return Ok(None);
        };
        self.count(ReportKind::BatchesLost, Some(node), missing);
        if missing > 0 {
            link.names.interrupt();
            link.filters.interrupt();
        }
        link.alive_at = now;
        if link.receiving.is_unreliable() {
            return Ok(Some(LostReason::Unreliable));
        }
        let (mut is_eliciting, before) = (false, self.arrivals.len());
        while !records.is_empty() {
            let record = next_record(&mut records).ok_or(Violation)?;
            is_eliciting |= !matches!(record, Record::Arrived { .. });
            if record == Record::Stop {
                return Ok(Some(LostReason::Stopped));
            }
            self.apply(node, link, record, batch)?;
        }
        if is_eliciting {
            link.receiving.elicited(batch.len(), now);
        }
        self.release_batch(before, batch.len());
        self.drained(node, link);
        if self.has_too_many_changes(node) {
            return Err(Violation);
        }
        Ok(link.owes_too_much().then_some(LostReason::Unreliable))
    }
}
