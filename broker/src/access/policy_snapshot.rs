//! The access rules as they apply to one client: its table of rules, the counts of what was denied, and its
//! part of the quota of clients.

use elbus_plugin_api::{
    Code, SinkLimits,
    access::{Action, ClientLimits},
    rate::TokenBucket,
};
use elbus_protocol::{name::is_secondary, request};
use std::{sync::Arc, time::Instant};

use super::{ActivePolicy, BudgetExhausted, CheckBudget, Decision, DecisionReason, Refusal, Subject};
use crate::{
    client_origin::ClientOrigin,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Denied operations of each kind that are logged one by one for a system sender.
const LOGGED_OF_SYSTEM: u64 = 20;

/// Comparisons of segments that the filters of one request may take. Rules without placeholders in different
/// forms take one for each segment of a filter, however many there are.
pub(crate) const MAX_FILTER_COMPARISONS: usize = 4 << 20;

/// Why a client may not subscribe to the filters of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilterDenial {
    /// A rule denies one of them.
    Denied,
    /// They take more than [`MAX_FILTER_COMPARISONS`].
    TooManyComparisons,
}

/// The quota of clients of one table of rules.
pub(super) struct ClientQuota {
    limits: ClientLimits,
    present: AtomicU64,
    /// Registrations that are possible now; `None` if their rate has no limit.
    arrivals: Option<Mutex<TokenBucket>>,
}

impl ClientQuota {
    pub(super) fn new(limits: &ClientLimits) -> Self {
        let bucket = |rate: f64| Mutex::new(TokenBucket::with_burst(rate, rate, Instant::now()));
        let arrivals = limits.connects_per_second.map(|rate| bucket(rate as f64));
        ClientQuota { limits: *limits, present: AtomicU64::new(0), arrivals }
    }

    /// Counts one more client. Clients that are registered already never exceed the quota.
    fn enter(&self, is_new: bool) -> Result<(), String> {
        if !is_new {
            self.present.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        if !self.has_time_for_one(Instant::now()) {
            let rate = self.limits.connects_per_second.unwrap_or(0);
            return Err(format!("more than {rate} have registered within a second (connects_per_second)"));
        }
        let limit = self.limits.clients.unwrap_or(u64::MAX);
        let one_more = |present: u64| (present < limit).then_some(present + 1);
        let entered = self.present.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        entered.map(drop).map_err(|present| format!("client limit reached ({present} of {limit}; clients)"))
    }

    /// Takes one from what a second allows.
    fn has_time_for_one(&self, now: Instant) -> bool {
        self.arrivals.as_ref().is_none_or(|arrivals| arrivals.lock().try_take(now))
    }
}

/// The access rules as they apply to one client.
pub(crate) struct PolicySnapshot {
    active: Arc<ActivePolicy>,
    /// The table for its name, where there is one.
    table: Option<usize>,
    name: Arc<str>,
    uid: Option<u32>,
    /// By action: what was denied, in operations.
    denied: [AtomicU64; Action::ALL.len()],
    /// Nothing is allowed: a system sender whose name the rules do not admit.
    barred: bool,
    /// A system sender: it is answered nothing, so that the log says of each operation that it was denied.
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
            quota.enter(is_new).map_err(|why| Refusal { code: Code::Busy, why })?;
        }
        let uid = origin.credentials.map(|credentials| credentials.uid);
        let (denied, has_left) = (Default::default(), AtomicBool::new(false));
        Ok(PolicySnapshot { active, table, name, uid, denied, barred: false, is_system: false, has_left })
    }

    /// Creates that of a system sender, which counts in no quota.
    pub(super) fn of_system(active: Arc<ActivePolicy>, name: Arc<str>, barred: bool) -> Self {
        let table = active.rules.table_of(&name);
        let (denied, has_left) = (Default::default(), AtomicBool::new(true));
        PolicySnapshot { active, table, name, uid: None, denied, barred, is_system: true, has_left }
    }

    /// Returns whether it is of these rules.
    pub(crate) fn is_by(&self, current: &Arc<ActivePolicy>) -> bool {
        Arc::ptr_eq(&self.active, current)
    }

    /// What the rules say of an action, without counting.
    pub(crate) fn decide(&self, action: Action, target: &str) -> Decision {
        if self.barred {
            let reason = self.table.map_or(DecisionReason::NoTable, |table| DecisionReason::Who { table });
            return Decision { allowed: false, reason };
        }
        let subject = Subject { name: &self.name, uid: self.uid };
        self.active.rules.decide(self.table, &subject, action, target)
    }

    /// Whether the client may do it.
    pub(crate) fn allows(&self, action: Action, target: &str) -> bool {
        self.decide(action, target).allowed
    }

    /// Whether a broadcast it may send may go to this client. Rules name primaries; a secondary may match a
    /// mask that its primary does not.
    pub(crate) fn allows_broadcast_to(&self, name: &str) -> bool {
        let subject = Subject { name: &self.name, uid: self.uid };
        !is_secondary(name) || self.active.rules.allows_broadcast_to(self.table, &subject, name)
    }

    /// Whether it may subscribe to all the filters of a body.
    ///
    /// # Errors
    /// Why not.
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

    /// Whether it may subscribe to a filter, as one of many.
    ///
    /// # Errors
    /// The budget is used up.
    pub(crate) fn allows_filter(
        &self,
        filter: &str,
        budget: &mut CheckBudget,
    ) -> Result<bool, BudgetExhausted> {
        let subject = Subject { name: &self.name, uid: self.uid };
        let allowed = self.active.rules.allows_filter(self.table, &subject, filter, budget)?;
        Ok(allowed && !self.barred)
    }

    /// Counts operations that were denied, and logs the first of each kind; of a system sender the first
    /// twenty, and after that whenever the count has doubled.
    #[cold]
    pub(crate) fn deny(&self, action: Action, target: &str, count: usize, origin: &ClientOrigin) {
        self.active.denied.fetch_add(count as u64, Ordering::Relaxed);
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

    /// What was denied, by action.
    pub(crate) fn denied(&self) -> impl Iterator<Item = (Action, u64)> {
        Action::ALL.into_iter().zip(self.denied.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Its limits.
    pub(crate) fn limits(&self) -> ClientLimits {
        let table = self.table.and_then(|table| self.active.rules.tables.get(table));
        table.map(|table| table.limits).unwrap_or_default()
    }

    /// Those of its limits that its transport applies.
    pub(crate) fn sink_limits(&self) -> SinkLimits {
        let limits = self.limits();
        let or_none = |limit: Option<u64>| limit.unwrap_or(SinkLimits::NONE);
        let mut of_sink = SinkLimits::default();
        of_sink.queue_bytes = or_none(limits.queue_bytes);
        of_sink.frame_bytes = or_none(limits.frame_bytes);
        of_sink.messages_per_second = or_none(limits.messages_per_second);
        of_sink.bytes_per_second = or_none(limits.bytes_per_second);
        of_sink
    }

    /// Gives back its part of the quota: the client has left or has another policy.
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
    use std::time::Duration;

    #[test]
    fn a_rate_allows_a_burst_of_one_second_and_then_one_by_one() {
        let limits = ClientLimits { connects_per_second: Some(4), ..ClientLimits::default() };
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
            "no more than a second's"
        );
    }

    #[test]
    fn a_full_quota_has_room_again_when_one_leaves() {
        let quota = ClientQuota::new(&ClientLimits { clients: Some(2), ..ClientLimits::default() });
        assert_eq!((quota.enter(true), quota.enter(false)), (Ok(()), Ok(())));
        assert_eq!(quota.enter(true).unwrap_err(), "client limit reached (2 of 2; clients)");
        assert_eq!(quota.enter(false), Ok(()), "who is there may stay");
        quota.present.fetch_sub(2, Ordering::Relaxed);
        assert_eq!(quota.enter(true), Ok(()));
    }
}
