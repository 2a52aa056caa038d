//! Counters, one for each kind of something.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Kinds that are counted.
pub(crate) trait Kind: Copy + 'static {
    /// All kinds; each at the position of its [number](Kind::number).
    const ALL: &'static [Self];

    /// Returns its position.
    fn number(self) -> usize;

    /// Returns its name in results of control methods.
    fn key(self) -> &'static str;
}

/// A counter for each kind.
pub(crate) struct CountsBy<K> {
    counts: Box<[AtomicU64]>,
    kind: PhantomData<K>,
}

impl<K: Kind> Default for CountsBy<K> {
    fn default() -> Self {
        CountsBy { counts: K::ALL.iter().map(|_| AtomicU64::new(0)).collect(), kind: PhantomData }
    }
}

impl<K: Kind> CountsBy<K> {
    /// Adds to the counter of a kind.
    pub(crate) fn add(&self, kind: K, count: usize) {
        if let Some(counter) = self.counts.get(kind.number()) {
            counter.fetch_add(count as u64, Relaxed);
        }
    }

    /// Returns the sum of all counters.
    pub(crate) fn sum(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).fold(0, u64::wrapping_add)
    }

    /// Returns all kinds with their counts.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        K::ALL.iter().map(|kind| kind.key()).zip(self.counts.iter().map(|count| count.load(Relaxed)))
    }
}
