//! Compares the index with a comparison of every rule, and limits the cost of checks.

use super::*;
use elbus_plugin_api::access::MAX_RULES;
use proptest::prelude::*;

const VALUES: PlaceholderValues<'_> = PlaceholderValues { name: "me", user: Some("plc") };

fn compile(syntax: Syntax, rules: &[(Question, String)]) -> Vec<(Question, Pattern)> {
    rules.iter().map(|(question, text)| (*question, Pattern::new(syntax, text))).collect()
}

fn index(syntax: Syntax, rules: &[(Question, String)]) -> PatternIndex {
    PatternIndex::new(syntax, compile(syntax, rules))
}

/// Returns the total cost of checking `targets`, and how many of them a rule decides.
fn cost(index: &PatternIndex, targets: &[String]) -> (usize, usize) {
    let mut budget = CheckBudget::unlimited();
    let decided = targets.iter().filter(|target| {
        index.first_match(&Target::wild(Syntax::Topic, target), VALUES, &mut budget).unwrap().is_some()
    });
    let decided = decided.count();
    (usize::MAX - budget.left(), decided)
}

#[test]
fn the_work_of_a_check_does_not_grow_with_the_number_of_rules() {
    type Texts = fn(usize) -> String;
    let rules: [Texts; 8] = [
        |i| format!("r{i}/x/+/y"),
        |i| format!("x/y/r{i}"),
        |i| format!("+/r{i}/#"),
        |i| format!("+/+/r{i}"),
        |i| format!("{{name}}/r{i}"),
        |i| format!("r{i}/{{user}}/#"),
        |i| format!("{{+}}/{{user}}-{{name}}/r{i}"),
        |i| format!("{}r{i}", "x/".repeat(i % (MAX_COLUMNS - 1))),
    ];
    let filters: [Texts; 7] = [
        |i| format!("a0/{i}"),
        |i| format!("+/{i}/z"),
        |i| format!("me/{i}"),
        |i| format!("x/y/{i}"),
        |i| format!("+/+/{i}"),
        |i| format!("r{}/+/+/{i}", i % 1000),
        |i| format!("+/plc-me/+/{i}"),
    ];
    for rule in rules {
        let rules: Vec<_> = (0..MAX_RULES).map(|i| (Question::Overlaps, rule(i))).collect();
        let index = index(Syntax::Topic, &rules);
        assert!(index.compared.is_empty(), "{rules:?}");
        for filter in filters {
            let filters: Vec<_> = (0..3000).map(filter).collect();
            let (comparisons, _) = cost(&index, &filters);
            assert!(comparisons <= 7 * filters.len(), "{comparisons} for {} and {}", filters[1], rules[1].1);
        }
    }
}

#[test]
fn comparisons_are_counted_and_limited_by_the_budget() {
    let different = |i: usize| (Question::Overlaps, format!("{{name}}-{i}/x"));
    let rules: Vec<_> = (0..100).map(different).collect();
    let index = index(Syntax::Topic, &rules);
    let filters = ["a/x".to_owned(), "me-99/x".to_owned()];
    assert_eq!(cost(&index, &filters), (101 + 103, 1), "a column for each segment and for the end");
    let check = |filter: &str, budget: &mut CheckBudget| {
        index.first_match(&Target::wild(Syntax::Topic, filter), VALUES, budget)
    };
    let mut budget = CheckBudget::new(204);
    assert_eq!((check("a/x", &mut budget), budget.left()), (Ok(None), 103));
    assert_eq!((check("me-99/x", &mut budget), budget.left()), (Ok(Some(99)), 0));
    assert_eq!(check("a/x", &mut budget), Err(BudgetExhausted));

    // rules with more segments than there are columns are compared as a whole if all columns match
    let long: Vec<_> =
        (0..10).map(|i| (Question::Overlaps, format!("{}{i}", "x/".repeat(MAX_COLUMNS)))).collect();
    let index = self::index(Syntax::Topic, &long);
    let filters = [format!("{}9", "x/".repeat(MAX_COLUMNS)), "y".to_owned()];
    assert_eq!(cost(&index, &filters), (MAX_COLUMNS + 1 + 10 * (MAX_COLUMNS + 1) + 1, 1));
}

#[test]
fn rules_that_share_a_segment_take_a_bit_each() {
    let rules: Vec<_> = (0..MAX_RULES).map(|i| (Question::Overlaps, format!("plant/r{i}"))).collect();
    let index = index(Syntax::Topic, &rules);
    let postings = |position: usize, text: &str| &index.columns[position].literals[text];
    assert!(matches!(postings(0, "plant"), Postings::Many(_)));
    assert!(matches!(postings(1, "r7"), Postings::Few(rules) if **rules == [7]));
}

/// Segments of rules and targets, with 0 or about as many leading segments as there are columns.
fn text(of: Vec<&'static str>, separator: &'static str) -> impl Strategy<Value = String> {
    let segments = prop::collection::vec(prop::sample::select(of), 1..5);
    (prop::sample::select(vec![0, 0, 0, 30, 31, 32]), segments)
        .prop_map(move |(more, segments)| format!("a{separator}").repeat(more) + &segments.join(separator))
}

fn rules(of: Vec<&'static str>, separator: &'static str) -> impl Strategy<Value = Vec<(Question, String)>> {
    let question = prop::sample::select(vec![Question::Covers, Question::Overlaps]);
    prop::collection::vec((question, text(of, separator)), 0..140)
}

fn assert_agrees(syntax: Syntax, rules: &[(Question, String)], name: &str, user: Option<&str>, text: &str) {
    let values = PlaceholderValues { name, user };
    let (patterns, index) = (compile(syntax, rules), index(syntax, rules));
    for target in [Target::literal(syntax, text), Target::wild(syntax, text)] {
        let compared = patterns.iter().position(|(question, rule)| rule.answers(*question, &target, values));
        let indexed = index.first_match(&target, values, &mut CheckBudget::unlimited());
        assert_eq!(indexed, Ok(compared), "{rules:?} {name} {user:?} {text}");
    }
}

proptest! {
    #[test]
    fn the_index_agrees_with_a_comparison_of_every_rule_for_topics(
        rules in rules(
            vec!["a", "b", "", "+", "#", "{name}", "{user}", "x{name}", "{+}", "b{+}", "{user}-{name}"],
            "/",
        ),
        name in prop::sample::select(vec!["a", "b", "", "+", "#", "a/b", "a%%x", "b.a"]),
        user in prop::sample::select(vec![None, Some("a"), Some("b"), Some("+"), Some("a/b")]),
        target in text(vec!["a", "b", "", "+", "+", "#", "xa", "b+", "a-a"], "/"),
    ) {
        assert_agrees(Syntax::Topic, &rules, name, user, &target);
    }

    #[test]
    fn the_index_agrees_with_a_comparison_of_every_rule_for_names(
        rules in rules(
            vec!["a", "b", "", "?", "*", "{name}", "{user}", "x{name}", "{?}", "b{*}", "{user}-{name}"],
            ".",
        ),
        name in prop::sample::select(vec!["a", "b", "", "?", "*", "a/b", "a%%x", "b.a", "a.a.b"]),
        user in prop::sample::select(vec![None, Some("a"), Some("b"), Some("*"), Some("a.b")]),
        target in text(vec!["a", "b", "", "?", "?", "*", "xa", "b*", "a-a"], "."),
    ) {
        assert_agrees(Syntax::Name, &rules, name, user, &target);
    }
}
