//! A client as a receiver: whether it is full, and which senders it holds. Owns the states of one receiver;
//! [`holds`](crate::routing::holds) has all full receivers and their budgets.
//!
//! A receiver is full from the delivery that its sink answers with `FULL` until the sink reports that it has
//! drained, or the client has left. The core asks the sink once to be notified, and notifies all senders
//! itself.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::abi::{NotifierObject, RawNotifier, RawNotifier_TO};
use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::RegisteredClient;
use crate::{
    routing::{
        client_keys::ClientKeys,
        hold_budget::SpentFor,
        holds::{CountedFull, Holds},
        recipients::Recipients,
        sender_quotas::SenderQuotas,
    },
    statistics::WaitingTime,
    sync::atomic::Ordering,
};

/// [`RegisteredClient::state`]: its queue has exceeded its limit and has not drained since.
const FULL: u8 = 2;
/// [`RegisteredClient::state`]: it is in the watch.
const WATCHED: u8 = 8;

/// The most other receivers of one sender that one check visits.
pub(in crate::routing) const OTHERS_PER_CHECK: usize = 128;
/// Notifiers that a receiver keeps in any case. Beyond this number and two for each client, most belong to
/// senders that have left.
const MIN_NOTIFIERS: usize = 1024;
/// The most receivers of one sender that checks visit in turn.
const MAX_OTHERS: usize = 4096;

/// The senders that wait for a receiver. Nothing is allocated while it is not full.
#[derive(Default)]
pub(in crate::routing) struct BlockedSenders(Option<Box<Full>>);

struct Full {
    /// Senders without other receivers, as far as is known.
    alone: Vec<NotifierObject>,
    /// Senders with other receivers.
    sharing: Vec<(NotifierObject, Arc<OtherRecipients>)>,
    /// What it takes although it is full.
    quotas: SenderQuotas,
    /// How long these senders have waited since it is full.
    held: WaitingTime,
    _counted: CountedFull,
}

/// The other recipients of a sender.
pub(in crate::routing) struct OtherRecipients {
    pub(in crate::routing) targets: Vec<Weak<RegisteredClient>>,
    pub(in crate::routing) routes: Vec<Arc<Recipients>>,
    /// The address of the sender's own [`RegisteredClient`].
    pub(in crate::routing) own: usize,
    /// The sender's keys in hold budgets.
    pub(in crate::routing) keys: ClientKeys,
    /// Receivers whose budget is spent for the sender.
    pub(in crate::routing) spent: Arc<SpentFor>,
}

impl OtherRecipients {
    /// Returns the recipients except one, and except the sender itself.
    fn except<'o>(&'o self, one: &'o Arc<RegisteredClient>) -> impl Iterator<Item = Arc<RegisteredClient>> {
        let routes = self.routes.iter().flat_map(|route| route.iter());
        let all = self.targets.iter().filter_map(Weak::upgrade).chain(routes);
        all.filter(move |member| is_other(member, one, self.own))
    }

    /// Returns whether one of them starves: it has taken everything, and gets no more because of `one`. If
    /// there are many, each check visits others. Counts the visits.
    pub(in crate::routing) fn any_starves(
        &self,
        one: &Arc<RegisteredClient>,
        check: usize,
        visited: &mut usize,
    ) -> bool {
        *visited += 1;
        let first = check.wrapping_mul(OTHERS_PER_CHECK) % MAX_OTHERS;
        let mut count = 0;
        let mut starves = |other: Arc<RegisteredClient>| {
            count += 1;
            !other.is_full() && other.queued().bytes == 0
        };
        let mut skipped = 0;
        let behind =
            self.except(one).inspect(|_| skipped += 1).skip(first).take(OTHERS_PER_CHECK).any(&mut starves);
        let left = OTHERS_PER_CHECK - count.min(OTHERS_PER_CHECK);
        *visited += skipped;
        if behind {
            return true;
        }
        // if fewer are left, continues from the beginning
        let mut others = self.except(one).take(left);
        let mut any = || {
            let other = others.next()?;
            *visited += 1;
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

/// Returns whether a receiver is another client than `one` and than the sender, whose [`RegisteredClient`]
/// has the address `own`.
pub(in crate::routing) fn is_other(
    member: &Arc<RegisteredClient>,
    one: &Arc<RegisteredClient>,
    own: usize,
) -> bool {
    !Arc::ptr_eq(member, one)
        && Arc::as_ptr(member).addr() != own
        && !member.origin.internal
        && !member.is_gone()
}

impl RegisteredClient {
    /// Returns whether it is full.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.state.load(Ordering::Relaxed) & FULL != 0
    }

    /// Marks it full: its sink has answered `FULL`.
    #[cold]
    pub(in crate::routing) fn fill(self: &Arc<Self>, holds: &Arc<Holds>) {
        if self.is_full() {
            return;
        }
        if !self.mark_full(holds, self.queued().bytes) {
            return;
        }
        let drained = Drained(Arc::downgrade(self));
        self.when_drained(RawNotifier_TO::from_ptr(RArc::new(drained), TD_Opaque));
    }

    /// Marks it full with `queued` bytes. Returns `false` if it was full.
    pub(super) fn mark_full(&self, holds: &Arc<Holds>, queued: u64) -> bool {
        let mut blocked = self.blocked.lock();
        if self.state.fetch_or(FULL, Ordering::Relaxed) & FULL != 0 {
            return false;
        }
        let (quotas, _counted) = (SenderQuotas::new(queued), holds.count_full());
        let held = WaitingTime::default();
        blocked.0 = Some(Box::new(Full { alone: Vec::new(), sharing: Vec::new(), quotas, held, _counted }));
        true
    }

    /// Releases all senders that wait for it: it has drained or left.
    pub(in crate::routing) fn drained(&self) {
        let full = {
            let mut blocked = self.blocked.lock();
            self.state.fetch_and(!FULL, Ordering::Relaxed);
            let full = blocked.0.take();
            if let Some(full) = &full {
                self.add_held(full.held.sum(Instant::now()));
            }
            full
        };
        if let Some(full) = full {
            full.wake();
        }
    }

    /// Notifies all waiting senders if they are more than `clients` can have: registered senders wait again,
    /// departed ones are dropped.
    pub(in crate::routing) fn forget_departed(&self, clients: impl FnOnce() -> usize) {
        let count = self.blocked.lock().0.as_ref().map_or(0, |full| full.alone.len() + full.sharing.len());
        if count < MIN_NOTIFIERS || count < clients().saturating_mul(2) {
            return;
        }
        let (alone, sharing) = match &mut self.blocked.lock().0 {
            Some(full) => {
                full.held.set(0, Instant::now());
                (std::mem::take(&mut full.alone), std::mem::take(&mut full.sharing))
            }
            None => return,
        };
        let sharing = sharing.into_iter().map(|(sender, _)| sender);
        alone.into_iter().chain(sharing).for_each(|sender| sender.notify());
    }

    /// Notifies a sender when it has drained, or at once if it is not full. A sender with `others` is also
    /// notified when the budget is spent for it, or when the receiver takes more of it.
    pub(in crate::routing) fn hold(
        self: &Arc<Self>,
        holds: &Holds,
        sender: NotifierObject,
        others: Option<OtherRecipients>,
    ) {
        let Some(others) = others else {
            let mut blocked = self.blocked.lock();
            if let Some(full) = &mut blocked.0 {
                full.held.begin_one(Instant::now());
                return full.alone.push(sender);
            }
            drop(blocked);
            return sender.notify();
        };
        if self.is_full() && !holds.is_spent_for(&others.spent, self) {
            let mut blocked = self.blocked.lock();
            if let Some(full) = &mut blocked.0 {
                full.sharing.push((sender, Arc::new(others)));
                full.held.begin_one(Instant::now());
                let is_new = self.state.fetch_or(WATCHED, Ordering::Relaxed) & WATCHED == 0;
                drop(blocked);
                if is_new {
                    holds.watch(self);
                }
                return;
            }
        }
        sender.notify();
    }

    /// Returns the other recipients of `most` held senders from `first` on, and whether there are more.
    pub(in crate::routing) fn sharing(&self, first: usize, most: usize) -> (Vec<Arc<OtherRecipients>>, bool) {
        let blocked = self.blocked.lock();
        let sharing = blocked.0.iter().flat_map(|full| full.sharing.get(first..).unwrap_or_default());
        let mut sharing = sharing.map(|(_, others)| others.clone());
        (sharing.by_ref().take(most).collect(), sharing.next().is_some())
    }

    /// Returns whether it takes `bytes` more of a sender although it is full.
    #[cold]
    pub(in crate::routing) fn takes_more_of(&self, sender: ClientKeys, bytes: usize) -> bool {
        let taken = self.taken_frames();
        let mut blocked = self.blocked.lock();
        blocked.0.as_mut().is_none_or(|full| {
            full.quotas.taken(taken);
            full.quotas.has_room_for(sender, bytes as u64)
        })
    }

    /// Counts a delivery of a sender while it was full.
    #[cold]
    pub(in crate::routing) fn took_more_of(&self, sender: ClientKeys, bytes: usize) {
        let delivered = self.counts.sent_frames();
        if let Some(full) = &mut self.blocked.lock().0 {
            full.quotas.add(sender, bytes as u64, delivered);
        }
    }

    fn add_held(&self, time: Duration) {
        self.held_nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Returns for how long senders have waited for it since it has registered, all of them together.
    pub(in crate::routing) fn held_senders(&self, now: Instant) -> Duration {
        // the lock also while it is not full: a time that is being moved counts once
        let blocked = self.blocked.lock();
        let current = blocked.0.as_ref().map_or(Duration::ZERO, |full| full.held.sum(now));
        Duration::from_nanos(self.held_nanos.load(Ordering::Relaxed)).saturating_add(current)
    }

    /// Returns how many of the frames that were ever delivered to it are no longer queued.
    fn taken_frames(&self) -> u64 {
        self.counts.sent_frames().saturating_sub(self.queued().frames)
    }

    /// Removes it from the watch unless it holds senders. Returns whether it was removed.
    pub(in crate::routing) fn unwatch(&self) -> bool {
        let blocked = self.blocked.lock();
        let idle = blocked.0.as_ref().is_none_or(|full| full.sharing.is_empty());
        if idle {
            self.state.fetch_and(!WATCHED, Ordering::Relaxed);
        }
        idle
    }

    /// Releases senders for which its budget is spent, or whose part of its queue has become small.
    pub(in crate::routing) fn release(
        &self,
        senders: &[Arc<OtherRecipients>],
        is_spent: impl Fn(&OtherRecipients) -> bool,
    ) {
        let taken = self.taken_frames();
        let mut going: Vec<_> = senders.iter().filter(|others| is_spent(others)).map(Arc::as_ptr).collect();
        let mut released = Vec::new();
        {
            let mut blocked = self.blocked.lock();
            let Some(full) = &mut blocked.0 else { return };
            let had_more =
                |quotas: &SenderQuotas, others: &OtherRecipients| !quotas.has_little_of(others.keys);
            let candidates: Vec<_> = senders.iter().filter(|others| had_more(&full.quotas, others)).collect();
            full.quotas.taken(taken);
            let again = candidates.into_iter().filter(|others| !had_more(&full.quotas, others));
            going.extend(again.map(Arc::as_ptr));
            if going.is_empty() {
                return;
            }
            going.sort_unstable();
            let is_going = |(_, others): &mut (NotifierObject, Arc<OtherRecipients>)| {
                going.binary_search(&Arc::as_ptr(others)).is_ok()
            };
            released.extend(full.sharing.extract_if(.., is_going));
            full.held.set(full.alone.len() + full.sharing.len(), Instant::now());
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

impl Drop for BlockedSenders {
    /// Releases the senders of a sink that never reported that it has drained.
    fn drop(&mut self) {
        if let Some(full) = self.0.take() {
            full.wake();
        }
    }
}

/// Notified by the sink of a full receiver when it has drained.
#[derive(Clone)]
pub(super) struct Drained(pub(super) Weak<RegisteredClient>);

impl RawNotifier for Drained {
    fn notify(&self) {
        if let Some(member) = self.0.upgrade() {
            member.drained();
        }
    }
}
