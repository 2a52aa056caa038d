//! The values that are kept, by topic. Owns their limits and the marks that are taken together with them;
//! sends nothing.
//!
//! Topics are divided into shards, each with a lock of its own: a leaf lock, held for at most [`MAX_FRAMES`]
//! values of a run, or for [`walk::MAX_VISITS`] topics that are looked at. [`Host::next_mark`] is the only
//! call made under it.

mod changes;
mod value;
mod walk;

use elbus_plugin_api::{
    Host,
    hooks::{InterceptedFrame, InterceptedRun},
};
use elbus_protocol::topic;
use foldhash::fast::{FixedState, RandomState};
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};
use std::{collections::BTreeSet, hash::BuildHasher, ops::Range, sync::Arc};

use crate::{settings::TopicSettings, table::Table};
pub(crate) use changes::Changes;
pub(crate) use value::Value;
use walk::MAX_VISITS;
pub(crate) use walk::{Cursor, Filter, Found};

/// Publications that are kept together.
const MAX_FRAMES: usize = 256;
/// Number of shards: publishers of different topics rarely meet.
const SHARDS: usize = 16;
struct Entry {
    hash: u64,
    value: Value,
    name: Arc<str>,
    /// Index of its table.
    table: u32,
    /// It is recorded as changed since it was written to the disk.
    is_changed: bool,
}

#[derive(Default)]
struct Shard {
    by_topic: HashTable<Entry>,
    /// Seeded, since clients choose the topics.
    hashing: RandomState,
    /// The same topics in order, so that those of a filter are found without looking at all others.
    ordered: BTreeSet<Arc<str>>,
    /// Topics of disk tables whose values have changed.
    changed: Vec<Arc<str>>,
}

impl Shard {
    fn get(&self, topic: &str) -> Option<&Entry> {
        let hash = self.hashing.hash_one(topic);
        self.by_topic.find(hash, |entry| entry.is_of(hash, topic))
    }

    fn get_mut(&mut self, topic: &str) -> Option<&mut Entry> {
        let hash = self.hashing.hash_one(topic);
        self.by_topic.find_mut(hash, |entry| entry.is_of(hash, topic))
    }

    /// Adds a topic that it does not have.
    fn insert(&mut self, table: usize, value: Value) -> Arc<str> {
        let (hash, name) = (self.hashing.hash_one(value.topic()), Arc::<str>::from(value.topic()));
        self.ordered.insert(name.clone());
        let entry = Entry { hash, value, name: name.clone(), table: table as u32, is_changed: false };
        self.by_topic.insert_unique(hash, entry, |entry| entry.hash);
        name
    }

    fn remove(&mut self, topic: &str) -> Option<Entry> {
        let hash = self.hashing.hash_one(topic);
        let found = self.by_topic.find_entry(hash, |entry| entry.is_of(hash, topic)).ok()?;
        let (entry, _) = found.remove();
        self.ordered.remove(&entry.name);
        Some(entry)
    }
}

impl Entry {
    fn is_of(&self, hash: u64, topic: &str) -> bool {
        self.hash == hash && self.value.topic_bytes() == topic.as_bytes()
    }
}

/// All values that an instance keeps.
pub(crate) struct Topics {
    host: Host,
    tables: Box<[Table]>,
    shards: [Mutex<Shard>; SHARDS],
    changes: Arc<Changes>,
}

impl Topics {
    pub(crate) fn new(host: Host, tables: Vec<TopicSettings>) -> Self {
        let tables = tables.into_iter().map(Table::new).collect();
        Topics { host, tables, shards: std::array::from_fn(|_| Mutex::default()), changes: Arc::default() }
    }

    pub(crate) fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Keeps the last publication of each topic of a run, and marks all of them. One without payload deletes
    /// the value of its topic. One beyond a limit is not kept; the value of its topic is removed, since it is
    /// out of date.
    pub(crate) fn keep_run(&self, run: &mut InterceptedRun<'_>) {
        for first in (0..run.len()).step_by(MAX_FRAMES) {
            self.keep_frames(run, first..run.len().min(first + MAX_FRAMES));
        }
    }

    /// Keeps at most [`MAX_FRAMES`] publications, those of a shard under one lock.
    fn keep_frames(&self, run: &mut InterceptedRun<'_>, frames: Range<usize>) {
        let order = ShardOrder::of(run, frames);
        for (index, numbers) in order.shards() {
            let mut shard = self.shards[index].lock();
            // under the lock: no other publication of these topics can be kept in between
            let mark = self.host.next_mark();
            for number in numbers.iter().map(|number| *number as usize) {
                run.set_mark(number, mark);
                if let Some(publication) = run.frame(number).filter(|_| !is_superseded(run, number)) {
                    self.keep(&mut shard, &publication, mark);
                }
            }
        }
    }

    /// Keeps a publication with its mark.
    fn keep(&self, shard: &mut Shard, publication: &InterceptedFrame<'_>, mark: u64) {
        let (topic, sender) = (publication.target(), publication.sender());
        let payload = publication.payload();
        if payload.is_empty() {
            self.remove(shard, topic);
            return;
        }
        let bytes = sender.len() + payload.len();
        if let Some(entry) = shard.get_mut(topic) {
            let table = &self.tables[entry.table as usize];
            if !table.resize(entry.value.bytes(), bytes) {
                table.refuse(topic, bytes);
                self.remove(shard, topic);
                return;
            }
            entry.value.set(sender, payload, mark);
            if table.is_on_disk() && !entry.is_changed {
                shard.record_value(topic, &self.changes);
            }
            return;
        }
        let Some(table) = self.table_of(topic) else { return };
        if self.tables[table].add(topic.len() + bytes) {
            shard.insert(table, Value::new(topic, sender, payload, mark));
            if self.tables[table].is_on_disk() {
                shard.record_value(topic, &self.changes);
            }
        } else {
            self.tables[table].refuse(topic, bytes);
        }
    }

    /// Returns the value of a topic.
    pub(crate) fn get(&self, topic: &str) -> Option<Value> {
        self.shard(topic).get(topic).map(|entry| entry.value.clone())
    }

    /// Deletes the value of a topic; returns whether there was one.
    pub(crate) fn delete(&self, topic: &str) -> bool {
        let mut shard = self.shard(topic);
        self.remove(&mut shard, topic)
    }

    fn remove(&self, shard: &mut Shard, topic: &str) -> bool {
        let Some(entry) = shard.remove(topic) else { return false };
        let table = &self.tables[entry.table as usize];
        table.remove(entry.name.len() + entry.value.bytes());
        if table.is_on_disk() {
            shard.record_removal(&entry, &self.changes);
        }
        true
    }

    fn table_of(&self, name: &str) -> Option<usize> {
        self.tables.iter().position(|table| topic::matches(&table.settings.filter, name))
    }

    fn shard(&self, topic: &str) -> MutexGuard<'_, Shard> {
        self.shards[index_of(topic)].lock()
    }
}

/// The publications of a part of a run by their shards, those of a shard in the order sent.
struct ShardOrder {
    numbers: [u32; MAX_FRAMES],
    /// Where the numbers of each shard end.
    ends: [usize; SHARDS],
}

impl ShardOrder {
    fn of(run: &InterceptedRun<'_>, frames: Range<usize>) -> Self {
        let (mut indices, mut ends) = ([0; MAX_FRAMES], [0; SHARDS]);
        let mut last = 0;
        for (place, number) in indices.iter_mut().zip(frames.clone()) {
            if number == frames.start || !is_superseded(run, number - 1) {
                last = run.frame(number).map_or(0, |frame| index_of(frame.target()));
            }
            *place = last;
            ends[last] += 1;
        }
        // where those of each shard begin, which is moved as they are placed
        let mut sum = 0;
        for end in &mut ends {
            (*end, sum) = (sum, sum + *end);
        }
        let mut numbers = [0; MAX_FRAMES];
        for (index, number) in indices.into_iter().zip(frames) {
            numbers[ends[index]] = number as u32;
            ends[index] += 1;
        }
        ShardOrder { numbers, ends }
    }

    /// Returns the shards that publications belong to, and the numbers of these.
    fn shards(&self) -> impl Iterator<Item = (usize, &[u32])> {
        (0..SHARDS).filter_map(|index| {
            let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
            let numbers = &self.numbers[start..self.ends[index]];
            (!numbers.is_empty()).then_some((index, numbers))
        })
    }
}

/// Returns whether the next publication of a run has the same topic, as those of a run with one topic have.
fn is_superseded(run: &InterceptedRun<'_>, number: usize) -> bool {
    let topic = |number| run.frame(number).map(|frame| (frame.target().as_ptr(), frame.target().len()));
    topic(number + 1).is_some_and(|next| topic(number) == Some(next))
}

/// Returns the index of the shard of a topic. It is the same in every process, so that cursors stay valid.
fn index_of(topic: &str) -> usize {
    // not the bits that choose the place within the map of the shard
    (FixedState::default().hash_one(topic) >> 40) as usize % SHARDS
}

#[cfg(test)]
mod tests;
