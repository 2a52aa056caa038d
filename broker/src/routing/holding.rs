//! Receivers whose queue is over its limit, and the senders that are held because of them. Owns who waits for whom, and
//! when a receiver may hold nobody any more; never a queue or its limit.
//!
//! A receiver is full from the delivery that its sink answers with `FULL` until the sink says that it has drained, or it
//! has left. The core asks the sink for that once, and wakes all senders itself.
//!
//! While senders are held that have other receivers, these are looked at every [`LOOK_EVERY`]: if one of them has nothing
//! left to take, the time is [charged](super::hold_budget). A receiver whose budget is spent holds only those who send
//! to nobody else; of what others send, it gets nothing more until it has drained.
//!
//! Lock order: the senders of a member, or the watch, or the table. None is held while a sink or wake is called.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::abi::{RawWake, RawWake_TO, WakeObject};
use std::{
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use super::{
    hold_budget::{HoldSettings, HoldTable},
    member::Member,
    recipients::Recipients,
};
use crate::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// [`Member::state`]: more is queued for it than may be, and it has not drained since.
const FULL: u8 = 2;
/// [`Member::state`]: it has spent its budget.
const SPENT: u8 = 4;
/// [`Member::state`]: it is in the watch.
const WATCHED: u8 = 8;

/// How often those are looked at who hold senders.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looks at one that holds nobody any more, so that when it is looked at does not depend on when it began.
const KEEP_LOOKS: u32 = 50;
/// No look charges more: the thread that looks may have had no processor.
const LONGEST_LOOK: Duration = Duration::from_millis(500);
/// Senders of one receiver whose other receivers are looked at each time, and so many of these.
const LOOK_AT_SENDERS: usize = 4;
const LOOK_AT_OTHERS: usize = 128;
/// Wakes that a receiver keeps, however few clients there are. Beyond that and two for each client, most are of senders that have
/// left.
const KEPT_WAKES: usize = 1024;
/// Receivers of one sender among which these are found in turn.
const MOST_OTHERS: usize = 4096;

/// What the router knows of all receivers that are full.
pub(crate) struct Holds {
    /// How many there are: while there are none, nobody looks for them.
    full: AtomicUsize,
    table: Mutex<HoldTable>,
    watch: Mutex<Watch>,
    /// Calls whoever [looks](Self::look).
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Watch {
    /// Those that hold senders with other receivers.
    holding: Vec<Watched>,
    /// Those that hold nobody, since their budget is spent.
    spent: Vec<Weak<Member>>,
    /// When these were last looked at, if there were any, and how often in all.
    looked: Option<Instant>,
    looks: usize,
}

struct Watched {
    member: Weak<Member>,
    /// Looks since it has last held anybody.
    idle: u32,
}

/// Who waits for a receiver. Nothing is allocated while it is not full.
#[derive(Default)]
pub(super) struct Waiting(Option<Box<Full>>);

struct Full {
    /// Senders that have no other receivers, as far as is known.
    alone: Vec<WakeObject>,
    /// Senders that have others.
    sharing: Vec<(WakeObject, Arc<Others>)>,
    _counted: Counted,
}

/// To whom a sender sends.
pub(super) struct Others {
    pub(super) peers: Vec<Weak<Member>>,
    pub(super) routes: Vec<Arc<Recipients>>,
    /// The address of the sender's own member.
    pub(super) own: usize,
}

impl Others {
    /// Those but for one, and the sender itself.
    fn but<'o>(&'o self, one: &'o Arc<Member>) -> impl Iterator<Item = Arc<Member>> {
        let routes = self.routes.iter().flat_map(|route| route.iter());
        let all = self.peers.iter().filter_map(Weak::upgrade).chain(routes);
        all.filter(move |member| is_other(member, one, self.own))
    }

    /// Whether one of them has taken everything, and could have more but for `one`. Of many, not the same are looked at each
    /// time.
    fn any_starves(&self, one: &Arc<Member>, look: usize) -> bool {
        let first = look.wrapping_mul(LOOK_AT_OTHERS) % MOST_OTHERS;
        let mut others = self.but(one).skip(first).chain(self.but(one)).take(LOOK_AT_OTHERS);
        others.any(|other| !other.is_full() && other.queued().bytes == 0)
    }
}

/// Whether a receiver is another one than `one`, of a sender whose own member has the address `own`.
pub(super) fn is_other(member: &Arc<Member>, one: &Arc<Member>, own: usize) -> bool {
    !Arc::ptr_eq(member, one)
        && Arc::as_ptr(member).addr() != own
        && !member.origin.internal
        && !member.is_gone()
}

/// A full receiver, counted for as long as this lives.
struct Counted(Arc<Holds>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.full.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Holds {
    fn default() -> Self {
        Holds {
            full: AtomicUsize::new(0),
            table: Mutex::new(HoldTable::new(HoldSettings::default(), Instant::now())),
            watch: Mutex::default(),
            bell: OnceLock::new(),
        }
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        self.ring(); // whoever looks finds that there is nothing any more
    }
}

impl Holds {
    /// Whether any receiver is full.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.full.load(Ordering::Relaxed) > 0
    }

    /// Sets other budgets.
    pub(crate) fn set(&self, settings: HoldSettings) {
        self.table.lock().set(settings);
        self.ring();
    }

    /// Sets what calls whoever [looks](Self::look).
    pub(crate) fn set_bell(&self, bell: impl Fn() + Send + Sync + 'static) {
        _ = self.bell.set(Box::new(bell)); // there is one
    }

    fn ring(&self) {
        if let Some(bell) = self.bell.get() {
            bell();
        }
    }

    /// How long a receiver has held senders, as far as that counts for the budget of its name.
    pub(crate) fn used(&self, member: &Member) -> Duration {
        self.table.lock().used(member, Instant::now())
    }

    /// A receiver has begun to hold senders that have others.
    fn watch(&self, member: &Arc<Member>) {
        let was_idle = {
            let mut watch = self.watch.lock();
            watch.holding.push(Watched { member: Arc::downgrade(member), idle: 0 });
            watch.holding.len() == 1
        };
        if was_idle {
            self.ring();
        }
    }

    /// Whether a receiver holds nobody that sends to others as well, since its budget is spent.
    fn holds_nobody(&self, member: &Arc<Member>) -> bool {
        if member.is_spent() {
            return true;
        }
        let spent = self.table.lock().is_spent(member, Instant::now());
        if spent {
            self.spend(member);
        }
        spent
    }

    /// The budget of a receiver is spent: those who send to others as well go on.
    fn spend(&self, member: &Arc<Member>) {
        if member.state.fetch_or(SPENT, Ordering::Relaxed) & SPENT == 0 {
            tracing::debug!(client = &*member.name, "holds no senders: its hold budget is spent");
            self.watch.lock().spent.push(Arc::downgrade(member));
            self.ring();
        }
        member.release();
    }

    /// Charges those who hold senders, and finds out whose budget is spent or refilled. Returns when to look again, if there
    /// is anything to look at.
    pub(crate) fn look(&self, now: Instant) -> Option<Instant> {
        let (holding, spent, looked, look) = {
            let mut watch = self.watch.lock();
            watch.looks = watch.looks.wrapping_add(1);
            let (holding, spent) = (std::mem::take(&mut watch.holding), std::mem::take(&mut watch.spent));
            (holding, spent, watch.looked.take(), watch.looks)
        };
        let passed = looked.map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        let (mut watched, mut charged) = (Vec::new(), Vec::new());
        for Watched { member, idle } in holding {
            let Some(member) = member.upgrade() else { continue };
            let senders = member.sharing();
            let idle = if senders.is_empty() { idle + 1 } else { 0 };
            if senders.iter().any(|others| others.any_starves(&member, look)) {
                charged.push(member.clone());
            }
            if idle <= KEEP_LOOKS || !member.unwatch() {
                watched.push((member, idle));
            }
        }
        let verdicts = self.table.lock().judge(&watched, charged, &spent, passed.min(LONGEST_LOOK), now);
        for (member, holder, budget) in verdicts.begun {
            let budget_seconds = budget.as_secs_f64();
            tracing::warn!(
                client = &*member.name,
                ?holder,
                budget_seconds,
                "hold budget spent: messages that exceed the queue are dropped until it has refilled (hold_budget_seconds)"
            );
        }
        verdicts.spent.iter().for_each(|member| self.spend(member));
        verdicts.refilled.iter().for_each(|member| member.refill());
        let mut watch = self.watch.lock();
        watched.retain(|(member, _)| !member.is_spent());
        let still =
            watched.iter().map(|(member, idle)| Watched { member: Arc::downgrade(member), idle: *idle });
        watch.holding.extend(still);
        watch.spent.extend(verdicts.waiting);
        if watch.holding.is_empty() {
            return (!watch.spent.is_empty()).then(|| now + verdicts.part);
        }
        watch.looked = Some(now);
        Some(now + LOOK_EVERY)
    }
}

impl Member {
    /// Whether it is full.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.state.load(Ordering::Relaxed) & FULL != 0
    }

    /// Whether it holds nobody that sends to others as well.
    #[inline]
    pub(crate) fn is_spent(&self) -> bool {
        self.state.load(Ordering::Relaxed) & SPENT != 0
    }

    /// Its sink has answered that it is full.
    #[cold]
    pub(super) fn fill(self: &Arc<Self>, holds: &Arc<Holds>) {
        {
            let mut waiting = self.waiting.lock();
            if self.state.fetch_or(FULL, Ordering::Relaxed) & FULL != 0 {
                return;
            }
            holds.full.fetch_add(1, Ordering::Relaxed);
            let _counted = Counted(holds.clone());
            waiting.0 = Some(Box::new(Full { alone: Vec::new(), sharing: Vec::new(), _counted }));
        }
        let drained = Drained(Arc::downgrade(self));
        self.when_drained(RawWake_TO::from_ptr(RArc::new(drained), TD_Opaque));
    }

    /// It has drained, or left: whoever waits for it goes on.
    pub(super) fn drained(&self) {
        let full = {
            let mut waiting = self.waiting.lock();
            self.state.fetch_and(!FULL, Ordering::Relaxed);
            waiting.0.take()
        };
        if let Some(full) = full {
            full.wake();
        }
    }

    /// Wakes whoever waits for it, where these are more than there can be `clients`: senders that are there wait again, the
    /// others are forgotten.
    pub(super) fn forget_departed(&self, clients: impl FnOnce() -> usize) {
        let count = self.waiting.lock().0.as_ref().map_or(0, |full| full.alone.len() + full.sharing.len());
        if count < KEPT_WAKES || count < clients().saturating_mul(2) {
            return;
        }
        let (alone, sharing) = match &mut self.waiting.lock().0 {
            Some(full) => (std::mem::take(&mut full.alone), std::mem::take(&mut full.sharing)),
            None => return,
        };
        let sharing = sharing.into_iter().map(|(sender, _)| sender);
        alone.into_iter().chain(sharing).for_each(|sender| sender.wake());
    }

    /// Wakes a sender once it has drained, at once if it is not full. One that has `others` is woken also when the budget
    /// is spent.
    pub(super) fn hold(self: &Arc<Self>, holds: &Holds, sender: WakeObject, others: Option<Others>) {
        let Some(others) = others else {
            let mut waiting = self.waiting.lock();
            if let Some(full) = &mut waiting.0 {
                return full.alone.push(sender);
            }
            drop(waiting);
            return sender.wake();
        };
        if self.is_full() && !holds.holds_nobody(self) {
            let mut waiting = self.waiting.lock();
            if let Some(full) = &mut waiting.0 {
                full.sharing.push((sender, Arc::new(others)));
                let is_new = self.state.fetch_or(WATCHED, Ordering::Relaxed) & WATCHED == 0;
                drop(waiting);
                if is_new {
                    holds.watch(self);
                }
                return;
            }
        }
        sender.wake();
    }

    /// The other receivers of senders that it holds.
    fn sharing(&self) -> Vec<Arc<Others>> {
        let waiting = self.waiting.lock();
        let sharing = waiting.0.iter().flat_map(|full| &full.sharing);
        sharing.take(LOOK_AT_SENDERS).map(|(_, others)| others.clone()).collect()
    }

    /// Takes it out of the watch, unless it holds senders.
    fn unwatch(&self) -> bool {
        let waiting = self.waiting.lock();
        let idle = waiting.0.as_ref().is_none_or(|full| full.sharing.is_empty());
        if idle {
            self.state.fetch_and(!WATCHED, Ordering::Relaxed);
        }
        idle
    }

    /// Those who send to others as well go on, and it is watched no longer.
    fn release(&self) {
        let sharing = {
            let mut waiting = self.waiting.lock();
            self.state.fetch_and(!WATCHED, Ordering::Relaxed);
            waiting.0.as_mut().map(|full| std::mem::take(&mut full.sharing))
        };
        sharing.into_iter().flatten().for_each(|(sender, _)| sender.wake());
    }

    /// It may hold senders again.
    fn refill(&self) {
        self.state.fetch_and(!SPENT, Ordering::Relaxed);
        let dropped = self.dropped.load(Ordering::Relaxed);
        tracing::info!(client = &*self.name, dropped, "hold budget refilled");
    }
}

impl Full {
    fn wake(self) {
        let sharing = self.sharing.into_iter().map(|(sender, _)| sender);
        self.alone.into_iter().chain(sharing).for_each(|sender| sender.wake());
    }
}

impl Drop for Waiting {
    /// A sink that never said that it has drained holds nobody once its client is forgotten.
    fn drop(&mut self) {
        if let Some(full) = self.0.take() {
            full.wake();
        }
    }
}

/// What the sink of a full receiver calls.
#[derive(Clone)]
struct Drained(Weak<Member>);

impl RawWake for Drained {
    fn wake(&self) {
        if let Some(member) = self.0.upgrade() {
            member.drained();
        }
    }
}
