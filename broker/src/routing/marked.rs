//! Publications that are marked and not delivered yet. Owns how many senders have such ones, and up to which
//! mark all are delivered; delivers nothing.
//!
//! A plugin that keeps publications has them before their recipients. A replay must not overtake them: a
//! client that gets the second of two publications by a replay would not get the first. So a replay waits
//! until everything that was marked before is delivered.
//!
//! Senders count themselves in one of several counters. A replay has them use another one from then on, and
//! waits until the one before is back at zero. One that does not get there in time stays out of use until it
//! does.

use std::time::Duration;

use crate::sync::{
    Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    wait_until,
};

/// How long a replay waits. A sink that does not return for so long delays replays, but stops none.
const LIMIT: Duration = Duration::from_secs(1);
/// With senders that take too long in all counters but one, replays do not wait.
const COUNTERS: usize = 16;

/// The senders whose publications are marked and not delivered yet.
#[derive(Default)]
pub(super) struct MarkedPublications {
    last_mark: AtomicU64,
    /// All publications with marks up to this are delivered.
    delivered: AtomicU64,
    /// The number of waits, times [`COUNTERS`], plus the index of the counter that senders use.
    period: AtomicUsize,
    senders: [AtomicUsize; COUNTERS],
    /// Held during a wait; senders do not take it.
    waiting: Mutex<()>,
}

/// A sender whose publications are marked and not delivered until this is dropped.
pub(super) struct Marking<'m>(&'m AtomicUsize);

impl Drop for Marking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl MarkedPublications {
    /// Returns a mark greater than all before.
    pub(super) fn next_mark(&self) -> u64 {
        self.last_mark.fetch_add(1, SeqCst) + 1
    }

    /// Has replays wait for what is marked until the result is dropped.
    pub(super) fn begin(&self) -> Marking<'_> {
        loop {
            let period = self.period.load(SeqCst);
            let senders = &self.senders[period % COUNTERS];
            senders.fetch_add(1, SeqCst);
            if self.period.load(SeqCst) == period {
                return Marking(senders);
            }
            // a wait that has begun in between may not have seen it
            senders.fetch_sub(1, SeqCst);
        }
    }

    /// Waits until all publications with marks up to `mark` are delivered, for at most 1 s. It has to wait
    /// once for all that are marked by then.
    pub(super) fn wait_for(&self, mark: u64) {
        self.wait_within(LIMIT, mark);
    }

    fn wait_within(&self, limit: Duration, mark: u64) {
        if mark <= self.delivered.load(SeqCst) {
            return;
        }
        let _waiting = self.waiting.lock();
        if mark <= self.delivered.load(SeqCst) {
            return;
        }
        let last = self.last_mark.load(SeqCst);
        let period = self.period.load(SeqCst);
        let (waits, before) = (period / COUNTERS, period % COUNTERS);
        let others = (1..COUNTERS).map(|step| (before + step) % COUNTERS);
        if let Some(free) = others.into_iter().find(|index| self.senders[*index].load(SeqCst) == 0) {
            self.period.store((waits + 1) * COUNTERS + free, SeqCst);
            wait_until(limit, || self.senders[before].load(SeqCst) == 0);
        }
        self.delivered.store(last, SeqCst);
    }
}

#[cfg(all(test, not(elbus_model)))]
mod tests {
    use super::*;
    use std::{
        sync::{atomic::AtomicBool, mpsc},
        thread::scope,
    };

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn a_replay_waits_for_what_is_marked_before_and_not_for_what_comes_after() {
        let marked = MarkedPublications::default();
        let (mark, done) = (marked.next_mark(), AtomicBool::new(false));
        let first = marked.begin();
        scope(|scope| {
            let (started, start) = mpsc::channel();
            let waits = scope.spawn({
                let (marked, done) = (&marked, &done);
                move || {
                    started.send(()).unwrap();
                    marked.wait_within(LONG, mark);
                    assert!(done.load(SeqCst));
                }
            });
            start.recv().unwrap();
            while marked.period.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            let after = marked.begin();
            done.store(true, SeqCst);
            drop(first);
            waits.join().unwrap();
            drop(after);
        });
        let _other = marked.begin();
        marked.wait_within(Duration::MAX, mark); // known to be delivered
    }

    #[test]
    fn senders_that_never_end_delay_one_wait_each_and_stop_none() {
        let marked = MarkedPublications::default();
        for _ in 0..2 * COUNTERS {
            std::mem::forget(marked.begin());
            marked.wait_within(Duration::ZERO, marked.next_mark());
            // not waited for again, and neither are others beside those that never end
            (0..100).for_each(|_| marked.wait_within(SHORT, marked.next_mark()));
        }
    }

    #[test]
    fn the_late_end_of_a_sender_ends_no_wait_for_others() {
        let marked = MarkedPublications::default();
        let late = marked.begin();
        marked.wait_within(Duration::ZERO, marked.next_mark());
        // until the counter of the late one would be used again, if it could
        (0..3).for_each(|_| marked.wait_within(LONG, marked.next_mark()));
        let (mark, sender, done) = (marked.next_mark(), marked.begin(), AtomicBool::new(false));
        let period = marked.period.load(SeqCst);
        scope(|scope| {
            let waits = scope.spawn(|| {
                marked.wait_within(LONG, mark);
                assert!(done.load(SeqCst));
            });
            while marked.period.load(SeqCst) == period {
                std::thread::yield_now();
            }
            drop(late);
            // a wait that this has ended is over by then
            std::thread::sleep(SHORT);
            done.store(true, SeqCst);
            drop(sender);
            waits.join().unwrap();
        });
    }
}
