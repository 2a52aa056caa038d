//! Access: the rules in force, who was let in by them, and what was denied. A plugin hands the rules over; without any,
//! everybody may do everything, which costs a comparison for each run.
//!
//! The router asks when a client registers and when it asks for something new; senders remember the answers until
//! [`Access::epoch`] changes. Clients in the broker's process are not subject to rules.

mod admission;
mod certificate;
mod pattern;
mod places;
mod rules;

use elbus_plugin_api::{Code, access::AccessRules};
use std::{collections::HashSet, sync::Arc};

use admission::Crowd;
pub(crate) use admission::{Admission, FilterDenial, MAX_FILTER_COMPARISONS};
pub(crate) use pattern::{BudgetExhausted, CheckBudget};
use places::Places;
pub(crate) use rules::{Because, Judgement, Rules, Whom};

use crate::{
    origin::Origin,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Names whose refusal was logged are remembered up to so many, so that each is logged once.
const REMEMBERED_REFUSALS: usize = 1024;

/// Rules with what is counted by them.
pub(crate) struct InForce {
    pub(crate) rules: Rules,
    pub(crate) setter: RuleSetter,
    /// One for each table of the rules.
    crowds: Vec<Crowd>,
    denied: Arc<AtomicU64>,
    places: Arc<Places>,
}

impl InForce {
    /// Logs tables that are for no client.
    fn warn_of_unreached(&self) {
        for (table, first) in self.rules.unreached() {
            let place = |index: usize| self.places.of(&self.setter.instance, &format!("client[{index}]"));
            let name = |index: usize| self.rules.tables.get(index).map(|table| table.name.as_str());
            tracing::warn!(
                place = place(table),
                name = name(table),
                earlier = place(first),
                earlier_name = name(first),
                "access rules for nobody: earlier ones are for all of its names"
            );
        }
    }

    /// Where in the configuration the reason of a judgement stands.
    fn place_of(&self, judgement: &Judgement) -> Option<String> {
        judgement.because.key().map(|key| self.places.of(&self.setter.instance, &key))
    }
}

/// Who has set the rules: an instance, and the plugin it is one of. Both empty for the embedding program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RuleSetter {
    pub(crate) instance: String,
    pub(crate) plugin: String,
}

/// Why a client is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) why: String,
}

/// Who may do what.
#[derive(Default)]
pub(crate) struct Access {
    /// Held while rules are replaced and everybody is judged anew. Lock order: this, then the registry, then the rest.
    changing: Mutex<()>,
    current: RwLock<Option<Arc<InForce>>>,
    /// Whether the instance that has set them is taken out of the configuration, and any other may replace them.
    released: AtomicBool,
    epoch: AtomicU64,
    denied: Arc<AtomicU64>,
    refused: Mutex<HashSet<String>>,
    /// Where the rules stand.
    pub(crate) places: Arc<Places>,
}

impl Access {
    /// Changes after rules have: what was remembered of them is to be asked again.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Everybody has been judged by the rules that are in force now.
    pub(crate) fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// To be held from before rules are replaced until everybody has been judged by the new ones.
    pub(crate) fn change(&self) -> impl Sized {
        self.changing.lock()
    }

    /// The rules in force.
    pub(crate) fn current(&self) -> Option<Arc<InForce>> {
        self.current.read().clone()
    }

    /// Operations denied so far.
    pub(crate) fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }

    /// Replaces the rules.
    ///
    /// # Errors
    /// Those in force are another instance's, or something is wrong with the new ones. Then nothing has changed.
    pub(crate) fn replace(&self, setter: RuleSetter, rules: AccessRules) -> Result<(), String> {
        let mut current = self.current.write();
        let released = self.released.load(Ordering::Relaxed);
        let is_another = |current: &&Arc<InForce>| current.setter.instance != setter.instance;
        if let Some(other) = current.as_ref().filter(|_| !released).filter(is_another) {
            return Err(format!("plugin {} has set access rules already", other.setter.instance));
        }
        let rules = Rules::new(rules)?;
        let crowds = rules.tables.iter().map(|table| Crowd::new(&table.limits)).collect();
        self.released.store(false, Ordering::Relaxed);
        let in_force = Arc::new(InForce {
            rules,
            setter,
            crowds,
            denied: self.denied.clone(),
            places: self.places.clone(),
        });
        *current = Some(in_force.clone());
        drop(current);
        in_force.warn_of_unreached();
        self.refused.lock().clear();
        Ok(())
    }

    /// Unless the instance that has set the rules `stays`: they stay until another one's replace them, or they are
    /// [dropped](Self::drop_rules).
    pub(crate) fn release_unless(&self, stays: impl Fn(&RuleSetter) -> bool) {
        let Some(current) = self.current() else { return };
        // those of the embedding program belong to no declaration
        if !current.setter.instance.is_empty() && !stays(&current.setter) {
            self.released.store(true, Ordering::Relaxed);
        }
    }

    /// Who has set the rules that are released and not replaced.
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
    pub(crate) fn admit(&self, name: &Arc<str>, origin: &Origin) -> Result<Option<Arc<Admission>>, Refusal> {
        let admitted = self.judge(name, origin, true);
        if let Err(refusal) = &admitted {
            self.note_refusal(name, origin, &refusal.why);
        }
        admitted
    }

    /// Counts a registration that was refused. Logs each name once.
    pub(crate) fn note_refusal(&self, name: &str, origin: &Origin, why: &str) {
        self.denied.fetch_add(1, Ordering::Relaxed);
        let mut refused = self.refused.lock();
        if refused.len() >= REMEMBERED_REFUSALS {
            refused.clear();
        }
        if refused.insert(name.to_owned()) {
            let source = origin.source.as_deref();
            tracing::warn!(client = name, source, uid = origin.uid(), "refused: {why}");
        }
    }

    /// As [`admit`](Self::admit), for a client that is there already: it counts, but is not too many.
    ///
    /// # Errors
    /// Why it may be there no longer.
    pub(crate) fn readmit(
        &self,
        name: &Arc<str>,
        origin: &Origin,
    ) -> Result<Option<Arc<Admission>>, Refusal> {
        self.judge(name, origin, false)
    }

    /// By which rules a [system sender](crate::routing::Router::system_sender) acts; `None` if there are none. It is never
    /// refused: where the rules do not admit its name, all it sends and calls is denied.
    pub(crate) fn admit_system(&self, name: &Arc<str>, origin: &Origin) -> Option<Arc<Admission>> {
        let current = self.current()?;
        let judgement = current.rules.judge_client(name, origin);
        if !judgement.allowed {
            let why = current.rules.explain(&judgement);
            let place = current.place_of(&judgement);
            tracing::warn!(client = &**name, place, why, "access rules deny everything to a system sender");
        }
        Some(Arc::new(Admission::of_system(current, name.clone(), !judgement.allowed)))
    }

    /// Whether rules concern a client: not one within this process.
    pub(crate) fn concerns(origin: &Origin) -> bool {
        origin.locality.is_subject_to_rules() && !origin.internal
    }

    fn judge(
        &self,
        name: &Arc<str>,
        origin: &Origin,
        is_new: bool,
    ) -> Result<Option<Arc<Admission>>, Refusal> {
        let Some(current) = self.current().filter(|_| Self::concerns(origin)) else {
            return Ok(None);
        };
        let judgement = current.rules.judge_client(name, origin);
        if !judgement.allowed {
            let mut why = current.rules.explain(&judgement);
            if let Some(place) = current.place_of(&judgement) {
                why.push_str(&format!(" ({place})"));
            }
            return Err(Refusal { code: Code::AccessDenied, why });
        }
        Admission::new(current, name.clone(), origin, is_new).map(|admission| Some(Arc::new(admission)))
    }
}
