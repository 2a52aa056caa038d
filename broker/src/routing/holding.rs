//! Receivers whose queue is over its limit, and the senders that are held because of them. Owns who waits for whom, and
//! when a receiver may hold nobody any more; never a queue or its limit.
//!
//! A receiver is full from the delivery that its sink answers with `FULL` until the sink says that it has drained, or it
//! has left. The core asks the sink for that once, and notifiers all senders itself.
//!
//! A sender that has other receivers is not held while it has only [a little](super::overdraft) in the queue of a full one: one
//! that floods it holds up nobody else. While such senders are held, their receivers are looked at every [`LOOK_EVERY`]: if
//! one of them has nothing left to take, the time is [charged](super::hold_budget). A receiver whose budget with a sender is
//! spent holds it only while it sends to nobody else; of what it sends, the receiver gets nothing more until it has drained.
//!
//! Lock order: the senders of a member, or the watch, or settings, or the table and then what is spent for a sender. None is
//! held while a sink or notifier is called.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::{
    QueueBudget,
    abi::{NotifierObject, RawNotifier, RawNotifier_TO},
};
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use super::{
    hold_budget::{HoldSettings, HoldTable, Keys, SpentFor},
    hold_cycles::Cycles,
    overdraft::Overdraft,
    recipients::Recipients,
    registered_client::RegisteredClient,
};
use crate::sync::{
    Mutex, RwLock,
    atomic::{AtomicUsize, Ordering},
};

/// [`RegisteredClient::state`]: more is queued for it than may be, and it has not drained since.
const FULL: u8 = 2;
/// [`RegisteredClient::state`]: it is in the watch.
const WATCHED: u8 = 8;

/// How often those are looked at who hold senders: from the end of one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looks at one that holds nobody any more, so that when it is looked at does not depend on when it began.
const KEEP_LOOKS: u32 = 50;
/// No look charges more: the thread that looks may have had no processor.
const LONGEST_LOOK: Duration = Duration::from_millis(500);
/// Other receivers of one sender that are looked at each time.
const LOOK_AT_OTHERS: usize = 128;
/// Other receivers, of all senders together, that one look comes to; then the next goes on with who is next in turn.
const LOOK_AT_ALL: usize = 4096;
/// Wakes that a receiver keeps, however few clients there are. Beyond that and two for each client, most are of senders that have
/// left.
const KEPT_WAKES: usize = 1024;
/// Receivers of one sender among which these are found in turn.
const MOST_OTHERS: usize = 4096;

/// What the router knows of all receivers that are full.
pub(crate) struct Holds {
    /// How many there are: while there are none, nobody looks for them.
    full: AtomicUsize,
    settings: RwLock<Arc<HoldSettings>>,
    table: Mutex<HoldTable>,
    watch: Mutex<Watch>,
    cycles: Cycles,
    /// Calls whoever [looks](Self::look).
    bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Watch {
    /// Those that hold senders with other receivers, in the order in which they are looked at.
    holding: VecDeque<Watched>,
    /// How many are still to be looked at in this round. A round takes one look, unless there are very many.
    left: usize,
    /// When these were last looked at, if there were any, and how often in all.
    looked: Option<Instant>,
    looks: usize,
    /// The time of all looks, when in it the round began, and how long the last one took: what is charged in this one.
    clock: Duration,
    round: Duration,
    charged: Duration,
}

struct Watched {
    member: Weak<RegisteredClient>,
    /// Rounds since it has last held anybody.
    idle: u32,
    /// Senders that have been looked at in this round.
    next: usize,
}

impl Watch {
    /// Begins a look, and a round where the last one has ended. Returns the number of the look and what is to be charged.
    fn begin(&mut self, now: Instant) -> (usize, Duration) {
        let passed = self.looked.map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        self.clock += passed.min(LONGEST_LOOK);
        self.looks = self.looks.wrapping_add(1);
        self.looked = Some(now);
        if self.left == 0 {
            self.charged = self.clock.saturating_sub(self.round);
            self.round = self.clock;
            self.left = self.holding.len();
        }
        (self.looks, self.charged)
    }

    fn next(&mut self) -> Option<Watched> {
        self.left = self.left.checked_sub(1)?;
        self.holding.pop_front()
    }

    /// Goes on with this one in the next look.
    fn put_back(&mut self, watched: Watched) {
        self.left += 1;
        self.holding.push_front(watched);
    }
}

/// Who waits for a receiver. Nothing is allocated while it is not full.
#[derive(Default)]
pub(super) struct Waiting(Option<Box<Full>>);

struct Full {
    /// Senders that have no other receivers, as far as is known.
    alone: Vec<NotifierObject>,
    /// Senders that have others.
    sharing: Vec<(NotifierObject, Arc<Others>)>,
    /// What it takes nevertheless.
    overdraft: Overdraft,
    _counted: Counted,
}

/// To whom a sender sends.
pub(super) struct Others {
    pub(super) peers: Vec<Weak<RegisteredClient>>,
    pub(super) routes: Vec<Arc<Recipients>>,
    /// The address of the sender's own member.
    pub(super) own: usize,
    /// By what hold budgets know the sender.
    pub(super) keys: Keys,
    /// Receivers whose budget is spent for the sender.
    pub(super) spent: Arc<SpentFor>,
}

impl Others {
    /// Those but for one, and the sender itself.
    fn but<'o>(&'o self, one: &'o Arc<RegisteredClient>) -> impl Iterator<Item = Arc<RegisteredClient>> {
        let routes = self.routes.iter().flat_map(|route| route.iter());
        let all = self.peers.iter().filter_map(Weak::upgrade).chain(routes);
        all.filter(move |member| is_other(member, one, self.own))
    }

    /// Whether one of them has taken everything, and could have more but for `one`. Of many, not the same are looked at each
    /// time. What is looked at is counted.
    fn any_starves(&self, one: &Arc<RegisteredClient>, look: usize, looked_at: &mut usize) -> bool {
        *looked_at += 1;
        let first = look.wrapping_mul(LOOK_AT_OTHERS) % MOST_OTHERS;
        let mut count = 0;
        let mut starves = |other: Arc<RegisteredClient>| {
            count += 1;
            !other.is_full() && other.queued().bytes == 0
        };
        let mut skipped = 0;
        let behind =
            self.but(one).inspect(|_| skipped += 1).skip(first).take(LOOK_AT_OTHERS).any(&mut starves);
        let left = LOOK_AT_OTHERS - count.min(LOOK_AT_OTHERS);
        *looked_at += skipped;
        if behind {
            return true;
        }
        // where there are not so many, from the beginning
        let mut others = self.but(one).take(left);
        let mut any = || {
            let other = others.next()?;
            *looked_at += 1;
            Some(!other.is_full() && other.queued().bytes == 0)
        };
        while let Some(starves) = any() {
            if starves {
                return true;
            }
        }
        false
    }
}

/// Whether a receiver is another one than `one`, of a sender whose own member has the address `own`.
pub(super) fn is_other(member: &Arc<RegisteredClient>, one: &Arc<RegisteredClient>, own: usize) -> bool {
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
            settings: RwLock::default(),
            table: Mutex::new(HoldTable::new(Instant::now())),
            watch: Mutex::default(),
            cycles: Cycles::default(),
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
        let settings = Arc::new(settings);
        let before = std::mem::replace(&mut *self.settings.write(), settings.clone());
        self.table.lock().set(&before, &settings);
        self.ring();
    }

    fn settings(&self) -> Arc<HoldSettings> {
        self.settings.read().clone()
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

    /// Whoever looks finds cycles as well, and charges what they are given to `budget`.
    pub(crate) fn find_cycles(&self, budget: QueueBudget) {
        self.cycles.begin(budget);
    }

    /// A client is not read before these receivers, or its `own` queue, have drained.
    pub(super) fn note(
        &self,
        sender: &Arc<RegisteredClient>,
        receivers: impl Iterator<Item = u64>,
        own: bool,
        left: &Arc<AtomicUsize>,
    ) {
        if self.cycles.note(sender, receivers, own, left) {
            self.ring();
        }
    }

    /// How long a receiver has held a sender, as far as that counts for the budget of its name; of several, the one that it
    /// has held longest.
    pub(crate) fn used(&self, member: &RegisteredClient) -> Duration {
        let settings = self.settings();
        self.table.lock().used(member.keys, &settings, Instant::now())
    }

    /// Whether the hold budget of a receiver is spent for any sender.
    pub(crate) fn is_spent(&self, member: &RegisteredClient) -> bool {
        self.table.lock().is_spent(member.keys) && !self.settings().exempts(member)
    }

    /// The receivers whose budget is spent for a sender.
    pub(super) fn spent_for(&self, sender: Keys) -> Arc<SpentFor> {
        let settings = self.settings();
        self.table.lock().spent_for(sender, &settings, Instant::now())
    }

    /// Whether a receiver holds this sender no longer, if it sends to others as well.
    pub(super) fn is_spent_for(&self, spent: &SpentFor, member: &RegisteredClient) -> bool {
        spent.has(member.keys) && !self.settings().exempts(member)
    }

    /// A receiver has begun to hold senders that have others.
    fn watch(&self, member: &Arc<RegisteredClient>) {
        let was_idle = {
            let mut watch = self.watch.lock();
            watch.holding.push_back(Watched { member: Arc::downgrade(member), idle: 0, next: 0 });
            watch.holding.len() == 1
        };
        if was_idle {
            self.ring();
        }
    }

    /// Charges those who hold senders, finds out whose budget is spent or refilled, and lets cycles of senders go on.
    /// Returns when to look again, if there is anything to look at.
    pub(crate) fn look(&self, now: Instant) -> Option<Instant> {
        let (holds, cycles) = (self.look_at_holds(now), self.cycles.look(now));
        [holds, cycles].into_iter().flatten().min()
    }

    fn look_at_holds(&self, now: Instant) -> Option<Instant> {
        let began = Instant::now();
        let settings = self.settings();
        let (look, charge) = self.watch.lock().begin(now);
        let (mut looked_at, mut seen, mut charged) = (0, Vec::new(), Vec::new());
        while looked_at < LOOK_AT_ALL
            && let Some(mut watched) = self.next_watched()
        {
            let Some(member) = watched.member.upgrade() else { continue };
            let exempt = settings.exempts(&member);
            let (senders, more) = member.sharing(watched.next, LOOK_AT_ALL - looked_at);
            let mut count = 0;
            for others in &senders {
                count += 1;
                if others.any_starves(&member, look, &mut looked_at) && !exempt {
                    charged.push((member.clone(), others.spent.clone()));
                }
                if looked_at >= LOOK_AT_ALL {
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
            } else if watched.idle <= KEEP_LOOKS || !member.unwatch() {
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
            watch.looked = None;
            return any_spent.then(|| now + settings.part());
        }
        Some(now + began.elapsed() + LOOK_EVERY)
    }

    fn next_watched(&self) -> Option<Watched> {
        self.watch.lock().next()
    }
}

impl RegisteredClient {
    /// Whether it is full.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.state.load(Ordering::Relaxed) & FULL != 0
    }

    /// Its sink has answered that it is full.
    #[cold]
    pub(super) fn fill(self: &Arc<Self>, holds: &Arc<Holds>) {
        if self.is_full() {
            return;
        }
        let overdraft = Overdraft::new(self.queued().bytes);
        {
            let mut waiting = self.waiting.lock();
            if self.state.fetch_or(FULL, Ordering::Relaxed) & FULL != 0 {
                return;
            }
            holds.full.fetch_add(1, Ordering::Relaxed);
            let _counted = Counted(holds.clone());
            waiting.0 = Some(Box::new(Full { alone: Vec::new(), sharing: Vec::new(), overdraft, _counted }));
        }
        let drained = Drained(Arc::downgrade(self));
        self.when_drained(RawNotifier_TO::from_ptr(RArc::new(drained), TD_Opaque));
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
        alone.into_iter().chain(sharing).for_each(|sender| sender.notify());
    }

    /// Wakes a sender once it has drained, at once if it is not full. One that has `others` is woken also when the budget
    /// is spent for it, or the receiver takes more of it.
    pub(super) fn hold(self: &Arc<Self>, holds: &Holds, sender: NotifierObject, others: Option<Others>) {
        let Some(others) = others else {
            let mut waiting = self.waiting.lock();
            if let Some(full) = &mut waiting.0 {
                return full.alone.push(sender);
            }
            drop(waiting);
            return sender.notify();
        };
        if self.is_full() && !holds.is_spent_for(&others.spent, self) {
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
        sender.notify();
    }

    /// The other receivers of senders that it holds, of so many of them from `first` on, and whether there are more.
    fn sharing(&self, first: usize, most: usize) -> (Vec<Arc<Others>>, bool) {
        let waiting = self.waiting.lock();
        let sharing = waiting.0.iter().flat_map(|full| full.sharing.get(first..).unwrap_or_default());
        let mut sharing = sharing.map(|(_, others)| others.clone());
        (sharing.by_ref().take(most).collect(), sharing.next().is_some())
    }

    /// Whether it takes so many bytes of a sender although it is full.
    #[cold]
    pub(super) fn takes_more_of(&self, sender: Keys, bytes: usize) -> bool {
        let taken = self.taken_frames();
        let mut waiting = self.waiting.lock();
        waiting.0.as_mut().is_none_or(|full| {
            full.overdraft.taken(taken);
            full.overdraft.has_room_for(sender, bytes as u64)
        })
    }

    /// A sender has delivered something while it was full.
    #[cold]
    pub(super) fn took_more_of(&self, sender: Keys, bytes: usize) {
        let delivered = self.counts.sent_frames();
        if let Some(full) = &mut self.waiting.lock().0 {
            full.overdraft.add(sender, bytes as u64, delivered);
        }
    }

    /// How many of the frames that were ever delivered to it are no longer queued.
    fn taken_frames(&self) -> u64 {
        self.counts.sent_frames().saturating_sub(self.queued().frames)
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

    /// Of these senders, those go on for whom its budget is spent, or who have little in its queue now and had more.
    fn release(&self, senders: &[Arc<Others>], is_spent: impl Fn(&Others) -> bool) {
        let taken = self.taken_frames();
        let mut going: Vec<_> = senders.iter().filter(|others| is_spent(others)).map(Arc::as_ptr).collect();
        let mut released = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            let Some(full) = &mut waiting.0 else { return };
            let had_more = |overdraft: &Overdraft, others: &Others| !overdraft.has_little_of(others.keys);
            let candidates: Vec<_> =
                senders.iter().filter(|others| had_more(&full.overdraft, others)).collect();
            full.overdraft.taken(taken);
            let again = candidates.into_iter().filter(|others| !had_more(&full.overdraft, others));
            going.extend(again.map(Arc::as_ptr));
            if going.is_empty() {
                return;
            }
            going.sort_unstable();
            let is_going = |(_, others): &mut (NotifierObject, Arc<Others>)| {
                going.binary_search(&Arc::as_ptr(others)).is_ok()
            };
            released.extend(full.sharing.extract_if(.., is_going));
        }
        released.into_iter().for_each(|(sender, _)| sender.notify());
    }
}

impl Full {
    fn wake(self) {
        let sharing = self.sharing.into_iter().map(|(sender, _)| sender);
        self.alone.into_iter().chain(sharing).for_each(|sender| sender.notify());
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
struct Drained(Weak<RegisteredClient>);

impl RawNotifier for Drained {
    fn notify(&self) {
        if let Some(member) = self.0.upgrade() {
            member.drained();
        }
    }
}

#[cfg(test)]
mod tests;
