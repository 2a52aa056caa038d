//! Memory of the caches of senders: a small amount for each, more from a budget that all senders share.
//! Counts bytes; knows nothing of what is cached.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Memory of a sender that does not count in the shared budget, in bytes.
const OWN_BYTES: usize = 64 * 1024;
/// The most memory of one sender, in bytes.
const MAX_BYTES: usize = 16 << 20;
/// The shared budget, in bytes.
const SHARED_BYTES: usize = 64 << 20;
/// Unit in which memory is taken from the shared budget.
const STEP_BYTES: usize = 64 * 1024;

/// The budget that the caches of all senders of a broker share.
#[derive(Default)]
pub(super) struct SharedCacheMemory(AtomicUsize);

impl SharedCacheMemory {
    fn try_reserve(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= SHARED_BYTES);
        self.0.fetch_update(Relaxed, Relaxed, more).is_ok()
    }
}

/// The memory of the caches of one sender.
pub(super) struct CacheMemory {
    shared: Arc<SharedCacheMemory>,
    used: usize,
    /// Taken from the shared budget.
    reserved: usize,
}

impl CacheMemory {
    pub(super) fn new(shared: Arc<SharedCacheMemory>) -> Self {
        CacheMemory { shared, used: 0, reserved: 0 }
    }

    /// Counts `bytes` more, if there is memory for them.
    pub(super) fn try_take(&mut self, bytes: usize) -> bool {
        let used = self.used.saturating_add(bytes);
        let missing = used.saturating_sub(OWN_BYTES + self.reserved);
        if missing > 0 {
            let step = missing.next_multiple_of(STEP_BYTES);
            if used > MAX_BYTES || !self.shared.try_reserve(step) {
                return false;
            }
            self.reserved += step;
        }
        self.used = used;
        true
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Counts `bytes` less.
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
        let needed = self.used.saturating_sub(OWN_BYTES).next_multiple_of(STEP_BYTES);
        let unneeded = self.reserved.saturating_sub(needed);
        self.reserved -= unneeded;
        self.shared.0.fetch_sub(unneeded, Relaxed);
    }
}

impl Drop for CacheMemory {
    fn drop(&mut self) {
        self.give_back(self.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_has_some_memory_when_the_budget_is_used_up() {
        let shared = Arc::<SharedCacheMemory>::default();
        let mut all: Vec<_> = (0..5).map(|_| CacheMemory::new(shared.clone())).collect();
        for memory in &mut all {
            while memory.try_take(1000) {}
            assert!(memory.used <= MAX_BYTES && memory.used > OWN_BYTES - 1000);
        }
        assert!(shared.0.load(Relaxed) <= SHARED_BYTES && shared.0.load(Relaxed) > SHARED_BYTES - STEP_BYTES);
        let mut last = CacheMemory::new(shared.clone());
        assert!(last.try_take(OWN_BYTES) && !last.try_take(1), "the shared budget is used up");
        all.clear();
        assert!(shared.0.load(Relaxed) == 0 && last.try_take(1));
        last.give_back(1);
        assert_eq!((shared.0.load(Relaxed), last.used), (0, OWN_BYTES));
    }
}
