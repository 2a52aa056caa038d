//! Replacement of access rules, and the check of registered clients against new ones. The rules themselves
//! belong to [`access`](crate::access).

use elbus_plugin_api::{Departure, WARNINGS_TOPIC, access::AccessRules, hooks::SubscriptionEvent};
use std::sync::Arc;

use super::{
    filter_changes::FILTERS_PER_LOCK, filter_limits::MAX_REQUEST_FILTERS, index::id_set::Ids,
    registered_client::RegisteredClient, registry::FilterSet, router::Router,
};
use crate::access::{
    Access, BudgetExhausted, CheckBudget, MAX_FILTER_COMPARISONS, PolicySnapshot, RuleSetter,
};

impl Router {
    /// Replaces the access rules and checks all clients against them. The rules in force must belong to the
    /// same instance.
    ///
    /// # Errors
    /// A sentence if the rules in force belong to another instance.
    pub(crate) fn set_access_rules(&self, setter: RuleSetter, rules: AccessRules) -> Result<(), String> {
        let _changing = self.access.change();
        self.access.replace(setter, rules)?;
        self.reauthorize_all();
        Ok(())
    }

    /// Removes rules whose instance was [released](Access::release_unless) if no other instance has replaced
    /// them, nor may do so.
    pub(crate) fn drop_released_rules(&self, may_be_replaced: impl Fn(&RuleSetter) -> bool) {
        let _changing = self.access.change();
        let Some(setter) = self.access.released() else { return };
        if may_be_replaced(&setter) {
            let plugin = setter.instance;
            tracing::warn!(
                plugin,
                "access rules stay in force: another plugin is to replace them, but has failed"
            );
        } else {
            self.access.drop_rules();
            tracing::warn!("access rules removed: everybody may do everything");
            self.reauthorize_all();
        }
    }

    /// Checks all clients. Must be called within a change of rules. The registry is locked for one client at
    /// a time.
    fn reauthorize_all(&self) {
        let members: Vec<_> = self.registry.read().all().cloned().collect();
        members.iter().for_each(|member| self.reauthorize(member));
        for member in self.system.all() {
            member.set_policy(self.access.admit_system(&member.name, &member.origin));
        }
        // last: from now on senders get the new answers
        self.access.advance();
    }

    pub(super) fn has_current_policy(&self, member: &RegisteredClient) -> bool {
        match (self.access.current(), member.policy()) {
            (None, None) => true,
            (Some(current), Some(policy)) => policy.is_by(&current),
            (Some(_), None) => !Access::concerns(&member.origin),
            (None, Some(_)) => false,
        }
    }

    /// Checks a client against the rules in force. Subscriptions that are no longer allowed end; a client
    /// that is no longer allowed is disconnected.
    pub(super) fn reauthorize(&self, member: &Arc<RegisteredClient>) {
        if member.is_gone() {
            return;
        }
        let policy = match self.access.readmit(&member.name, &member.origin) {
            Ok(policy) => policy,
            Err(refusal) => {
                tracing::warn!(client = &*member.name, reason = %refusal.reason, "client disconnected");
                let mut evicted = vec![];
                let why = (Departure::Denied, &*refusal.reason);
                self.remove(&mut self.registry.write(), member, why, &mut evicted);
                self.close_all(&evicted);
                return self.events.dispatch();
            }
        };
        let before = member.policy();
        let ((nodes, optioned), former) = {
            let mut registry = self.registry.write();
            // later subscriptions are checked against this policy
            member.set_policy(policy.clone());
            let (former, has_changed) = registry.set_overflow(member, member.overflow());
            self.count_change(has_changed);
            let filters = match policy.is_some() {
                true => (registry.subscription_nodes(member), registry.optioned_texts(member)),
                false => (Ids::new(), Vec::new()),
            };
            (filters, former)
        };
        former.iter().for_each(|subscriber| subscriber.abandon());
        if let Some(policy) = &policy {
            // the budget of requests with as many filters; a filter that cannot be checked within it is not
            // allowed
            let requests = (nodes.len() + optioned.len()).div_ceil(MAX_REQUEST_FILTERS);
            let mut budget = CheckBudget::new(MAX_FILTER_COMPARISONS.saturating_mul(requests));
            let mut unchecked = 0;
            let denied = |filter: &str| {
                // a client has this one from its registration
                filter != WARNINGS_TOPIC
                    && !policy.allows_filter(filter, &mut budget).unwrap_or_else(|BudgetExhausted| {
                        unchecked += 1;
                        false
                    })
            };
            self.end_subscriptions(member, &nodes, &optioned, denied);
            if unchecked > 0 {
                tracing::warn!(
                    client = &*member.name,
                    unchecked,
                    limit = MAX_FILTER_COMPARISONS,
                    "subscriptions ended: checking them takes too many comparisons with access rules"
                );
            }
        }
        let limits = |policy: Option<Arc<PolicySnapshot>>| {
            policy.map(|policy| policy.sink_limits()).unwrap_or_default()
        };
        let (before, after) = (limits(before), limits(policy));
        if before != after {
            member.limit(&after);
        }
    }

    /// Ends the subscriptions at these nodes, and those with options, that are denied. The registry is locked
    /// for some of them at a time, not during the checks.
    fn end_subscriptions(
        &self,
        member: &Arc<RegisteredClient>,
        nodes: &[u32],
        optioned: &[Arc<str>],
        mut denied: impl FnMut(&str) -> bool,
    ) {
        let mut any = false;
        let mut end = |filters: Vec<&str>| {
            if filters.is_empty() {
                return;
            }
            let mut changed = Vec::new();
            {
                let mut registry = self.registry.write();
                let filters = filters.iter().copied().enumerate();
                let set = FilterSet::Subscriptions;
                _ = registry.change(member, set, false, filters, |number| changed.push(number));
                self.count_change(!changed.is_empty());
            }
            any |= !changed.is_empty();
            let body = filters.join("\0");
            self.report_change(member, SubscriptionEvent::Unsubscribed, &body, &changed, None);
        };
        for nodes in nodes.chunks(FILTERS_PER_LOCK) {
            let filters = self.registry.read().subscriptions_at(member, nodes);
            end(filters.iter().map(String::as_str).filter(|filter| denied(filter)).collect());
        }
        for filters in optioned.chunks(FILTERS_PER_LOCK) {
            end(filters.iter().map(|filter| &**filter).filter(|filter| denied(filter)).collect());
        }
        if any {
            tracing::warn!(client = &*member.name, "subscriptions ended that are no longer allowed");
        }
    }
}
