//! The acknowledgements of a client that wait, in the order of its frames. Plain data: the lock, the socket
//! and the results are those of [`pending_acknowledgements`](super::pending_acknowledgements).

use elbus_plugin_api::{DeliveryStatus, Notifier, PendingResult};
use std::{collections::VecDeque, time::Instant};

/// Frames whose acknowledgements wait before the client is read no more.
pub(super) const MAX_FRAMES: usize = 1024;

/// The acknowledgements of a client that wait, in the order of its frames. The first is never known. Exists
/// until housekeeping finds it empty.
#[derive(Default)]
pub(crate) struct PendingAcknowledgements {
    pub(super) entries: VecDeque<Entry>,
    pub(super) frames: usize,
    last_id: u64,
    /// The reader of the client, which waits for room.
    pub(super) reader: Option<Notifier>,
}

pub(super) enum Entry {
    /// Operation ids and codes.
    Known(Vec<(u32, u8)>),
    Pending(PendingRun),
}

pub(super) struct PendingRun {
    id: u64,
    /// Operation ids, and the positions of their frames in the result.
    pub(super) acks: Box<[(u32, u32)]>,
    pub(super) result: PendingResult,
    pub(super) since: Instant,
}

impl PendingAcknowledgements {
    pub(super) fn is_full(&self) -> bool {
        self.frames >= MAX_FRAMES
    }

    pub(super) fn find(&mut self, id: u64) -> Option<&mut Entry> {
        let is_it = |entry: &&mut Entry| matches!(entry, Entry::Pending(run) if run.id == id);
        self.entries.iter_mut().find(is_it)
    }

    /// Adds acknowledgements whose codes are known behind the others.
    fn push_known(&mut self, acks: impl Iterator<Item = (u32, u8)>) {
        if !matches!(self.entries.back(), Some(Entry::Known(_))) {
            self.entries.push_back(Entry::Known(Vec::new()));
        }
        if let Some(Entry::Known(known)) = self.entries.back_mut() {
            let before = known.len();
            known.extend(acks);
            self.frames += known.len() - before;
        }
    }

    #[cold]
    pub(super) fn push_behind(&mut self, acks: impl Iterator<Item = (u32, u8)>) -> DeliveryStatus {
        self.push_known(acks);
        if self.is_full() { DeliveryStatus::FULL } else { DeliveryStatus::TAKEN }
    }

    pub(super) fn push_pending(&mut self, acks: Box<[(u32, u32)]>, result: PendingResult) -> u64 {
        self.last_id += 1;
        self.frames += acks.len();
        let run = PendingRun { id: self.last_id, acks, result, since: Instant::now() };
        self.entries.push_back(Entry::Pending(run));
        self.last_id
    }
}

impl PendingRun {
    pub(super) fn with_codes(&self, code: impl Fn(usize) -> u8) -> Entry {
        Entry::Known(self.acks.iter().enumerate().map(|(index, (id, _))| (*id, code(index))).collect())
    }
}
