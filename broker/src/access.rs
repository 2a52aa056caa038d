//! Access control: the rules in force, and what was denied. A plugin hands the rules over; without rules
//! everything is allowed, which costs a comparison for each run.
//!
//! The router asks when a client registers and when it asks for something new; senders remember the answers
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
pub(crate) use policy_snapshot::{FilterDenial, MAX_FILTER_COMPARISONS, PolicySnapshot};
use rule_locations::RuleLocations;
pub(crate) use rules::{Decision, DecisionReason, Rules, Subject};

use crate::{
    client_origin::ClientOrigin,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Refused names that are remembered, so that each is logged once.
const REMEMBERED_REFUSALS: usize = 1024;

/// Rules with what is counted by them.
pub(crate) struct ActivePolicy {
    pub(crate) rules: Rules,
    pub(crate) setter: RuleSetter,
    /// One for each table of the rules.
    quotas: Vec<ClientQuota>,
    denied: Arc<AtomicU64>,
    locations: Arc<RuleLocations>,
}

impl ActivePolicy {
    /// Logs tables that are for no client.
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
                "access rules for nobody: earlier ones are for all of its names"
            );
        }
    }

    /// Where in the configuration the reason of a decision stands.
    fn location_of(&self, decision: &Decision) -> Option<String> {
        decision.reason.key().map(|key| self.locations.locate(&self.setter.instance, &key))
    }
}

/// The instance that has set the rules, and its plugin. Both empty for the embedding program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RuleSetter {
    pub(crate) instance: String,
    pub(crate) plugin: String,
}

/// Why a client is not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) why: String,
}

/// The access rules in force, if there are any, and the count of denials.
#[derive(Default)]
pub(crate) struct Access {
    /// Held while rules are replaced and all clients are checked against them. Lock order: this, then the
    /// registry, then the rest.
    changing: Mutex<()>,
    current: RwLock<Option<Arc<ActivePolicy>>>,
    /// Whether the instance that has set them is taken out of the configuration, and any other may replace
    /// them.
    released: AtomicBool,
    epoch: AtomicU64,
    denied: Arc<AtomicU64>,
    refused: Mutex<HashSet<String>>,
    /// Where the rules stand.
    pub(crate) rule_locations: Arc<RuleLocations>,
}

impl Access {
    /// Returns a number that changes after the rules: cached decisions of another number are outdated.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// All clients have been checked against the rules in force.
    pub(crate) fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Must be held from before rules are replaced until all clients have been checked against the new ones.
    pub(crate) fn change(&self) -> impl Sized {
        self.changing.lock()
    }

    /// The rules in force.
    pub(crate) fn current(&self) -> Option<Arc<ActivePolicy>> {
        self.current.read().clone()
    }

    /// Operations denied so far.
    pub(crate) fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }

    /// Replaces the rules.
    ///
    /// # Errors
    /// Those in force are another instance's, or something is wrong with the new ones. Then nothing has
    /// changed.
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

    /// Unless the instance that has set the rules `stays`: they stay until another one's replace them, or
    /// they are [dropped](Self::drop_rules).
    pub(crate) fn release_unless(&self, stays: impl Fn(&RuleSetter) -> bool) {
        let Some(current) = self.current() else { return };
        // those of the embedding program belong to no declaration
        if !current.setter.instance.is_empty() && !stays(&current.setter) {
            self.released.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the setter of rules that are released and not replaced.
    pub(crate) fn released(&self) -> Option<RuleSetter> {
        let released = self.released.load(Ordering::Relaxed);
        self.current().filter(|_| released).map(|current| current.setter.clone())
    }

    /// Takes the rules away.
    pub(crate) fn drop_rules(&self) {
        *self.current.write() = None;
        self.released.store(false, Ordering::Relaxed);
    }

    /// Lets a client in that registers, or not. Logs each name that is refused once.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(
        &self,
        name: &Arc<str>,
        origin: &ClientOrigin,
    ) -> Result<Option<Arc<PolicySnapshot>>, Refusal> {
        let admitted = self.check_registration(name, origin, true);
        if let Err(refusal) = &admitted {
            self.note_refusal(name, origin, &refusal.why);
        }
        admitted
    }

    /// Counts a registration that was refused. Logs each name once.
    pub(crate) fn note_refusal(&self, name: &str, origin: &ClientOrigin, why: &str) {
        self.denied.fetch_add(1, Ordering::Relaxed);
        let mut refused = self.refused.lock();
        if refused.len() >= REMEMBERED_REFUSALS {
            refused.clear();
        }
        if refused.insert(name.to_owned()) {
            let source = origin.source.as_deref();
            tracing::warn!(client = name, source, uid = origin.uid(), reason = %why, "registration refused");
        }
    }

    /// As [`admit`](Self::admit), for a client that is there already: it counts, but is not too many.
    ///
    /// # Errors
    /// Why it may be there no longer.
    pub(crate) fn readmit(
        &self,
        name: &Arc<str>,
        origin: &ClientOrigin,
    ) -> Result<Option<Arc<PolicySnapshot>>, Refusal> {
        self.check_registration(name, origin, false)
    }

    /// By which rules a [system sender](crate::routing::Router::system_sender) acts; `None` if there are
    /// none. It is never refused: where the rules do not admit its name, all it sends and calls is denied.
    pub(crate) fn admit_system(&self, name: &Arc<str>, origin: &ClientOrigin) -> Option<Arc<PolicySnapshot>> {
        let current = self.current()?;
        let decision = current.rules.decide_registration(name, origin);
        if !decision.allowed {
            let why = current.rules.explain(&decision);
            let location = current.location_of(&decision);
            tracing::warn!(
                client = &**name,
                place = location,
                why,
                "access rules deny everything to a system sender"
            );
        }
        Some(Arc::new(PolicySnapshot::of_system(current, name.clone(), !decision.allowed)))
    }

    /// Whether rules concern a client: not one within this process.
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
            let mut why = current.rules.explain(&decision);
            if let Some(place) = current.location_of(&decision) {
                why.push_str(&format!(" ({place})"));
            }
            return Err(Refusal { code: Code::AccessDenied, why });
        }
        PolicySnapshot::new(current, name.clone(), origin, is_new).map(|policy| Some(Arc::new(policy)))
    }
}
