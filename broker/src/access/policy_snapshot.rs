//! The access rules as they apply to one client: its table of rules, its counts of denied operations, and its
//! place in the client quota.

use elbus_plugin_api::{
    Code, SinkLimits,
    access::{Action, ClientLimits},
    config::Overflow,
    rate::TokenBucket,
};
use elbus_protocol::{name::is_secondary, request, subscription::Subscription};
use std::{sync::Arc, time::Instant};

use super::{ActivePolicy, BudgetExhausted, CheckBudget, Decision, DecisionReason, Refusal, Subject};
use crate::{
    client_origin::ClientOrigin,
    statistics::Denial,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Denied operations of each kind that are logged individually for a system sender.
const LOGGED_OF_SYSTEM: u64 = 20;

/// Maximum number of segment comparisons for the filters of one request. Rules without placeholders take one
/// for each segment of a filter, regardless of their number.
pub(crate) const MAX_FILTER_COMPARISONS: usize = 4 << 20;

/// Why a client may not subscribe to the filters of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilterDenial {
    /// A rule denies one of the filters.
    Denied,
    /// The filters take more than [`MAX_FILTER_COMPARISONS`].
    TooManyComparisons,
}

/// The client quota of one table of rules.
pub(super) struct ClientQuota {
    limits: ClientLimits,
    present: AtomicU64,
    /// Registrations that are possible now; `None` if their rate has no limit.
    arrivals: Option<Mutex<TokenBucket>>,
}

impl ClientQuota {
    pub(super) fn new(limits: &ClientLimits) -> Self {
        let bucket = |rate: f64| Mutex::new(TokenBucket::with_burst(rate, rate, Instant::now()));
        let arrivals = limits.connects_per_second.get().map(|rate| bucket(rate as f64));
        ClientQuota { limits: *limits, present: AtomicU64::new(0), arrivals }
    }

    /// Counts one more client. A client that is registered already never exceeds the quota.
    fn enter(&self, is_new: bool) -> Result<(), String> {
        if !is_new {
            self.present.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        if !self.has_time_for_one(Instant::now()) {
            let rate = self.limits.connects_per_second.or_max();
            return Err(format!("more than {rate} have registered within a second (connects_per_second)"));
        }
        let limit = self.limits.max_clients.or_max();
        let one_more = |present: u64| (present < limit).then_some(present + 1);
        let entered = self.present.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        entered
            .map(drop)
            .map_err(|present| format!("client limit reached ({present} of {limit}; max_clients)"))
    }

    /// Takes one registration from the rate, if one is left.
    fn has_time_for_one(&self, now: Instant) -> bool {
        self.arrivals.as_ref().is_none_or(|arrivals| arrivals.lock().try_take(now))
    }
}

/// Returns the filter that rules decide about: the one behind the options.
pub(crate) fn without_options(filter: &str) -> &str {
    Subscription::parse(filter).map_or(filter, |parsed| parsed.filter)
}

/// The access rules as they apply to one client.
pub(crate) struct PolicySnapshot {
    active: Arc<ActivePolicy>,
    /// The table for the client's name, if any.
    table: Option<usize>,
    name: Arc<str>,
    uid: Option<u32>,
    /// Number of denied operations, by action.
    denied: [AtomicU64; Action::ALL.len()],
    /// Everything is denied: the rules do not admit the name of this system sender.
    barred: bool,
    /// A system sender: it gets no answers, so denied operations are reported in the log only.
    is_system: bool,
    has_left: AtomicBool,
}

impl PolicySnapshot {
    pub(super) fn new(
        active: Arc<ActivePolicy>,
        name: Arc<str>,
        origin: &ClientOrigin,
        is_new: bool,
    ) -> Result<Self, Refusal> {
        let table = active.rules.table_of(&name);
        if let Some(quota) = table.and_then(|table| active.quotas.get(table)) {
            quota.enter(is_new).map_err(|reason| Refusal { code: Code::Busy, reason })?;
        }
        let uid = origin.credentials.map(|credentials| credentials.uid);
        let (denied, has_left) = (Default::default(), AtomicBool::new(false));
        Ok(PolicySnapshot { active, table, name, uid, denied, barred: false, is_system: false, has_left })
    }

    /// Creates the snapshot of a system sender, which counts in no quota.
    pub(super) fn of_system(active: Arc<ActivePolicy>, name: Arc<str>, barred: bool) -> Self {
        let table = active.rules.table_of(&name);
        let (denied, has_left) = (Default::default(), AtomicBool::new(true));
        PolicySnapshot { active, table, name, uid: None, denied, barred, is_system: true, has_left }
    }

    /// Returns whether the snapshot belongs to these rules.
    pub(crate) fn is_by(&self, current: &Arc<ActivePolicy>) -> bool {
        Arc::ptr_eq(&self.active, current)
    }

    /// Returns the decision about an action, without counting it.
    pub(crate) fn decide(&self, action: Action, target: &str) -> Decision {
        if self.barred {
            let reason = self.table.map_or(DecisionReason::NoTable, |table| DecisionReason::Who { table });
            return Decision { allowed: false, reason };
        }
        let target = if action == Action::Subscribe { without_options(target) } else { target };
        let subject = Subject { name: &self.name, uid: self.uid };
        self.active.rules.decide(self.table, &subject, action, target)
    }

    /// Returns whether an action is allowed.
    pub(crate) fn allows(&self, action: Action, target: &str) -> bool {
        self.decide(action, target).allowed
    }

    /// Returns whether a broadcast of the client may be delivered to this recipient. Rules name primaries,
    /// and a secondary may match a mask that its primary does not match.
    pub(crate) fn allows_broadcast_to(&self, name: &str) -> bool {
        let subject = Subject { name: &self.name, uid: self.uid };
        !is_secondary(name) || self.active.rules.allows_broadcast_to(self.table, &subject, name)
    }

    /// Checks whether the client may subscribe to all filters of a body.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) fn check_filters(&self, body: &str, origin: &ClientOrigin) -> Result<(), FilterDenial> {
        let mut budget = CheckBudget::new(MAX_FILTER_COMPARISONS);
        for filter in request::filters(body) {
            if !self.allows_filter(filter, &mut budget).map_err(|_| FilterDenial::TooManyComparisons)? {
                self.deny(Action::Subscribe, filter, 1, origin);
                return Err(FilterDenial::Denied);
            }
        }
        Ok(())
    }

    /// Returns whether the client may subscribe to a filter, as one of many. Its options do not matter.
    ///
    /// # Errors
    /// The budget is used up.
    pub(crate) fn allows_filter(
        &self,
        filter: &str,
        budget: &mut CheckBudget,
    ) -> Result<bool, BudgetExhausted> {
        let filter = without_options(filter);
        let subject = Subject { name: &self.name, uid: self.uid };
        let allowed = self.active.rules.allows_filter(self.table, &subject, filter, budget)?;
        Ok(allowed && !self.barred)
    }

    /// Counts denied operations and logs the first of each kind. For a system sender, logs the first twenty
    /// and then each time the count has doubled.
    #[cold]
    pub(crate) fn deny(&self, action: Action, target: &str, count: usize, origin: &ClientOrigin) {
        self.active.denied.add(Denial::Action(action), count);
        let Some(denied) = self.denied.get(action as usize) else { return };
        let before = denied.fetch_add(count as u64, Ordering::Relaxed);
        let doubles = || before.checked_ilog2() != before.saturating_add(count as u64).checked_ilog2();
        if before == 0 || (self.is_system && (before < LOGGED_OF_SYSTEM || doubles())) {
            let decision = self.decide(action, target);
            let place = self.active.location_of(&decision);
            tracing::warn!(
                client = &*self.name,
                source = origin.source.as_deref(),
                uid = origin.uid(),
                target,
                place,
                action = action.key(),
                reason = %self.active.rules.explain(&decision),
                denied_before = before,
                "operation denied; further ones of this kind are only counted"
            );
        }
    }

    /// Returns the number of denied operations, by action.
    pub(crate) fn denied(&self) -> impl Iterator<Item = (Action, u64)> {
        Action::ALL.into_iter().zip(self.denied.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Returns the client's limits.
    pub(crate) fn limits(&self) -> ClientLimits {
        let table = self.table.and_then(|table| self.active.rules.tables.get(table));
        table.map(|table| table.limits).unwrap_or_default()
    }

    /// Returns the overflow policy, if the rules have one.
    pub(crate) fn overflow(&self) -> Option<Overflow> {
        self.table.and_then(|table| self.active.rules.tables.get(table))?.overflow
    }

    /// Returns the limits that the transport applies.
    pub(crate) fn sink_limits(&self) -> SinkLimits {
        let limits = self.limits();
        let mut of_sink = SinkLimits::default();
        of_sink.queue_bytes = limits.queue_bytes;
        of_sink.max_frame_bytes = limits.max_frame_bytes;
        of_sink.messages_per_second = limits.messages_per_second;
        of_sink.bytes_per_second = limits.bytes_per_second;
        of_sink.set_overflow(self.overflow());
        of_sink
    }

    /// Releases the client's place in the quota: it has left or has another policy.
    pub(crate) fn leave(&self) {
        if !self.has_left.swap(true, Ordering::Relaxed)
            && let Some(quota) = self.table.and_then(|table| self.active.quotas.get(table))
        {
            quota.present.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for PolicySnapshot {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::config::Limit;
    use std::time::Duration;

    #[test]
    fn a_rate_allows_a_burst_of_one_second_then_single_registrations() {
        let limits = ClientLimits { connects_per_second: Limit::new(4), ..ClientLimits::default() };
        let quota = ClientQuota::new(&limits);
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!((0..10).filter(|_| quota.has_time_for_one(start)).count(), 4);
        assert!(!quota.has_time_for_one(after(200)));
        assert!(quota.has_time_for_one(after(260)));
        assert!(!quota.has_time_for_one(after(260)));
        assert_eq!(
            (0..10).filter(|_| quota.has_time_for_one(after(60_000))).count(),
            4,
            "at most the burst of one second"
        );
    }

    #[test]
    fn a_full_quota_admits_a_client_after_another_has_left() {
        let quota = ClientQuota::new(&ClientLimits { max_clients: Limit::new(2), ..ClientLimits::default() });
        assert_eq!((quota.enter(true), quota.enter(false)), (Ok(()), Ok(())));
        assert_eq!(quota.enter(true).unwrap_err(), "client limit reached (2 of 2; max_clients)");
        assert_eq!(quota.enter(false), Ok(()), "registered clients stay");
        quota.present.fetch_sub(2, Ordering::Relaxed);
        assert_eq!(quota.enter(true), Ok(()));
    }
}
