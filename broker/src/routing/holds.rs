//! Receivers whose queue is over its limit, and the senders that they hold. Owns when a receiver can no
//! longer hold senders; knows neither queues nor their limits.
//!
//! A sender that has other receivers is not held while it has only [little](super::sender_quotas) in the
//! queue of a full one. So a sender that floods a receiver does not hold up the receiver's other senders.
//! While senders with other receivers are held, those are checked every [`CHECK_INTERVAL`]: if one of them
//! has taken everything, the time is [charged](super::hold_budget). A receiver whose budget with a sender is
//! spent holds it only while it has no other receiver; otherwise it gets nothing more of this sender until it
//! has drained.
//!
//! Lock order: the blocked senders of a client, or the watch, or the settings, or the table and then the
//! budgets spent for a sender. None is held while a sink or notifier is called.

use elbus_plugin_api::QueueBudget;
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use super::{
    client_keys::ClientKeys,
    hold_budget::{HoldSettings, HoldTable, SpentFor},
    hold_cycles::Cycles,
    registered_client::RegisteredClient,
};
use crate::{
    statistics::WaitingTime,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Interval of the checks of receivers that hold senders, from the end of one to the next.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// Checks after a receiver has last held a sender, so that the times of its checks do not depend on when it
/// began.
const IDLE_CHECKS: u32 = 50;
/// The most time that one check charges: its thread may have had no processor.
const MAX_CHARGE: Duration = Duration::from_millis(500);
/// The most other receivers, of all senders together, that one check visits. The next check continues after
/// them.
const RECEIVERS_PER_CHECK: usize = 4096;

/// The full receivers, and their hold budgets.
pub(crate) struct Holds {
    /// The number of full receivers. While it is zero, nothing is searched.
    full: AtomicUsize,
    settings: RwLock<Arc<HoldSettings>>,
    table: Mutex<HoldTable>,
    watch: Mutex<Watch>,
    cycles: Cycles,
    /// How long senders have been held. A leaf lock, held briefly.
    held: Mutex<WaitingTime>,
    /// Wakes the thread that [checks](Self::check).
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Watch {
    /// Receivers that hold senders with other receivers, in the order of the checks.
    holding: VecDeque<Watched>,
    /// How many of them remain in this round. A round takes one check, unless there are very many.
    left: usize,
    /// Time of the last check, if there was anything to check, and number of checks.
    checked_at: Option<Instant>,
    checks: usize,
    /// The total time of all checks, its value when the round began, and how long the last round took: this
    /// is charged in the current one.
    clock: Duration,
    round: Duration,
    charged: Duration,
}

struct Watched {
    member: Weak<RegisteredClient>,
    /// Rounds since it has last held a sender.
    idle: u32,
    /// The number of senders that have been checked in this round.
    next: usize,
}

impl Watch {
    /// Begins a check, and a round if the last one has ended. Returns the number of the check and the time to
    /// charge.
    fn begin(&mut self, now: Instant) -> (usize, Duration) {
        let passed =
            self.checked_at.map_or(Duration::ZERO, |checked_at| now.saturating_duration_since(checked_at));
        self.clock += passed.min(MAX_CHARGE);
        self.checks = self.checks.wrapping_add(1);
        self.checked_at = Some(now);
        if self.left == 0 {
            self.charged = self.clock.saturating_sub(self.round);
            self.round = self.clock;
            self.left = self.holding.len();
        }
        (self.checks, self.charged)
    }

    fn next(&mut self) -> Option<Watched> {
        self.left = self.left.checked_sub(1)?;
        self.holding.pop_front()
    }

    /// Continues with this receiver in the next check.
    fn put_back(&mut self, watched: Watched) {
        self.left += 1;
        self.holding.push_front(watched);
    }
}

/// A full receiver. It is counted while this exists.
pub(super) struct CountedFull(Arc<Holds>);

impl Drop for CountedFull {
    fn drop(&mut self) {
        self.0.full.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A sender that is held. It is counted while this exists.
pub(super) struct CountedHeld(Arc<Holds>);

impl Drop for CountedHeld {
    fn drop(&mut self) {
        self.0.held.lock().end_one(Instant::now());
    }
}

impl Default for Holds {
    fn default() -> Self {
        Holds {
            full: AtomicUsize::new(0),
            settings: RwLock::default(),
            table: Mutex::new(HoldTable::new(Instant::now())),
            watch: Mutex::default(),
            cycles: Cycles::default(),
            held: Mutex::default(),
            waker: OnceLock::new(),
        }
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        self.wake_watcher(); // the thread ends
    }
}

impl Holds {
    /// Counts one more full receiver.
    pub(super) fn count_full(self: &Arc<Self>) -> CountedFull {
        self.full.fetch_add(1, Ordering::Relaxed);
        CountedFull(self.clone())
    }

    /// Returns how many receivers are full.
    pub(crate) fn full(&self) -> usize {
        self.full.load(Ordering::Relaxed)
    }

    /// Counts one more sender that is held, until the result is dropped.
    pub(super) fn count_held(self: &Arc<Self>) -> CountedHeld {
        self.held.lock().begin_one(Instant::now());
        CountedHeld(self.clone())
    }

    /// Returns how many senders are held, and for how long senders have been held since the start, all of
    /// them together.
    pub(crate) fn held(&self) -> (usize, Duration) {
        let held = self.held.lock();
        (held.waiting(), held.sum(Instant::now()))
    }

    /// Returns the number of names and identities of receivers whose hold budget is spent for a sender.
    pub(crate) fn spent_budgets(&self) -> usize {
        self.table.lock().spent_count()
    }

    /// Returns whether any receiver is full.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.full.load(Ordering::Relaxed) > 0
    }

    /// Replaces the settings.
    pub(crate) fn set(&self, settings: HoldSettings) {
        let settings = Arc::new(settings);
        let before = std::mem::replace(&mut *self.settings.write(), settings.clone());
        self.table.lock().set(&before, &settings);
        self.wake_watcher();
    }

    fn settings(&self) -> Arc<HoldSettings> {
        self.settings.read().clone()
    }

    /// Sets the function that wakes the thread that [checks](Self::check). Can be set once.
    pub(crate) fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        _ = self.waker.set(Box::new(waker));
    }

    fn wake_watcher(&self) {
        if let Some(wake) = self.waker.get() {
            wake();
        }
    }

    /// Lets checks find cycles too, and charge overdrafts to `budget`.
    pub(crate) fn find_cycles(&self, budget: QueueBudget) {
        self.cycles.begin(budget);
    }

    /// Records that a client is not read until these receivers, or its `own` queue, have drained.
    pub(super) fn note(
        &self,
        sender: &Arc<RegisteredClient>,
        receivers: impl Iterator<Item = u64>,
        own: bool,
        left: &Arc<AtomicUsize>,
    ) {
        if self.cycles.note(sender, receivers, own, left) {
            self.wake_watcher();
        }
    }

    /// Returns how long a receiver has held the sender that it has held longest, as counted in the budget of
    /// its name.
    pub(crate) fn used(&self, member: &RegisteredClient) -> Duration {
        let settings = self.settings();
        self.table.lock().used(member.keys, &settings, Instant::now())
    }

    /// Returns whether the hold budget of a receiver is spent for any sender.
    pub(crate) fn is_spent(&self, member: &RegisteredClient) -> bool {
        self.table.lock().is_spent(member.keys) && !self.settings().exempts(member)
    }

    /// Returns the receivers whose budget is spent for a sender.
    pub(super) fn spent_for(&self, sender: ClientKeys) -> Arc<SpentFor> {
        let settings = self.settings();
        self.table.lock().spent_for(sender, &settings, Instant::now())
    }

    /// Returns whether a receiver no longer holds this sender if it has other receivers.
    pub(super) fn is_spent_for(&self, spent: &SpentFor, member: &RegisteredClient) -> bool {
        spent.has(member.keys) && !self.settings().exempts(member)
    }

    /// Records that a receiver holds senders with other receivers.
    pub(super) fn watch(&self, member: &Arc<RegisteredClient>) {
        let was_idle = {
            let mut watch = self.watch.lock();
            watch.holding.push_back(Watched { member: Arc::downgrade(member), idle: 0, next: 0 });
            watch.holding.len() == 1
        };
        if was_idle {
            self.wake_watcher();
        }
    }

    /// Charges receivers that hold senders, determines whose budget is spent or refilled, and lets cycles of
    /// senders continue. Returns when the next check is due, if there is anything to check.
    pub(crate) fn check(&self, now: Instant) -> Option<Instant> {
        let (holds, cycles) = (self.check_holds(now), self.cycles.check(now));
        [holds, cycles].into_iter().flatten().min()
    }

    fn check_holds(&self, now: Instant) -> Option<Instant> {
        let began = Instant::now();
        let settings = self.settings();
        let (check, charge) = self.watch.lock().begin(now);
        let (mut visited, mut seen, mut charged) = (0, Vec::new(), Vec::new());
        while visited < RECEIVERS_PER_CHECK
            && let Some(mut watched) = self.next_watched()
        {
            let Some(member) = watched.member.upgrade() else { continue };
            let exempt = settings.exempts(&member);
            let (senders, more) = member.sharing(watched.next, RECEIVERS_PER_CHECK - visited);
            let mut count = 0;
            for others in &senders {
                count += 1;
                if others.any_starves(&member, check, &mut visited) && !exempt {
                    charged.push((member.clone(), others.spent.clone()));
                }
                if visited >= RECEIVERS_PER_CHECK {
                    break;
                }
            }
            let goes_on = more || count < senders.len();
            watched.idle = if senders.is_empty() && watched.next == 0 { watched.idle + 1 } else { 0 };
            watched.next = if goes_on { watched.next + count } else { 0 };
            if count > 0 {
                seen.push((member.clone(), senders));
            }
            if goes_on {
                self.watch.lock().put_back(watched);
            } else if watched.idle <= IDLE_CHECKS || !member.unwatch() {
                self.watch.lock().holding.push_back(watched);
            }
        }
        let (begun, refilled, any_spent) = {
            let mut table = self.table.lock();
            let begun = table.charge(&charged, &settings, charge, now);
            let refilled = table.refill(&settings, now);
            (begun, refilled, table.any_spent())
        };
        for begun in begun {
            let (client, budget_seconds) = (&*begun.client.name, begun.budget.as_secs_f64());
            if begun.first {
                tracing::warn!(
                    client,
                    budget_seconds,
                    "hold budget spent: messages that exceed the queue are dropped until it has refilled \
                     (hold_budget_seconds)"
                );
            } else {
                tracing::debug!(client, budget_seconds, "hold budget of another sender spent");
            }
        }
        for client in refilled {
            let dropped = client.dropped.load(Ordering::Relaxed);
            tracing::info!(client = &*client.name, dropped, "hold budget refilled");
        }
        for (member, senders) in seen {
            member.release(&senders, |others| self.is_spent_for(&others.spent, &member));
        }
        let mut watch = self.watch.lock();
        if watch.holding.is_empty() {
            watch.checked_at = None;
            return any_spent.then(|| now + settings.part());
        }
        Some(now + began.elapsed() + CHECK_INTERVAL)
    }

    fn next_watched(&self) -> Option<Watched> {
        self.watch.lock().next()
    }
}

#[cfg(test)]
mod tests;
