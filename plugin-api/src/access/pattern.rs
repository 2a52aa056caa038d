//! The form of a rule's pattern: segments, wildcards, placeholders and escapes. Owns their parsing, and
//! refuses patterns that look like a wildcard but are not; never matches a pattern against anything.
//!
//! A wildcard is a whole segment. Elsewhere the characters `*`, `?`, `+` and `#` must be escaped, as `{*}`,
//! so that nobody writes `plc*` and means `plc.*`.

use super::Action;

/// Characters that are a wildcard of one syntax or the other.
const WILDCARDS: [char; 4] = ['*', '?', '+', '#'];
/// What braces can enclose, in addition to placeholders: the character itself is meant.
const ESCAPES: [&str; 5] = ["{*}", "{?}", "{+}", "{#}", "{{}"];
const NAME: &str = "{name}";
const USER: &str = "{user}";
/// Characters of a pattern that a message repeats.
const SHOWN_CHARS: usize = 100;

/// The syntax of names, masks and methods, or of topics and filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// Segments between dots, `?` for one, `*` for the rest.
    Name,
    /// Segments between slashes, `+` for one, `#` for the rest.
    Topic,
}

impl Syntax {
    /// Returns the separator of segments.
    pub fn separator(self) -> char {
        if self == Syntax::Name { '.' } else { '/' }
    }

    /// Returns the wildcard for exactly one segment.
    pub fn one(self) -> &'static str {
        if self == Syntax::Name { "?" } else { "+" }
    }

    /// Returns the wildcard for one or more segments, all that are left.
    pub fn rest(self) -> &'static str {
        if self == Syntax::Name { "*" } else { "#" }
    }

    fn other(self) -> Self {
        if self == Syntax::Name { Syntax::Topic } else { Syntax::Name }
    }
}

impl Action {
    /// Returns the syntax of its targets.
    pub fn syntax(self) -> Syntax {
        match self {
            Action::Send | Action::Broadcast | Action::Call => Syntax::Name,
            Action::Publish | Action::Subscribe => Syntax::Topic,
        }
    }
}

/// A part of a segment that is not a wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Literal text.
    Text(&'a str),
    /// `{name}`: the primary name of the client.
    Name,
    /// `{user}`: the user the client runs as.
    User,
}

/// Returns the parts of a segment. A brace that does not begin a placeholder stands for itself;
/// [`check_pattern`] refuses it.
pub fn pieces(segment: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = segment;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let known = [(NAME, Piece::Name), (USER, Piece::User)];
        let escaped = |token: &&&'static str| rest.starts_with(**token);
        let (piece, length) =
            if let Some((token, piece)) = known.iter().find(|(token, _)| rest.starts_with(token)) {
                (*piece, token.len())
            } else if let Some(token) = ESCAPES.iter().find(escaped) {
                (Piece::Text(&rest[1..token.len() - 1]), token.len())
            } else {
                // the first character is taken in any case
                let first = rest.chars().next().map_or(0, char::len_utf8);
                let end = rest[first..].find('{').map_or(rest.len(), |at| first + at);
                (Piece::Text(&rest[..end]), end)
            };
        rest = &rest[length..];
        Some(piece)
    })
}

/// Returns the first text in braces that is neither a placeholder nor an escape.
pub(super) fn unknown_placeholder(pattern: &str) -> Option<&str> {
    let mut rest = pattern;
    while let Some(start) = rest.find('{') {
        rest = &rest[start..];
        let known = [NAME, USER].into_iter().chain(ESCAPES).find(|token| rest.starts_with(token));
        match known {
            Some(token) => rest = &rest[token.len()..],
            None => return Some(&rest[..rest.find('}').map_or(rest.len(), |end| end + 1)]),
        }
    }
    None
}

/// Checks the mask of a table of rules: a pattern of names without placeholders.
///
/// # Errors
/// What is wrong with it, and how it is written.
pub fn check_mask(mask: &str) -> Result<(), String> {
    if let Some(token) = [NAME, USER].into_iter().find(|token| mask.contains(token)) {
        return Err(format!(
            "{token} in {:?} has no meaning: the mask itself defines the names",
            excerpt(mask)
        ));
    }
    if let Some(wrong) = unknown_placeholder(mask) {
        return Err(format!("{:?} in {:?} is not an escape: {}", excerpt(wrong), excerpt(mask), escapes()));
    }
    check_pattern(Syntax::Name, mask)
}

/// Checks a pattern: refuses one that would be taken literally, or in part, though it looks as if a wildcard
/// was meant.
///
/// # Examples
/// ```
/// use elbus_plugin_api::access::{Syntax, check_pattern};
///
/// assert_eq!(check_pattern(Syntax::Name, "plc.*"), Ok(()));
/// assert!(check_pattern(Syntax::Name, "plc*").unwrap_err().contains("write \"plc.*\""));
/// ```
///
/// # Errors
/// What is wrong with it, and how it is written.
pub fn check_pattern(syntax: Syntax, pattern: &str) -> Result<(), String> {
    let (one, rest) = (syntax.one(), syntax.rest());
    let mut segments = pattern.split(syntax.separator()).peekable();
    while let Some(segment) = segments.next() {
        if segment == rest && segments.peek().is_some() {
            let (separator, spelled) = (syntax.separator(), spelled(syntax, pattern));
            let before = pattern.split_once(&format!("{rest}{separator}")).map_or("", |(before, _)| before);
            return Err(format!(
                "{rest:?} in {:?} matches all that follows, so nothing can follow it: write {:?} for one \
                 segment, or {:?} for the rest",
                excerpt(pattern),
                excerpt(&spelled),
                excerpt(&format!("{before}{rest}")),
            ));
        }
        if segment == one || segment == rest {
            continue;
        }
        let bare = pieces_of_text(segment).find_map(|text| text.chars().find(|c| WILDCARDS.contains(c)));
        if let Some(found) = bare {
            return Err(format!(
                "\"{found}\" in {:?} is not a wildcard: write {:?}, or {:?} for the character itself (of {} the \
                 wildcards are {one:?} for one segment and {rest:?} for the rest, each a whole segment)",
                excerpt(pattern),
                excerpt(&spelled(syntax, pattern)),
                excerpt(&escaped(syntax, pattern)),
                if syntax == Syntax::Name { "names" } else { "topics" },
            ));
        }
    }
    Ok(())
}

/// Returns the parts of a segment that are neither placeholders nor escaped.
fn pieces_of_text(segment: &str) -> impl Iterator<Item = &str> {
    pieces(segment).filter_map(|piece| match piece {
        // an escaped one is a single character behind a brace
        Piece::Text(text) if !ESCAPES.iter().any(|token| token[1..token.len() - 1] == *text) => Some(text),
        Piece::Text(text) if is_bare(segment, text) => Some(text),
        _ => None,
    })
}

/// Returns whether a part of a segment stands in it without braces.
fn is_bare(segment: &str, part: &str) -> bool {
    let start = part.as_ptr() as usize - segment.as_ptr() as usize;
    start == 0 || !segment[..start].ends_with('{') || !segment[start + part.len()..].starts_with('}')
}

/// Returns what was probably meant: the wildcards and separators of this syntax, each wildcard a segment.
fn spelled(syntax: Syntax, pattern: &str) -> String {
    let (other, separator) = (syntax.other(), syntax.separator());
    let is_rest = |text: &str| text == syntax.rest() || text == other.rest();
    // a separator of the other syntax beside a wildcard is a slip, too
    let foreign = |segment: &str| segment.contains(WILDCARDS) && segment.contains(other.separator());
    let text = pattern.split(separator).map(|segment| match foreign(segment) {
        true => segment.replace(other.separator(), &separator.to_string()),
        false => segment.to_owned(),
    });
    let text = text.collect::<Vec<_>>().join(&separator.to_string());
    let segments: Vec<_> = text.split(separator).collect();
    let last = segments.len() - 1;
    let segments = segments.iter().enumerate().map(|(at, segment)| {
        let stem = segment.trim_end_matches(['*', '#']);
        if is_rest(segment) && at == last {
            syntax.rest().to_owned()
        } else if at == last && stem.len() < segment.len() && !stem.is_empty() && !stem.contains(WILDCARDS) {
            format!("{stem}{separator}{}", syntax.rest())
        } else if pieces_of_text(segment).any(|text| text.contains(WILDCARDS)) {
            syntax.one().to_owned()
        } else {
            (*segment).to_owned()
        }
    });
    segments.collect::<Vec<_>>().join(&separator.to_string())
}

/// Returns the pattern with every character escaped that is not a wildcard.
fn escaped(syntax: Syntax, pattern: &str) -> String {
    let separator = syntax.separator();
    let segments = pattern.split(separator).map(|segment| {
        if segment == syntax.one() || segment == syntax.rest() {
            return segment.to_owned();
        }
        let mut text = String::new();
        for (at, c) in segment.char_indices() {
            let end = at + c.len_utf8();
            if WILDCARDS.contains(&c) && is_bare(segment, &segment[at..end]) {
                text.extend(['{', c, '}']);
            } else {
                text.push(c);
            }
        }
        text
    });
    segments.collect::<Vec<_>>().join(&separator.to_string())
}

/// Returns the hint about escapes.
pub(super) fn escapes() -> String {
    format!("the characters themselves are written {}", ESCAPES.join(" "))
}

/// Returns as much of a text as a message repeats.
fn excerpt(text: &str) -> &str {
    text.char_indices().nth(SHOWN_CHARS).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_text_and_placeholders() {
        let of = |segment| pieces(segment).collect::<Vec<_>>();
        assert_eq!(of("a-{name}{user}b"), [Piece::Text("a-"), Piece::Name, Piece::User, Piece::Text("b")]);
        assert_eq!(of("{*}x{{}"), [Piece::Text("*"), Piece::Text("x"), Piece::Text("{")]);
        assert_eq!(of("{x}"), [Piece::Text("{x}")]);
        assert_eq!(of(""), []);
        for (pattern, unknown) in [
            ("a/{name}/{*}/{{}name}", None),
            ("{nme}.x", Some("{nme}")),
            ("{name}{", Some("{")),
            ("{}", Some("{}")),
            ("{**}", Some("{**}")),
        ] {
            assert_eq!(unknown_placeholder(pattern), unknown, "{pattern}");
        }
    }

    #[test]
    fn valid_patterns_are_accepted() {
        for pattern in ["", "a", "a.*", "?.a.?", "*", "a.{*}", "plc{*}", "{name}.*", "a/b.c", "{{}", "{+}.x"]
        {
            assert_eq!(check_pattern(Syntax::Name, pattern), Ok(()), "{pattern}");
        }
        for pattern in
            ["", "a/#", "+/a/+", "#", "a.b/c", "a/{#}", "c{+}{+}/x", "{user}/#", "//", "a/{name}-{?}/+"]
        {
            assert_eq!(check_pattern(Syntax::Topic, pattern), Ok(()), "{pattern}");
        }
        assert_eq!((check_mask("plc.*"), check_mask("what{?}")), (Ok(()), Ok(())));
    }

    #[test]
    fn near_wildcards_are_refused_with_the_right_spelling() {
        for (syntax, pattern, found, spelling, literal) in [
            (Syntax::Name, "plc*", "*", "plc.*", "plc{*}"),
            (Syntax::Name, "plc?", "?", "?", "plc{?}"),
            (Syntax::Name, "core.#", "#", "core.*", "core.{#}"),
            (Syntax::Name, "core.+", "+", "core.?", "core.{+}"),
            (Syntax::Name, "core.+.x", "+", "core.?.x", "core.{+}.x"),
            (Syntax::Name, "a.b*c.d", "*", "a.?.d", "a.b{*}c.d"),
            (Syntax::Name, "a.?.b**", "*", "a.?.b.*", "a.?.b{*}{*}"),
            (Syntax::Name, "secret/*", "*", "secret.*", "secret/{*}"),
            (Syntax::Name, "a/#", "#", "a.*", "a/{#}"),
            (Syntax::Topic, "secret/*", "*", "secret/#", "secret/{*}"),
            (Syntax::Topic, "secret/?/x", "?", "secret/+/x", "secret/{?}/x"),
            (Syntax::Topic, "a.*", "*", "a/#", "a.{*}"),
            (Syntax::Topic, "a#", "#", "a/#", "a{#}"),
            (Syntax::Topic, "a+/{name}+{+}", "+", "+/+", "a{+}/{name}{+}{+}"),
            (Syntax::Topic, "{user}*", "*", "{user}/#", "{user}{*}"),
        ] {
            let error = check_pattern(syntax, pattern).unwrap_err();
            let wanted = format!("\"{found}\" in {pattern:?} is not a wildcard: write ");
            assert!(error.starts_with(&wanted), "{error}");
            assert!(
                error.contains(&format!("{spelling:?}, or {literal:?} for the character itself")),
                "{error}"
            );
            assert_eq!(check_pattern(syntax, literal), Ok(()), "{literal}");
            assert_eq!(check_pattern(syntax, spelling), Ok(()), "{spelling}");
        }
        let error = check_pattern(Syntax::Name, "a.*.b").unwrap_err();
        assert!(error.contains("write \"a.?.b\" for one segment, or \"a.*\" for the rest"), "{error}");
        let error = check_pattern(Syntax::Topic, "#/b").unwrap_err();
        assert!(error.contains("write \"+/b\" for one segment, or \"#\" for the rest"), "{error}");
        assert!(check_mask("a.{name}").unwrap_err().contains("{name} in \"a.{name}\" has no meaning"));
        assert!(check_mask("a.{x}").unwrap_err().contains("\"{x}\" in \"a.{x}\" is not an escape"));
        let long = check_pattern(Syntax::Name, &"x*".repeat(100_000)).unwrap_err();
        assert!(long.len() < 1000, "{}", long.len());
    }
}
