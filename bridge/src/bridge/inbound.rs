//! Records of a link, and runs of remote clients on their way to the broker.

use super::{
    Arrival, Bridge,
    link::Link,
    pieces::{Assembled, LongHead},
    proxies::Parked,
    receiving::Violation,
};
use crate::{
    delivery::{Delivery, Ticket},
    outbox::cost_of_one,
    output::{Output, RemoveReason},
    payloads::Payloads,
    proxy_id::ProxyId,
    report::ReportKind,
    wire::{RECORD_HEAD_BYTES, RUN_HEAD_BYTES, Record, RunHead},
};
use bytes::Bytes;
use elbus_protocol::{Code, Op, name, subscription};
use std::sync::Arc;

/// The least that a run counts for while it waits: what it occupies besides its messages.
const LEAST_COST: usize = 256;

impl<C> Bridge<C> {
    /// Handles one record of a link.
    pub(super) fn apply(
        &mut self,
        node: &Arc<str>,
        link: &mut Link<C>,
        record: Record<'_>,
        batch: &Bytes,
    ) -> Result<(), Violation> {
        let now = self.now;
        match record {
            Record::Run { head, count, payloads } => {
                let cost = RECORD_HEAD_BYTES
                    + RUN_HEAD_BYTES
                    + head.sender.len()
                    + head.target.len()
                    + payloads.len();
                let payloads = Payloads::decode(batch.slice_ref(payloads), count).ok_or(Violation)?;
                let target = batch.slice_ref(head.target.as_bytes());
                self.run_arrived(node, link, &head, target, payloads, (cost, batch.len()));
            }
            Record::FirstPiece { transfer, total, head, piece } => {
                let total = usize::try_from(total).map_err(|_| Violation)?;
                let assembled = link.pieces.first(transfer, total, &head, piece);
                self.piece_arrived(node, link, assembled);
            }
            Record::NextPiece { transfer, offset, piece } => {
                let offset = usize::try_from(offset).map_err(|_| Violation)?;
                let assembled = link.pieces.next(transfer, offset, piece);
                self.piece_arrived(node, link, assembled);
            }
            Record::DropPieces { transfer } => {
                let was_incomplete = link.pieces.drop_message(transfer);
                self.count(ReportKind::Incomplete, Some(node), u64::from(was_incomplete));
            }
            Record::Results(results) => {
                let mut completed = Vec::new();
                let unknown = link.outbox.results(results.iter(), &mut completed);
                self.count(ReportKind::UnknownResult, Some(node), unknown);
                self.complete(completed);
            }
            Record::Arrived { upto, lost } => {
                let result = link.acknowledge(upto, lost.iter(), now)?;
                self.count(ReportKind::MessagesLost, Some(node), result.messages_lost);
                self.complete(result.completed);
            }
            Record::Windows(windows) => {
                let wrong = windows.iter().filter(|(id, bytes)| {
                    !link.outbox.returned(*id, usize::try_from(*bytes).unwrap_or(usize::MAX))
                });
                let wrong = wrong.count() as u64;
                self.count(ReportKind::UnknownWindow, Some(node), wrong);
            }
            Record::Names(changes) => self.names_arrived(node, link, &changes),
            Record::Interest(changes) => self.interest_arrived(node, link, &changes),
            Record::Ping | Record::Stop => {}
            Record::Beacon { .. } => return Err(Violation),
        }
        Ok(())
    }

    fn piece_arrived(&mut self, node: &Arc<str>, link: &mut Link<C>, assembled: Assembled) {
        match assembled {
            Assembled::Incomplete => {}
            Assembled::Unknown => self.count(ReportKind::Incomplete, Some(node), 1),
            Assembled::Refused(head, total) => {
                let cost = cost_of_one(&head.as_run(), total);
                let ticket = Self::ticket(link, &head.as_run(), cost);
                link.untaken += cost.max(LEAST_COST);
                self.count(ReportKind::WindowExceeded, Some(node), 1);
                self.finish(link, &ticket, Some(Code::NotDelivered));
            }
            Assembled::Complete(head, encoded) => self.long_arrived(node, link, &head, encoded),
        }
    }

    fn long_arrived(&mut self, node: &Arc<str>, link: &mut Link<C>, head: &LongHead, encoded: Bytes) {
        let cost = cost_of_one(&head.as_run(), encoded.len() - 4);
        let len = encoded.len();
        if let Some(payloads) = Payloads::decode(encoded, 1) {
            let target = Bytes::copy_from_slice(head.target.as_bytes());
            self.run_arrived(node, link, &head.as_run(), target, payloads, (cost, len));
        }
    }

    fn ticket(link: &Link<C>, head: &RunHead<'_>, cost: usize) -> Ticket {
        Ticket { link: link.number, window: head.window, bytes: cost, reference: head.reference }
    }

    /// A run has arrived as a whole. With it comes what it counts for its window, and the length of what it
    /// is a part of.
    fn run_arrived(
        &mut self,
        node: &Arc<str>,
        link: &mut Link<C>,
        head: &RunHead<'_>,
        target: Bytes,
        payloads: Payloads,
        (cost, of_bytes): (usize, usize),
    ) {
        let ticket = Self::ticket(link, head, cost);
        link.untaken += cost.max(LEAST_COST);
        let count = payloads.len() as u64;
        if let Err((kind, code)) = self.check_run(link, head) {
            self.count(kind, Some(node), count);
            return self.finish(link, &ticket, Some(code));
        }
        let Some(sender) = self.sender(node, link, head.sender) else {
            self.count(ReportKind::NamesOverLimit, Some(node), count);
            return self.finish(link, &ticket, Some(Code::NotDelivered));
        };
        if head.op == Op::Message {
            link.outbox.replied(sender, head.target, payloads.iter());
        }
        let node = Arc::clone(node);
        let (op, qos) = (head.op, head.qos);
        let delivery = Delivery { node, sender, op, qos, payloads, ticket, target, of_bytes };
        self.arrivals.push_back(Arrival::Run(delivery));
    }

    /// Returns whether a run can be dispatched; if not, what is counted and its result.
    fn check_run(&self, link: &Link<C>, head: &RunHead<'_>) -> Result<(), (ReportKind, Code)> {
        let limits = &self.settings.limits;
        if link.untaken > limits.most_untaken() {
            return Err((ReportKind::WindowExceeded, Code::NotDelivered));
        }
        let is_sender_valid = !matches!(head.sender.as_bytes(), [] | [b'@', ..])
            && head.sender.len() <= limits.max_name_bytes
            && !head.sender.contains('\0');
        if !is_sender_valid || head.target.contains('\0') {
            return Err((ReportKind::NamesInvalid, Code::BadData));
        }
        if head.op == Op::Publish {
            return match self.settings.imports.has_topic(head.target) {
                _ if subscription::has_options(head.target) => Err((ReportKind::NamesInvalid, Code::BadData)),
                true => Ok(()),
                false => Err((ReportKind::NotImported, Code::NotRegistered)),
            };
        }
        let exports = &self.settings.exports;
        let is_local = !matches!(head.target.as_bytes(), [] | [b'@' | b'.', ..]);
        let is_exact =
            head.op == Op::Message || !head.target.split('.').any(|segment| matches!(segment, "?" | "*"));
        let is_exported = is_local
            && is_exact
            && (exports.has_name(head.target)
                || exports.has_name(name::primary_of(head.target))
                || link.outbox.has_sent(head.target));
        if is_exported { Ok(()) } else { Err((ReportKind::NotExported, Code::NotRegistered)) }
    }

    /// Copies what has arrived since there were `before` arrivals out of its batch, unless runs are most of
    /// it: short runs do not keep a long batch until they are dispatched.
    pub(super) fn release_batch(&mut self, before: usize, batch_len: usize) {
        let runs = self.arrivals.iter().skip(before).filter_map(|arrival| match arrival {
            Arrival::Run(delivery) => Some(delivery.payloads.encoded_len()),
            _ => None,
        });
        if runs.sum::<usize>() >= batch_len / 2 {
            return;
        }
        for arrival in self.arrivals.iter_mut().skip(before) {
            if let Arrival::Run(delivery) = arrival {
                delivery.compact();
            }
        }
    }

    /// Returns the next run to dispatch, or another output that keeps its order with runs.
    pub(super) fn next_arrival(&mut self) -> Option<Output<C>> {
        while let Some(parked) = self.proxies.next_parked() {
            match parked {
                Parked::Run(delivery) => return Some(Output::Dispatch(delivery)),
                Parked::Leaves(id, reason) => {
                    if let Some(output) = self.remove_proxy(id, reason) {
                        return Some(output);
                    }
                }
            }
        }
        while let Some(arrival) = self.arrivals.pop_front() {
            match arrival {
                Arrival::Change(node, output) => {
                    self.change_done(&node);
                    return Some(output);
                }
                Arrival::Removal(node, id, reason) => {
                    self.change_done(&node);
                    match self.proxies.get_mut(id) {
                        Some(proxy) if proxy.is_held || !proxy.parked.is_empty() => {
                            proxy.leaves = Some(reason);
                        }
                        _ => {
                            if let Some(output) = self.remove_proxy(id, reason) {
                                return Some(output);
                            }
                        }
                    }
                }
                Arrival::Run(delivery) => {
                    if let Some(delivery) = self.admit(delivery) {
                        return Some(Output::Dispatch(delivery));
                    }
                }
            }
        }
        None
    }

    /// Returns the run if it can be dispatched now.
    fn admit(&mut self, mut delivery: Delivery) -> Option<Delivery> {
        let Some(proxy) = self.proxies.get_mut(delivery.sender) else {
            // its node was lost in the meantime
            let (node, count) = (Arc::clone(&delivery.node), delivery.payloads.len() as u64);
            self.count(ReportKind::DeliveriesDropped, Some(&node), count);
            return None;
        };
        if proxy.is_refused {
            self.drop_delivery(&delivery);
            return None;
        }
        if proxy.is_held || !proxy.parked.is_empty() {
            delivery.compact();
            proxy.parked.push_back(delivery);
            return None;
        }
        Some(delivery)
    }

    /// Counts and answers a run of a client that the broker has not registered.
    pub(super) fn drop_delivery(&mut self, delivery: &Delivery) {
        let count = delivery.payloads.len() as u64;
        self.count(ReportKind::DeliveriesDropped, Some(&delivery.node), count);
        self.dispatched(&delivery.ticket, Some(Code::NotDelivered));
    }

    /// A run was dispatched. `code` is its result, or `None` if the broker supplies it later: then
    /// [`result`](Self::result) follows.
    pub fn dispatched(&mut self, ticket: &Ticket, code: Option<Code>) {
        let Some(node) = self.links.get(&ticket.link).cloned() else { return };
        let Some(mut link) = self.peers.get_mut(&node).and_then(|peer| peer.link.take()) else { return };
        self.finish(&mut link, ticket, code);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.link = Some(link);
        }
    }

    /// Returns the bytes of a run to its sender, and its result if there is one.
    fn finish(&mut self, link: &mut Link<C>, ticket: &Ticket, code: Option<Code>) {
        let limits = &self.settings.limits;
        link.untaken -= ticket.bytes.max(LEAST_COST).min(link.untaken);
        let enough = limits.receiver_window / 8;
        link.sending.add_window(ticket.window, ticket.bytes, enough, self.now);
        if let Some(code) = code.filter(|_| ticket.reference != 0) {
            link.sending.add_result(ticket.reference, code);
        }
    }

    /// The result of a run that was pending.
    pub fn result(&mut self, ticket: &Ticket, code: Code) {
        let Some(peer) = self.links.get(&ticket.link).and_then(|node| self.peers.get_mut(node)) else {
            return;
        };
        if let Some(link) = peer.link.as_mut().filter(|_| ticket.reference != 0) {
            link.sending.add_result(ticket.reference, code);
        }
    }

    /// A run was not dispatched because a receiver is full. It comes again as the first of its sender after
    /// [`ready`](Self::ready).
    pub fn blocked(&mut self, mut delivery: Delivery) {
        match self.proxies.get_mut(delivery.sender) {
            Some(proxy) => {
                delivery.compact();
                proxy.is_held = true;
                proxy.parked.push_front(delivery);
            }
            None => {
                let (node, count) = (Arc::clone(&delivery.node), delivery.payloads.len() as u64);
                self.count(ReportKind::DeliveriesDropped, Some(&node), count);
            }
        }
    }

    /// A receiver of the sender's runs is full: its later runs wait until [`ready`](Self::ready).
    pub fn hold(&mut self, sender: ProxyId) {
        if let Some(proxy) = self.proxies.get_mut(sender) {
            proxy.is_held = true;
        }
    }

    /// The receivers of a sender that was held have drained.
    pub fn ready(&mut self, sender: ProxyId) {
        self.proxies.ready(sender);
    }

    /// Notes that senders to some clients of a node can continue.
    pub(super) fn drained(&mut self, node: &Arc<str>, link: &Link<C>) {
        for window in link.outbox.take_drained() {
            let proxy = (window != 0).then_some(ProxyId(window));
            self.outputs.push_back(Output::Drained { node: Arc::clone(node), proxy });
        }
    }

    /// Removes a proxy whose client has left. Returns the output, unless the broker has not registered it.
    fn remove_proxy(&mut self, id: ProxyId, reason: RemoveReason) -> Option<Output<C>> {
        let proxy = self.proxies.remove(id)?;
        if let Some(link) = self.peers.get_mut(&proxy.node).and_then(|peer| peer.link.as_mut()) {
            link.outbox.close(id);
            link.unlisted.remove(&id);
            if link.proxies.get(&proxy.remote) == Some(&id) {
                link.proxies.remove(&proxy.remote);
            }
        }
        if proxy.is_refused {
            return None;
        }
        // a later client of the same name has waited for this one to leave
        self.retry_name(&proxy.local);
        Some(Output::RemoveProxy { proxy: id, reason })
    }
}
