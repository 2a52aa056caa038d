//! SUBSCRIBE, UNSUBSCRIBE, EXCLUDE and UNEXCLUDE: all filters of a request are changed, or none. Owns the
//! order of checks; the registry is locked for some filters at a time.

use elbus_plugin_api::{Code, Op, hooks::SubscriptionEvent};
use elbus_protocol::request;
use smallvec::SmallVec;
use std::sync::Arc;

use super::{
    filter_limits::{FilterLimits, has_valid_options},
    registered_client::RegisteredClient,
    registry::{FilterRefusal, FilterSet, Reserved},
    router::Router,
};
use crate::{
    access::{FilterDenial, PolicySnapshot},
    sync::atomic::Ordering,
};

/// Filters that are added or removed under one lock of the registry.
pub(super) const FILTERS_PER_LOCK: usize = 256;

/// The numbers of filters of a request, in order.
type Changed = SmallVec<[usize; 4]>;

fn event_of(op: Op) -> SubscriptionEvent {
    match op {
        Op::Subscribe => SubscriptionEvent::Subscribed,
        Op::Unsubscribe => SubscriptionEvent::Unsubscribed,
        Op::Exclude => SubscriptionEvent::Excluded,
        _ => SubscriptionEvent::Unexcluded,
    }
}

/// A change that a client requests.
struct Change<'c> {
    member: &'c Arc<RegisteredClient>,
    set: FilterSet,
    add: bool,
    body: &'c str,
    /// The policy that it was checked against.
    policy: Option<Arc<PolicySnapshot>>,
}

impl Router {
    /// Subscribes, unsubscribes, or adds or removes exclusions: all filters of a body, or none of them.
    pub(super) fn change_filters(
        self: &Arc<Self>,
        member: &Arc<RegisteredClient>,
        op: Op,
        body: &str,
    ) -> Code {
        let (set, add) = match op {
            Op::Subscribe => (FilterSet::Subscriptions, true),
            Op::Unsubscribe => (FilterSet::Subscriptions, false),
            Op::Exclude => (FilterSet::Exclusions, true),
            _ => (FilterSet::Exclusions, false),
        };
        loop {
            // without the lock, because there can be many; again if rules were replaced meanwhile
            let policy = member.policy().filter(|_| add);
            let limits = FilterLimits::new(self.settings(), member, policy.as_deref());
            if !limits.allow(member, body, add) || !has_valid_options(member, set, body) {
                return Code::BadData;
            }
            let checked = policy.as_ref().filter(|_| op == Op::Subscribe);
            match checked.map_or(Ok(()), |policy| policy.check_filters(body, &member.origin)) {
                Ok(()) => {}
                Err(FilterDenial::Denied) => return Code::AccessDenied,
                Err(FilterDenial::TooManyComparisons) => {
                    limits.log_refusal(member, FilterRefusal::Comparisons);
                    return Code::Other;
                }
            }
            let change = Change { member, set, add, body, policy };
            // before the filters are added, so that nothing is delivered out of turn
            let begins = op == Op::Subscribe && self.hooks.listener().is_some();
            let begun = begins.then(|| self.begin_replay(member));
            match self.apply(&change, &limits) {
                Ok(Some(changed)) => {
                    let replay = begun.and_then(|begun| self.replay_of(member, body, &changed, begun));
                    self.report_change(member, event_of(op), body, &changed, replay);
                    return Code::Ok;
                }
                Ok(None) => {}
                Err(FilterRefusal::Gone) => return Code::NotRegistered,
                Err(refusal) => {
                    limits.log_refusal(member, refusal);
                    return Code::Other;
                }
            }
        }
    }

    /// Applies a change. Returns the numbers of the filters that have changed; `None` if rules were replaced:
    /// then nothing has changed.
    fn apply(&self, change: &Change<'_>, limits: &FilterLimits) -> Result<Option<Changed>, FilterRefusal> {
        let Change { member, set, add, body, .. } = *change;
        let mut left = request::filters(body).enumerate().peekable();
        let mut reserved: Option<Reserved> = None;
        // in order
        let mut changed = Changed::new();
        loop {
            let mut registry = self.registry.write();
            // under the lock under which a client gets another policy
            if add && !change.has_policy(member.policy()) {
                let undone = request::filters(body).enumerate();
                let undone = undone.filter(|(number, _)| changed.binary_search(number).is_ok());
                registry.change(member, set, false, undone, |_| ())?;
                registry.release(member, set, reserved.unwrap_or_default(), &changed);
                self.count_change(!changed.is_empty());
                return Ok(None);
            }
            if add && reserved.is_none() {
                reserved = Some(registry.admit(member, set, body, limits)?);
            }
            let some = left.by_ref().take(FILTERS_PER_LOCK);
            registry.change(member, set, add, some, |number| changed.push(number))?;
            if left.peek().is_none() {
                self.count_change(!changed.is_empty());
                return Ok(Some(changed));
            }
        }
    }

    /// Must be called under the lock of the registry.
    pub(super) fn count_change(&self, any: bool) {
        if any {
            self.topics_epoch.fetch_add(1, Ordering::Release);
        }
    }
}

impl Change<'_> {
    fn has_policy(&self, now: Option<Arc<PolicySnapshot>>) -> bool {
        now.as_ref().map(Arc::as_ptr) == self.policy.as_ref().map(Arc::as_ptr)
    }
}
