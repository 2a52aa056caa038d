//! Masks and filters of access rules, compared with targets and with the masks and filters that clients ask
//! for. Knows neither rules nor clients.
//!
//! What a client asks for is compared where it lies: no memory is taken for it, and each comparison costs no
//! more than the rule is long. A wildcard for the rest is always the last segment, so there is nothing to go
//! back to.

mod index;

use elbus_plugin_api::access::{self, Syntax};
use elbus_protocol::name::primary_of;

pub(super) use index::PatternIndex;
pub(crate) use index::{BudgetExhausted, CheckBudget};

/// Ends of segments that are searched once for all rules; deeper rules search again behind them.
const KNOWN_ENDS: usize = 32;

/// The values of `{name}` and `{user}`.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlaceholderValues<'a> {
    /// The name of the client; that of its primary counts.
    pub(super) name: &'a str,
    /// The user it runs as, where that is known.
    pub(super) user: Option<&'a str>,
}

/// The mask or filter of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    syntax: Syntax,
    /// Up to the wildcard for the rest: what follows it has no meaning.
    segments: Box<[Segment]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    /// To be filled in for each client. What is put in for a placeholder is never a wildcard, whatever a
    /// client calls itself; in a mask of names it may be several segments.
    Filled(Box<[Piece]>),
    One,
    /// One or more. Always the last.
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

/// What is asked of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Whether everything that is asked for is matched.
    Covers,
    /// Whether anything that is asked for is matched.
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

    /// Matches nothing where it names a user and the client has none; nor, as a filter of topics, where a
    /// placeholder would be several segments: those may be another client's subtree.
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

/// Compares the segments that a filled one comes to. `None`: what is behind it decides.
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
            // the separator: another segment of ours
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

/// What a client asks for: a target, mask or filter.
pub(super) struct Target<'a> {
    text: &'a str,
    syntax: Syntax,
    /// From this byte on all segments are what they say.
    literal_from: usize,
    /// Where the first segments end.
    ends: [usize; KNOWN_ENDS],
    known: usize,
}

/// One segment of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Literal(&'a str),
    One,
    Rest,
}

impl<'a> Target<'a> {
    /// Every segment is what it says.
    pub(super) fn literal(syntax: Syntax, text: &'a str) -> Self {
        Self::new(syntax, text, 0)
    }

    /// What may have wildcards; nothing in it is a placeholder.
    pub(super) fn wild(syntax: Syntax, text: &'a str) -> Self {
        Self::new(syntax, text, usize::MAX)
    }

    /// The primary names of those that a mask of names is for: a secondary is never a way around a rule.
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

/// Where the segment that begins at `start` ends.
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

/// Whether the name of a certificate is like a pattern: `*` stands for any characters but dots, placeholders
/// are filled.
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
    // the leftmost place for each part leaves the most for those behind it
    for part in middle {
        match rest.find(&**part) {
            Some(at) if !rest[..at].contains('.') => rest = &rest[at + part.len()..],
            _ => return false,
        }
    }
    rest.strip_suffix(&**last).is_some_and(|between| !between.contains('.'))
}

/// Each placeholder is filled once, so that a client called `{user}` is only that.
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
