//! Delivery because of subscriptions with options: to clients that never hold the sender, and to one member
//! of each group. Cold: other traffic pays one comparison for it.

use elbus_plugin_api::{DeliveryStatus, Payload, Qos, Run};
use elbus_protocol::subscription::DeliveryMode;
use smallvec::SmallVec;
use std::sync::{Arc, Weak};

use super::{FanOut, Scope, congestion::MAX_CONGESTED};
use crate::routing::{
    holds::Holds,
    optioned::{
        OptionedRecipients, Subscriber,
        groups::{Choice, GroupRoute},
    },
    router::Router,
};

/// Parts that a run is split into for a group, if it has as many members and frames.
const MAX_PARTS: usize = 32;
/// Members that are tried if they leave at this moment.
const MAX_TRIES: usize = 16;

/// What became of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Taken,
    /// The client misses it, as its option says: no failure of the sender.
    Missed,
    /// A full queue has refused it.
    Refused,
    /// There is no client any more.
    Closed,
}

impl Outcome {
    fn of(delivery: DeliveryStatus) -> Self {
        match delivery.is_taken() {
            true => Outcome::Taken,
            false if delivery.has(DeliveryStatus::REFUSED) => Outcome::Refused,
            false => Outcome::Closed,
        }
    }
}

/// The registrations of members that have closed, and are about to be unregistered.
type Closed = SmallVec<[u64; 4]>;

/// Returns the length of the bodies of publications, as the counters count them.
fn body_bytes(topic: &str, payloads: &[Payload<'_>]) -> usize {
    payloads.iter().map(|payload| topic.len() + 1 + payload.len()).sum()
}

impl FanOut {
    /// Blocks the request if it is for a group all of whose members hold the sender.
    #[cold]
    pub(super) fn block_for_groups(
        &mut self,
        holds: &Holds,
        optioned: &OptionedRecipients,
        scope: Scope<'_>,
        topic: &str,
        body_bytes: usize,
    ) {
        for route in &optioned.groups {
            if self.congested.len() >= MAX_CONGESTED {
                break;
            }
            let choice = match scope {
                Scope::All => route.peek(topic),
                _ => route.among(|client| scope.has(client)).peek(topic),
            };
            if let Choice::Full(member) = choice
                && member.mode() == DeliveryMode::Queued
                && self.is_held_by(holds, &member.client, body_bytes)
            {
                self.block(&member.client);
            }
        }
    }

    /// Hands a run to the recipients by subscriptions with options; returns how many were reached, and
    /// whether one refused it.
    #[cold]
    pub(super) fn deliver_with_options(
        &mut self,
        router: &Arc<Router>,
        optioned: &OptionedRecipients,
        scope: Scope<'_>,
        run: &mut Run<'_>,
    ) -> (u32, bool) {
        let (mut reached, mut refused) = (0, false);
        for subscriber in optioned.alone.iter().filter_map(Weak::upgrade) {
            if !subscriber.client.is_gone() && scope.has(&subscriber.client) {
                reached += u32::from(self.deliver_to_subscriber(router, &subscriber, run) == Outcome::Taken);
            }
        }
        if optioned.overlap {
            let more = self.deliver_to_overlapping(router, optioned, scope, run);
            return (reached + more.0, more.1);
        }
        for route in &optioned.groups {
            let outcome = self.deliver_to_group(router, route, scope, run);
            reached += u32::from(outcome == Outcome::Taken);
            refused |= outcome == Outcome::Refused;
        }
        (reached, refused)
    }

    /// Hands a run to one subscription.
    fn deliver_to_subscriber(
        &mut self,
        router: &Arc<Router>,
        subscriber: &Arc<Subscriber>,
        run: &mut Run<'_>,
    ) -> Outcome {
        match subscriber.mode() {
            DeliveryMode::Queued => {
                let bytes = body_bytes(run.topic(), run.payloads());
                Outcome::of(self.deliver_run(router, subscriber.client.clone(), run, bytes))
            }
            DeliveryMode::Lossy => self.deliver_lossy(router, subscriber, run),
            DeliveryMode::Latest | DeliveryMode::Every { .. } => {
                let client = &subscriber.client;
                let put = || subscriber.put(run);
                let feeds = match client.is_replaying() {
                    true => router.deliver_in_turn(client, run.topic(), self.mark, put, |_| true, || false),
                    false => put(),
                };
                if feeds {
                    self.to_feed.push(subscriber.clone());
                }
                Outcome::Taken
            }
        }
    }

    /// Hands a run to a client that gets it only if it fits.
    fn deliver_lossy(
        &mut self,
        router: &Arc<Router>,
        subscriber: &Arc<Subscriber>,
        run: &mut Run<'_>,
    ) -> Outcome {
        let (client, frames) = (&subscriber.client, run.payloads().len());
        let delivery =
            if client.is_full() { DeliveryStatus::REFUSED } else { self.hand_over(router, client, run) };
        if delivery.is_taken() {
            client.counts.sent(frames, body_bytes(run.topic(), run.payloads()));
        } else if delivery.has(DeliveryStatus::REFUSED) {
            subscriber.miss(run.topic(), frames);
        }
        if delivery.has(DeliveryStatus::FULL) {
            client.fill(&router.holds);
        }
        if delivery.has(DeliveryStatus::DIRTY) {
            self.dirty.push(client.clone());
        }
        match Outcome::of(delivery) {
            Outcome::Refused => Outcome::Missed,
            outcome => outcome,
        }
    }

    /// Hands a run to the members of a group: to one by its key, else in parts to several.
    fn deliver_to_group(
        &mut self,
        router: &Arc<Router>,
        route: &GroupRoute,
        scope: Scope<'_>,
        run: &mut Run<'_>,
    ) -> Outcome {
        let payloads = run.payloads();
        let members = route.members.len().max(1);
        if route.group.levels.is_some() || members == 1 || payloads.len() == 1 {
            return self.deliver_to_member(router, route, scope, run);
        }
        let parts = members.min(MAX_PARTS).min(payloads.len());
        let (len, longer) = (payloads.len() / parts, payloads.len() % parts);
        let (sender, sender_id, topic, kind) = (run.sender(), run.sender_id(), run.topic(), run.kind());
        let qos = if run.is_realtime() { Qos::REALTIME } else { Qos::NO };
        let mut all = Outcome::Closed;
        let mut left = payloads;
        for number in 0..parts {
            let len = len + usize::from(number < longer);
            let Some((payloads, behind)) = left.split_at_checked(len) else { break };
            left = behind;
            let encoding = run.encoding();
            encoding.reset();
            let mut part =
                Run::new(kind, qos, sender, topic, payloads, None, encoding).with_sender_id(sender_id);
            let outcome = self.deliver_to_member(router, route, scope, &mut part);
            if all != Outcome::Taken && outcome != Outcome::Closed {
                all = outcome;
            }
        }
        run.encoding().reset();
        route.group.skip(longer);
        all
    }

    /// Hands a run to one member of a group; if that leaves at this moment, to another one.
    fn deliver_to_member(
        &mut self,
        router: &Arc<Router>,
        route: &GroupRoute,
        scope: Scope<'_>,
        run: &mut Run<'_>,
    ) -> Outcome {
        let mut closed = Closed::new();
        for _ in 0..MAX_TRIES {
            let Some(member) = choose(route, scope, &closed, run.topic()) else { break };
            let outcome = self.deliver_for_group(router, &member, run, &mut closed);
            if outcome != Outcome::Closed {
                return outcome;
            }
        }
        Outcome::Closed
    }

    /// Hands a run to the member that was chosen. One that leaves at this moment is added to `closed`: it is
    /// still registered, and nothing is queued for it, so that it would be chosen again.
    fn deliver_for_group(
        &mut self,
        router: &Arc<Router>,
        member: &Arc<Subscriber>,
        run: &mut Run<'_>,
        closed: &mut Closed,
    ) -> Outcome {
        run.set_for_group(true);
        let outcome = self.deliver_to_subscriber(router, member, run);
        run.set_for_group(false);
        if outcome == Outcome::Closed {
            closed.push(member.client.id);
        }
        outcome
    }

    /// Hands a run to one member of each group. One that is chosen for several groups gets it once.
    fn deliver_to_overlapping(
        &mut self,
        router: &Arc<Router>,
        optioned: &OptionedRecipients,
        scope: Scope<'_>,
        run: &mut Run<'_>,
    ) -> (u32, bool) {
        let (mut reached, mut refused) = (0, false);
        let mut left: Vec<&GroupRoute> = optioned.groups.iter().collect();
        let mut closed = Closed::new();
        for _ in 0..MAX_TRIES {
            let mut chosen: Vec<(Arc<Subscriber>, Vec<&GroupRoute>)> = vec![];
            for route in left.drain(..) {
                let Some(member) = choose(route, scope, &closed, run.topic()) else { continue };
                match chosen.iter_mut().find(|(other, _)| other.client.id == member.client.id) {
                    Some((other, routes)) => {
                        routes.push(route);
                        // the mode that keeps more decides
                        if member.mode() < other.mode() {
                            *other = member;
                        }
                    }
                    None => chosen.push((member, vec![route])),
                }
            }
            for (member, routes) in chosen {
                let outcome = self.deliver_for_group(router, &member, run, &mut closed);
                reached += u32::from(outcome == Outcome::Taken);
                refused |= outcome == Outcome::Refused;
                if outcome == Outcome::Closed {
                    left.extend(routes);
                }
            }
            if left.is_empty() {
                break;
            }
        }
        (reached, refused)
    }

    /// Feeds clients with the values that wait for them.
    #[cold]
    pub(super) fn feed(&mut self) {
        for subscriber in self.to_feed.drain(..) {
            subscriber.feed();
        }
    }
}

/// Chooses the member that gets a publication; one over its limit if all are.
fn choose(route: &GroupRoute, scope: Scope<'_>, closed: &Closed, topic: &str) -> Option<Arc<Subscriber>> {
    let choice = match scope {
        Scope::All if closed.is_empty() => route.choose(topic),
        _ => route.among(|client| scope.has(client) && !closed.contains(&client.id)).choose(topic),
    };
    match choice {
        Choice::Member(member) | Choice::Full(member) => Some(member),
        Choice::Nobody => None,
    }
}
