//! Lists of names and filters.

use super::*;
use crate::wire::{List, Record, append_list, next_record};

const LIMITS: ListLimits = ListLimits { count: 3, bytes: 100 };

fn apply(list: &mut RemoteList, version: u64, part: ListPart, changes: &[(bool, &str)]) -> Difference {
    let mut wire = Vec::new();
    append_list(&mut wire, List::Names, version, part, changes.iter().copied());
    let Some(Record::Names(changes)) = next_record(&mut &wire[..]) else { panic!() };
    list.apply(&changes, |text| !text.contains('!'))
}

fn texts(texts: &[Arc<str>]) -> Vec<&str> {
    texts.iter().map(|text| &**text).collect()
}

#[test]
fn snapshots_and_consecutive_changes_are_applied_others_are_not() {
    let mut list = RemoteList::new(LIMITS);
    assert_eq!(apply(&mut list, 1, ListPart::Delta, &[(true, "x")]), Difference::default(), "no snapshot");
    assert_eq!(apply(&mut list, 5, ListPart::First, &[(true, "a")]), Difference::default(), "not complete");
    let difference = apply(&mut list, 5, ListPart::Last, &[(true, "b")]);
    assert_eq!(texts(&difference.added), ["a", "b"]);
    let difference = apply(&mut list, 6, ListPart::Delta, &[(true, "c"), (false, "a")]);
    assert_eq!((texts(&difference.added), texts(&difference.removed)), (vec!["c"], vec!["a"]));
    assert_eq!(apply(&mut list, 8, ListPart::Delta, &[(false, "b")]), Difference::default(), "a gap");
    let difference = apply(&mut list, 8, ListPart::Only, &[(true, "c"), (true, "d")]);
    assert_eq!((texts(&difference.added), texts(&difference.removed)), (vec!["d"], vec!["b"]));
    assert_eq!(apply(&mut list, 9, ListPart::Next, &[(true, "e")]), Difference::default(), "no beginning");
}

#[test]
fn too_many_and_invalid_texts_are_counted() {
    let mut list = RemoteList::new(LIMITS);
    let all = ["a", "b", "c", "d", "e", "f!"].map(|text| (true, text));
    let difference = apply(&mut list, 1, ListPart::Only, &all);
    assert_eq!((list.len(), difference.over_limit, difference.invalid), (3, 2, 1));
    let difference = apply(&mut list, 2, ListPart::Delta, &[(true, "g"), (false, "a"), (true, "h")]);
    assert_eq!((texts(&difference.added), difference.over_limit), (vec!["h"], 1));
    let long = "x".repeat(101);
    let difference = apply(&mut list, 3, ListPart::Only, &[(true, &long)]);
    assert_eq!((list.len(), difference.over_limit), (0, 1));
}

/// Returns interest in filters below `t`.
fn interest_with(limits: ListLimits, filters: &[&str]) -> OwnInterest {
    let mut interest = OwnInterest::new(limits, &["t/#".to_owned()]);
    filters.iter().for_each(|filter| _ = interest.add(filter));
    interest.adapt();
    interest
}

#[test]
fn interest_beyond_the_limit_becomes_that_of_the_imports_and_back() {
    let mut interest = interest_with(LIMITS, &[]);
    assert!(interest.add("t/1"));
    assert_eq!(interest.adapt(), [(true, "t/1".to_owned())]);
    assert!(interest.add("t/1") && interest.add("other"), "counted, and not imported");
    assert_eq!(interest.adapt(), []);
    assert!(interest.add("t/2") && interest.add("t/3"));
    assert_eq!(interest.adapt().len(), 2);
    assert!(!interest.add("t/4"));
    assert_eq!(interest.adapt().iter().filter(|(is_added, _)| *is_added).count(), 1);
    assert_eq!(texts(&interest.list().sorted()), ["t/#"]);
    for (removed, announced) in [
        ("t/1", vec!["t/#"]),
        // there is no room yet
        ("t/4", vec!["t/#"]),
        ("t/1", vec!["t/2", "t/3"]),
        ("t/2", vec!["t/3"]),
        ("t/1", vec!["t/3"]),
    ] {
        interest.remove(removed);
        interest.adapt();
        assert_eq!(texts(&interest.list().sorted()), announced);
    }
}

#[test]
fn a_subscription_at_the_limit_does_not_change_the_whole_list_each_time() {
    let limits = ListLimits { count: 100, bytes: 10_000 };
    let mut interest = interest_with(limits, &[]);
    for topic in 0..101 {
        interest.add(&format!("t/{topic}"));
    }
    interest.adapt();
    let mut changes = 0;
    for _ in 0..100 {
        interest.remove("t/100");
        changes += interest.adapt().len();
        interest.add("t/100");
        changes += interest.adapt().len();
    }
    assert_eq!(changes, 0);
}

#[test]
fn interest_that_one_client_ends_and_another_one_begins_does_not_change() {
    let mut interest = interest_with(LIMITS, &["t/1", "t/2", "t/3"]);
    // as full as it can be
    ["t/1", "t/2"].iter().for_each(|filter| interest.remove(filter));
    assert!(["t/1", "t/4"].iter().all(|filter| interest.add(filter)));
    assert_eq!(interest.adapt(), [(false, "t/2".to_owned()), (true, "t/4".to_owned())]);
}

#[test]
fn filters_that_were_too_many_are_announced_once_they_fit() {
    let limits = ListLimits { count: 8, bytes: 100 };
    let all: Vec<String> = (0..10).map(|number| format!("t/{number}")).collect();
    let mut interest = interest_with(limits, &all.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(texts(&interest.list().sorted()), ["t/#"]);
    // the two that are not tracked stay
    all[..4].iter().for_each(|filter| interest.remove(filter));
    interest.adapt();
    assert_eq!((texts(&interest.list().sorted()), interest.may_fit()), (vec!["t/#"], true));
    interest.replace(all[4..].iter().map(String::as_str));
    interest.adapt();
    assert_eq!(texts(&interest.list().sorted()), all[4..].iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!interest.may_fit());

    // if they are too long, they are not counted again each time
    let long: Vec<String> = (0..6).map(|number| format!("t/{number}{}", "x".repeat(30))).collect();
    let mut interest = interest_with(limits, &long.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(interest.may_fit());
    interest.replace(long.iter().map(String::as_str));
    assert!(!interest.may_fit());
    interest.remove(&long[5]);
    assert!(!interest.may_fit());
}

#[test]
fn a_text_that_comes_and_goes_in_one_change_is_one_difference() {
    let mut list = RemoteList::new(LIMITS);
    apply(&mut list, 1, ListPart::Only, &[(true, "a"), (true, "b")]);
    let toggles = |first: bool, text| (0..1001).map(move |number| (first ^ (number % 2 == 1), text));
    let changes: Vec<_> = toggles(true, "c").chain(toggles(false, "a")).chain(toggles(false, "d")).collect();
    let difference = apply(&mut list, 2, ListPart::Delta, &changes);
    assert_eq!((texts(&difference.added), texts(&difference.removed)), (vec!["c"], vec!["a"]));
    // another client of the same name
    let difference = apply(&mut list, 3, ListPart::Delta, &[(false, "b"), (true, "b")]);
    assert_eq!((texts(&difference.added), texts(&difference.removed)), (vec!["b"], vec!["b"]));
    let difference = apply(&mut list, 4, ListPart::Delta, &[(true, "e"), (false, "e")]);
    assert_eq!(difference, Difference::default());
    assert_eq!(list.len(), 2);
}

#[test]
fn what_did_not_fit_is_announced_once_there_is_room() {
    let mut list = OwnList::new(LIMITS);
    for (name, is_new) in [("a", Some(true)), ("b", Some(true)), ("c", Some(true)), ("d", None), ("e", None)]
    {
        assert_eq!(list.add(name), is_new);
    }
    assert_eq!(list.add_next(), None);
    assert!(list.remove("b") && !list.remove("d"));
    assert_eq!(list.add_next().as_deref(), Some("e"), "d has left");
    assert_eq!(list.add_next(), None);
    assert_eq!(texts(&list.sorted()), ["a", "c", "e"]);
}

#[test]
fn the_import_stands_for_a_wider_filter() {
    let mut interest = OwnInterest::new(LIMITS, &["t/#".to_owned(), "u".to_owned()]);
    interest.add("#");
    interest.adapt();
    assert_eq!(texts(&interest.list().sorted()), ["t/#", "u"]);
    interest.remove("#");
    interest.adapt();
    assert!(interest.list().sorted().is_empty());
}
