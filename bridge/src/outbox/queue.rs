//! What the lock of an outbox protects: chunks, lanes, windows, waiting acknowledgements and calls.

use super::{
    OutgoingRun, Pushed, To,
    chunk::{Chunk, Entry, cost_of_one, run_cost},
    is_call,
    lanes::Lanes,
    recent::Recent,
};
use crate::{
    settings::Limits,
    wire::{List, ListPart, RunHead, append_list},
};
use elbus_protocol::{Code, request::MAX_RUN};
use foldhash::fast::RandomState;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// The least that a receiver can have outstanding when the window of its node is exhausted, in bytes.
const LEAST_WINDOW: usize = 16 << 10;
/// Local clients that a node can answer although they are not exported.
const MAX_SENDERS: usize = 8192;
/// Length of a part of a snapshot from which the next part begins, in bytes.
const PART_BYTES: usize = 8 << 10;

/// What is known of a run before the lock is taken.
#[derive(Debug, Default)]
pub(super) struct Measures {
    pub(super) count: usize,
    pub(super) longest: usize,
    /// Of the encoded messages.
    pub(super) bytes: usize,
    pub(super) has_calls: bool,
}

/// A call to a client of a node that was lost.
#[derive(Debug)]
pub(crate) struct LostCall {
    pub(crate) caller: Arc<str>,
    pub(crate) window: u64,
    pub(crate) call_id: u32,
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

/// Bytes queued, or sent and not yet taken by the far broker.
#[derive(Debug)]
struct Window {
    target: Arc<str>,
    outstanding: usize,
    max: usize,
    /// Whether senders wait for it to drain.
    is_full: bool,
    is_open: bool,
}

/// An acknowledgement that waits for results.
#[derive(Debug)]
struct Waiting<C> {
    completion: C,
    /// Records that the run travels in.
    parts: u32,
    /// Those of them without a result.
    left: u32,
    /// `None` before the first result.
    code: Option<Code>,
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
    pair_credit: usize,
    receiver_window: usize,
    node_window: usize,
    chunks: VecDeque<Chunk>,
    /// Number of the first chunk; those before it were taken.
    first: u64,
    lanes: Lanes,
    lane_is_next: bool,
    transfers: HashMap<u32, Transfer, RandomState>,
    windows: HashMap<u64, Window, RandomState>,
    /// Windows with [`Window::is_full`].
    full: Vec<u64>,
    /// Sum of all windows.
    outstanding: usize,
    /// Bytes of records in chunks.
    queued: usize,
    /// Bytes of records in chunks that were taken and are neither arrived nor lost.
    in_flight: usize,
    waiting: HashMap<u64, Waiting<C>, RandomState>,
    next_reference: u64,
    last_sender: String,
    senders: Recent<()>,
    calls: Recent<LostCall>,
    calls_dropped: u64,
}

impl<C> Queue<C> {
    pub(super) fn new(limits: &Limits, head_len: usize) -> Self {
        let mut windows = HashMap::<u64, Window, RandomState>::default();
        windows.insert(0, Window::new(Arc::from(""), limits.publication_window));
        Queue {
            is_open: true,
            head_len,
            batch_bytes: limits.batch_bytes,
            piece_bytes: limits.piece_bytes,
            pair_credit: limits.pair_credit,
            receiver_window: limits.receiver_window,
            node_window: limits.node_window,
            chunks: VecDeque::new(),
            first: 1,
            lanes: Lanes::default(),
            lane_is_next: false,
            transfers: HashMap::default(),
            windows,
            full: Vec::new(),
            outstanding: 0,
            queued: 0,
            in_flight: 0,
            waiting: HashMap::default(),
            next_reference: 1,
            last_sender: String::new(),
            senders: Recent::new(MAX_SENDERS),
            calls: Recent::new(limits.max_calls),
            calls_dropped: 0,
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
        let target = match self.windows.get(&id) {
            Some(window) if self.is_open && window.is_open => {
                if window.outstanding > 2 * window.max || self.outstanding > 2 * self.node_window {
                    return Pushed::Refused;
                }
                Arc::clone(&window.target)
            }
            _ => return Pushed::Closed,
        };
        let wakes = self.chunks.is_empty() && self.lanes.is_empty();
        let completion = if topic.is_none() && run.qos.wants_ack() { defer() } else { None };
        let reference = if completion.is_some() { self.next_reference } else { 0 };
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
            self.record_calls(run.sender, id, payloads.clone());
        }
        let (parts, cost) = self.append(&head, &target, payloads, &measures);
        if let Some(completion) = completion {
            self.next_reference += 1;
            self.waiting.insert(reference, Waiting { completion, parts, left: parts, code: None });
        }
        self.outstanding += cost;
        if let Some(window) = self.windows.get_mut(&id) {
            window.outstanding += cost;
        }
        Pushed::Taken { is_full: self.check_full(id), wakes }
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
        let may_hold = measures.longest > self.piece_bytes || !self.lanes.is_empty();
        while let Some(first) = payloads.peek() {
            parts += 1;
            if first.len() > self.piece_bytes {
                let target = if head.window == 0 { Arc::from(head.target) } else { Arc::clone(target) };
                self.lanes.push_long(head, target, first, self.last_number());
                cost += cost_of_one(head, first.len());
                payloads.next();
            } else if may_hold && self.lanes.holds(head.sender, head.op, head.window) {
                let mut chunk = Chunk::new(0, 0);
                let (messages, bytes) = chunk.append(head, &mut payloads, 0, limits_of_new);
                let entry = Entry::of_run(head, bytes, messages);
                self.lanes.push_short(head, chunk.bytes, entry, self.last_number());
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

    fn record_calls<'p>(&mut self, sender: &str, window: u64, payloads: impl Iterator<Item = &'p [u8]>) {
        let caller: Arc<str> = Arc::from(sender);
        for payload in payloads.filter(|payload| is_call(payload)) {
            let call_id = call_id(payload);
            let call = LostCall { caller: Arc::clone(&caller), window, call_id };
            self.calls_dropped += self.calls.insert(&(sender, window, call_id), call) as u64;
        }
    }

    pub(super) fn replied<'p>(&mut self, window: u64, caller: &str, replies: impl Iterator<Item = &'p [u8]>) {
        for reply in replies {
            self.calls.remove(&(caller, window, call_id(reply)));
        }
    }

    pub(super) fn take_calls_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.calls_dropped)
    }

    pub(super) fn has_sent(&self, client: &str) -> bool {
        self.senders.contains(&client)
    }

    /// Returns the most that a window may have outstanding at present.
    fn limit(&self, window: &Window) -> usize {
        let left = self.node_window.saturating_sub(self.outstanding) / 2;
        window.max.min(left.max(LEAST_WINDOW))
    }

    fn load(&self) -> usize {
        self.queued + self.lanes.bytes() + self.in_flight
    }

    /// Determines whether senders to a window should wait, and notes it if they should.
    fn check_full(&mut self, id: u64) -> bool {
        let Some(window) = self.windows.get(&id) else { return false };
        let is_full = window.outstanding > self.limit(window) || self.load() > self.pair_credit;
        if is_full && !window.is_full {
            self.full.push(id);
            if let Some(window) = self.windows.get_mut(&id) {
                window.is_full = true;
            }
        }
        is_full
    }

    fn has_drained(&self, id: u64) -> bool {
        self.windows.get(&id).is_none_or(|window| {
            window.outstanding <= self.limit(window) / 2 && self.load() <= self.pair_credit / 2
        })
    }

    pub(super) fn is_full(&self, id: u64) -> bool {
        self.windows.get(&id).is_some_and(|window| window.is_full) && !self.has_drained(id)
    }

    pub(super) fn take_drained(&mut self) -> Vec<u64> {
        if self.full.is_empty() {
            return Vec::new();
        }
        let full = std::mem::take(&mut self.full);
        let (drained, full) = full.into_iter().partition(|id| self.has_drained(*id));
        self.full = full;
        for id in &drained {
            if let Some(window) = self.windows.get_mut(id) {
                window.is_full = false;
            }
        }
        drained
    }

    pub(super) fn outstanding(&self, id: u64) -> usize {
        self.windows.get(&id).map_or(0, |window| window.outstanding)
    }

    pub(super) fn open(&mut self, id: u64, target: Arc<str>) {
        let max = self.receiver_window;
        let window = self.windows.entry(id).or_insert_with(|| Window::new(target, max));
        window.is_open = true;
    }

    pub(super) fn close(&mut self, id: u64) {
        if let Some(window) = self.windows.get_mut(&id) {
            window.is_open = false;
            if window.outstanding == 0 {
                self.windows.remove(&id);
            }
        }
    }

    pub(super) fn returned(&mut self, id: u64, bytes: usize) -> bool {
        let Some(window) = self.windows.get_mut(&id) else { return false };
        let returned = bytes.min(window.outstanding);
        window.outstanding -= returned;
        self.outstanding -= returned;
        if window.outstanding == 0 && !window.is_open {
            self.windows.remove(&id);
        }
        returned == bytes
    }

    pub(super) fn loads(&self) -> (usize, usize) {
        (self.queued + self.lanes.bytes(), self.in_flight)
    }

    pub(super) fn take_chunk(&mut self) -> Option<Chunk> {
        if self.in_flight >= self.pair_credit {
            return None;
        }
        let takes_lane = self.lane_is_next || self.chunks.is_empty();
        let limits = (self.batch_bytes, self.piece_bytes);
        let (head_len, first) = (self.head_len, self.first);
        let room = self.piece_bytes;
        let piece = if takes_lane && !self.lanes.is_empty() {
            self.lanes.take(first, limits, || Chunk::new(head_len, room))
        } else {
            None
        };
        self.lane_is_next = piece.is_none();
        let chunk = match piece {
            Some(chunk) => {
                self.begin_transfers(&chunk);
                chunk
            }
            None => {
                let chunk = self.chunks.pop_front()?;
                self.first += 1;
                self.queued -= chunk.bytes.len() - self.head_len;
                chunk
            }
        };
        self.in_flight += chunk.bytes.len() - self.head_len;
        Some(chunk)
    }

    fn begin_transfers(&mut self, chunk: &Chunk) {
        for entry in chunk.entries.iter().filter(|entry| entry.transfer != 0) {
            let transfer = Transfer { window: entry.window, cost: entry.bytes, reference: entry.reference };
            self.transfers.insert(entry.transfer, transfer);
        }
    }

    pub(super) fn append_list(&mut self, list: List, version: u64, changes: &[(bool, &str)], is_delta: bool) {
        let mut rest = changes;
        let mut is_first = true;
        loop {
            let (mut bytes, mut count) = (0, 0);
            while let Some((_, text)) = rest.get(count)
                && (count == 0 || bytes < PART_BYTES)
            {
                bytes += 3 + text.len();
                count += 1;
            }
            let (part, behind) = rest.split_at(count);
            let kind = match (is_delta, is_first, behind.is_empty()) {
                (true, ..) => ListPart::Delta,
                (false, true, true) => ListPart::Only,
                (false, true, false) => ListPart::First,
                (false, false, false) => ListPart::Next,
                (false, false, true) => ListPart::Last,
            };
            let needed = bytes + 32;
            if self.chunks.back().is_none_or(|chunk| chunk.bytes.len() + needed > self.batch_bytes) {
                self.chunks.push_back(Chunk::new(self.head_len, needed));
            }
            if let Some(chunk) = self.chunks.back_mut() {
                let before = chunk.bytes.len();
                append_list(chunk.records(), list, version, kind, part.iter().copied());
                self.queued += chunk.bytes.len() - before;
                chunk.has_names |= list == List::Names;
                chunk.has_interest |= list == List::Interest;
            }
            (rest, is_first) = (behind, false);
            if rest.is_empty() {
                return;
            }
        }
    }

    pub(super) fn arrived(&mut self, bytes: usize, entries: &[Entry]) {
        self.in_flight -= bytes.min(self.in_flight);
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
                self.returned(entry.window, entry.bytes);
                self.result(entry.reference, Code::Timeout, completed);
            } else if let Some(transfer) = self.transfers.remove(&entry.transfer) {
                messages += 1;
                self.returned(transfer.window, transfer.cost);
                self.result(transfer.reference, Code::Timeout, completed);
                self.lanes.drop_transfer(entry.transfer);
                transfers.push(entry.transfer);
            }
        }
        (messages, transfers)
    }

    pub(super) fn next_reference(&self) -> u64 {
        self.next_reference
    }

    /// Notes the result of a record. Returns whether something waited for it.
    fn result(&mut self, reference: u64, code: Code, completed: &mut Vec<(C, Code)>) -> bool {
        if reference == 0 {
            return true;
        }
        let Some(waiting) = self.waiting.get_mut(&reference) else { return false };
        waiting.left -= 1;
        match waiting.code {
            None => waiting.code = Some(code),
            // some of its messages were delivered and others were not
            Some(other) if other != code => waiting.code = Some(Code::Timeout),
            Some(_) => {}
        }
        if waiting.left == 0
            && let Some(waiting) = self.waiting.remove(&reference)
        {
            completed.push((waiting.completion, waiting.code.unwrap_or(code)));
        }
        true
    }

    pub(super) fn results(
        &mut self,
        results: impl Iterator<Item = (u64, Code)>,
        completed: &mut Vec<(C, Code)>,
    ) -> u64 {
        let mut unknown = 0;
        for (reference, code) in results {
            unknown += u64::from(reference == 0 || !self.result(reference, code, completed));
        }
        unknown
    }

    pub(super) fn time_out(&mut self, upto: u64, completed: &mut Vec<(C, Code)>) {
        let late = self.waiting.extract_if(|reference, _| *reference < upto);
        completed.extend(late.map(|(_, waiting)| (waiting.completion, Code::Timeout)));
    }

    pub(super) fn end(&mut self) -> Leftovers<C> {
        self.is_open = false;
        let mut unsent: HashMap<u64, u32> = HashMap::new();
        let mut messages = 0;
        for entry in self.chunks.drain(..).flat_map(|chunk| chunk.entries) {
            messages += u64::from(entry.messages);
            *unsent.entry(entry.reference).or_insert(0) += 1;
        }
        for (reference, count, was_begun) in self.lanes.end() {
            messages += u64::from(count);
            *unsent.entry(reference).or_insert(0) += u32::from(!was_begun);
        }
        let completed = std::mem::take(&mut self.waiting).into_iter().map(|(reference, waiting)| {
            // what was not published at all cannot have been delivered
            let is_unsent = unsent.get(&reference) == Some(&waiting.parts);
            let code = if is_unsent { Code::NotRegistered } else { Code::Timeout };
            (waiting.completion, code)
        });
        let mut completed: Vec<_> = completed.collect();
        completed.shrink_to_fit();
        self.windows.clear();
        self.full.clear();
        self.transfers.clear();
        (self.queued, self.in_flight, self.outstanding) = (0, 0, 0);
        Leftovers { completed, messages, calls: self.calls.take().collect() }
    }
}

impl Window {
    fn new(target: Arc<str>, max: usize) -> Self {
        Window { target, outstanding: 0, max, is_full: false, is_open: true }
    }
}

/// Returns the length of the next message.
fn first_len<'p>(payloads: &mut std::iter::Peekable<impl Iterator<Item = &'p [u8]>>) -> usize {
    payloads.peek().map_or(0, |payload| payload.len())
}

/// Returns the id of a call or reply.
fn call_id(payload: &[u8]) -> u32 {
    payload.get(1..).and_then(|rest| rest.first_chunk()).map_or(0, |id| u32::from_le_bytes(*id))
}
