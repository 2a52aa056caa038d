//! Chunks: batches that senders' threads fill, with a note of what is in them.

use crate::wire::{
    List, ListPart, RECORD_HEAD_BYTES, RUN_HEAD_BYTES, RunHead, append_list, append_payload, begin_run,
    end_run,
};
use elbus_protocol::request::MAX_RUN;
use std::iter::Peekable;

/// Bytes of a run besides texts and messages.
const RUN_OVERHEAD: usize = RECORD_HEAD_BYTES + RUN_HEAD_BYTES;

/// Returns the length of the record of a run whose encoded messages have `len` bytes.
pub(super) fn run_cost(head: &RunHead<'_>, len: usize) -> usize {
    RUN_OVERHEAD + head.sender.len() + head.target.len() + len
}

/// Returns the bytes that a run of one message occupies of the window of its receiver, also if it travels in
/// pieces.
pub(crate) fn cost_of_one(head: &RunHead<'_>, len: usize) -> usize {
    run_cost(head, 4 + len)
}

/// A batch without header and MAC.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Room for the header, then records.
    pub(crate) bytes: Vec<u8>,
    /// The runs among them.
    pub(crate) entries: Vec<Entry>,
    /// Names that are announced in it.
    pub(crate) names: ListParts,
    /// Filters that are announced in it.
    pub(crate) interest: ListParts,
    /// Bytes in flight once it is taken.
    pub(crate) in_flight: usize,
    /// The run at the end, if further messages can be appended to it.
    last: Option<LastRun>,
}

/// What a chunk has of a list.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ListParts {
    /// Whether it has anything of the list.
    pub(crate) has_any: bool,
    /// Whether a snapshot is incomplete after the chunk. `None` if the chunk has nothing of a snapshot.
    pub(crate) is_open: Option<bool>,
    /// Bytes of changes.
    pub(super) delta_bytes: usize,
}

/// One run, or consecutive ones for the same window without a result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Of its receiver.
    pub(crate) window: u64,
    /// Bytes that count for the window.
    pub(crate) bytes: usize,
    /// How many messages.
    pub(crate) messages: u32,
    /// Of its result; 0 if none is wanted.
    pub(crate) reference: u64,
    /// Of its pieces; 0 if the run is whole.
    pub(crate) transfer: u32,
    /// Whether it is the last piece.
    pub(crate) is_last_piece: bool,
}

impl Entry {
    /// Returns the entry of a whole run.
    pub(crate) fn of_run(head: &RunHead<'_>, bytes: usize, messages: u32) -> Self {
        Entry {
            window: head.window,
            bytes,
            messages,
            reference: head.reference,
            transfer: 0,
            is_last_piece: false,
        }
    }
}

/// The run that ends a chunk.
#[derive(Debug, Clone, Copy)]
struct LastRun {
    at: usize,
    count: u16,
}

impl Chunk {
    /// Creates an empty chunk with room for a header and `capacity` bytes.
    pub(crate) fn new(head_len: usize, capacity: usize) -> Self {
        // behind the records come acknowledgements and the MAC
        let mut bytes = Vec::with_capacity(head_len + capacity + 512);
        bytes.resize(head_len, 0);
        Chunk {
            bytes,
            entries: Vec::new(),
            names: ListParts::default(),
            interest: ListParts::default(),
            in_flight: 0,
            last: None,
        }
    }

    /// Returns what the chunk has of a list.
    pub(super) fn parts_of(&self, list: List) -> &ListParts {
        if list == List::Names { &self.names } else { &self.interest }
    }

    /// Appends a part of a list. Returns its length.
    pub(super) fn append_part<'t>(
        &mut self,
        list: List,
        version: u64,
        part: ListPart,
        changes: impl Iterator<Item = (bool, &'t str)>,
    ) -> usize {
        let before = self.bytes.len();
        append_list(self.records(), list, version, part, changes);
        let len = self.bytes.len() - before;
        let parts = if list == List::Names { &mut self.names } else { &mut self.interest };
        parts.has_any = true;
        match part {
            ListPart::Delta => parts.delta_bytes += len,
            _ => parts.is_open = Some(!part.ends()),
        }
        len
    }

    /// Appends messages while the chunk is not longer than `limit`, at least one if it has no records yet.
    /// Stops at a message that is longer than `longest`. Returns how many were appended, and the bytes that
    /// count for the window.
    pub(crate) fn append<'p>(
        &mut self,
        head: &RunHead<'_>,
        payloads: &mut Peekable<impl Iterator<Item = &'p [u8]>>,
        head_len: usize,
        (limit, longest): (usize, usize),
    ) -> (u32, usize) {
        let before = self.bytes.len();
        let is_empty = before == head_len;
        let fits = |len: usize, payload: &[u8]| len + 4 + payload.len() <= limit;
        let Some(first) = payloads.peek() else { return (0, 0) };
        let continued = self.last.filter(|last| {
            usize::from(last.count) < MAX_RUN && fits(before, first) && self.continues(*last, head)
        });
        let mut last = match continued {
            Some(last) => last,
            None => {
                let texts = RUN_OVERHEAD + head.sender.len() + head.target.len();
                if !is_empty && !fits(before + texts, first) {
                    return (0, 0);
                }
                LastRun { at: begin_run(&mut self.bytes, head), count: 0 }
            }
        };
        let count_before = last.count;
        while usize::from(last.count) < MAX_RUN
            && let Some(payload) = payloads.next_if(|payload| {
                payload.len() <= longest && ((is_empty && last.count == 0) || fits(self.bytes.len(), payload))
            })
        {
            append_payload(&mut self.bytes, payload);
            last.count += 1;
        }
        end_run(&mut self.bytes, last.at, last.count);
        let added = u32::from(last.count - count_before);
        let bytes = self.bytes.len() - before;
        match self.entries.last_mut() {
            Some(entry)
                if entry.window == head.window
                    && entry.reference | head.reference == 0
                    && entry.transfer == 0 =>
            {
                entry.bytes += bytes;
                entry.messages += added;
            }
            _ => self.entries.push(Entry::of_run(head, bytes, added)),
        }
        self.last = (head.reference == 0).then_some(last);
        (added, bytes)
    }

    /// Returns whether further messages of `head` can be appended to the last run: everything before the
    /// number of messages is equal, and the texts.
    fn continues(&self, last: LastRun, head: &RunHead<'_>) -> bool {
        if head.reference != 0 {
            return false;
        }
        let Some(body) = self.bytes.get(last.at + RECORD_HEAD_BYTES..) else { return false };
        let Some((fixed, texts)) = body.split_at_checked(RUN_HEAD_BYTES) else { return false };
        let flags = head.op as u8 | head.qos.bits() << 6;
        fixed.first() == Some(&flags)
            && fixed.get(1..9) == Some(&head.window.to_le_bytes())
            && fixed.get(17..19) == Some(&(head.sender.len() as u16).to_le_bytes())
            && fixed.get(19..21) == Some(&(head.target.len() as u16).to_le_bytes())
            && texts
                .strip_prefix(head.sender.as_bytes())
                .is_some_and(|rest| rest.starts_with(head.target.as_bytes()))
    }

    /// Returns the buffer to append other records to.
    pub(crate) fn records(&mut self) -> &mut Vec<u8> {
        self.last = None;
        &mut self.bytes
    }
}
