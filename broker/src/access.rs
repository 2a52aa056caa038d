//! Access control: the rules in force and the count of denials. A plugin provides the rules; without rules
//! everything is allowed, which costs a comparison for each run.
//!
//! The router checks a client when it registers and when it requests something new; senders cache the answers
//! until [`Access::epoch`] changes. Clients in the broker's process are not subject to rules.

mod certificate;
mod pattern;
mod policy_snapshot;
mod rule_locations;
mod rules;

use elbus_plugin_api::{Code, access::AccessRules};
use std::{collections::HashSet, sync::Arc};

pub(crate) use pattern::{BudgetExhausted, CheckBudget};
use policy_snapshot::ClientQuota;
pub(crate) use policy_snapshot::{FilterDenial, MAX_FILTER_COMPARISONS, PolicySnapshot, without_options};
use rule_locations::RuleLocations;
pub(crate) use rules::{Decision, DecisionReason, Rules, Subject};

use crate::{
    client_origin::ClientOrigin,
    statistics::{CountsBy, Denial},
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Number of refused names that are remembered, so that each is logged once.
const REMEMBERED_REFUSALS: usize = 1024;

/// Access rules and the quotas counted by them.
pub(crate) struct ActivePolicy {
    pub(crate) rules: Rules,
    pub(crate) setter: RuleSetter,
    /// One quota for each table of the rules.
    quotas: Vec<ClientQuota>,
    denied: Arc<CountsBy<Denial>>,
    locations: Arc<RuleLocations>,
}

impl ActivePolicy {
    /// Logs tables whose names all belong to earlier tables.
    fn warn_of_unreached(&self) {
        for (table, first) in self.rules.unreached() {
            let location =
                |index: usize| self.locations.locate(&self.setter.instance, &format!("client[{index}]"));
            let name = |index: usize| self.rules.tables.get(index).map(|table| table.name.as_str());
            tracing::warn!(
                place = location(table),
                name = name(table),
                earlier = location(first),
                earlier_name = name(first),
                "access rules are never used: an earlier [[client]] matches all of their names"
            );
        }
    }

    /// Returns the location of a decision's reason in the configuration.
    fn location_of(&self, decision: &Decision) -> Option<String> {
        decision.reason.key().map(|key| self.locations.locate(&self.setter.instance, &key))
    }
}

/// The instance that has set the rules, and its plugin. Both are empty for the embedding program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RuleSetter {
    pub(crate) instance: String,
    pub(crate) plugin: String,
}

/// Why a client is not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) reason: String,
}

/// The access rules in force, if any, and the count of denials.
#[derive(Default)]
pub(crate) struct Access {
    /// Held while rules are replaced and all clients are checked against them. Lock order: this, then the
    /// registry, then all others.
    changing: Mutex<()>,
    current: RwLock<Option<Arc<ActivePolicy>>>,
    /// Whether the instance that has set the rules has been removed from the configuration, so that any other
    /// may replace them.
    released: AtomicBool,
    epoch: AtomicU64,
    denied: Arc<CountsBy<Denial>>,
    refused: Mutex<HashSet<String>>,
    /// The locations of rules in the configuration.
    pub(crate) rule_locations: Arc<RuleLocations>,
}

impl Access {
    /// Returns a number that changes with the rules: decisions cached under another number are outdated.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Records that all clients have been checked against the rules in force.
    pub(crate) fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Locks the rules for a change. Hold it from before the rules are replaced until all clients have been
    /// checked against the new ones.
    pub(crate) fn change(&self) -> impl Sized {
        self.changing.lock()
    }

    /// Returns the rules in force.
    pub(crate) fn current(&self) -> Option<Arc<ActivePolicy>> {
        self.current.read().clone()
    }

    /// Returns what was denied so far, by kind.
    pub(crate) fn denied(&self) -> &CountsBy<Denial> {
        &self.denied
    }

    /// Replaces the rules.
    ///
    /// # Errors
    /// The rules in force belong to another instance, or the new ones are invalid. Nothing has changed then.
    pub(crate) fn replace(&self, setter: RuleSetter, rules: AccessRules) -> Result<(), String> {
        let mut current = self.current.write();
        let released = self.released.load(Ordering::Relaxed);
        let is_another = |current: &&Arc<ActivePolicy>| current.setter.instance != setter.instance;
        if let Some(other) = current.as_ref().filter(|_| !released).filter(is_another) {
            return Err(format!("plugin {} has set access rules already", other.setter.instance));
        }
        let rules = Rules::new(rules)?;
        let quotas = rules.tables.iter().map(|table| ClientQuota::new(&table.limits)).collect();
        self.released.store(false, Ordering::Relaxed);
        let active = Arc::new(ActivePolicy {
            rules,
            setter,
            quotas,
            denied: self.denied.clone(),
            locations: self.rule_locations.clone(),
        });
        *current = Some(active.clone());
        drop(current);
        active.warn_of_unreached();
        self.refused.lock().clear();
        Ok(())
    }

    /// Releases the rules unless their setter `stays`. Released rules stay in force until others replace them
    /// or they are [dropped](Self::drop_rules).
    pub(crate) fn release_unless(&self, stays: impl Fn(&RuleSetter) -> bool) {
        let Some(current) = self.current() else { return };
        // rules of the embedding program belong to no declaration
        if !current.setter.instance.is_empty() && !stays(&current.setter) {
            self.released.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the setter of rules that are released and not replaced.
    pub(crate) fn released(&self) -> Option<RuleSetter> {
        let released = self.released.load(Ordering::Relaxed);
        self.current().filter(|_| released).map(|current| current.setter.clone())
    }

    /// Removes the rules.
    pub(crate) fn drop_rules(&self) {
        *self.current.write() = None;
        self.released.store(false, Ordering::Relaxed);
    }

    /// Checks whether a client may register. Logs each refused name once.
    ///
    /// # Errors
    /// Why the client is refused.
    pub(crate) fn admit(
        &self,
        name: &Arc<str>,
        origin: &ClientOrigin,
    ) -> Result<Option<Arc<PolicySnapshot>>, Refusal> {
        let admitted = self.check_registration(name, origin, true);
        if let Err(refusal) = &admitted {
            self.note_refusal(name, origin, &refusal.reason);
        }
        admitted
    }

    /// Counts a refused registration. Logs each name once.
    pub(crate) fn note_refusal(&self, name: &str, origin: &ClientOrigin, reason: &str) {
        self.denied.add(Denial::Register, 1);
        let mut refused = self.refused.lock();
        if refused.len() >= REMEMBERED_REFUSALS {
            refused.clear();
        }
        if refused.insert(name.to_owned()) {
            let source = origin.source.as_deref();
            tracing::warn!(client = name, source, uid = origin.uid(), reason = %reason, "registration refused");
        }
    }

    /// Checks a registered client again, as [`admit`](Self::admit) does. It is counted, but never exceeds a
    /// quota.
    ///
    /// # Errors
    /// Why the client must be disconnected.
    pub(crate) fn readmit(
        &self,
        name: &Arc<str>,
        origin: &ClientOrigin,
    ) -> Result<Option<Arc<PolicySnapshot>>, Refusal> {
        self.check_registration(name, origin, false)
    }

    /// Returns the policy of a [system sender](crate::routing::Router::system_sender); `None` if there are no
    /// rules. A system sender is never refused: if the rules do not admit its name, all its operations are
    /// denied.
    pub(crate) fn admit_system(&self, name: &Arc<str>, origin: &ClientOrigin) -> Option<Arc<PolicySnapshot>> {
        let current = self.current()?;
        let decision = current.rules.decide_registration(name, origin);
        if !decision.allowed {
            let reason = current.rules.explain(&decision);
            let location = current.location_of(&decision);
            tracing::warn!(
                client = &**name,
                place = location,
                reason,
                "access rules deny everything to a system sender"
            );
        }
        Some(Arc::new(PolicySnapshot::of_system(current, name.clone(), !decision.allowed)))
    }

    /// Returns whether rules apply to a client: they do not apply within this process.
    pub(crate) fn concerns(origin: &ClientOrigin) -> bool {
        origin.locality.is_subject_to_rules() && !origin.internal
    }

    fn check_registration(
        &self,
        name: &Arc<str>,
        origin: &ClientOrigin,
        is_new: bool,
    ) -> Result<Option<Arc<PolicySnapshot>>, Refusal> {
        let Some(current) = self.current().filter(|_| Self::concerns(origin)) else {
            return Ok(None);
        };
        let decision = current.rules.decide_registration(name, origin);
        if !decision.allowed {
            let mut reason = current.rules.explain(&decision);
            if let Some(place) = current.location_of(&decision) {
                reason.push_str(&format!(" ({place})"));
            }
            return Err(Refusal { code: Code::AccessDenied, reason });
        }
        PolicySnapshot::new(current, name.clone(), origin, is_new).map(|policy| Some(Arc::new(policy)))
    }
}
