//! The access rules and their decisions: about a client's name and identity, and about each of its
//! operations. Decides only; connected clients and counts are kept elsewhere.

use elbus_plugin_api::access::{AccessRules, Action, ClientRules, Identity, Syntax, Verdict};
use elbus_protocol::{MISSED_TOPIC, WARNINGS_TOPIC, name::primary_of};
use std::{collections::HashMap, fmt, net::SocketAddr};

use super::{
    certificate,
    pattern::{
        BudgetExhausted, CheckBudget, Pattern, PatternIndex, PlaceholderValues, Question, Target,
        certificate_matches,
    },
};
use crate::client_origin::ClientOrigin;

/// A complete set of rules.
pub(crate) struct Rules {
    default: Verdict,
    user_names: HashMap<u32, String>,
    pub(super) tables: Vec<ClientRules>,
    /// The masks of the tables.
    masks: PatternIndex,
    /// For each table, its rules by action.
    compiled: Vec<[PatternIndex; Action::ALL.len()]>,
}

/// Compiles the rules of an action. A partly allowed request is not allowed; a partly denied one is denied.
fn compile(table: &ClientRules, action: Action) -> PatternIndex {
    let patterns = table.rules(action).iter().map(|rule| {
        let question = match rule.verdict {
            Verdict::Allow => Question::Covers,
            Verdict::Deny => Question::Overlaps,
        };
        (question, Pattern::new(action.syntax(), &rule.pattern))
    });
    PatternIndex::new(action.syntax(), patterns.collect())
}

/// Returns whether a target is allowed unless a rule denies it: reports to the client alone, and what the
/// broker understands.
fn is_open(action: Action, target: &str) -> bool {
    match action {
        Action::Subscribe => [WARNINGS_TOPIC, MISSED_TOPIC].contains(&target),
        Action::Call => target == "features",
        Action::Send | Action::Broadcast | Action::Publish => false,
    }
}

/// For masks of tables, which contain no placeholders.
const NO_VALUES: PlaceholderValues<'_> = PlaceholderValues { name: "", user: None };

/// The reason of a decision: a position in the table of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DecisionReason {
    /// The first rule of a list that matches.
    Rule { table: usize, action: Action, index: usize },
    /// No rule of the list matches; the default decides.
    NoRule { table: usize, action: Action },
    /// No table matches the name; the default decides.
    NoTable,
    /// The client matches or does not match `who` of the table for its name.
    Who { table: usize },
    /// The table for the name has no `who`.
    Anybody { table: usize },
    /// No rule matches, and the target tells clients only about themselves and the broker.
    Open,
}

impl DecisionReason {
    /// Returns its key in the table of the plugin.
    pub(crate) fn key(&self) -> Option<String> {
        match self {
            DecisionReason::NoTable | DecisionReason::Open => None,
            DecisionReason::Rule { table, action, index } => {
                Some(format!("client[{table}].{}[{index}]", action.key()))
            }
            DecisionReason::NoRule { table, .. } | DecisionReason::Anybody { table } => {
                Some(format!("client[{table}]"))
            }
            DecisionReason::Who { table } => Some(format!("client[{table}].who")),
        }
    }
}

/// A decision with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    pub(crate) reason: DecisionReason,
}

/// The client that the rules are applied to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) name: &'a str,
    pub(crate) uid: Option<u32>,
}

impl Decision {
    /// Returns the decision that no rule has made as one about an [open](is_open) target, if it is one.
    fn or_open(self, action: Action, target: &str) -> Self {
        let by_rule = matches!(self.reason, DecisionReason::Rule { .. });
        match !self.allowed && !by_rule && is_open(action, target) {
            true => Decision { allowed: true, reason: DecisionReason::Open },
            false => self,
        }
    }
}

impl Rules {
    /// # Errors
    /// The invalid key, and why it is invalid.
    pub(crate) fn new(rules: AccessRules) -> Result<Self, String> {
        for (index, table) in rules.clients.iter().enumerate() {
            table.check().map_err(|(key, why)| format!("client[{index}].{key}: {why}"))?;
        }
        let compile_table = |table: &ClientRules| Action::ALL.map(|action| compile(table, action));
        let compiled = rules.clients.iter().map(compile_table).collect();
        let mask = |table: &ClientRules| (Question::Covers, Pattern::new(Syntax::Name, &table.name));
        let masks = PatternIndex::new(Syntax::Name, rules.clients.iter().map(mask).collect());
        Ok(Rules {
            default: rules.default,
            user_names: rules.user_names.into_iter().collect(),
            tables: rules.clients,
            masks,
            compiled,
        })
    }

    /// Returns tables that are never used, probably by mistake, with the earlier table that matches all of
    /// their names.
    pub(super) fn unreached(&self) -> impl Iterator<Item = (usize, usize)> {
        self.tables.iter().enumerate().filter_map(|(index, table)| {
            let first = self.first_table(&Target::wild(Syntax::Name, &table.name))?;
            (first < index).then_some((index, first))
        })
    }

    /// Returns the table for a name: the first whose mask matches.
    pub(crate) fn table_of(&self, name: &str) -> Option<usize> {
        self.first_table(&Target::literal(Syntax::Name, primary_of(name)))
    }

    fn first_table(&self, target: &Target<'_>) -> Option<usize> {
        self.masks.first_match(target, NO_VALUES, &mut CheckBudget::unlimited()).ok().flatten()
    }

    /// Decides whether a client of this name and identity may register.
    pub(super) fn decide_registration(&self, name: &str, origin: &ClientOrigin) -> Decision {
        let Some(table) = self.table_of(name) else {
            return Decision { allowed: self.default == Verdict::Allow, reason: DecisionReason::NoTable };
        };
        let who = &self.tables[table].who;
        if who.is_empty() {
            return Decision { allowed: true, reason: DecisionReason::Anybody { table } };
        }
        let uid = origin.credentials.map(|credentials| credentials.uid);
        let values = self.values(&Subject { name, uid });
        let allowed = who.iter().any(|identity| is(identity, origin, values));
        Decision { allowed, reason: DecisionReason::Who { table } }
    }

    /// Decides whether a client may apply an action to a target. `table` is the table for its name.
    pub(crate) fn decide(
        &self,
        table: Option<usize>,
        subject: &Subject<'_>,
        action: Action,
        target: &str,
    ) -> Decision {
        let text = target;
        let target = match action {
            Action::Send => Target::literal(Syntax::Name, primary_of(target)),
            Action::Call => Target::literal(Syntax::Name, target),
            Action::Broadcast => Target::primaries_of(target),
            Action::Publish => Target::literal(Syntax::Topic, target),
            Action::Subscribe => Target::wild(Syntax::Topic, target),
        };
        self.decide_target(table, subject, action, &target).or_open(action, text)
    }

    /// Returns whether a broadcast of a client may be delivered to this recipient, given the name of its
    /// primary.
    pub(super) fn allows_broadcast_to(
        &self,
        table: Option<usize>,
        subject: &Subject<'_>,
        name: &str,
    ) -> bool {
        let target = Target::literal(Syntax::Name, primary_of(name));
        self.decide_target(table, subject, Action::Broadcast, &target).allowed
    }

    /// Returns whether a client may subscribe to a filter, as one of many. Takes the cost from a budget.
    ///
    /// # Errors
    /// The budget is used up.
    pub(super) fn allows_filter(
        &self,
        table: Option<usize>,
        subject: &Subject<'_>,
        filter: &str,
        budget: &mut CheckBudget,
    ) -> Result<bool, BudgetExhausted> {
        let target = Target::wild(Syntax::Topic, filter);
        let decided = self.first_rule(table, subject, Action::Subscribe, &target, budget)?;
        Ok(decided.or_open(Action::Subscribe, filter).allowed)
    }

    fn decide_target(
        &self,
        table: Option<usize>,
        subject: &Subject<'_>,
        action: Action,
        target: &Target<'_>,
    ) -> Decision {
        let decided = self.first_rule(table, subject, action, target, &mut CheckBudget::unlimited());
        decided.unwrap_or(Decision { allowed: false, reason: DecisionReason::NoTable })
    }

    fn first_rule(
        &self,
        table: Option<usize>,
        subject: &Subject<'_>,
        action: Action,
        target: &Target<'_>,
        budget: &mut CheckBudget,
    ) -> Result<Decision, BudgetExhausted> {
        let default = self.default == Verdict::Allow;
        let Some(table) = table else {
            return Ok(Decision { allowed: default, reason: DecisionReason::NoTable });
        };
        let list = self.compiled.get(table).and_then(|lists| lists.get(action as usize));
        let first = match list {
            Some(list) => list.first_match(target, self.values(subject), budget)?,
            None => None,
        };
        Ok(match first {
            Some(index) => {
                let rule = self.tables.get(table).and_then(|table| table.rules(action).get(index));
                let allowed = rule.is_some_and(|rule| rule.verdict == Verdict::Allow);
                Decision { allowed, reason: DecisionReason::Rule { table, action, index } }
            }
            None => Decision { allowed: default, reason: DecisionReason::NoRule { table, action } },
        })
    }

    /// Returns the text of the rule that is the reason of a decision.
    pub(crate) fn text_of(&self, reason: &DecisionReason) -> Option<String> {
        let DecisionReason::Rule { table, action, index } = reason else { return None };
        Some(self.tables.get(*table)?.rules(*action).get(*index)?.to_string())
    }

    /// Explains a decision in one sentence.
    pub(crate) fn explain(&self, decision: &Decision) -> String {
        let verdict = if decision.allowed { "allowed" } else { "denied" };
        let name = |table: &usize| self.tables.get(*table).map_or("?", |table| &*table.name);
        let default = if self.default == Verdict::Allow { "allow" } else { "deny" };
        match &decision.reason {
            DecisionReason::Rule { table, .. } => {
                let rule = self.text_of(&decision.reason).unwrap_or_default();
                format!("{verdict} by {rule:?} of [[client]] {:?}", name(table))
            }
            DecisionReason::NoRule { table, action } => format!(
                "{verdict}: no rule of `{}` in [[client]] {:?} matches, and the default is {default}",
                action.key(),
                name(table)
            ),
            DecisionReason::NoTable => {
                format!("{verdict}: no [[client]] matches the name, and the default is {default}")
            }
            DecisionReason::Who { table } if decision.allowed => {
                format!("allowed: client matches `who` of [[client]] {:?}", name(table))
            }
            DecisionReason::Who { table } => {
                format!("denied: client does not match `who` of [[client]] {:?}", name(table))
            }
            DecisionReason::Anybody { table } => {
                format!("allowed: [[client]] {:?} has no `who`", name(table))
            }
            DecisionReason::Open => "allowed: open to every client unless a rule denies it".to_owned(),
        }
    }

    fn values<'a>(&'a self, subject: &Subject<'a>) -> PlaceholderValues<'a> {
        let user = subject.uid.and_then(|uid| self.user_names.get(&uid)).map(String::as_str);
        PlaceholderValues { name: subject.name, user }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rules for {} masks", self.tables.len())
    }
}

/// Returns whether a client matches every field of an identity.
fn is(identity: &Identity, origin: &ClientOrigin, values: PlaceholderValues<'_>) -> bool {
    let Identity { uid, group, unit, address, certificate, token, node } = identity;
    if node.as_deref() != origin.node() {
        return false;
    }
    let credentials = origin.credentials;
    let source =
        || origin.source.as_ref()?.parse::<SocketAddr>().ok().map(|source| source.ip().to_canonical());
    uid.is_none_or(|uid| credentials.is_some_and(|is| is.uid == uid))
        && group.as_ref().is_none_or(|(gid, members)| {
            credentials.is_some_and(|is| is.gid == *gid || members.contains(&is.uid))
        })
        && unit.as_ref().is_none_or(|unit| origin.unit.as_deref() == Some(unit))
        && address.is_none_or(|network| source().is_some_and(|source| network.contains(&source)))
        && certificate
            .as_ref()
            .is_none_or(|pattern| certificate::any_matches(pattern, origin.certificate_names(), values))
        && token.as_ref().is_none_or(|pattern| {
            origin.token().is_some_and(|token| certificate_matches(pattern, token, values))
        })
}
