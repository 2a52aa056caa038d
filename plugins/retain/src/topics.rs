//! The values that are kept, by topic. Owns their limits and the marks that are taken together with them;
//! sends nothing.
//!
//! Topics are divided into shards, each with a lock of its own: a leaf lock, held for one value, or for at
//! most [`walk::MAX_VISITS`] topics that are looked at. [`Host::next_mark`] is the only call made under it.

mod changes;
mod walk;

use elbus_plugin_api::{Host, hooks::InterceptedFrame};
use elbus_protocol::topic;
use foldhash::fast::{FixedState, RandomState};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{BTreeSet, HashMap},
    hash::BuildHasher,
    sync::Arc,
};

use crate::{settings::TopicSettings, table::Table};
pub(crate) use changes::Changes;
use walk::MAX_VISITS;
pub(crate) use walk::{Cursor, Filter, Found};

/// Number of shards: publishers of different topics rarely meet.
const SHARDS: usize = 16;
/// A payload's buffer is replaced if it would stay larger than this many times the payload.
const MAX_SLACK: usize = 2;

/// The last publication of a topic.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) sender: Box<str>,
    pub(crate) payload: Vec<u8>,
    pub(crate) mark: u64,
}

impl Value {
    fn new(sender: &str, payload: &[u8], mark: u64) -> Self {
        Value { sender: sender.into(), payload: payload.to_vec(), mark }
    }

    /// Replaces the value in place, without an allocation for one of about the same size.
    fn set(&mut self, sender: &str, payload: &[u8], mark: u64) {
        if *self.sender != *sender {
            self.sender = sender.into();
        }
        if self.payload.capacity() > MAX_SLACK * payload.len() + 64 {
            self.payload = payload.to_vec();
        } else {
            self.payload.clear();
            self.payload.extend_from_slice(payload);
        }
        self.mark = mark;
    }

    fn bytes(&self) -> usize {
        self.sender.len() + self.payload.len()
    }
}

struct Entry {
    value: Arc<Value>,
    /// Index of its table.
    table: usize,
    /// It is recorded as changed since it was written to the disk.
    is_changed: bool,
}

#[derive(Default)]
struct Shard {
    by_topic: HashMap<Arc<str>, Entry, RandomState>,
    /// The same topics in order, so that those of a filter are found without looking at all others.
    ordered: BTreeSet<Arc<str>>,
    /// Topics of disk tables whose values have changed.
    changed: Vec<Arc<str>>,
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

    /// Keeps a publication, and returns its mark. One without payload deletes the value of its topic. One
    /// beyond a limit is not kept; the value of its topic is removed, since it is out of date.
    pub(crate) fn keep(&self, publication: &InterceptedFrame<'_>) -> u64 {
        let (topic, sender) = (publication.target(), publication.sender());
        let payload = publication.payload();
        let mut shard = self.shard(topic);
        // under the lock: no other publication of the topic can be kept in between
        let mark = self.host.next_mark();
        if payload.is_empty() {
            self.remove(&mut shard, topic);
            return mark;
        }
        let bytes = sender.len() + payload.len();
        if let Some(entry) = shard.by_topic.get_mut(topic) {
            let table = &self.tables[entry.table];
            if !table.resize(entry.value.bytes(), bytes) {
                table.refuse(topic, bytes);
                self.remove(&mut shard, topic);
                return mark;
            }
            match Arc::get_mut(&mut entry.value) {
                Some(value) => value.set(sender, payload, mark),
                // it is being sent
                None => entry.value = Arc::new(Value::new(sender, payload, mark)),
            }
            if table.is_on_disk() && !entry.is_changed {
                shard.record_value(topic, &self.changes);
            }
            return mark;
        }
        let Some(table) = self.table_of(topic) else { return mark };
        if self.tables[table].add(topic.len() + bytes) {
            let name: Arc<str> = topic.into();
            let value = Arc::new(Value::new(sender, payload, mark));
            shard.ordered.insert(name.clone());
            shard.by_topic.insert(name, Entry { value, table, is_changed: false });
            if self.tables[table].is_on_disk() {
                shard.record_value(topic, &self.changes);
            }
        } else {
            self.tables[table].refuse(topic, bytes);
        }
        mark
    }

    /// Returns the value of a topic.
    pub(crate) fn get(&self, topic: &str) -> Option<Arc<Value>> {
        self.shard(topic).by_topic.get(topic).map(|entry| entry.value.clone())
    }

    /// Deletes the value of a topic; returns whether there was one.
    pub(crate) fn delete(&self, topic: &str) -> bool {
        let mut shard = self.shard(topic);
        self.remove(&mut shard, topic)
    }

    fn remove(&self, shard: &mut Shard, topic: &str) -> bool {
        let Some((name, entry)) = shard.by_topic.remove_entry(topic) else { return false };
        shard.ordered.remove(&name);
        let table = &self.tables[entry.table];
        table.remove(name.len() + entry.value.bytes());
        if table.is_on_disk() {
            shard.record_removal(&name, &entry, &self.changes);
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

/// Returns the index of the shard of a topic. It is the same in every process, so that cursors stay valid.
fn index_of(topic: &str) -> usize {
    // not the bits that choose the place within the map of the shard
    (FixedState::default().hash_one(topic) >> 40) as usize % SHARDS
}

#[cfg(test)]
mod tests;
