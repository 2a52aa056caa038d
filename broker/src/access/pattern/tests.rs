//! Compares patterns with the protocol's examples, with a naive model, and with hostile input.

use super::*;
use proptest::prelude::*;
use std::cell::Cell;

thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn count_steps(steps: usize) {
    STEPS.set(STEPS.get() + steps);
}

/// Returns the result of `work`, and the bytes and segments that it looked at.
fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = STEPS.get();
    let result = work();
    (result, STEPS.get() - before)
}

const VALUES: PlaceholderValues<'_> = PlaceholderValues { name: "a.b%%7", user: Some("plc") };

fn covers(syntax: Syntax, rule: &str, target: &str) -> bool {
    Pattern::new(syntax, rule).covers(&Target::literal(syntax, target), VALUES)
}

#[test]
fn placeholder_values_are_never_wildcards() {
    assert!(covers(Syntax::Name, "x.{name}.*", "x.a.b.c"), "the name has two segments");
    assert!(!covers(Syntax::Name, "x.{name}.*", "x.a.b"));
    assert!(covers(Syntax::Topic, "s/{user}-{name}/+", "s/plc-a.b/t"));
    assert!(!covers(Syntax::Topic, "s/{user}-{name}/+", "s/plc-a.c/t"));
    assert!(!covers(Syntax::Topic, "s/{user}-{name}", "s/plc-a.bc"));
    assert!(!covers(Syntax::Topic, "s/{user}-{name}", "s/plc-a"));

    let hostile = PlaceholderValues { name: "#", user: Some("{name}") };
    let hostile = |text, topic| {
        Pattern::new(Syntax::Topic, text).covers(&Target::literal(Syntax::Topic, topic), hostile)
    };
    assert!(!hostile("s/{name}", "s/x"));
    assert!(hostile("s/{name}", "s/#"));
    assert!(hostile("s/{user}", "s/{name}"), "replaced once");
    let nobody = PlaceholderValues { name: "a", user: None };
    for text in ["s/{user}", "{user}", "#/{user}"] {
        let pattern = Pattern::new(Syntax::Topic, text);
        let target = Target::wild(Syntax::Topic, "#");
        assert!(!pattern.covers(&target, nobody) || text.starts_with('#'), "{text}");
    }
}

#[test]
fn a_client_name_that_looks_like_a_wildcard_is_literal() {
    let hostile = PlaceholderValues { name: "?.*", user: None };
    let pattern = Pattern::new(Syntax::Name, "x.{name}");
    for (mask, covers, overlaps) in
        [("x.?.*", false, true), ("x.?.a", false, false), ("x.a.*", false, false), ("x.*", false, true)]
    {
        let target = Target::wild(Syntax::Name, mask);
        assert_eq!(
            (pattern.covers(&target, hostile), pattern.overlaps(&target, hostile)),
            (covers, overlaps),
            "{mask}"
        );
    }
    assert!(pattern.covers(&Target::literal(Syntax::Name, "x.?.*"), hostile));
}

#[test]
fn a_name_with_a_slash_gives_no_access_to_other_topics() {
    for (name, pattern, topic) in [
        ("plc/secret", "plc/{name}/#", "plc/plc/secret/x"),
        ("other/x", "{name}/#", "other/x/y"),
        ("/", "a{name}b", "a/b"),
        ("a/", "{name}", "a/"),
    ] {
        let values = PlaceholderValues { name, user: None };
        let rule = Pattern::new(Syntax::Topic, pattern);
        for target in [Target::literal(Syntax::Topic, topic), Target::wild(Syntax::Topic, "#")] {
            assert!(!rule.covers(&target, values) && !rule.overlaps(&target, values), "{name} {pattern}");
        }
        // in a mask of names a slash has no special meaning
        let mask = Pattern::new(Syntax::Name, "x.{name}");
        assert!(mask.covers(&Target::literal(Syntax::Name, &format!("x.{name}")), values), "{name}");
    }
    let secondary = PlaceholderValues { name: "a%%x/y", user: None };
    let rule = Pattern::new(Syntax::Topic, "s/{name}");
    assert!(rule.covers(&Target::literal(Syntax::Topic, "s/a"), secondary), "the primary name counts");
}

#[test]
fn a_wildcard_in_braces_is_a_literal() {
    assert!(covers(Syntax::Name, "a.{*}", "a.*") && !covers(Syntax::Name, "a.{*}", "a.b"));
    assert!(covers(Syntax::Name, "plc{*}", "plc*") && covers(Syntax::Name, "{?}", "?"));
    assert!(covers(Syntax::Topic, "c{+}{+}/#", "c++/x") && !covers(Syntax::Topic, "{#}", "x"));
    assert!(covers(Syntax::Topic, "{{}name}", "{name}"));
    let target = Target::wild(Syntax::Name, "a.*");
    let pattern = Pattern::new(Syntax::Name, "a.{*}");
    assert!(!pattern.covers(&target, VALUES) && pattern.overlaps(&target, VALUES));
}

#[test]
fn a_pattern_can_overlap_a_target_without_covering_it() {
    for (rule, target, covers, overlaps) in [
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
        let (ours, theirs) = (Pattern::new(Syntax::Topic, rule), Target::wild(Syntax::Topic, target));
        assert_eq!(
            (ours.covers(&theirs, VALUES), ours.overlaps(&theirs, VALUES)),
            (covers, overlaps),
            "{rule} {target}"
        );
    }
}

#[test]
fn a_mask_for_a_secondary_counts_as_one_for_its_primary() {
    for (rule, mask, overlaps) in [
        ("other", "other%%0", true),
        ("other", "other%%x.*", true),
        ("other", "other%%?.y", true),
        ("a.other", "a.other%%", true),
        ("a.other", "?.other%%0", true),
        ("a.other", "a.?%%0", false),
        ("a.?", "a.?%%0", true),
        ("other", "others%%0", false),
        ("other", "*", true),
    ] {
        let pattern = Pattern::new(Syntax::Name, rule);
        assert_eq!(pattern.overlaps(&Target::primaries_of(mask), VALUES), overlaps, "{rule} {mask}");
    }
    // a wildcard before `%%` is a character of the name
    assert!(!Pattern::new(Syntax::Name, "a.b").covers(&Target::primaries_of("a.?%%0"), VALUES));
    assert!(Pattern::new(Syntax::Name, "a.{?}").covers(&Target::primaries_of("a.?%%0"), VALUES));
}

#[test]
fn certificate_patterns_match_within_dots() {
    let matches = |pattern, name| certificate_matches(pattern, name, VALUES);
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
    for (pattern, name) in [("*", "a.b"), ("a.*", "a.b.c"), ("a", "ab"), ("a*a", "a"), ("{name}", "a.b%%7")] {
        assert!(!matches(pattern, name), "{pattern} {name}");
    }
}

/// A target is searched once for all rules, and a comparison takes time linear in the length of the rule.
#[test]
fn a_comparison_is_linear_in_the_rule_for_any_target_length() {
    const BYTES: usize = 1 << 20;
    const LONGEST_RULE: usize = 32;
    let rules: Vec<_> = ["+/x", "+/+/+/+/x", "x/#", "{name}/+", "+/{name}{user}/x", "#", "+", "a/+/b"]
        .into_iter()
        .cycle()
        .take(access::MAX_RULES)
        .map(|text| Pattern::new(Syntax::Topic, text))
        .collect();
    for text in ["/".repeat(BYTES), "a".repeat(BYTES), "+/".repeat(BYTES / 2), "a/".repeat(BYTES / 2)] {
        for make in [Target::literal, Target::wild] {
            let (target, searched) = counted(|| make(Syntax::Topic, &text));
            assert!(searched <= BYTES + 1, "{searched}");
            let mut matching = 0;
            for rule in &rules {
                for question in [Question::Covers, Question::Overlaps] {
                    let (matches, steps) = counted(|| rule.answers(question, &target, VALUES));
                    assert!(steps <= LONGEST_RULE, "{steps}: {rule:?} {:.10}", target.text);
                    matching += usize::from(matches);
                }
            }
            assert!(matching >= rules.len() / 8);
        }
    }
}

/// No combination of wildcards makes a comparison backtrack: both texts are read once.
#[test]
fn a_comparison_with_many_wildcards_never_backtracks() {
    let deep = |one: &str, end: &str| format!("{}{end}", format!("{one}.").repeat(3000));
    for rule in [deep("?", "*"), deep("?", "x"), deep("a", "*"), deep("{name}", "x")] {
        let pattern = Pattern::new(Syntax::Name, &rule);
        for mask in [deep("?", "*"), deep("?", "y"), deep("a", "?"), deep("*", "?"), deep("?.a", "*")] {
            let target = Target::wild(Syntax::Name, &mask);
            for question in [Question::Covers, Question::Overlaps] {
                let (matches, steps) = counted(|| pattern.answers(question, &target, VALUES));
                let is_plain = mask.starts_with('?') || mask.starts_with('a');
                assert!(!matches || question == Question::Overlaps || is_plain);
                // each byte is searched for the end of its segment, and compared
                let bytes = rule.len() + mask.len();
                assert!(steps <= 3 * bytes, "{steps} steps for {bytes} bytes");
            }
        }
    }
}

/// The rules of the protocol, segment by segment, each in memory of its own.
mod model {
    #[derive(Clone, PartialEq)]
    enum Segment {
        Literal(String),
        One,
        Rest,
    }

    /// Parses a rule if `name` is given, whose placeholders it replaces; otherwise a client's target.
    fn segments(text: &str, name: Option<&str>) -> Vec<Segment> {
        let mut segments = vec![];
        for segment in text.split('.') {
            match (segment, name) {
                ("?", _) => segments.push(Segment::One),
                ("*", _) => segments.push(Segment::Rest),
                (_, Some(name)) => {
                    let filled = segment.replace("{name}", name);
                    segments.extend(filled.split('.').map(|part| Segment::Literal(part.to_owned())));
                }
                (_, None) => segments.push(Segment::Literal(segment.to_owned())),
            }
            if segments.last() == Some(&Segment::Rest) {
                break;
            }
        }
        segments
    }

    fn matches(mask: &[Segment], name: &[&str]) -> bool {
        match (mask.first(), name.first()) {
            (None, None) => true,
            (Some(Segment::Rest), Some(_)) => true,
            (Some(Segment::One), Some(_)) => matches(&mask[1..], &name[1..]),
            (Some(Segment::Literal(text)), Some(name_segment)) => {
                text == name_segment && matches(&mask[1..], &name[1..])
            }
            _ => false,
        }
    }

    /// Returns whether the rule covers and whether it overlaps the target, tried with all names of up to five
    /// segments.
    pub(super) fn answers(rule: &str, name: &str, target: &str) -> (bool, bool) {
        let (ours, theirs) = (segments(rule, Some(name)), segments(target, None));
        let (mut covers, mut overlaps) = (true, false);
        let mut level: Vec<Vec<&str>> = vec![vec![]];
        for _ in 0..5 {
            let longer = |head: &Vec<&'static str>| {
                ["a", "b", "", "?", "z"].map(|next| [head.as_slice(), &[next]].concat())
            };
            level = level.iter().flat_map(longer).collect();
            for name in &level {
                let (by_us, by_them) = (matches(&ours, name), matches(&theirs, name));
                covers &= by_us || !by_them;
                overlaps |= by_us && by_them;
            }
        }
        (covers, overlaps)
    }
}

fn masks(of: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(of), 1..4).prop_map(|segments| segments.join("."))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The answers agree with the model, which tries all names of up to five segments.
    #[test]
    fn covering_and_overlapping_agree_with_the_model(
        rule in masks(&["a", "b", "", "?", "*", "{name}", "{name}b"]),
        name in prop::sample::select(vec!["a", "?", "a.b", "*", ".", "b."]),
        target in masks(&["a", "b", "", "?", "*", "ab"]),
    ) {
        let values = PlaceholderValues { name, user: None };
        let (ours, theirs) = (Pattern::new(Syntax::Name, &rule), Target::wild(Syntax::Name, &target));
        let answers = (ours.covers(&theirs, values), ours.overlaps(&theirs, values));
        let segments = |text: &str| text.matches('.').count() + 1;
        // the model knows five segments and a fixed set of texts
        prop_assume!(segments(&rule.replace("{name}", name)) <= 4 && !target.contains("ab"));
        prop_assume!(!rule.contains("{name}b") || answers == (false, false));
        prop_assume!(!(rule.contains("{name}") && name == "*"));
        prop_assert_eq!(answers, model::answers(&rule, name, &target), "{} {} {}", rule, name, target);
    }
}

fn filters() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "", "+", "#"]), 1..40).prop_map(|s| s.join("/"))
}

fn topics() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", ""]), 1..40).prop_map(|s| s.join("/"))
}

proptest! {
    #[test]
    fn covering_and_overlapping_agree_with_matching_of_single_topics(
        rule in filters(), target in filters(), topic in topics()
    ) {
        let (ours, theirs) = (Pattern::new(Syntax::Topic, &rule), Pattern::new(Syntax::Topic, &target));
        let literal = Target::literal(Syntax::Topic, &topic);
        let target = Target::wild(Syntax::Topic, &target);
        let covers = |pattern: &Pattern| pattern.covers(&literal, VALUES);
        prop_assert_eq!(covers(&ours), elbus_protocol::topic::matches(&rule, &topic));
        prop_assert_eq!(covers(&ours), ours.overlaps(&literal, VALUES));
        if ours.covers(&target, VALUES) && covers(&theirs) {
            prop_assert!(covers(&ours));
        }
        if covers(&ours) && covers(&theirs) {
            prop_assert!(ours.overlaps(&target, VALUES));
        }
    }
}
