//! Which values have changed since they were written: what the thread of a disk store takes from publishers.
//!
//! A publisher records a topic once until it is taken, in the shard of the topic, and never waits for the
//! thread. Beyond [`MAX_CHANGES`] of a shard, and while the disk fails, nothing is recorded; all values are
//! written instead.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::Thread,
};

use super::{Entry, MAX_VISITS, SHARDS, Shard, Topics, Value};
use crate::disk::Change;

/// Changes of a shard that are recorded, beside one for each of its topics.
const MAX_CHANGES: usize = 16_384;

/// What publishers and the thread share, beside the shards.
#[derive(Default)]
pub(crate) struct Changes {
    thread: OnceLock<Thread>,
    is_pending: AtomicBool,
    /// Too much has changed to be recorded.
    needs_everything: AtomicBool,
    is_paused: AtomicBool,
}

impl Changes {
    /// Sets the thread that is woken.
    pub(crate) fn set_thread(&self, thread: Thread) {
        _ = self.thread.set(thread);
    }

    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.is_pending.load(SeqCst)
    }

    /// Begins to take changes; returns whether all values have to be written.
    pub(crate) fn begin(&self) -> bool {
        self.is_pending.store(false, SeqCst);
        self.is_paused.store(false, SeqCst);
        self.needs_everything.swap(false, SeqCst)
    }

    /// Has all values be written next.
    pub(crate) fn require_everything(&self) {
        self.needs_everything.store(true, SeqCst);
        self.is_pending.store(true, SeqCst);
    }

    /// Records nothing until all values are written.
    pub(crate) fn stop_recording(&self) {
        self.is_paused.store(true, SeqCst);
    }

    fn note(&self) {
        if !self.is_pending.load(SeqCst) && !self.is_pending.swap(true, SeqCst) {
            self.wake();
        }
    }
}

impl Shard {
    /// Records that the value of a topic has changed.
    fn record(&mut self, topic: &Arc<str>, changes: &Changes) {
        if changes.is_paused.load(SeqCst) {
            return;
        }
        if self.changed.len() >= self.by_topic.len() + MAX_CHANGES {
            changes.needs_everything.store(true, SeqCst);
        } else {
            self.changed.push(topic.clone());
        }
        changes.note();
    }

    /// Records a topic whose value is now in the shard.
    pub(super) fn record_value(&mut self, topic: &str, changes: &Changes) {
        let Some(entry) = self.get_mut(topic) else { return };
        if entry.is_changed || changes.is_paused.load(SeqCst) {
            return;
        }
        entry.is_changed = true;
        let name = entry.name.clone();
        self.record(&name, changes);
    }

    /// Records a topic whose value has been removed.
    pub(super) fn record_removal(&mut self, was: &Entry, changes: &Changes) {
        if !was.is_changed {
            self.record(&was.name, changes);
        }
    }
}

impl Topics {
    pub(crate) fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// Takes what has changed.
    pub(crate) fn take_changes(&self, taken: &mut Vec<Change>) {
        for shard in &self.shards {
            loop {
                let mut shard = shard.lock();
                let first = shard.changed.len().saturating_sub(MAX_VISITS);
                if shard.changed.is_empty() {
                    shard.changed = Vec::new();
                    break;
                }
                for topic in shard.changed.split_off(first) {
                    let value = shard.get_mut(&topic).map(|entry| {
                        entry.is_changed = false;
                        entry.value.clone()
                    });
                    taken.push((topic, value));
                }
            }
        }
    }

    /// Returns the number of recorded changes.
    #[cfg(test)]
    pub(crate) fn recorded(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().changed.len()).sum()
    }

    /// Returns all values of disk tables, those of a shard at a time; what has changed by then counts as
    /// taken.
    pub(crate) fn everything(&self) -> impl Iterator<Item = Vec<Change>> {
        (0..SHARDS).map(|index| {
            let mut shard = self.shards[index].lock();
            shard.changed = Vec::new();
            let mut all: Vec<Change> = Vec::with_capacity(shard.by_topic.len());
            for entry in shard.by_topic.iter_mut() {
                if self.tables[entry.table as usize].is_on_disk() {
                    entry.is_changed = false;
                    all.push((entry.name.clone(), Some(entry.value.clone())));
                }
            }
            drop(shard);
            all.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            all
        })
    }

    /// Adds a value that was read from the disk, unless its topic has one. Returns `false`, and has it
    /// removed from the disk, if no disk table has room for it.
    pub(crate) fn restore(&self, topic: &str, sender: &str, payload: &[u8]) -> bool {
        let mut shard = self.shard(topic);
        if shard.get(topic).is_some() {
            return true;
        }
        let mark = self.host.next_mark();
        let table = self.table_of(topic).filter(|table| self.tables[*table].is_on_disk());
        let bytes = topic.len() + sender.len() + payload.len();
        match table.filter(|table| self.tables[*table].add(bytes)) {
            Some(table) => {
                shard.insert(table, Value::new(topic, sender, payload, mark));
                true
            }
            None => {
                shard.record(&topic.into(), &self.changes);
                false
            }
        }
    }
}
