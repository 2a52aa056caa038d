//! The rules as they were handed over, and what they say: of a client's name and identity, and of each thing it asks for.
//! Pure judgement; who is connected and what was counted is elsewhere.

use elbus_plugin_api::access::{AccessRules, Action, ClientRules, Identity, Syntax, Verdict};
use elbus_protocol::name::primary_of;
use std::{collections::HashMap, fmt, net::SocketAddr};

use super::{
    certificate,
    pattern::{Asked, BudgetExhausted, CheckBudget, Pattern, PatternIndex, Question, Subject},
};
use crate::origin::Origin;

/// Rules in force.
pub(crate) struct Rules {
    default: Verdict,
    user_names: HashMap<u32, String>,
    pub(super) tables: Vec<ClientRules>,
    /// The masks of the tables.
    masks: PatternIndex,
    /// For each table its rules by action.
    compiled: Vec<[PatternIndex; Action::ALL.len()]>,
}

/// What is only allowed in part is not allowed; what is forbidden in part is forbidden.
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

/// Nobody: what a mask without placeholders is compared for.
const NOBODY: Subject<'_> = Subject { name: "", user: None };

/// Why something is allowed or not: what stands where in the table of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Because {
    /// This rule of a list, the first one that matches.
    Rule { table: usize, action: Action, index: usize },
    /// No rule of the list matches; the default decides.
    NoRule { table: usize, action: Action },
    /// No table is for the name; the default decides.
    NoTable,
    /// The table for the name says who the client must be, and it is that or not.
    Who { table: usize },
    /// The table for the name says nothing of who.
    Anybody { table: usize },
}

impl Because {
    /// The key it stands at in the table of the plugin.
    pub(crate) fn key(&self) -> Option<String> {
        match self {
            Because::NoTable => None,
            Because::Rule { table, action, index } => {
                Some(format!("client[{table}].{}[{index}]", action.key()))
            }
            Because::NoRule { table, .. } | Because::Anybody { table } => Some(format!("client[{table}]")),
            Because::Who { table } => Some(format!("client[{table}].who")),
        }
    }
}

/// A judgement with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) allowed: bool,
    pub(crate) because: Because,
}

/// Whom rules are about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whom<'a> {
    pub(crate) name: &'a str,
    pub(crate) uid: Option<u32>,
}

impl Rules {
    /// # Errors
    /// The key that is wrong, and what is wrong with it.
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

    /// Tables whose names are all an earlier one's, which looks like a mistake, and that one.
    pub(super) fn unreached(&self) -> impl Iterator<Item = (usize, usize)> {
        self.tables.iter().enumerate().filter_map(|(index, table)| {
            let first = self.first_table(&Asked::wild(Syntax::Name, &table.name))?;
            (first < index).then_some((index, first))
        })
    }

    /// The table for a name: the first whose mask it matches.
    pub(crate) fn table_of(&self, name: &str) -> Option<usize> {
        self.first_table(&Asked::literal(Syntax::Name, primary_of(name)))
    }

    fn first_table(&self, asked: &Asked<'_>) -> Option<usize> {
        self.masks.first_match(asked, NOBODY, &mut CheckBudget::unlimited()).ok().flatten()
    }

    /// Whether a client of this name and identity may be one.
    pub(super) fn judge_client(&self, name: &str, origin: &Origin) -> Judgement {
        let Some(table) = self.table_of(name) else {
            return Judgement { allowed: self.default == Verdict::Allow, because: Because::NoTable };
        };
        let who = &self.tables[table].who;
        if who.is_empty() {
            return Judgement { allowed: true, because: Because::Anybody { table } };
        }
        let uid = origin.credentials.map(|credentials| credentials.uid);
        let subject = self.subject(&Whom { name, uid });
        let allowed = who.iter().any(|identity| is(identity, origin, subject));
        Judgement { allowed, because: Because::Who { table } }
    }

    /// Whether a client may do something to a target. `table` is the one for its name.
    pub(crate) fn judge(
        &self,
        table: Option<usize>,
        whom: &Whom<'_>,
        action: Action,
        target: &str,
    ) -> Judgement {
        let asked = match action {
            Action::Send => Asked::literal(Syntax::Name, primary_of(target)),
            Action::Call => Asked::literal(Syntax::Name, target),
            Action::Broadcast => Asked::primaries_of(target),
            Action::Publish => Asked::literal(Syntax::Topic, target),
            Action::Subscribe => Asked::wild(Syntax::Topic, target),
        };
        self.judge_asked(table, whom, action, &asked)
    }

    /// Whether a broadcast of a client may go to this one, as its primary is called.
    pub(super) fn allows_broadcast_to(&self, table: Option<usize>, whom: &Whom<'_>, name: &str) -> bool {
        let asked = Asked::literal(Syntax::Name, primary_of(name));
        self.judge_asked(table, whom, Action::Broadcast, &asked).allowed
    }

    /// Whether a client may subscribe to a filter, as one of many: takes what that costs from a budget.
    ///
    /// # Errors
    /// The budget is used up.
    pub(super) fn allows_filter(
        &self,
        table: Option<usize>,
        whom: &Whom<'_>,
        filter: &str,
        budget: &mut CheckBudget,
    ) -> Result<bool, BudgetExhausted> {
        let asked = Asked::wild(Syntax::Topic, filter);
        self.first_rule(table, whom, Action::Subscribe, &asked, budget).map(|judgement| judgement.allowed)
    }

    fn judge_asked(
        &self,
        table: Option<usize>,
        whom: &Whom<'_>,
        action: Action,
        asked: &Asked<'_>,
    ) -> Judgement {
        let judged = self.first_rule(table, whom, action, asked, &mut CheckBudget::unlimited());
        judged.unwrap_or(Judgement { allowed: false, because: Because::NoTable })
    }

    fn first_rule(
        &self,
        table: Option<usize>,
        whom: &Whom<'_>,
        action: Action,
        asked: &Asked<'_>,
        budget: &mut CheckBudget,
    ) -> Result<Judgement, BudgetExhausted> {
        let default = self.default == Verdict::Allow;
        let Some(table) = table else {
            return Ok(Judgement { allowed: default, because: Because::NoTable });
        };
        let list = self.compiled.get(table).and_then(|lists| lists.get(action as usize));
        let first = match list {
            Some(list) => list.first_match(asked, self.subject(whom), budget)?,
            None => None,
        };
        Ok(match first {
            Some(index) => {
                let rule = self.tables.get(table).and_then(|table| table.rules(action).get(index));
                let allowed = rule.is_some_and(|rule| rule.verdict == Verdict::Allow);
                Judgement { allowed, because: Because::Rule { table, action, index } }
            }
            None => Judgement { allowed: default, because: Because::NoRule { table, action } },
        })
    }

    /// The rule a judgement is because of, as it is written.
    pub(crate) fn text_of(&self, because: &Because) -> Option<String> {
        let Because::Rule { table, action, index } = because else { return None };
        Some(self.tables.get(*table)?.rules(*action).get(*index)?.to_string())
    }

    /// A judgement in words.
    pub(crate) fn explain(&self, judgement: &Judgement) -> String {
        let verdict = if judgement.allowed { "allowed" } else { "denied" };
        let name = |table: &usize| self.tables.get(*table).map_or("?", |table| &*table.name);
        let default = if self.default == Verdict::Allow { "allow" } else { "deny" };
        match &judgement.because {
            Because::Rule { table, .. } => {
                let rule = self.text_of(&judgement.because).unwrap_or_default();
                format!("{verdict} by {rule:?}, of the clients {:?}", name(table))
            }
            Because::NoRule { table, action } => format!(
                "{verdict}: no rule of `{}` matches, of the clients {:?}, and the default is {default}",
                action.key(),
                name(table)
            ),
            Because::NoTable => {
                format!("{verdict}: no [[client]] is for the name, and the default is {default}")
            }
            Because::Who { table } if judgement.allowed => {
                format!("allowed: it is one of `who`, of the clients {:?}", name(table))
            }
            Because::Who { table } => {
                format!("denied: it is none of `who`, of the clients {:?}", name(table))
            }
            Because::Anybody { table } => format!("allowed: anybody may be of the clients {:?}", name(table)),
        }
    }

    fn subject<'a>(&'a self, whom: &Whom<'a>) -> Subject<'a> {
        let user = whom.uid.and_then(|uid| self.user_names.get(&uid)).map(String::as_str);
        Subject { name: whom.name, user }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rules for {} masks", self.tables.len())
    }
}

/// Whether a client is all that an identity asks for.
fn is(identity: &Identity, origin: &Origin, subject: Subject<'_>) -> bool {
    let Identity { uid, group, unit, address, certificate } = identity;
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
            .is_none_or(|pattern| certificate::any_matches(pattern, origin.certificate_names(), subject))
}
