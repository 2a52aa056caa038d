//! The patterns of a list of rules, indexed by segment. Finds the first rule that decides about a target in
//! time that hardly depends on the number of rules. Knows neither verdicts nor clients.
//!
//! The column of a segment position holds the sets of rules that match a given literal, a wildcard, or the
//! end of the target there. The rules that match a target are the intersection along it. Only two kinds of
//! rules are compared as a whole: those with more segments than there are columns, and masks of names with
//! placeholders, which can become several segments.

use elbus_plugin_api::access::Syntax;
use smallvec::SmallVec;
use std::collections::HashMap;

use super::{Part, Pattern, Piece, PlaceholderValues, Question, Segment, Target};

/// Number of columns: segments that are indexed.
const MAX_COLUMNS: usize = 32;

/// The budget of comparisons is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BudgetExhausted;

/// Comparisons of segments that a check may still make.
#[derive(Debug)]
pub(crate) struct CheckBudget {
    left: usize,
}

impl CheckBudget {
    pub(crate) fn new(comparisons: usize) -> Self {
        CheckBudget { left: comparisons }
    }

    /// Creates a budget for a single target, whose cost the rules themselves limit.
    pub(crate) fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    fn charge(&mut self, comparisons: usize) -> Result<(), BudgetExhausted> {
        self.left = self.left.checked_sub(comparisons).ok_or(BudgetExhausted)?;
        Ok(())
    }

    #[cfg(test)]
    pub(in crate::access) fn left(&self) -> usize {
        self.left
    }
}

/// A set of rules, one bit for each.
#[derive(Debug, Clone, Default)]
struct RuleSet(SmallVec<[u64; 1]>);

impl RuleSet {
    fn new(rules: usize) -> Self {
        RuleSet(SmallVec::from_elem(0, rules.div_ceil(64)))
    }

    fn insert(&mut self, rule: usize) {
        if let Some(word) = self.0.get_mut(rule / 64) {
            *word |= 1 << (rule % 64);
        }
    }
}

/// The candidates of one check.
type Candidates = SmallVec<[u64; 16]>;

fn retain(candidates: &mut Candidates, allowed: &[u64]) {
    candidates.iter_mut().zip(allowed).for_each(|(word, allowed)| *word &= allowed);
}

fn exclude(candidates: &mut Candidates, excluded: &RuleSet) {
    candidates.iter_mut().zip(&excluded.0).for_each(|(word, excluded)| *word &= !excluded);
}

/// The rules with the same segment at one position. Takes at most twice the memory of their list.
#[derive(Debug)]
enum Postings {
    Few(Box<[u32]>),
    Many(RuleSet),
}

impl Postings {
    fn new(rules: &[u32], of: usize) -> Self {
        if rules.len() <= of.div_ceil(64) {
            return Postings::Few(rules.into());
        }
        let mut set = RuleSet::new(of);
        rules.iter().for_each(|rule| set.insert(*rule as usize));
        Postings::Many(set)
    }

    fn add_to(&self, union: &mut Candidates) {
        match self {
            Postings::Few(rules) => rules.iter().for_each(|rule| {
                if let Some(word) = union.get_mut(*rule as usize / 64) {
                    *word |= 1 << (rule % 64);
                }
            }),
            Postings::Many(set) => union.iter_mut().zip(&set.0).for_each(|(word, more)| *word |= more),
        }
    }
}

/// The rules by their segment at one position.
#[derive(Debug)]
struct Column {
    /// Rules that match any literal.
    any: RuleSet,
    /// Rules that match a wildcard for one segment.
    one: RuleSet,
    /// Rules that match a wildcard for the rest.
    rest: RuleSet,
    /// Rules that match if the target ends before this position.
    end: RuleSet,
    literals: HashMap<Box<str>, Postings, foldhash::fast::RandomState>,
    filled: Box<[(Box<[Piece]>, Postings)]>,
}

/// A column to which rules are being added.
struct ColumnBuilder {
    any: RuleSet,
    one: RuleSet,
    rest: RuleSet,
    end: RuleSet,
    literals: HashMap<String, Vec<u32>>,
    filled: HashMap<Box<[Piece]>, Vec<u32>>,
}

impl ColumnBuilder {
    fn new(rules: usize) -> Self {
        let none = RuleSet::new(rules);
        ColumnBuilder {
            any: none.clone(),
            one: none.clone(),
            rest: none.clone(),
            end: none,
            literals: HashMap::new(),
            filled: HashMap::new(),
        }
    }

    /// Adds a rule that matches any segment at this position.
    fn accept_everything(&mut self, rule: usize) {
        self.any.insert(rule);
        self.one.insert(rule);
        self.rest.insert(rule);
    }

    /// Adds a rule that matches wildcards: a partial match suffices to deny, but not to allow.
    fn accept_wildcards(&mut self, rule: usize, question: Question) {
        if question == Question::Overlaps {
            self.one.insert(rule);
            self.rest.insert(rule);
        }
    }

    fn build(self, rules: usize) -> Column {
        let postings = |list: Vec<u32>| Postings::new(&list, rules);
        Column {
            any: self.any,
            one: self.one,
            rest: self.rest,
            end: self.end,
            literals: self.literals.into_iter().map(|(text, list)| (text.into(), postings(list))).collect(),
            filled: self.filled.into_iter().map(|(pieces, list)| (pieces, postings(list))).collect(),
        }
    }
}

/// The patterns of a list, each with the question that it answers.
#[derive(Debug)]
pub(in crate::access) struct PatternIndex {
    syntax: Syntax,
    all: RuleSet,
    with_name: RuleSet,
    with_user: RuleSet,
    columns: Box<[Column]>,
    /// Rules that the columns cannot decide.
    compared: HashMap<usize, (Question, Pattern)>,
}

impl PatternIndex {
    pub(in crate::access) fn new(syntax: Syntax, patterns: Vec<(Question, Pattern)>) -> Self {
        let rules = patterns.len();
        let longest = patterns.iter().map(|(_, pattern)| pattern.segments.len()).max().unwrap_or(0);
        // one more than the segments of the longest rule: detects longer targets
        let mut columns: Vec<_> = (0..=longest.min(MAX_COLUMNS)).map(|_| ColumnBuilder::new(rules)).collect();
        let none = RuleSet::new(rules);
        let mut index = PatternIndex {
            syntax,
            all: none.clone(),
            with_name: none.clone(),
            with_user: none,
            columns: Box::default(),
            compared: HashMap::new(),
        };
        for (rule, (question, pattern)) in patterns.into_iter().enumerate() {
            index.all.insert(rule);
            for segment in &pattern.segments {
                let Segment::Filled(pieces) = segment else { continue };
                if pieces.contains(&Piece::Name) {
                    index.with_name.insert(rule);
                }
                if pieces.contains(&Piece::User) {
                    index.with_user.insert(rule);
                }
            }
            if !add(&mut columns, rule, question, &pattern) {
                index.compared.insert(rule, (question, pattern));
            }
        }
        index.columns = columns.into_iter().map(|column| column.build(rules)).collect();
        index
    }

    /// Returns the number of the first rule that decides about a target.
    ///
    /// # Errors
    /// The budget is used up.
    pub(in crate::access) fn first_match(
        &self,
        target: &Target<'_>,
        values: PlaceholderValues<'_>,
        budget: &mut CheckBudget,
    ) -> Result<Option<usize>, BudgetExhausted> {
        let mut candidates = self.candidates_for(values);
        let mut parts = target.parts();
        let last = self.columns.len().saturating_sub(1);
        for (position, column) in self.columns.iter().enumerate() {
            budget.charge(1)?;
            let part = parts.next();
            match part {
                None => retain(&mut candidates, &column.end.0),
                Some(_) if position == last => retain(&mut candidates, &column.any.0),
                Some(Part::Rest) => retain(&mut candidates, &column.rest.0),
                Some(Part::One) => retain(&mut candidates, &column.one.0),
                Some(Part::Literal(text)) => {
                    let mut agreeing = Candidates::from_slice(&column.any.0);
                    column.literals.get(text).inspect(|postings| postings.add_to(&mut agreeing));
                    budget.charge(column.filled.len())?;
                    for (pieces, postings) in &column.filled {
                        if is_filled(pieces, values, text) {
                            postings.add_to(&mut agreeing);
                        }
                    }
                    retain(&mut candidates, &agreeing);
                }
            }
            if candidates.iter().all(|word| *word == 0) {
                return Ok(None);
            }
            if matches!(part, None | Some(Part::Rest)) {
                break;
            }
        }
        self.first_of(&candidates, target, values, budget)
    }

    /// Returns the rules that can match for this client: see [`Pattern::is_for`].
    fn candidates_for(&self, values: PlaceholderValues<'_>) -> Candidates {
        let mut candidates = Candidates::from_slice(&self.all.0);
        let splits = |piece: Piece| {
            self.syntax == Syntax::Topic && piece.text(values).contains(self.syntax.separator())
        };
        if values.user.is_none() || splits(Piece::User) {
            exclude(&mut candidates, &self.with_user);
        }
        if splits(Piece::Name) {
            exclude(&mut candidates, &self.with_name);
        }
        candidates
    }

    fn first_of(
        &self,
        candidates: &Candidates,
        target: &Target<'_>,
        values: PlaceholderValues<'_>,
        budget: &mut CheckBudget,
    ) -> Result<Option<usize>, BudgetExhausted> {
        for (number, word) in candidates.iter().enumerate() {
            let mut word = *word;
            while word != 0 {
                let rule = number * 64 + word.trailing_zeros() as usize;
                word &= word - 1;
                let Some((question, pattern)) = self.compared.get(&rule) else { return Ok(Some(rule)) };
                budget.charge(pattern.segments.len())?;
                if pattern.answers(*question, target, values) {
                    return Ok(Some(rule));
                }
            }
        }
        Ok(None)
    }
}

/// Adds a rule to the columns; returns `false` if they cannot decide it.
fn add(columns: &mut [ColumnBuilder], rule: usize, question: Question, pattern: &Pattern) -> bool {
    let last = columns.len().saturating_sub(1);
    let number = u32::try_from(rule).unwrap_or(u32::MAX);
    let (mut accepts_rest, mut decided) = (false, true);
    for (position, column) in columns.iter_mut().enumerate() {
        if accepts_rest {
            column.accept_everything(rule);
            column.end.insert(rule);
            continue;
        }
        let Some(segment) = pattern.segments.get(position) else {
            column.end.insert(rule);
            return decided;
        };
        if position == last {
            column.accept_everything(rule);
            return false;
        }
        match segment {
            Segment::One => {
                column.any.insert(rule);
                column.one.insert(rule);
                column.accept_wildcards(rule, question);
            }
            Segment::Rest => {
                column.accept_everything(rule);
                accepts_rest = true;
            }
            Segment::Literal(text) => {
                column.literals.entry(text.to_string()).or_default().push(number);
                column.accept_wildcards(rule, question);
            }
            Segment::Filled(pieces) => match literal(pieces) {
                Some(text) => {
                    column.literals.entry(text).or_default().push(number);
                    column.accept_wildcards(rule, question);
                }
                None if pattern.syntax == Syntax::Topic => {
                    column.filled.entry(pieces.clone()).or_default().push(number);
                    column.accept_wildcards(rule, question);
                }
                None => {
                    column.accept_everything(rule);
                    (accepts_rest, decided) = (true, false);
                }
            },
        }
    }
    decided
}

/// Returns the text of a segment without placeholders.
fn literal(pieces: &[Piece]) -> Option<String> {
    let text = |piece: &Piece| match piece {
        Piece::Text(text) => Some(text.to_string()),
        Piece::Name | Piece::User => None,
    };
    pieces.iter().map(text).collect()
}

/// Returns whether a segment of a target equals the replaced placeholders.
fn is_filled(pieces: &[Piece], values: PlaceholderValues<'_>, segment: &str) -> bool {
    let rest = pieces.iter().try_fold(segment, |rest, piece| rest.strip_prefix(piece.text(values)));
    rest == Some("")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
