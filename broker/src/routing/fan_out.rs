//! Delivery of runs to their recipients: finding them, handing runs to their sinks, and flushing.
//! [`congestion`] decides what full recipients mean for the sender, and [`with_options`] delivers because of
//! subscriptions with options.
//!
//! Steady traffic takes no lock of the broker: the last targets are cached while they are registered, the
//! recipients of a topic or mask until their epoch changes.

pub(super) mod congestion;
pub(super) mod hooked;
pub(super) mod mixed;
mod unregistered;
mod with_options;

use elbus_plugin_api::{
    BROKER_NAME, Code, DeliveryStatus, Encoding, Op, Request, Run, abi::PendingObject, access::Action,
};
use elbus_protocol::{name::primary_of, subscription::has_options};
use std::{
    cell::Cell,
    ops::Range,
    sync::{Arc, Weak},
};

use super::{
    cache_memory::{CacheMemory, SharedCacheMemory},
    client_keys::ClientKeys,
    hold_budget::SpentFor,
    mixed_targets::MixedTargets,
    optioned::Subscriber,
    recipients::Recipients,
    registered_client::RegisteredClient,
    route_cache::RouteCache,
    router::{Resolved, Router},
    target_cache::TargetCache,
};
use crate::{access::PolicySnapshot, hooks::HookTable, statistics::Refusal, sync::atomic::Ordering};
use congestion::{Flood, Fullness, MAX_CONGESTED};

thread_local! {
    /// The wire form of the current run. Taken out during a dispatch, because a sink may dispatch itself.
    /// Boxed because it is moved for every run.
    pub(super) static ENCODING: Cell<Option<Box<Encoding>>> = const { Cell::new(None) };
}

/// The caches of a sender, and the recipients that it must flush or wait for.
pub(super) struct FanOut {
    targets: TargetCache,
    topics: Option<Box<RouteCache>>,
    masks: Option<Box<RouteCache>>,
    /// The targets of mixed runs.
    mixed: Option<Box<MixedTargets>>,
    /// The hooks of the broker, as of the epoch of access; `None` if there are none.
    pub(super) hooks: Option<Arc<HookTable>>,
    /// The mark of the publications that are delivered, see [`replays`](super::replays); 0 if they are not
    /// kept.
    pub(super) mark: u64,
    /// Memory of the routes and the targets of mixed runs.
    memory: CacheMemory,
    /// Recipients that must be flushed. Each is in it once: a sink reports dirty only to the first sender.
    dirty: Vec<Arc<RegisteredClient>>,
    /// Subscriptions whose clients are fed at the end of the batch. Each is in it once.
    to_feed: Vec<Arc<Subscriber>>,
    /// Recipients over their limit that the sender must wait for, at most [`MAX_CONGESTED`].
    congested: Vec<Arc<RegisteredClient>>,
    /// Frames of the current mixed run whose codes are supplied later.
    pub(super) pending: Vec<(Range<usize>, PendingObject)>,
    /// Whether a recipient of the current request is over its limit.
    met_full: bool,
    /// Whether the current request can wait, and whether it must.
    may_block: bool,
    blocked: bool,
    /// Whether the current request skips recipients over their limit.
    best_effort: bool,
    /// Whether the sender must wait, and has not yet asked to be notified.
    waits: bool,
    /// Bytes sent to recipients over their limit although the sender must wait.
    unheeded: u32,
    /// Whether the current request has already checked how much of that has drained.
    recounted: bool,
    flood: Flood,
    /// Why the next refusal that is counted happens.
    refusal: Refusal,
    /// The address of the sender's own [`RegisteredClient`], 0 if it has none.
    own: usize,
    /// The sender's keys in hold budgets.
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

impl<'r> Scope<'r> {
    /// Returns the scope of a broadcast or publication.
    #[inline]
    pub(super) fn of(op: Op, request: &Request<'r>) -> Self {
        match (op, request.excepted()) {
            (Op::PublishFor, _) => Scope::Primary(request.receiver()),
            (Op::Publish, Some(name)) => Scope::Except(name),
            _ => Scope::All,
        }
    }

    #[inline]
    fn has(self, member: &RegisteredClient) -> bool {
        match self {
            Scope::All => true,
            Scope::Primary(name) => primary_of(&member.name) == name,
            Scope::Except(name) => *member.name != *name,
        }
    }
}

impl FanOut {
    /// Creates the fan-out of a client; of the broker itself if `own` is `None`.
    pub(super) fn new(
        own: Option<&Arc<RegisteredClient>>,
        memory: Arc<SharedCacheMemory>,
        hooks: Option<Arc<HookTable>>,
    ) -> Self {
        FanOut {
            targets: TargetCache::default(),
            topics: None,
            masks: None,
            mixed: None,
            hooks,
            mark: 0,
            memory: CacheMemory::new(memory),
            dirty: vec![],
            to_feed: vec![],
            congested: vec![],
            pending: vec![],
            met_full: false,
            may_block: false,
            blocked: false,
            best_effort: false,
            waits: false,
            unheeded: 0,
            recounted: false,
            flood: Flood::Never,
            refusal: Refusal::QueueFull,
            own: own.map_or(0, |own| Arc::as_ptr(own).addr()),
            keys: own.map_or(ClientKeys::BROKER, |own| own.keys),
            spent: None,
        }
    }

    /// Returns clients that the sender has recently sent to.
    fn recent_targets(&self) -> impl Iterator<Item = &Weak<RegisteredClient>> {
        self.targets.iter().chain(self.mixed.iter().flat_map(|mixed| mixed.recent()))
    }

    /// Returns the recipients of topics and masks that the sender has recently sent to.
    fn routes(&self) -> impl Iterator<Item = &Arc<Recipients>> {
        self.topics.iter().chain(&self.masks).flat_map(|routes| routes.recent())
    }

    /// Clears the caches. Recipients that must be flushed stay.
    pub(super) fn forget(&mut self) {
        self.targets = TargetCache::default();
        for mut routes in [self.topics.take(), self.masks.take()].into_iter().flatten() {
            routes.clear(&mut self.memory);
        }
        if let Some(mut mixed) = self.mixed.take() {
            mixed.clear(&mut self.memory);
        }
    }

    /// Returns the recipients of a mask, cached or resolved.
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
            _ => router.resolve_mask(access, mask).with_hooks(self.hooks.as_deref(), Op::Broadcast, mask),
        })
    }

    /// Returns the recipients of a topic, cached or resolved.
    pub(super) fn topic_recipients(
        &mut self,
        router: &Router,
        access: Option<&PolicySnapshot>,
        topic: &str,
    ) -> Arc<Recipients> {
        let epoch = router.topics_epoch();
        let hooks = self.hooks.as_deref();
        let resolve = || match access {
            _ if has_options(topic) => Resolved::refused(epoch, Code::BadData),
            Some(access) if !access.allows(Action::Publish, topic) => Resolved::denied(epoch),
            _ => router.resolve_topic(topic).with_hooks(hooks, Op::Publish, topic),
        };
        if topic.starts_with(BROKER_NAME) {
            // clients are subscribed to one of these when they register, which changes no epoch
            return resolve().recipients;
        }
        let routes = self.topics.get_or_insert_default();
        routes.get(epoch, topic, &mut self.memory, resolve)
    }

    /// Hands a run to the client named `target`, if its registration is `id`. 0 is any registration.
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
            // also if there is no such client: only an allowed sender may learn whether a client exists
            return match may_send() {
                true if id == 0 => self.send_to_unregistered(router, target, run, body_bytes),
                true => (Code::NotRegistered, 0),
                false => (Code::AccessDenied, 0),
            };
        };
        if id != 0 && peer.id != id {
            return (Code::NotRegistered, 0);
        }
        if self.may_block
            && peer.is_full()
            && (peer.is_awaited() || self.is_held_by(&router.holds, &peer, body_bytes))
        {
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
        if recipients.is_refused() {
            return (recipients.refusal(), 0);
        }
        if self.may_block && router.holds.any() {
            // before the first delivery: a blocked request is repeated for all recipients
            self.block_on_full(router, recipients, scope, run.topic(), body_bytes);
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
        if let Some(optioned) = recipients.optioned() {
            let more = self.deliver_with_options(router, optioned, scope, run);
            (reached, refused) = (reached + more.0, refused | more.1);
        }
        // no recipient is no error, unless full queues are the reason
        (if refused && reached == 0 { Code::NotDelivered } else { Code::Ok }, reached)
    }

    /// Has the request wait for the full recipients that hold the sender.
    fn block_on_full(
        &mut self,
        router: &Arc<Router>,
        recipients: &Recipients,
        scope: Scope<'_>,
        topic: &str,
        body_bytes: usize,
    ) {
        if let Some(optioned) = recipients.optioned() {
            self.block_for_groups(&router.holds, optioned, scope, topic, body_bytes);
        }
        for full in recipients.iter().filter(|member| scope.has(member) && member.is_full()) {
            if self.is_held_by(&router.holds, &full, body_bytes) {
                self.block(&full);
                if self.congested.len() >= MAX_CONGESTED {
                    break;
                }
            }
        }
    }

    /// Hands a run to one recipient, unless it is full and does not hold the sender.
    #[inline]
    fn deliver_run(
        &mut self,
        router: &Arc<Router>,
        member: Arc<RegisteredClient>,
        run: &mut Run<'_>,
        body_bytes: usize,
    ) -> DeliveryStatus {
        let is_full = member.is_full();
        if is_full && member.is_awaited() {
            return self.deliver_to_awaited(router, member, run, body_bytes);
        }
        let met = (is_full && !run.is_realtime()).then(|| match self.best_effort {
            true => Fullness::GetsNothing,
            false => self.fullness(&router.holds, &member, body_bytes),
        });
        let delivery = if met == Some(Fullness::GetsNothing) {
            member.dropped.fetch_add(run.payloads().len() as u64, Ordering::Relaxed);
            self.refusal = if self.best_effort { Refusal::BestEffort } else { Refusal::HoldBudget };
            DeliveryStatus::REFUSED
        } else if self.waits && self.floods(&member) {
            self.refusal = Refusal::Unheeded;
            DeliveryStatus::REFUSED
        } else {
            self.hand_over(router, &member, run)
        };
        let takes_more = met == Some(Fullness::TakesMore);
        self.settle(router, member, delivery, run.payloads().len(), body_bytes, takes_more);
        delivery
    }

    /// Hands a run to the sink of a client, in turn with replays to it.
    #[inline]
    fn hand_over(
        &self,
        router: &Router,
        client: &Arc<RegisteredClient>,
        run: &mut Run<'_>,
    ) -> DeliveryStatus {
        if !client.is_replaying() {
            return client.deliver(run);
        }
        let (topic, mark) = (run.topic(), self.mark);
        let (deliver, skipped) = (|| client.deliver(run), || DeliveryStatus::TAKEN);
        router.deliver_in_turn(client, topic, mark, deliver, |delivery| delivery.is_taken(), skipped)
    }

    /// Counts what a recipient has taken or refused, and records whether it is full or must be flushed.
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
            router.count_refused(std::mem::replace(&mut self.refusal, Refusal::QueueFull), frames);
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

    /// Flushes all dirty recipients; returns whether the sender must wait.
    pub(super) fn end_batch(&mut self) -> bool {
        if !self.to_feed.is_empty() {
            self.feed();
        }
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
}

/// Returns whether the policy allows a message to this client. Messages to the broker are always allowed: its
/// methods have rules of their own.
pub(super) fn allows_message(access: &PolicySnapshot, target: &str) -> bool {
    target == BROKER_NAME || access.allows(Action::Send, target)
}
