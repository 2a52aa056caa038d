//! The budget that all queues of a broker share, and the reservation of one queue. Owns the sum and the fair
//! share of each queue. Queues report only what stays in them, so a receiver that keeps up costs nothing.

use abi_stable::{StableAbi, std_types::RArc};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::abi::{FromRaw, IntoRaw, convert::sealed::Sealed};

/// The smallest fair share, in bytes: one read of a sender must fit.
const MIN_FAIR_SHARE_BYTES: usize = 64 * 1024;

/// The number of bytes queued by all transports, and its limit. Cheap to clone; all clones share the same
/// counters.
///
/// # Examples
/// ```
/// use elbus_plugin_api::QueueBudget;
///
/// let budget = QueueBudget::new(1 << 20);
/// let mut queue = budget.reserve();
/// queue.resize(600_000);
/// assert_eq!((budget.queued(), budget.fair_share()), (600_000, Some(1 << 20)));
/// drop(queue);
/// assert_eq!(budget.queued(), 0);
/// ```
#[derive(Clone)]
pub struct QueueBudget(RArc<RawQueueBudget>);

/// The counters, which all libraries change without calling each other.
#[doc(hidden)]
#[repr(C)]
#[derive(StableAbi)]
pub struct RawQueueBudget {
    limit: AtomicUsize,
    queued: AtomicUsize,
    /// The part of `queued` that buffers other than queues hold.
    charged: AtomicUsize,
    /// Queues that are not empty.
    blocked: AtomicUsize,
}

impl QueueBudget {
    /// Creates a budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        QueueBudget(RArc::new(RawQueueBudget {
            limit: limit.into(),
            queued: AtomicUsize::new(0),
            charged: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
        }))
    }

    /// Returns the limit in bytes.
    pub fn limit(&self) -> usize {
        self.0.limit.load(Relaxed)
    }

    /// Returns the number of queued bytes.
    pub fn queued(&self) -> usize {
        self.0.queued.load(Relaxed)
    }

    /// Returns the number of queues that are not empty.
    pub fn blocked(&self) -> usize {
        self.0.blocked.load(Relaxed)
    }

    /// Returns the limit of each queue while at least half of the budget is used: an equal share. `None`
    /// while less is used.
    pub fn fair_share(&self) -> Option<usize> {
        let limit = self.limit();
        if self.queued() < limit / 2 {
            return None;
        }
        Some((limit / self.blocked().max(1)).max(MIN_FAIR_SHARE_BYTES))
    }

    /// Returns an empty reservation for a queue.
    pub fn reserve(&self) -> QueueReservation {
        QueueReservation { budget: self.clone(), held: 0 }
    }

    /// Reports that a buffer that is not a queue, for example of a frame that is being received, holds `now`
    /// bytes. They count, but the buffer gets no fair share.
    ///
    /// `held` is the number of bytes last reported, initially zero. The caller stores it, and must report
    /// zero before it drops the buffer: otherwise the bytes count until the broker ends. Any thread may call
    /// it; it never blocks.
    ///
    /// # Examples
    /// ```
    /// use elbus_plugin_api::QueueBudget;
    ///
    /// let budget = QueueBudget::new(1 << 20);
    /// let mut held = 0;
    /// budget.charge(&mut held, 100);
    /// assert_eq!((held, budget.queued(), budget.blocked()), (100, 100, 0));
    /// budget.charge(&mut held, 0);
    /// assert_eq!(budget.queued(), 0);
    /// ```
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

    /// As [`charge`](Self::charge) for a buffer that grows, if that fits within the limit; otherwise nothing
    /// changes. Returns whether it fits.
    ///
    /// # Examples
    /// ```
    /// use elbus_plugin_api::QueueBudget;
    ///
    /// let budget = QueueBudget::new(100);
    /// let (mut one, mut other) = (0, 0);
    /// assert!(budget.try_charge(&mut one, 60));
    /// assert!(!budget.try_charge(&mut other, 60));
    /// assert_eq!((one, other, budget.queued()), (60, 0, 60));
    /// ```
    pub fn try_charge(&self, held: &mut usize, now: usize) -> bool {
        let (more, limit) = (now.saturating_sub(*held), self.limit());
        let sum = |queued: usize| queued.checked_add(more).filter(|sum| *sum <= limit);
        if self.0.queued.fetch_update(Relaxed, Relaxed, sum).is_err() {
            return false;
        }
        self.0.charged.fetch_add(more, Relaxed);
        *held += more;
        true
    }

    /// Returns whether queues hold at most an eighth of the limit, so that one can take a frame beyond it.
    pub fn queues_are_nearly_empty(&self) -> bool {
        self.queued().saturating_sub(self.0.charged.load(Relaxed)) <= self.limit() / 8
    }

    /// Returns whether `bytes` more fit within the limit.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.queued().saturating_add(bytes) <= self.limit()
    }

    /// Reports that a queue holds `now` bytes. For transports with tens of thousands of connections: a
    /// [`QueueReservation`] does the same and takes twice the memory.
    ///
    /// `held` is the number of bytes last reported, initially zero. The caller stores it, and must report
    /// zero before it drops the queue: otherwise the bytes count until the broker ends. Any thread may call
    /// it; it never blocks.
    ///
    /// # Examples
    /// ```
    /// use elbus_plugin_api::QueueBudget;
    ///
    /// let budget = QueueBudget::new(1 << 20);
    /// let mut held = 0;
    /// budget.account(&mut held, 100);
    /// assert_eq!((held, budget.queued(), budget.blocked()), (100, 100, 1));
    /// budget.account(&mut held, 0);
    /// assert_eq!((budget.queued(), budget.blocked()), (0, 0));
    /// ```
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

/// The limit is the operator's, so only the broker sets it.
pub fn set_queue_limit(budget: &QueueBudget, bytes: usize) {
    budget.0.limit.store(bytes, Relaxed);
}

impl Sealed for QueueBudget {}

impl FromRaw<RArc<RawQueueBudget>> for QueueBudget {
    fn from_raw(raw: RArc<RawQueueBudget>) -> Self {
        QueueBudget(raw)
    }
}

impl IntoRaw for QueueBudget {
    type Raw = RArc<RawQueueBudget>;

    fn into_raw(self) -> RArc<RawQueueBudget> {
        self.0
    }
}

/// What one queue holds of a [`QueueBudget`]. Dropping it returns all of that.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{QueueBudget, QueueReservation};
///
/// struct Queue {
///     messages: Vec<Vec<u8>>,
///     reservation: QueueReservation,
/// }
///
/// impl Queue {
///     fn push(&mut self, message: Vec<u8>) {
///         self.reservation.resize(self.reservation.bytes() + message.len());
///         self.messages.push(message);
///     }
/// }
///
/// let budget = QueueBudget::new(1 << 20);
/// let mut queue = Queue { messages: Vec::new(), reservation: budget.reserve() };
/// queue.push(vec![0; 100]);
/// assert_eq!((budget.queued(), budget.blocked()), (100, 1));
/// drop(queue);
/// assert_eq!((budget.queued(), budget.blocked()), (0, 0));
/// ```
pub struct QueueReservation {
    budget: QueueBudget,
    held: usize,
}

impl QueueReservation {
    /// Reports that the queue holds `bytes` now.
    #[inline]
    pub fn resize(&mut self, bytes: usize) {
        self.budget.account(&mut self.held, bytes);
    }

    /// Returns the bytes last reported.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.held
    }
}

impl Drop for QueueReservation {
    fn drop(&mut self) {
        self.resize(0);
    }
}

impl std::fmt::Debug for QueueReservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QueueReservation({} bytes)", self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn fair_shares_are_equal_and_apply_from_half_of_the_budget_on() {
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
    fn a_reservation_that_is_dropped_in_a_panic_returns_its_bytes() {
        let budget = QueueBudget::new(MIB);
        let mut queue = budget.reserve();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            queue.resize(MIB);
            std::panic::resume_unwind(Box::new("with the reservation"));
        }));
        assert!(unwound.is_err());
        assert_eq!((budget.queued(), budget.blocked()), (0, 0));
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
