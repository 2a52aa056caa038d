//! Back-pressure of a sender: what its full recipients mean for it, and what it waits for.
//!
//! A full recipient holds the sender, gets nothing more of it, or takes a little more. A sender that ignores
//! back-pressure is refused once it has [`UNHEEDED_BYTES`] queued at full recipients.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::abi::{NotifierObject, RawNotifier, RawNotifier_TO};
use std::sync::{Arc, Weak};

use super::FanOut;
use crate::{
    routing::{
        holds::{CountedHeld, Holds},
        registered_client::{
            RegisteredClient,
            blocked_senders::{OtherRecipients, is_other},
        },
        router::Router,
    },
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Bytes that a sender that ignores back-pressure can have queued at its recipients beyond their limits. A
/// sender that waits when it must does not come near it.
pub(in crate::routing) const UNHEEDED_BYTES: u32 = 64 << 20;
/// The most recipients that a sender waits for at once. It finds the others full when it continues.
pub(super) const MAX_CONGESTED: usize = 1024;

/// What a full recipient does to a sender.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fullness {
    /// It holds the sender.
    Holds,
    /// It gets nothing more of this sender: its budget is spent.
    GetsNothing,
    /// It takes a little more of this sender: others have filled its queue.
    TakesMore,
}

/// Whether a sender was refused something because it ignores back-pressure. Reported once.
#[derive(Default, PartialEq, Eq)]
pub(super) enum Flood {
    #[default]
    Never,
    /// It was refused something, which is not yet reported.
    Begins,
    Reported,
}

impl FanOut {
    /// Begins a request.
    #[inline]
    pub(in crate::routing) fn begin(&mut self, may_block: bool, best_effort: bool) {
        self.best_effort = best_effort;
        (self.met_full, self.recounted) = (false, false);
        (self.may_block, self.blocked) = (may_block, false);
    }

    /// Has the current request not wait any more: it has been intercepted.
    pub(in crate::routing) fn forbid_blocking(&mut self) {
        self.may_block = false;
    }

    /// Returns whether the sender has recently sent to another registered client as well.
    fn shares(&self, recipient: &Arc<RegisteredClient>) -> bool {
        let other = |member: &Arc<RegisteredClient>| is_other(member, recipient, self.own);
        !self.is_own(recipient)
            && (self.recent_targets().filter_map(Weak::upgrade).any(|member| other(&member))
                || self.routes().any(|route| route.iter().any(|member| other(&member))))
    }

    /// Returns the other recipients that the sender has recently sent to, if there are any.
    fn other_recipients(
        &mut self,
        recipient: &Arc<RegisteredClient>,
        holds: &Holds,
    ) -> Option<OtherRecipients> {
        if !self.shares(recipient) {
            return None;
        }
        let spent = self.spent.get_or_insert_with(|| holds.spent_for(self.keys)).clone();
        Some(OtherRecipients {
            targets: self.recent_targets().cloned().collect(),
            routes: self.routes().cloned().collect(),
            own: self.own,
            keys: self.keys,
            spent,
        })
    }

    fn is_own(&self, recipient: &Arc<RegisteredClient>) -> bool {
        Arc::as_ptr(recipient).addr() == self.own
    }

    /// Decides what a full recipient does to the sender of `bytes`. It always holds a sender without other
    /// recipients.
    #[cold]
    pub(super) fn fullness(
        &self,
        holds: &Holds,
        recipient: &Arc<RegisteredClient>,
        bytes: usize,
    ) -> Fullness {
        if !self.shares(recipient) {
            Fullness::Holds
        } else if self.spent.as_ref().is_some_and(|spent| holds.is_spent_for(spent, recipient)) {
            Fullness::GetsNothing
        } else if recipient.takes_more_of(self.keys, bytes) {
            Fullness::TakesMore
        } else {
            Fullness::Holds
        }
    }

    /// Returns whether a full recipient holds the sender of `bytes`.
    pub(super) fn is_held_by(&self, holds: &Holds, recipient: &Arc<RegisteredClient>, bytes: usize) -> bool {
        self.fullness(holds, recipient, bytes) == Fullness::Holds
    }

    /// Records that a recipient is over its limit and holds the sender.
    pub(super) fn congest(&mut self, member: &Arc<RegisteredClient>) {
        self.met_full = true;
        if self.congested.len() < MAX_CONGESTED
            && !self.congested.iter().any(|other| Arc::ptr_eq(other, member))
        {
            self.congested.push(member.clone());
        }
    }

    /// Records that the current request must wait for a recipient.
    #[cold]
    pub(super) fn block(&mut self, member: &Arc<RegisteredClient>) {
        self.blocked = true;
        self.congest(member);
    }

    /// Returns whether the current request must wait. Then nothing of it was delivered.
    #[inline]
    pub(in crate::routing) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Returns whether a full recipient gets no more of the sender because more than [`UNHEEDED_BYTES`] sent
    /// against back-pressure are still queued.
    #[cold]
    pub(super) fn floods(&mut self, member: &Arc<RegisteredClient>) -> bool {
        if self.unheeded <= UNHEEDED_BYTES || !self.congested.iter().any(|other| Arc::ptr_eq(other, member)) {
            return false;
        }
        if !std::mem::replace(&mut self.recounted, true) {
            // bytes that have drained no longer count, even if the sender has not asked to be notified
            let waiting = self.congested.iter().filter(|member| !member.is_gone());
            let waiting = waiting.map(|member| member.queued().bytes).fold(0, u64::saturating_add);
            self.unheeded = self.unheeded.min(u32::try_from(waiting).unwrap_or(u32::MAX));
        }
        let floods = self.unheeded > UNHEEDED_BYTES;
        if floods && self.flood == Flood::Never {
            self.flood = Flood::Begins;
        }
        floods
    }

    /// Returns whether a recipient of the current request, or of the last one, is over its limit.
    #[inline]
    pub(in crate::routing) fn has_met_full(&self) -> bool {
        self.met_full
    }

    /// Returns, once, whether something was refused because the sender ignores back-pressure.
    #[inline]
    pub(in crate::routing) fn flood_begins(&mut self) -> bool {
        let begins = self.flood == Flood::Begins;
        if begins {
            self.flood = Flood::Reported;
        }
        begins
    }

    /// Notifies when all recipients that were over their limit have drained.
    pub(in crate::routing) fn when_ready(
        &mut self,
        router: &Router,
        own: Option<&Arc<RegisteredClient>>,
        notifier: NotifierObject,
    ) {
        let congested = std::mem::take(&mut self.congested);
        (self.waits, self.unheeded) = (false, 0);
        if congested.is_empty() {
            return notifier.notify();
        }
        let left = Arc::new(AtomicUsize::new(congested.len()));
        if let Some(own) = own {
            router.holds.note(own, congested.iter().map(|member| member.id), false, &left);
        }
        let held = Some((notifier, router.holds.count_held()));
        let countdown = RArc::new(Countdown(Arc::new((left, Mutex::new(held)))));
        for member in congested {
            let others = self.other_recipients(&member, &router.holds);
            member.forget_departed(|| router.client_count());
            member.hold(&router.holds, RawNotifier_TO::from_ptr(countdown.clone(), TD_Opaque), others);
        }
    }
}

/// What notifies a sender, and its place among the senders that are held.
type HeldSender = (NotifierObject, CountedHeld);

/// Notifies when all recipients have drained.
#[derive(Clone)]
struct Countdown(
    /// The lock is held to take the notifier out; nothing is called while it is held.
    Arc<(Arc<AtomicUsize>, Mutex<Option<HeldSender>>)>,
);

impl RawNotifier for Countdown {
    fn notify(&self) {
        let (left, notifier) = &*self.0;
        if left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let held = notifier.lock().take();
            if let Some((notifier, counted)) = held {
                drop(counted);
                notifier.notify();
            }
        }
    }
}
