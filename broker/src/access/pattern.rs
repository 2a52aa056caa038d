//! Masks and filters of access rules, compared with targets and with the masks and filters that clients ask for. Knows
//! neither rules nor clients; meant for decisions that are remembered, hence simple rather than fast.

use elbus_protocol::name::primary_of;

/// Names, masks and methods, or topics and filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// Segments between dots, `?` for one, `*` for the rest.
    Name,
    /// Segments between slashes, `+` for one, `#` for the rest.
    Topic,
}

impl Syntax {
    fn separator(self) -> char {
        if self == Syntax::Name { '.' } else { '/' }
    }

    fn segment(self, text: &str) -> Segment {
        match (self, text) {
            (Syntax::Name, "?") | (Syntax::Topic, "+") => Segment::One,
            (Syntax::Name, "*") | (Syntax::Topic, "#") => Segment::Rest,
            _ => Segment::Literal(text.to_owned()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    One,
    /// One or more. Always the last.
    Rest,
}

/// Whom `{name}` and `{user}` stand for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The name of the client; that of its primary counts.
    pub(super) name: &'a str,
    /// The user it runs as, where that is known.
    pub(super) user: Option<&'a str>,
}

/// A mask or filter: of a rule, or one that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Segment>);

impl Pattern {
    /// What a client has sent: nothing in it is a placeholder.
    pub(super) fn plain(syntax: Syntax, text: &str) -> Self {
        Self::cut(text.split(syntax.separator()).map(|segment| syntax.segment(segment)))
    }

    /// A target without wildcards: every segment is what it says.
    pub(super) fn literal(syntax: Syntax, text: &str) -> Self {
        Pattern(literals(syntax, text).collect())
    }

    /// The pattern of a rule for one client. `None` where it names a user and the client has none, so it matches nothing.
    /// What is put in for a placeholder is never a wildcard, whatever a client calls itself.
    pub(super) fn of_rule(syntax: Syntax, text: &str, subject: Subject<'_>) -> Option<Self> {
        if text.contains("{user}") && subject.user.is_none() {
            return None;
        }
        let mut segments = vec![];
        for segment in text.split(syntax.separator()) {
            if segment.contains('{') {
                segments.extend(literals(syntax, &filled(segment, subject)));
            } else {
                segments.push(syntax.segment(segment));
            }
        }
        Some(Self::cut(segments.into_iter()))
    }

    /// Up to the wildcard for the rest: what follows it has no meaning.
    fn cut(segments: impl Iterator<Item = Segment>) -> Self {
        let mut kept = vec![];
        for segment in segments {
            let is_rest = segment == Segment::Rest;
            kept.push(segment);
            if is_rest {
                break;
            }
        }
        Pattern(kept)
    }

    /// Whether everything that `other` matches is matched by this one.
    pub(super) fn covers(&self, other: &Pattern) -> bool {
        let (mut ours, mut theirs) = (self.0.iter(), other.0.iter());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(Segment::Rest), Some(_)) => return true,
                (Some(Segment::One), Some(Segment::One | Segment::Literal(_))) => {}
                (Some(Segment::Literal(ours)), Some(Segment::Literal(theirs))) if ours == theirs => {}
                _ => return false,
            }
        }
    }

    /// Whether anything is matched by both.
    pub(super) fn overlaps(&self, other: &Pattern) -> bool {
        let (mut ours, mut theirs) = (self.0.iter(), other.0.iter());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(Segment::Rest), Some(_)) | (Some(_), Some(Segment::Rest)) => return true,
                (Some(Segment::One), Some(_)) | (Some(_), Some(Segment::One)) => {}
                (Some(ours), Some(theirs)) if ours == theirs => {}
                _ => return false,
            }
        }
    }
}

fn literals(syntax: Syntax, text: &str) -> impl Iterator<Item = Segment> {
    text.split(syntax.separator()).map(|segment| Segment::Literal(segment.to_owned()))
}

/// Each placeholder is filled once, so that a client called `{user}` is only that.
fn filled(text: &str, subject: Subject<'_>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        filled.push_str(before);
        if let Some(after) = from.strip_prefix("{name}") {
            filled.push_str(primary_of(subject.name));
            rest = after;
        } else if let Some(after) = from.strip_prefix("{user}") {
            filled.push_str(subject.user.unwrap_or_default());
            rest = after;
        } else {
            filled.push('{');
            rest = &from[1..];
        }
    }
    filled.push_str(rest);
    filled
}

/// Whether the name of a certificate is like a pattern: `*` stands for any characters but dots, placeholders are filled.
pub(super) fn certificate_matches(pattern: &str, name: &str, subject: Subject<'_>) -> bool {
    if pattern.contains("{user}") && subject.user.is_none() {
        return false;
    }
    let patterns: Vec<_> = pattern.split('*').map(|part| filled(part, subject)).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SUBJECT: Subject<'_> = Subject { name: "a.b%%7", user: Some("plc") };

    fn rule(syntax: Syntax, text: &str) -> Pattern {
        Pattern::of_rule(syntax, text, SUBJECT).unwrap()
    }

    #[test]
    fn placeholders_are_filled_with_what_is_no_wildcard() {
        let name = rule(Syntax::Name, "x.{name}.*");
        assert!(name.covers(&Pattern::literal(Syntax::Name, "x.a.b.c")), "a name has several segments");
        assert!(!name.covers(&Pattern::literal(Syntax::Name, "x.a.b")));
        let topic = rule(Syntax::Topic, "s/{user}-{name}/+");
        assert!(topic.covers(&Pattern::literal(Syntax::Topic, "s/plc-a.b/t")));

        let sly = Subject { name: "#", user: Some("{name}") };
        let sly = |text| Pattern::of_rule(Syntax::Topic, text, sly).unwrap();
        assert!(!sly("s/{name}").covers(&Pattern::literal(Syntax::Topic, "s/x")));
        assert!(sly("s/{name}").covers(&Pattern::literal(Syntax::Topic, "s/#")));
        assert!(sly("s/{user}").covers(&Pattern::literal(Syntax::Topic, "s/{name}")), "filled once");
        let nobody = Subject { name: "a", user: None };
        assert_eq!(Pattern::of_rule(Syntax::Topic, "s/{user}", nobody), None);
    }

    #[test]
    fn to_cover_is_more_than_to_overlap() {
        for (rule_text, asked, covers, overlaps) in [
            ("a/#", "a/b", true, true),
            ("a/#", "a/+/c", true, true),
            ("a/#", "a/#", true, true),
            ("a/#", "a", false, false),
            ("a/#", "#", false, true),
            ("a/+", "a/#", false, true),
            ("a/+", "a/b/c", false, false),
            ("+", "#", false, true),
            ("#", "+/x", true, true),
            ("+/b", "a/+", false, true),
            ("+/b", "a/c", false, false),
            ("a/b", "a/+", false, true),
            ("", "", true, true),
            ("a/#/b", "a/x", true, true),
        ] {
            let (ours, theirs) = (rule(Syntax::Topic, rule_text), Pattern::plain(Syntax::Topic, asked));
            assert_eq!(
                (ours.covers(&theirs), ours.overlaps(&theirs)),
                (covers, overlaps),
                "{rule_text} {asked}"
            );
        }
    }

    #[test]
    fn names_of_certificates() {
        let matches = |pattern, name| certificate_matches(pattern, name, SUBJECT);
        for (pattern, name) in [
            ("{name}", "a.b"),
            ("*.b", "a.b"),
            ("p-*.x.*", "p-1.x.y"),
            ("*", "abc"),
            ("", ""),
            ("a*c*e", "abcde"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*", "a.b"), ("a.*", "a.b.c"), ("a", "ab"), ("a*a", "a"), ("{name}", "a.b%%7")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    fn segments() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "", "+", "#"]), 1..5)
            .prop_map(|segments| segments.join("/"))
    }

    fn topics() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", ""]), 1..6).prop_map(|s| s.join("/"))
    }

    proptest! {
        #[test]
        fn as_for_every_single_topic(rule in segments(), asked in segments(), topic in topics()) {
            let (ours, theirs) = (Pattern::plain(Syntax::Topic, &rule), Pattern::plain(Syntax::Topic, &asked));
            let literal = Pattern::literal(Syntax::Topic, &topic);
            prop_assert_eq!(ours.covers(&literal), elbus_protocol::topic::matches(&rule, &topic));
            if ours.covers(&theirs) && theirs.covers(&literal) {
                prop_assert!(ours.covers(&literal));
            }
            if ours.covers(&literal) && theirs.covers(&literal) {
                prop_assert!(ours.overlaps(&theirs));
            }
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// What is said to be covered or to overlap is so: where it is not, there is a topic that shows it.
        #[test]
        fn there_is_a_topic_that_shows_it(rule in segments(), asked in segments()) {
            let (ours, theirs) = (Pattern::plain(Syntax::Topic, &rule), Pattern::plain(Syntax::Topic, &asked));
            let mut all = vec![String::new()];
            let mut level = vec![vec![]];
            for _ in 0..5 {
                level = level.into_iter().flat_map(|head: Vec<&str>| ["a", "b", "", "z"].map(|next| {
                    let mut longer = head.clone();
                    longer.push(next);
                    longer
                })).collect();
                all.extend(level.iter().map(|segments| segments.join("/")));
            }
            let matched = |pattern: &Pattern, topic: &str| pattern.covers(&Pattern::literal(Syntax::Topic, topic));
            let both = all.iter().any(|topic| matched(&ours, topic) && matched(&theirs, topic));
            let outside = all.iter().any(|topic| !matched(&ours, topic) && matched(&theirs, topic));
            prop_assert_eq!(ours.overlaps(&theirs), both);
            prop_assert_eq!(ours.covers(&theirs), !outside);
        }
    }
}
