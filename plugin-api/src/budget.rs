//! What may wait in all queues of a broker together. Owns the sum and each queue's fair share of it; queues tell it only
//! what stays in them, so whoever keeps up costs nothing.

use abi_stable::{StableAbi, std_types::RArc};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A share is never smaller, in bytes: one read of a sender must fit.
const MIN_FAIR_SHARE_BYTES: usize = 64 * 1024;

/// How many bytes wait in the queues of all transports that account for them, and how many may. Cheap to clone; all clones are the same one.
#[derive(Clone)]
pub struct QueueBudget(RArc<RawQueueBudget>);

/// The counters, which all libraries change without calling each other.
#[doc(hidden)]
#[repr(C)]
#[derive(StableAbi)]
pub struct RawQueueBudget {
    limit: AtomicUsize,
    queued: AtomicUsize,
    /// How much of that is in no queue yet.
    charged: AtomicUsize,
    /// Queues that hold anything.
    blocked: AtomicUsize,
}

impl QueueBudget {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self::from_raw(RArc::new(RawQueueBudget {
            limit: limit.into(),
            queued: AtomicUsize::new(0),
            charged: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
        }))
    }

    /// From what crossed the boundary.
    #[doc(hidden)]
    pub fn from_raw(raw: RArc<RawQueueBudget>) -> Self {
        QueueBudget(raw)
    }

    /// What crosses the boundary.
    #[doc(hidden)]
    pub fn to_raw(&self) -> RArc<RawQueueBudget> {
        self.0.clone()
    }

    /// How much may wait.
    pub fn limit(&self) -> usize {
        self.0.limit.load(Relaxed)
    }

    /// Another limit, from now on.
    pub fn set_limit(&self, bytes: usize) {
        self.0.limit.store(bytes, Relaxed);
    }

    /// How much waits now.
    pub fn queued(&self) -> usize {
        self.0.queued.load(Relaxed)
    }

    /// How many queues hold something that waits.
    pub fn blocked(&self) -> usize {
        self.0.blocked.load(Relaxed)
    }

    /// What a queue may hold while half of the budget is used: as much as every other one. `None` while there is less.
    pub fn fair_share(&self) -> Option<usize> {
        let limit = self.limit();
        if self.queued() < limit / 2 {
            return None;
        }
        Some((limit / self.blocked().max(1)).max(MIN_FAIR_SHARE_BYTES))
    }

    /// Something that is no queue holds `now` bytes, a frame that is being received for example: it counts, but gets no
    /// share. Told as in [`account`](Self::account).
    pub fn charge(&self, held: &mut usize, now: usize) {
        let before = std::mem::replace(held, now);
        if now > before {
            self.0.charged.fetch_add(now - before, Relaxed);
            self.0.queued.fetch_add(now - before, Relaxed);
        } else {
            self.0.queued.fetch_sub(before - now, Relaxed);
            self.0.charged.fetch_sub(before - now, Relaxed);
        }
    }

    /// Whether queues hold so little that a frame that exceeds the limit can be added to one: an eighth of the limit.
    pub fn queues_are_nearly_empty(&self) -> bool {
        self.queued().saturating_sub(self.0.charged.load(Relaxed)) <= self.limit() / 8
    }

    /// Whether so many bytes more may be held.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.queued().saturating_add(bytes) <= self.limit()
    }

    /// A queue holds `now` bytes that wait; `held` is what it has told before, zero at first. It must tell zero before it
    /// goes.
    pub fn account(&self, held: &mut usize, now: usize) {
        let before = std::mem::replace(held, now);
        if now > before {
            self.0.queued.fetch_add(now - before, Relaxed);
        } else if now < before {
            self.0.queued.fetch_sub(before - now, Relaxed);
        }
        match (before, now) {
            (0, 1..) => drop(self.0.blocked.fetch_add(1, Relaxed)),
            (1.., 0) => drop(self.0.blocked.fetch_sub(1, Relaxed)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn shares_are_equal_and_only_under_pressure() {
        let budget = QueueBudget::new(100 * MIB);
        let mut held = [0; 10];
        budget.account(&mut held[0], 49 * MIB);
        assert_eq!(budget.fair_share(), None);
        budget.account(&mut held[0], 50 * MIB);
        assert_eq!(budget.fair_share(), Some(100 * MIB), "nobody else wants any");
        held.iter_mut().skip(1).for_each(|held| budget.account(held, 1));
        assert_eq!((budget.fair_share(), budget.blocked()), (Some(10 * MIB), 10));
        held.iter_mut().for_each(|held| budget.account(held, 0));
        assert_eq!((budget.queued(), budget.blocked(), budget.fair_share()), (0, 0, None));
        assert_eq!(
            QueueBudget::new(1).fair_share(),
            Some(MIN_FAIR_SHARE_BYTES),
            "never too little to work with"
        );
    }

    #[test]
    fn frames_that_are_being_received_do_not_fill_queues() {
        let budget = QueueBudget::new(8 * MIB);
        let (mut queue, mut frame) = (0, 0);
        budget.charge(&mut frame, 20 * MIB);
        budget.account(&mut queue, MIB);
        assert!(!budget.has_room(0) && budget.queues_are_nearly_empty());
        budget.account(&mut queue, MIB + 1);
        assert!(!budget.queues_are_nearly_empty());
        budget.charge(&mut frame, 0);
        assert!(budget.has_room(0) && !budget.queues_are_nearly_empty());
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_all_queues_and_returns_to_zero(
            steps in prop::collection::vec((0..8usize, 0..10_000usize), 0..200)
        ) {
            let budget = QueueBudget::new(MIB);
            let mut held = [0; 8];
            for (queue, now) in steps {
                budget.account(&mut held[queue], now);
                prop_assert_eq!(budget.queued(), held.iter().sum::<usize>());
                prop_assert_eq!(budget.blocked(), held.iter().filter(|held| **held > 0).count());
            }
            held.iter_mut().for_each(|held| budget.account(held, 0));
            prop_assert_eq!((budget.queued(), budget.blocked()), (0, 0));
        }
    }
}
