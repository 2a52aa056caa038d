//! A map that forgets its oldest half when it is full.

use foldhash::fast::RandomState;
use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash},
};

/// A bounded map from the hash of a key: two generations, of which the older one is dropped when the younger
/// one is full. Every operation takes constant time. Hashes are seeded at random, so that no peer can make
/// keys collide.
#[derive(Debug)]
pub(super) struct Recent<V> {
    seed: RandomState,
    young: HashMap<u64, V, RandomState>,
    old: HashMap<u64, V, RandomState>,
    /// Entries of a generation.
    capacity: usize,
}

impl<V> Recent<V> {
    /// Creates an empty map of at most `max` entries.
    pub(super) fn new(max: usize) -> Self {
        Recent {
            seed: RandomState::default(),
            young: HashMap::default(),
            old: HashMap::default(),
            capacity: (max / 2).max(1),
        }
    }

    fn hash(&self, key: &impl Hash) -> u64 {
        self.seed.hash_one(key)
    }

    /// Inserts an entry. Returns how many others were dropped for it.
    pub(super) fn insert(&mut self, key: &impl Hash, value: V) -> usize {
        let mut dropped = 0;
        if self.young.len() >= self.capacity {
            dropped = self.old.len();
            self.old = std::mem::take(&mut self.young);
        }
        let hash = self.hash(key);
        self.old.remove(&hash);
        self.young.insert(hash, value);
        dropped
    }

    /// Returns whether there is an entry.
    pub(super) fn contains(&self, key: &impl Hash) -> bool {
        let hash = self.hash(key);
        self.young.contains_key(&hash) || self.old.contains_key(&hash)
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, key: &impl Hash) -> Option<V> {
        if self.young.is_empty() && self.old.is_empty() {
            return None;
        }
        let hash = self.hash(key);
        self.young.remove(&hash).or_else(|| self.old.remove(&hash))
    }

    /// Takes all entries.
    pub(super) fn take(&mut self) -> impl Iterator<Item = V> {
        let (young, old) = (std::mem::take(&mut self.young), std::mem::take(&mut self.old));
        old.into_values().chain(young.into_values())
    }
}
