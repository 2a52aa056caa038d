//! What the lock of an outbox protects: runs that wait to be published, and everything that is known of those
//! that were.

use super::{
    OutgoingRun, Pushed, To,
    calls::{Calls, LostCall},
    chunk::{Chunk, Entry, cost_of_one, run_cost},
    congestion::{Acknowledged, CongestionWindow},
    list_parts,
    pending_results::PendingResults,
    recent::Recent,
    sender_queues::SenderQueues,
    windows::Windows,
};
use crate::{
    settings::Limits,
    wire::{List, RunHead},
};
use elbus_protocol::{Code, request::MAX_RUN};
use foldhash::fast::RandomState;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// Local clients that a node can answer although they are not exported.
const MAX_SENDERS: usize = 8192;
/// Changes of lists that wait, from which on a later snapshot stands for further ones, in bytes.
const MAX_DELTA_BYTES: usize = 1 << 20;

/// What is known of a run before the lock is taken.
#[derive(Debug, Default)]
pub(super) struct Measures {
    pub(super) count: usize,
    pub(super) longest: usize,
    /// Of the encoded messages.
    pub(super) bytes: usize,
    pub(super) has_calls: bool,
}

/// What was in an outbox that has ended.
#[derive(Debug)]
pub(crate) struct Leftovers<C> {
    /// Acknowledgements that waited, and their results.
    pub(crate) completed: Vec<(C, Code)>,
    /// Messages that were never published.
    pub(crate) messages: u64,
    /// Calls without a reply.
    pub(crate) calls: Vec<LostCall>,
}

/// A message that travels in pieces.
#[derive(Debug)]
struct Transfer {
    window: u64,
    cost: usize,
    reference: u64,
}

#[derive(Debug)]
pub(super) struct Queue<C> {
    is_open: bool,
    head_len: usize,
    batch_bytes: usize,
    piece_bytes: usize,
    congestion: CongestionWindow,
    chunks: VecDeque<Chunk>,
    /// Number of the first chunk; those before it were taken.
    first: u64,
    sender_queues: SenderQueues,
    piece_is_next: bool,
    transfers: HashMap<u32, Transfer, RandomState>,
    windows: Windows,
    /// Bytes of records in chunks.
    queued: usize,
    /// Bytes of changes of lists among them.
    delta_bytes: usize,
    /// Bytes of records in chunks that were taken and are neither arrived nor lost.
    in_flight: usize,
    results: PendingResults<C>,
    last_sender: String,
    senders: Recent<()>,
    calls: Calls,
}

impl<C> Queue<C> {
    pub(super) fn new(limits: &Limits, head_len: usize) -> Self {
        Queue {
            is_open: true,
            head_len,
            batch_bytes: limits.batch_bytes,
            piece_bytes: limits.piece_bytes,
            congestion: CongestionWindow::new(limits.pair_credit),
            chunks: VecDeque::new(),
            first: 1,
            sender_queues: SenderQueues::default(),
            piece_is_next: false,
            transfers: HashMap::default(),
            windows: Windows::new(limits),
            queued: 0,
            delta_bytes: 0,
            in_flight: 0,
            results: PendingResults::new(),
            last_sender: String::new(),
            senders: Recent::new(MAX_SENDERS),
            calls: Calls::new(limits.max_calls),
        }
    }

    pub(super) fn push<'p>(
        &mut self,
        run: &OutgoingRun<'_>,
        measures: Measures,
        payloads: impl Iterator<Item = &'p [u8]> + Clone,
        defer: impl FnOnce() -> Option<C>,
    ) -> Pushed {
        let (id, topic) = match run.to {
            To::Client(proxy) => (proxy.0, None),
            To::Topic(topic) => (0, Some(topic)),
        };
        if !self.is_open {
            return Pushed::Closed;
        }
        let target = match self.windows.target(id) {
            Ok(target) => target,
            Err(pushed) => return pushed,
        };
        let wakes = self.chunks.is_empty() && self.sender_queues.is_empty();
        let completion = if topic.is_none() && run.qos.wants_ack() { defer() } else { None };
        let reference = if completion.is_some() { self.results.next_reference() } else { 0 };
        let head = RunHead {
            op: run.op,
            qos: run.qos,
            window: id,
            reference,
            sender: run.sender,
            target: topic.unwrap_or(&target),
        };
        self.record_sender(run.sender);
        if measures.has_calls {
            self.calls.add(run.sender, id, payloads.clone());
        }
        let (parts, cost) = self.append(&head, &target, payloads, &measures);
        if let Some(completion) = completion {
            self.results.add(completion, parts);
        }
        self.windows.add(id, cost);
        Pushed::Taken { is_full: self.windows.check_full(id, self.load()), wakes }
    }

    /// Appends the messages of a run. Returns in how many records, and the bytes that count for the window.
    fn append<'p>(
        &mut self,
        head: &RunHead<'_>,
        target: &Arc<str>,
        payloads: impl Iterator<Item = &'p [u8]>,
        measures: &Measures,
    ) -> (u32, usize) {
        let mut payloads = payloads.peekable();
        let (mut parts, mut cost) = (0, 0);
        // an acknowledged run that is not longer than a piece has one result: it is not split
        let is_whole = head.reference != 0 && measures.count <= MAX_RUN && measures.bytes <= self.piece_bytes;
        let cost_of_whole = run_cost(head, measures.bytes);
        let limit = if is_whole { self.head_len + cost_of_whole } else { 0 };
        let limits = (self.batch_bytes, self.piece_bytes);
        let limits_of_new = (self.batch_bytes.max(limit), self.piece_bytes);
        let may_hold = measures.longest > self.piece_bytes || !self.sender_queues.is_empty();
        while let Some(first) = payloads.peek() {
            parts += 1;
            if first.len() > self.piece_bytes {
                let target = if head.window == 0 { Arc::from(head.target) } else { Arc::clone(target) };
                self.sender_queues.push_long(head, target, first, self.last_number());
                cost += cost_of_one(head, first.len());
                payloads.next();
            } else if may_hold && self.sender_queues.holds(head.sender, head.op, head.window) {
                let mut chunk = Chunk::new(0, 0);
                let (messages, bytes) = chunk.append(head, &mut payloads, 0, limits_of_new);
                let entry = Entry::of_run(head, bytes, messages);
                self.sender_queues.push_short(head, chunk.bytes, entry, self.last_number());
                cost += bytes;
            } else {
                let last = self
                    .chunks
                    .back_mut()
                    .filter(|chunk| !is_whole || chunk.bytes.len() + cost_of_whole <= self.batch_bytes);
                let appended =
                    last.map_or((0, 0), |chunk| chunk.append(head, &mut payloads, self.head_len, limits));
                let (messages, bytes) = match appended {
                    (0, _) => {
                        let capacity = limits_of_new.0.max(first_len(&mut payloads));
                        let mut chunk = Chunk::new(self.head_len, capacity);
                        let appended = chunk.append(head, &mut payloads, self.head_len, limits_of_new);
                        self.chunks.push_back(chunk);
                        appended
                    }
                    appended => appended,
                };
                debug_assert!(messages > 0, "every step takes a message");
                self.queued += bytes;
                cost += bytes;
            }
        }
        (parts, cost)
    }

    /// Number of the last chunk.
    fn last_number(&self) -> u64 {
        self.first + self.chunks.len() as u64 - 1
    }

    fn record_sender(&mut self, sender: &str) {
        if self.last_sender == sender {
            return;
        }
        self.last_sender.clear();
        self.last_sender.push_str(sender);
        self.senders.insert(&sender, ());
    }

    pub(super) fn replied<'p>(&mut self, window: u64, caller: &str, replies: impl Iterator<Item = &'p [u8]>) {
        self.calls.replied(window, caller, replies);
    }

    pub(super) fn take_calls_dropped(&mut self) -> u64 {
        self.calls.take_dropped()
    }

    pub(super) fn has_sent(&self, client: &str) -> bool {
        self.senders.contains(&client)
    }

    fn load(&self) -> usize {
        self.queued + self.sender_queues.bytes() + self.in_flight
    }

    pub(super) fn is_full(&self, id: u64) -> bool {
        self.windows.is_full(id, self.load())
    }

    pub(super) fn take_drained(&mut self) -> Vec<u64> {
        self.windows.take_drained(self.load())
    }

    pub(super) fn outstanding(&self, id: u64) -> usize {
        self.windows.outstanding(id)
    }

    pub(super) fn open(&mut self, id: u64, target: Arc<str>) {
        self.windows.open(id, target);
    }

    pub(super) fn close(&mut self, id: u64) {
        self.windows.close(id);
    }

    pub(super) fn returned(&mut self, id: u64, bytes: usize) -> bool {
        self.windows.returned(id, bytes)
    }

    pub(super) fn loads(&self) -> (usize, usize) {
        (self.queued + self.sender_queues.bytes(), self.in_flight)
    }

    pub(super) fn take_chunk(&mut self) -> Option<Chunk> {
        if self.in_flight >= self.congestion.bytes() {
            return None;
        }
        let takes_piece = self.piece_is_next || self.chunks.is_empty();
        let limits = (self.batch_bytes, self.piece_bytes);
        let (head_len, first) = (self.head_len, self.first);
        let room = self.piece_bytes;
        let piece = if takes_piece && !self.sender_queues.is_empty() {
            self.sender_queues.take(first, limits, || Chunk::new(head_len, room))
        } else {
            None
        };
        self.piece_is_next = piece.is_none();
        let mut chunk = match piece {
            Some(chunk) => {
                self.begin_transfers(&chunk);
                chunk
            }
            None => {
                let chunk = self.chunks.pop_front()?;
                self.first += 1;
                self.queued -= chunk.bytes.len() - self.head_len;
                self.delta_bytes -= chunk.names.delta_bytes + chunk.interest.delta_bytes;
                chunk
            }
        };
        self.in_flight += chunk.bytes.len() - self.head_len;
        chunk.in_flight = self.in_flight;
        Some(chunk)
    }

    fn begin_transfers(&mut self, chunk: &Chunk) {
        for entry in chunk.entries.iter().filter(|entry| entry.transfer != 0) {
            let transfer = Transfer { window: entry.window, cost: entry.bytes, reference: entry.reference };
            self.transfers.insert(entry.transfer, transfer);
        }
    }

    pub(super) fn append_list(&mut self, list: List, version: u64, changes: &[(bool, &str)], is_delta: bool) {
        for part in list_parts::parts(changes, is_delta) {
            let needed = part.bytes + 32;
            if self.chunks.back().is_none_or(|chunk| chunk.bytes.len() + needed > self.batch_bytes) {
                self.chunks.push_back(Chunk::new(self.head_len, needed));
            }
            if let Some(chunk) = self.chunks.back_mut() {
                let len = chunk.append_part(list, version, part.kind, part.changes.iter().copied());
                self.queued += len;
                self.delta_bytes += if is_delta { len } else { 0 };
            }
        }
    }

    /// Returns whether there is room for changes of lists: not more of them wait than a snapshot would have.
    pub(super) fn has_room_for_changes(&self) -> bool {
        self.delta_bytes < MAX_DELTA_BYTES
    }

    /// Returns whether part of a snapshot of the list was not taken.
    pub(super) fn has_snapshot(&self, list: List) -> bool {
        self.chunks.iter().any(|chunk| chunk.parts_of(list).is_open.is_some())
    }

    pub(super) fn arrived(&mut self, batch: Acknowledged, entries: &[Entry]) {
        if batch.bytes > 0 {
            self.congestion.arrived(batch);
        }
        self.in_flight -= batch.bytes.min(self.in_flight);
        for entry in entries.iter().filter(|entry| entry.is_last_piece) {
            self.transfers.remove(&entry.transfer);
        }
    }

    pub(super) fn lost(
        &mut self,
        bytes: usize,
        entries: &[Entry],
        completed: &mut Vec<(C, Code)>,
    ) -> (u64, Vec<u32>) {
        self.in_flight -= bytes.min(self.in_flight);
        let (mut messages, mut transfers) = (0, Vec::new());
        for entry in entries {
            if entry.transfer == 0 {
                messages += u64::from(entry.messages);
                self.windows.returned(entry.window, entry.bytes);
                self.results.result(entry.reference, Code::Timeout, completed);
            } else if let Some(transfer) = self.transfers.remove(&entry.transfer) {
                messages += 1;
                self.windows.returned(transfer.window, transfer.cost);
                self.results.result(transfer.reference, Code::Timeout, completed);
                self.sender_queues.drop_transfer(entry.transfer);
                transfers.push(entry.transfer);
            }
        }
        (messages, transfers)
    }

    pub(super) fn next_reference(&self) -> u64 {
        self.results.next_reference()
    }

    pub(super) fn results(
        &mut self,
        results: impl Iterator<Item = (u64, Code)>,
        completed: &mut Vec<(C, Code)>,
    ) -> u64 {
        self.results.results(results, completed)
    }

    pub(super) fn time_out(&mut self, upto: u64, completed: &mut Vec<(C, Code)>) {
        self.results.time_out(upto, completed);
    }

    pub(super) fn end(&mut self) -> Leftovers<C> {
        self.is_open = false;
        let mut unsent: HashMap<u64, u32> = HashMap::new();
        let mut messages = 0;
        for entry in self.chunks.drain(..).flat_map(|chunk| chunk.entries) {
            messages += u64::from(entry.messages);
            *unsent.entry(entry.reference).or_insert(0) += 1;
        }
        for (reference, count, was_begun) in self.sender_queues.end() {
            messages += u64::from(count);
            *unsent.entry(reference).or_insert(0) += u32::from(!was_begun);
        }
        let completed = self.results.end(&unsent);
        self.windows.clear();
        self.transfers.clear();
        (self.queued, self.in_flight) = (0, 0);
        Leftovers { completed, messages, calls: self.calls.take() }
    }
}

/// Returns the length of the next message.
fn first_len<'p>(payloads: &mut std::iter::Peekable<impl Iterator<Item = &'p [u8]>>) -> usize {
    payloads.peek().map_or(0, |payload| payload.len())
}
