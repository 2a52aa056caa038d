//! Delivery of runs to their recipients: finding them, handing runs to their sinks, flushing and waiting.
//!
//! Steady traffic takes no lock of the broker: the last targets are cached as long as they are registered,
//! the recipients of a topic or mask as long as their epoch lasts.

pub(super) mod mixed;

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::{
    BROKER_NAME, Code, DeliveryStatus, Encoding, Run,
    abi::{NotifierObject, RawNotifier, RawNotifier_TO},
    access::Action,
};
use elbus_protocol::name::primary_of;
use std::{
    cell::Cell,
    sync::{Arc, Weak},
};

use super::{
    cache_memory::{CacheMemory, SharedCacheMemory},
    client_keys::ClientKeys,
    hold_budget::SpentFor,
    holds::Holds,
    mixed_targets::MixedTargets,
    recipients::Recipients,
    registered_client::{
        RegisteredClient,
        blocked_senders::{OtherRecipients, is_other},
    },
    route_cache::RouteCache,
    router::{Resolved, Router},
    target_cache::TargetCache,
};
use crate::{
    access::PolicySnapshot,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Bytes that a sender that ignores back-pressure can have queued at its recipients beyond their limits.
/// Those who read no more until they are called never come near it.
pub(super) const UNHEEDED_BYTES: u32 = 64 << 20;
/// Recipients that a sender waits for at once: it meets the others when it goes on.
const MOST_CONGESTED: usize = 1024;

thread_local! {
    /// The wire form of the run under way. Taken out for the time of a dispatch, since a sink may dispatch
    /// itself. Boxed, as it is moved for every run.
    pub(super) static ENCODING: Cell<Option<Box<Encoding>>> = const { Cell::new(None) };
}

/// The caches of a sender, and the recipients that it has to flush or wait for.
pub(super) struct FanOut {
    targets: TargetCache,
    topics: Option<Box<RouteCache>>,
    masks: Option<Box<RouteCache>>,
    /// The targets of mixed runs.
    mixed: Option<Box<MixedTargets>>,
    /// Memory of the routes and the targets of mixed runs.
    memory: CacheMemory,
    /// Those owed a flush. A sink is in it once: it says dirty only to the first.
    dirty: Vec<Arc<RegisteredClient>>,
    congested: Vec<Arc<RegisteredClient>>,
    /// Whether a recipient of the request under way is over its limit.
    met_full: bool,
    /// Whether the request under way can wait, and whether it has to.
    may_block: bool,
    blocked: bool,
    /// Whether the request under way skips recipients over their limit.
    best_effort: bool,
    /// Whether the sender must wait, and has not yet asked to be notified.
    waits: bool,
    /// Bytes it has sent to recipients over their limit nevertheless.
    unheeded: u32,
    /// Whether this request has already checked how much of that has drained.
    recounted: bool,
    flood: Flood,
    /// The address of the sender's own member, and by what hold budgets know it.
    own: usize,
    keys: ClientKeys,
    /// Receivers whose budget is spent for the sender; `None` until it has waited for one.
    spent: Option<Arc<SpentFor>>,
}

/// Which of the recipients of a topic or mask get a run.
#[derive(Clone, Copy)]
pub(super) enum Scope<'r> {
    All,
    /// Clients with this primary name.
    Primary(&'r str),
    /// All but the client of this name.
    Except(&'r str),
}

impl Scope<'_> {
    #[inline]
    fn has(self, member: &RegisteredClient) -> bool {
        match self {
            Scope::All => true,
            Scope::Primary(name) => primary_of(&member.name) == name,
            Scope::Except(name) => *member.name != *name,
        }
    }
}

/// What a full recipient does to a sender.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fullness {
    /// It holds the sender.
    Holds,
    /// It gets nothing more of this sender: its budget is spent.
    GetsNothing,
    /// It takes a little more of this sender: others have filled its queue.
    TakesMore,
}

/// Whether a sender was refused something since it did not wait. Said once.
#[derive(Default, PartialEq, Eq)]
enum Flood {
    #[default]
    Never,
    Begins,
    Said,
}

impl FanOut {
    /// A request begins.
    #[inline]
    pub(super) fn begin(&mut self, may_block: bool, best_effort: bool) {
        self.best_effort = best_effort;
        (self.met_full, self.recounted) = (false, false);
        (self.may_block, self.blocked) = (may_block, false);
    }

    /// That of a member, or of nobody.
    pub(super) fn new(own: Option<&Arc<RegisteredClient>>, memory: Arc<SharedCacheMemory>) -> Self {
        FanOut {
            targets: TargetCache::default(),
            topics: None,
            masks: None,
            mixed: None,
            memory: CacheMemory::new(memory),
            dirty: vec![],
            congested: vec![],
            met_full: false,
            may_block: false,
            blocked: false,
            best_effort: false,
            waits: false,
            unheeded: 0,
            recounted: false,
            flood: Flood::Never,
            own: own.map_or(0, |own| Arc::as_ptr(own).addr()),
            keys: own.map_or(ClientKeys::SPEAKER, |own| own.keys),
            spent: None,
        }
    }

    /// Returns whether the sender has lately sent to another registered client as well.
    fn shares(&self, recipient: &Arc<RegisteredClient>) -> bool {
        let other = |member: &Arc<RegisteredClient>| is_other(member, recipient, self.own);
        !self.is_own(recipient)
            && (self.recent_targets().filter_map(Weak::upgrade).any(|member| other(&member))
                || self.routes().any(|route| route.iter().any(|member| other(&member))))
    }

    /// Returns clients that the sender has lately sent to.
    fn recent_targets(&self) -> impl Iterator<Item = &Weak<RegisteredClient>> {
        self.targets.iter().chain(self.mixed.iter().flat_map(|mixed| mixed.recent()))
    }

    fn routes(&self) -> impl Iterator<Item = &Arc<Recipients>> {
        self.topics.iter().chain(&self.masks).flat_map(|routes| routes.recent())
    }

    /// Returns the other recipients that the sender has lately sent to, if there are any.
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

    /// Decides what a full recipient does to a sender of `bytes`. A sender without other recipients is held
    /// in any case.
    #[cold]
    fn fullness(&self, holds: &Holds, recipient: &Arc<RegisteredClient>, bytes: usize) -> Fullness {
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

    fn is_held_by(&self, holds: &Holds, recipient: &Arc<RegisteredClient>, bytes: usize) -> bool {
        self.fullness(holds, recipient, bytes) == Fullness::Holds
    }

    /// Clears the caches, not what has to be flushed.
    pub(super) fn forget(&mut self) {
        self.targets = TargetCache::default();
        for mut routes in [self.topics.take(), self.masks.take()].into_iter().flatten() {
            routes.clear(&mut self.memory);
        }
        if let Some(mut mixed) = self.mixed.take() {
            mixed.clear(&mut self.memory);
        }
    }

    pub(super) fn mask_recipients(
        &mut self,
        router: &Router,
        access: Option<&PolicySnapshot>,
        mask: &str,
    ) -> Arc<Recipients> {
        let routes = self.masks.get_or_insert_default();
        let epoch = router.names_epoch();
        routes.get(epoch, mask, &mut self.memory, || match access {
            Some(access) if !access.allows(Action::Broadcast, mask) => Resolved::denied(epoch),
            _ => router.resolve_mask(access, mask),
        })
    }

    pub(super) fn topic_recipients(
        &mut self,
        router: &Router,
        access: Option<&PolicySnapshot>,
        topic: &str,
    ) -> Arc<Recipients> {
        let epoch = router.topics_epoch();
        let resolve = || match access {
            Some(access) if !access.allows(Action::Publish, topic) => Resolved::denied(epoch),
            _ => router.resolve_topic(topic),
        };
        if topic.starts_with(BROKER_NAME) {
            // everybody is subscribed to one of these from the start, which changes no epoch
            return resolve().recipients;
        }
        let routes = self.topics.get_or_insert_default();
        routes.get(epoch, topic, &mut self.memory, resolve)
    }

    /// Hands a run to the client named `target`, if its registration is `id`; 0 is any.
    #[inline]
    pub(super) fn send_to(
        &mut self,
        router: &Arc<Router>,
        access: Option<&PolicySnapshot>,
        (target, id): (&str, u64),
        run: &mut Run<'_>,
        body_bytes: usize,
    ) -> (Code, u32) {
        let may_send = || access.is_none_or(|access| allows_message(access, target));
        let Some(peer) = self.targets.get(target, |name| router.find(name).filter(|_| may_send())) else {
            // also for a missing client: whether a client exists is not for every sender to know
            return (if may_send() { Code::NotRegistered } else { Code::AccessDenied }, 0);
        };
        if id != 0 && peer.id != id {
            return (Code::NotRegistered, 0);
        }
        if self.may_block && peer.is_full() && self.is_held_by(&router.holds, &peer, body_bytes) {
            self.block(&peer);
            return (Code::NotDelivered, 0);
        }
        let delivery = self.deliver_run(router, peer, run, body_bytes);
        if delivery.is_taken() {
            (Code::Ok, 1)
        } else if delivery.has(DeliveryStatus::REFUSED) {
            (Code::NotDelivered, 0)
        } else {
            (Code::NotRegistered, 0)
        }
    }

    /// Hands a run to all recipients in scope.
    #[inline]
    pub(super) fn deliver_to_all(
        &mut self,
        router: &Arc<Router>,
        recipients: &Recipients,
        scope: Scope<'_>,
        run: &mut Run<'_>,
        body_bytes: usize,
    ) -> (Code, u32) {
        if recipients.is_denied() {
            return (Code::AccessDenied, 0);
        }
        if self.may_block && router.holds.any() {
            // before anybody is given anything, so that nothing is given twice
            for full in recipients.iter().filter(|member| scope.has(member) && member.is_full()) {
                if self.is_held_by(&router.holds, &full, body_bytes) {
                    self.block(&full);
                    if self.congested.len() >= MOST_CONGESTED {
                        break;
                    }
                }
            }
            if self.blocked {
                return (Code::NotDelivered, 0);
            }
        }
        let (mut reached, mut refused) = (0, false);
        for member in recipients.iter().filter(|member| scope.has(member)) {
            let delivery = self.deliver_run(router, member, run, body_bytes);
            reached += u32::from(delivery.is_taken());
            refused |= delivery.has(DeliveryStatus::REFUSED);
        }
        // reaching nobody is fine, but not if those who are there were all too full
        (if refused && reached == 0 { Code::NotDelivered } else { Code::Ok }, reached)
    }

    #[inline]
    fn deliver_run(
        &mut self,
        router: &Arc<Router>,
        member: Arc<RegisteredClient>,
        run: &mut Run<'_>,
        body_bytes: usize,
    ) -> DeliveryStatus {
        let met = (member.is_full() && !run.is_realtime()).then(|| match self.best_effort {
            true => Fullness::GetsNothing,
            false => self.fullness(&router.holds, &member, body_bytes),
        });
        let delivery = if met == Some(Fullness::GetsNothing) {
            member.dropped.fetch_add(run.payloads().len() as u64, Ordering::Relaxed);
            DeliveryStatus::REFUSED
        } else if self.waits && self.floods(&member) {
            DeliveryStatus::REFUSED
        } else {
            member.deliver(run)
        };
        let takes_more = met == Some(Fullness::TakesMore);
        self.settle(router, member, delivery, run.payloads().len(), body_bytes, takes_more);
        delivery
    }

    /// Counts what a recipient has taken or refused, and notes whether it is full and has to be flushed.
    #[inline(always)]
    fn settle(
        &mut self,
        router: &Arc<Router>,
        member: Arc<RegisteredClient>,
        delivery: DeliveryStatus,
        frames: usize,
        body_bytes: usize,
        takes_more: bool,
    ) {
        if delivery.is_taken() {
            member.counts.sent(frames, body_bytes);
        } else if delivery.has(DeliveryStatus::REFUSED) {
            router.count_refused(frames);
            if self.best_effort {
                member.miss(router);
            }
        }
        if delivery.has(DeliveryStatus::FULL) {
            member.fill(&router.holds);
        }
        if delivery.has(DeliveryStatus::FULL) && !self.best_effort {
            if self.waits {
                self.unheeded = self.unheeded.saturating_add(u32::try_from(body_bytes).unwrap_or(u32::MAX));
            }
            member.took_more_of(self.keys, body_bytes);
            if self.is_held_by(&router.holds, &member, 1) {
                self.congest(&member);
            }
        } else if takes_more && delivery.is_taken() {
            member.took_more_of(self.keys, body_bytes);
        }
        if delivery.has(DeliveryStatus::DIRTY) {
            self.dirty.push(member);
        }
    }

    /// A recipient is over its limit.
    fn congest(&mut self, member: &Arc<RegisteredClient>) {
        self.met_full = true;
        if self.congested.len() < MOST_CONGESTED
            && !self.congested.iter().any(|other| Arc::ptr_eq(other, member))
        {
            self.congested.push(member.clone());
        }
    }

    /// The request under way has to wait for a recipient.
    #[cold]
    fn block(&mut self, member: &Arc<RegisteredClient>) {
        self.blocked = true;
        self.congest(member);
    }

    /// Whether the request under way has to wait: nobody was given anything.
    #[inline]
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Returns whether so much that was sent in spite of back-pressure is still queued that a full recipient
    /// gets no more.
    #[cold]
    fn floods(&mut self, member: &Arc<RegisteredClient>) -> bool {
        if self.unheeded <= UNHEEDED_BYTES || !self.congested.iter().any(|other| Arc::ptr_eq(other, member)) {
            return false;
        }
        if !std::mem::replace(&mut self.recounted, true) {
            // what has drained since is not held against it, though it has not asked
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

    /// Whether a recipient of the request under way, or of the last one, is over its limit.
    #[inline]
    pub(super) fn has_met_full(&self) -> bool {
        self.met_full
    }

    /// Whether something was refused since the sender does not wait. Said once.
    #[inline]
    pub(super) fn flood_begins(&mut self) -> bool {
        let begins = self.flood == Flood::Begins;
        if begins {
            self.flood = Flood::Said;
        }
        begins
    }

    /// Flushes all dirty recipients; returns whether the sender must wait.
    pub(super) fn end_batch(&mut self) -> bool {
        if !self.dirty.is_empty() {
            for member in self.dirty.drain(..) {
                member.flush();
            }
        }
        if self.congested.is_empty() {
            return false;
        }
        // clients that left meanwhile hold no sender
        self.congested.retain(|member| !member.is_gone());
        self.waits = !self.congested.is_empty();
        self.waits
    }

    /// Wakes once all recipients that were over their limit have drained.
    pub(super) fn when_ready(
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
        let countdown = RArc::new(Countdown(Arc::new((left, Mutex::new(Some(notifier))))));
        for member in congested {
            let others = self.other_recipients(&member, &router.holds);
            member.forget_departed(|| router.client_count());
            member.hold(&router.holds, RawNotifier_TO::from_ptr(countdown.clone(), TD_Opaque), others);
        }
    }
}

/// Whatever is sent to the broker itself: its methods have rules of their own.
fn allows_message(access: &PolicySnapshot, target: &str) -> bool {
    target == BROKER_NAME || access.allows(Action::Send, target)
}

/// Notifies once all recipients have drained.
#[derive(Clone)]
struct Countdown(Arc<(Arc<AtomicUsize>, Mutex<Option<NotifierObject>>)>);

impl RawNotifier for Countdown {
    fn notify(&self) {
        let (left, notifier) = &*self.0;
        if left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let notifier = notifier.lock().take();
            if let Some(notifier) = notifier {
                notifier.notify();
            }
        }
    }
}
