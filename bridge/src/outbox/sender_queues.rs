//! Queues of senders: long messages that travel in pieces, and what their senders push behind them.
//!
//! A sender has a queue of its own while one of its messages is longer than a piece. Pieces of these queues
//! alternate with each other and with the chunks of everybody else. What the sender pushes to the same
//! receiver waits in its queue, so that order is kept.

use super::chunk::{Chunk, Entry, cost_of_one};
use crate::wire::{Record, RunHead, append_record};
use elbus_protocol::{Op, Qos};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// Long messages of which some pieces are taken at the same time. Receivers accept twice as many.
pub(crate) const MAX_TRANSFERS: usize = 32;

/// All queues of senders of an outbox.
#[derive(Debug, Default)]
pub(super) struct SenderQueues {
    queues: VecDeque<SenderQueue>,
    /// Messages of which some pieces were taken, and not all.
    started: usize,
    next_transfer: u32,
    /// Bytes that were not taken.
    bytes: usize,
}

#[derive(Debug)]
struct SenderQueue {
    sender: Box<str>,
    items: VecDeque<Item>,
    /// How many items each window has.
    windows: HashMap<u64, usize>,
    /// How many items are publications.
    topics: usize,
}

/// Something that waits in a queue.
#[derive(Debug)]
struct Item {
    /// Number of the last chunk that must be taken before.
    after: u64,
    is_topic: bool,
    window: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Long(Long),
    /// An encoded record.
    Short(Vec<u8>, Entry),
}

/// A message that is longer than a piece.
#[derive(Debug)]
struct Long {
    op: Op,
    qos: Qos,
    reference: u64,
    target: Arc<str>,
    bytes: Vec<u8>,
    taken: usize,
    /// 0 until the first piece is taken.
    transfer: u32,
}

impl SenderQueues {
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Returns the bytes that were not taken.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether a run must wait in the queue of its sender.
    pub(super) fn holds(&self, sender: &str, op: Op, window: u64) -> bool {
        self.queues
            .iter()
            .find(|queue| &*queue.sender == sender)
            .is_some_and(|queue| op == Op::Publish || queue.topics > 0 || queue.windows.contains_key(&window))
    }

    /// Appends a long message. `after` is the number of the last chunk that precedes it.
    pub(super) fn push_long(&mut self, head: &RunHead<'_>, target: Arc<str>, payload: &[u8], after: u64) {
        let long = Long {
            op: head.op,
            qos: head.qos,
            reference: head.reference,
            target,
            bytes: payload.to_vec(),
            taken: 0,
            transfer: 0,
        };
        self.push(head, after, Content::Long(long));
    }

    /// Appends an encoded run.
    pub(super) fn push_short(&mut self, head: &RunHead<'_>, record: Vec<u8>, entry: Entry, after: u64) {
        self.push(head, after, Content::Short(record, entry));
    }

    fn push(&mut self, head: &RunHead<'_>, after: u64, content: Content) {
        self.bytes += match &content {
            Content::Long(long) => long.bytes.len(),
            Content::Short(record, _) => record.len(),
        };
        let at = self.queues.iter().position(|queue| *queue.sender == *head.sender);
        let at = at.unwrap_or_else(|| {
            self.queues.push_back(SenderQueue {
                sender: head.sender.into(),
                items: VecDeque::new(),
                windows: HashMap::new(),
                topics: 0,
            });
            self.queues.len() - 1
        });
        if let Some(queue) = self.queues.get_mut(at) {
            let is_topic = head.op == Op::Publish;
            queue.topics += usize::from(is_topic);
            *queue.windows.entry(head.window).or_insert(0) += 1;
            queue.items.push_back(Item { after, is_topic, window: head.window, content });
        }
    }

    /// Takes the next piece, or short runs, of the queue whose turn it is. All chunks below `first` were
    /// taken.
    pub(super) fn take(
        &mut self,
        first: u64,
        limits: (usize, usize),
        chunk: impl FnOnce() -> Chunk,
    ) -> Option<Chunk> {
        let (batch_bytes, piece_bytes) = limits;
        let may_start = self.started < MAX_TRANSFERS;
        let is_ready = |item: &Item| {
            item.after < first
                && match &item.content {
                    Content::Long(long) => long.transfer != 0 || may_start,
                    Content::Short(..) => true,
                }
        };
        let at = self.queues.iter().position(|queue| queue.items.front().is_some_and(is_ready))?;
        let mut queue = self.queues.remove(at)?;
        let mut chunk = chunk();
        while let Some(item) = queue.items.front_mut() {
            if item.after >= first {
                break;
            }
            let is_done = match &mut item.content {
                Content::Long(long) => {
                    if !chunk.entries.is_empty() {
                        break;
                    }
                    if long.transfer == 0 {
                        self.next_transfer = self.next_transfer.wrapping_add(1).max(1);
                        long.transfer = self.next_transfer;
                        self.started += 1;
                    }
                    let before = long.taken;
                    let is_last = long.take_piece(&queue.sender, item.window, piece_bytes, &mut chunk);
                    self.bytes -= long.taken - before;
                    self.started -= usize::from(is_last);
                    is_last
                }
                Content::Short(record, entry) => {
                    if !chunk.entries.is_empty() && chunk.bytes.len() + record.len() > batch_bytes {
                        break;
                    }
                    self.bytes -= record.len();
                    chunk.records().extend_from_slice(record);
                    chunk.entries.push(*entry);
                    true
                }
            };
            let was_long = matches!(item.content, Content::Long(_));
            if is_done {
                queue.pop();
            }
            if was_long {
                break;
            }
        }
        if !queue.items.is_empty() {
            self.queues.push_back(queue);
        }
        Some(chunk)
    }

    /// Drops the rest of a message of which some pieces were taken, if there is any.
    pub(super) fn drop_transfer(&mut self, transfer: u32) {
        let left = |queue: &SenderQueue| match &queue.items.front()?.content {
            Content::Long(long) if long.transfer == transfer => Some(long.bytes.len() - long.taken),
            _ => None,
        };
        let found = self.queues.iter().enumerate().find_map(|(at, queue)| Some((at, left(queue)?)));
        let Some((at, left)) = found else { return };
        self.bytes -= left;
        self.started -= 1;
        if let Some(queue) = self.queues.get_mut(at) {
            queue.pop();
            if queue.items.is_empty() {
                self.queues.remove(at);
            }
        }
    }

    /// Returns what has not been taken: for each run reference, messages, and whether part of it was taken.
    pub(super) fn end(&mut self) -> Vec<(u64, u32, bool)> {
        (self.started, self.bytes) = (0, 0);
        let items = std::mem::take(&mut self.queues).into_iter().flat_map(|queue| queue.items);
        items
            .map(|item| match item.content {
                Content::Long(long) => (long.reference, 1, long.taken > 0),
                Content::Short(_, entry) => (entry.reference, entry.messages, false),
            })
            .collect()
    }
}

impl SenderQueue {
    /// Removes the first item.
    fn pop(&mut self) {
        let Some(item) = self.items.pop_front() else { return };
        self.topics -= usize::from(item.is_topic);
        if let Some(count) = self.windows.get_mut(&item.window) {
            *count -= 1;
            if *count == 0 {
                self.windows.remove(&item.window);
            }
        }
    }
}

impl Long {
    /// Appends the next piece. Returns whether it is the last one.
    fn take_piece(&mut self, sender: &str, window: u64, piece_bytes: usize, chunk: &mut Chunk) -> bool {
        let end = self.bytes.len().min(self.taken + piece_bytes);
        let piece = self.bytes.get(self.taken..end).unwrap_or_default();
        let is_last = end == self.bytes.len();
        let (op, qos, reference) = (self.op, self.qos, self.reference);
        let head = RunHead { op, qos, window, reference, sender, target: &self.target };
        let record = match self.taken {
            0 => Record::FirstPiece { transfer: self.transfer, total: self.bytes.len() as u32, head, piece },
            taken => Record::NextPiece { transfer: self.transfer, offset: taken as u32, piece },
        };
        append_record(chunk.records(), &record);
        chunk.entries.push(Entry {
            window,
            bytes: cost_of_one(&head, self.bytes.len()),
            messages: 1,
            reference,
            transfer: self.transfer,
            is_last_piece: is_last,
        });
        self.taken = end;
        is_last
    }
}
