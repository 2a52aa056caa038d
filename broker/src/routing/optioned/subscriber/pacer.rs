//! When subscriptions with options are due: values whose interval ends, reports of what was missed, and
//! clients that others have fed long enough. Owns the times; one thread of the core serves all of them.

use elbus_plugin_api::QueueBudget;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::Subscriber;
use crate::{
    routing::{Hashing, holds::Holds},
    sync::Mutex,
};

/// Subscriptions that are served before the thread looks for the next ones.
const SERVED_AT_ONCE: usize = 256;

/// The times at which subscriptions are due.
#[derive(Default)]
pub(crate) struct Pacer {
    due: Mutex<Due>,
    holds: Arc<Holds>,
    budget: OnceLock<QueueBudget>,
    /// Wakes the thread that [serves](crate::routing::Router::serve_due) them.
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Publications that subscriptions have missed.
    missed: AtomicU64,
}

/// Each subscription is in both maps, once.
#[derive(Default)]
struct Due {
    by_time: BTreeMap<(Instant, u64), Weak<Subscriber>>,
    times: HashMap<u64, Instant, Hashing>,
}

impl Pacer {
    pub(in crate::routing) fn new(holds: Arc<Holds>) -> Self {
        Pacer {
            due: Mutex::default(),
            holds,
            budget: OnceLock::new(),
            waker: OnceLock::new(),
            missed: AtomicU64::new(0),
        }
    }

    /// Counts publications that a subscription has missed.
    pub(super) fn count_missed(&self, count: usize) {
        self.missed.fetch_add(count as u64, Relaxed);
    }

    /// Returns the number of publications that all subscriptions have missed since the start.
    pub(in crate::routing) fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }

    pub(super) fn holds(&self) -> &Arc<Holds> {
        &self.holds
    }

    /// Sets the budget that counts values that wait. Can be set once.
    pub(crate) fn set_budget(&self, budget: QueueBudget) {
        _ = self.budget.set(budget);
    }

    pub(in crate::routing) fn budget(&self) -> Option<&QueueBudget> {
        self.budget.get()
    }

    /// Sets what wakes the thread. Can be set once.
    pub(crate) fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        _ = self.waker.set(Box::new(waker));
    }

    pub(in crate::routing) fn wake(&self) {
        if let Some(wake) = self.waker.get() {
            wake();
        }
    }

    /// Has a subscription served at this time, unless it is due earlier.
    pub(super) fn schedule(&self, subscriber: &Arc<Subscriber>, at: Instant) {
        let is_first = {
            let mut due = self.due.lock();
            let serial = subscriber.serial;
            if let Some(before) = due.times.get(&serial).copied() {
                if before <= at {
                    return;
                }
                due.by_time.remove(&(before, serial));
            }
            due.times.insert(serial, at);
            due.by_time.insert((at, serial), Arc::downgrade(subscriber));
            due.by_time.first_key_value().is_some_and(|(first, _)| *first == (at, serial))
        };
        if is_first {
            self.wake();
        }
    }

    /// Forgets a subscription that has ended.
    pub(super) fn forget(&self, serial: u64) {
        let mut due = self.due.lock();
        if let Some(at) = due.times.remove(&serial) {
            due.by_time.remove(&(at, serial));
        }
    }

    /// Takes some subscriptions that are due at `now`. Returns them, and when the next one is due.
    pub(in crate::routing) fn take(&self, now: Instant) -> (Vec<Arc<Subscriber>>, Option<Instant>) {
        let mut due = self.due.lock();
        let mut taken = vec![];
        while taken.len() < SERVED_AT_ONCE
            && let Some(first) = due.by_time.first_entry()
            && first.key().0 <= now
        {
            let ((_, serial), subscriber) = first.remove_entry();
            due.times.remove(&serial);
            taken.extend(subscriber.upgrade());
        }
        let next = due.by_time.first_key_value().map(|((at, _), _)| *at);
        (taken, next)
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.wake(); // the thread ends
    }
}
