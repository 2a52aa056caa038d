//! Masks and filters of access rules, compared with targets and with the masks and filters that clients
//! request. Knows neither rules nor clients.
//!
//! A request is compared in place: a comparison allocates nothing and takes time linear in the length of the
//! rule. A wildcard for the rest is always the last segment, so a comparison never backtracks.

mod index;

use elbus_plugin_api::access::{self, Syntax};
use elbus_protocol::name::primary_of;

pub(super) use index::PatternIndex;
pub(crate) use index::{BudgetExhausted, CheckBudget};

/// Segment ends that are searched once for all rules; longer rules search again after them.
const KNOWN_ENDS: usize = 32;

/// The values of `{name}` and `{user}`.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlaceholderValues<'a> {
    /// The name of the client; the name of its primary is used.
    pub(super) name: &'a str,
    /// The user that the client runs as, if known.
    pub(super) user: Option<&'a str>,
}

/// The mask or filter of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    syntax: Syntax,
    /// Up to the wildcard for the rest, after which nothing has a meaning.
    segments: Box<[Segment]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    /// Contains placeholders, replaced for each client. A replaced value is never interpreted as a wildcard.
    /// In a mask of names it can consist of several segments.
    Filled(Box<[Piece]>),
    One,
    /// One or more segments. Always the last.
    Rest,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Piece {
    Text(Box<str>),
    Name,
    User,
}

impl Piece {
    fn text<'a>(&'a self, values: PlaceholderValues<'a>) -> &'a str {
        match self {
            Piece::Text(text) => text,
            Piece::Name => primary_of(values.name),
            Piece::User => values.user.unwrap_or_default(),
        }
    }
}

/// What a pattern is compared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether everything requested matches.
    Covers,
    /// Whether anything requested matches.
    Overlaps,
}

impl Pattern {
    pub(super) fn new(syntax: Syntax, text: &str) -> Self {
        let mut segments = vec![];
        for segment in text.split(syntax.separator()) {
            segments.push(Segment::new(syntax, segment));
            if segments.last() == Some(&Segment::Rest) {
                break;
            }
        }
        Pattern { syntax, segments: segments.into() }
    }

    #[cfg(test)]
    pub(super) fn covers(&self, target: &Target<'_>, values: PlaceholderValues<'_>) -> bool {
        self.answers(Question::Covers, target, values)
    }

    #[cfg(test)]
    pub(super) fn overlaps(&self, target: &Target<'_>, values: PlaceholderValues<'_>) -> bool {
        self.answers(Question::Overlaps, target, values)
    }

    fn answers(&self, question: Question, target: &Target<'_>, values: PlaceholderValues<'_>) -> bool {
        self.is_for(values) && self.compare(target, values, question)
    }

    /// Returns whether the pattern can match for this client. It cannot if it contains a user and the client
    /// has none, nor if it is a topic filter in which a placeholder would become several segments: those
    /// could be another client's subtree.
    fn is_for(&self, values: PlaceholderValues<'_>) -> bool {
        let pieces = self.segments.iter().filter_map(|segment| match segment {
            Segment::Filled(pieces) => Some(pieces),
            _ => None,
        });
        pieces.flatten().all(|piece| {
            let is_known = *piece != Piece::User || values.user.is_some();
            is_known && (self.syntax == Syntax::Name || !piece.text(values).contains(self.syntax.separator()))
        })
    }

    fn compare(&self, target: &Target<'_>, values: PlaceholderValues<'_>, question: Question) -> bool {
        let mut theirs = target.parts();
        for segment in &self.segments {
            let part = theirs.next();
            count_steps(1);
            let answer = match (segment, part) {
                (_, None) => Some(false),
                (Segment::Rest, Some(_)) => Some(true),
                (_, Some(Part::Rest)) => Some(question == Question::Overlaps),
                (Segment::One, Some(_)) => None,
                (Segment::Filled(pieces), Some(first)) => {
                    filled(pieces, self.syntax, values, first, &mut theirs, question)
                }
                (Segment::Literal(_), Some(Part::One)) => (question == Question::Covers).then_some(false),
                (Segment::Literal(ours), Some(Part::Literal(theirs))) => (**ours != *theirs).then_some(false),
            };
            if let Some(answer) = answer {
                return answer;
            }
        }
        theirs.next().is_none()
    }
}

/// Compares a segment with placeholders. Returns `None` if the segments after it decide.
fn filled<'a>(
    pieces: &[Piece],
    syntax: Syntax,
    values: PlaceholderValues<'_>,
    first: Part<'a>,
    theirs: &mut impl Iterator<Item = Part<'a>>,
    question: Question,
) -> Option<bool> {
    let mut ours = pieces.iter().flat_map(|piece| piece.text(values).bytes()).peekable();
    let mut part = first;
    loop {
        count_steps(1);
        match part {
            Part::Rest => return Some(question == Question::Overlaps),
            Part::One if question == Question::Covers => return Some(false),
            Part::One => {
                while ours.next_if(|byte| *byte != syntax.separator() as u8).is_some() {
                    count_steps(1);
                }
            }
            Part::Literal(text) => {
                let is_ours = |byte| {
                    count_steps(1);
                    ours.next_if_eq(&byte).is_some()
                };
                if !text.bytes().all(is_ours) {
                    return Some(false);
                }
            }
        }
        match ours.next() {
            None => return None,
            // a separator: the value continues with another segment
            Some(byte) if byte == syntax.separator() as u8 => match theirs.next() {
                Some(next) => part = next,
                None => return Some(false),
            },
            Some(_) => return Some(false),
        }
    }
}

impl Segment {
    fn new(syntax: Syntax, text: &str) -> Self {
        if text == syntax.one() {
            return Segment::One;
        }
        if text == syntax.rest() {
            return Segment::Rest;
        }
        if !text.contains('{') {
            return Segment::Literal(text.into());
        }
        let pieces = access::pieces(text).map(|piece| match piece {
            access::Piece::Text(text) => Piece::Text(text.into()),
            access::Piece::Name => Piece::Name,
            access::Piece::User => Piece::User,
        });
        Segment::Filled(pieces.collect())
    }
}

/// A client's request: a target, mask or filter.
pub(super) struct Target<'a> {
    text: &'a str,
    syntax: Syntax,
    /// All segments from this byte on are literal.
    literal_from: usize,
    /// The ends of the first segments.
    ends: [usize; KNOWN_ENDS],
    known: usize,
}

/// One segment of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Literal(&'a str),
    One,
    Rest,
}

impl<'a> Target<'a> {
    /// Creates a target without wildcards.
    pub(super) fn literal(syntax: Syntax, text: &'a str) -> Self {
        Self::new(syntax, text, 0)
    }

    /// Creates a target that may contain wildcards; nothing in it is a placeholder.
    pub(super) fn wild(syntax: Syntax, text: &'a str) -> Self {
        Self::new(syntax, text, usize::MAX)
    }

    /// Creates a target of the primaries that a mask of names addresses: a rule for a primary includes its
    /// secondaries.
    pub(super) fn primaries_of(mask: &'a str) -> Self {
        let primary = primary_of(mask);
        if primary.len() == mask.len() {
            return Self::wild(Syntax::Name, mask);
        }
        let last = primary.rfind(Syntax::Name.separator()).map_or(0, |at| at + 1);
        Self::new(Syntax::Name, primary, last)
    }

    fn new(syntax: Syntax, text: &'a str, literal_from: usize) -> Self {
        let (mut ends, mut known, mut start) = ([0; KNOWN_ENDS], 0, 0);
        for end in &mut ends {
            *end = end_of_segment(text, start, syntax);
            known += 1;
            start = *end + 1;
            if start > text.len() {
                break;
            }
        }
        Target { text, syntax, literal_from, ends, known }
    }

    fn parts(&self) -> impl Iterator<Item = Part<'a>> {
        let mut known = self.ends.iter().take(self.known);
        let mut start = 0;
        std::iter::from_fn(move || {
            let segment_start = start;
            let text = self.text.get(start..)?;
            let end = known
                .next()
                .copied()
                .unwrap_or_else(|| end_of_segment(self.text, segment_start, self.syntax));
            start = end + 1;
            let segment = text.get(..end - segment_start)?;
            Some(if segment_start >= self.literal_from {
                Part::Literal(segment)
            } else if segment == self.syntax.one() {
                Part::One
            } else if segment == self.syntax.rest() {
                Part::Rest
            } else {
                Part::Literal(segment)
            })
        })
    }
}

/// Returns the end of the segment that begins at `start`.
fn end_of_segment(text: &str, start: usize, syntax: Syntax) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    let length = rest.find(syntax.separator()).unwrap_or(rest.len());
    count_steps(length + 1);
    start + length
}

/// Counts the work of comparisons for tests: bytes that are searched or compared, and segments.
#[cfg(not(test))]
#[inline(always)]
fn count_steps(_: usize) {}

#[cfg(test)]
use tests::count_steps;

/// Returns whether the name of a certificate matches a pattern: `*` matches any characters except dots, and
/// placeholders are replaced.
pub(super) fn certificate_matches(pattern: &str, name: &str, values: PlaceholderValues<'_>) -> bool {
    if pattern.contains("{user}") && values.user.is_none() {
        return false;
    }
    let patterns: Vec<_> = pattern.split('*').map(|part| filled_text(part, values)).collect();
    let Some(mut rest) = patterns.first().and_then(|first| name.strip_prefix(&**first)) else {
        return false;
    };
    let Some((last, middle)) = patterns.get(1..).and_then(<[String]>::split_last) else {
        return rest.is_empty();
    };
    // the leftmost match of each part leaves the most text for the next parts
    for part in middle {
        match rest.find(&**part) {
            Some(at) if !rest[..at].contains('.') => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.strip_suffix(&**last).is_some_and(|between| !between.contains('.'))
}

/// Replaces each placeholder once: a client named `{user}` is not replaced again.
fn filled_text(text: &str, values: PlaceholderValues<'_>) -> String {
    let text_of = |piece| match piece {
        access::Piece::Text(text) => text,
        access::Piece::Name => primary_of(values.name),
        access::Piece::User => values.user.unwrap_or_default(),
    };
    access::pieces(text).map(text_of).collect()
}

#[cfg(test)]
mod tests;
