//! Values, limits, and the topics of filters.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::settings::StoreKind;
use elbus_plugin_api::{
    Op, Payload, Qos,
    abi::{RunFrame, RunHeader},
    hooks::InterceptedRun,
    testing::FakeHost,
};

fn topics(filter: &str, max_topics: usize, max_bytes: usize) -> Topics {
    let table = TopicSettings { filter: filter.to_owned(), store: StoreKind::Memory, max_topics, max_bytes };
    Topics::new(FakeHost::new().host("retain"), vec![table])
}

fn keep(topics: &Topics, topic: &str, payload: &str) -> u64 {
    let frames = [RunFrame::new(topic, Payload::from(payload.as_bytes()))];
    let mut marks = [0];
    let header = RunHeader::new(Op::Publish, Qos::NO, "s", 1, "");
    topics.keep_run(&mut InterceptedRun::new(header, &frames, &mut marks));
    marks[0]
}

fn find(topics: &Topics, filter: &str) -> (Vec<String>, usize) {
    let (filter, mut cursor, mut found, mut visits) = (Filter::new(filter), Cursor::default(), vec![], 0);
    while !cursor.is_at_end() {
        let more = found.len() + 3;
        visits += topics.walk(&filter, &mut cursor, more, &mut found);
    }
    let mut names: Vec<_> = found.iter().map(|(name, _)| name.to_string()).collect();
    names.sort();
    (names, visits)
}

#[test]
fn the_last_value_is_kept_and_an_empty_one_deletes_it() {
    let topics = topics("#", 10, 1000);
    let marks = [keep(&topics, "a", "1"), keep(&topics, "a", "2"), keep(&topics, "b", "3")];
    assert!(marks.is_sorted() && marks[0] > 0);
    let value = topics.get("a").unwrap();
    assert_eq!((value.sender(), value.payload(), value.mark()), ("s", &b"2"[..], marks[1]));
    // one that is being sent does not change
    keep(&topics, "a", "4");
    assert_eq!((value.payload(), topics.get("a").unwrap().payload()), (&b"2"[..], &b"4"[..]));
    assert_eq!((topics.tables()[0].topics(), topics.tables()[0].bytes()), (2, 6));
    assert!(keep(&topics, "a", "") > marks[2], "what deletes has a mark, so that no older value follows");
    assert!(topics.get("a").is_none() && topics.delete("b") && !topics.delete("b"));
    assert_eq!((topics.tables()[0].topics(), topics.tables()[0].bytes()), (0, 0));
}

#[test]
fn beyond_a_limit_nothing_is_kept_and_an_older_value_is_removed() {
    let topics = topics("#", 2, 20);
    for (topic, payload, kept) in [
        ("a", "12345", true), // 7
        ("b", "12345", true), // 14
        ("c", "1", false),    // a third topic
        ("a", "12345678901234", false),
        ("c", "1", true),               // 7 + 3
        ("b", "123456789012345", true), // 3 + 17
        ("b", "1234567890123456", false),
    ] {
        keep(&topics, topic, payload);
        assert_eq!(topics.get(topic).is_some(), kept, "{topic} {payload}");
    }
    let table = &topics.tables()[0];
    assert_eq!((table.topics(), table.bytes(), table.refused()), (1, 3, 3));
}

#[test]
fn a_large_buffer_is_not_kept_for_a_small_value() {
    let topics = topics("#", 2, 1 << 20);
    keep(&topics, "a", &"x".repeat(100_000));
    keep(&topics, "a", "x");
    assert!(topics.get("a").unwrap().memory() < 100);
}

#[test]
fn the_topics_of_a_filter_are_found_without_looking_at_all() {
    let topics = topics("#", 100_000, 64 << 20);
    for group in 0..50 {
        for device in 0..200 {
            keep(&topics, &format!("g{group}/d{device}/t"), "1");
        }
    }
    for name in ["a", "a/", "a/b", "a/b/c", "a!", "b/a", "", "/"] {
        keep(&topics, name, "1");
    }
    for filter in ["a/#", "a/+", "a", "+", "/#", "a/b/#", "x/#", "+/+/c", "+/a", "a/#/b"] {
        let (found, _) = find(&topics, filter);
        let mut all = find(&topics, "#").0;
        all.retain(|name| topic::matches(filter, name));
        assert_eq!(found, all, "{filter}");
    }
    assert_eq!(find(&topics, "#").0.len(), 10_008);
    let (found, visits) = find(&topics, "g7/+/t");
    assert!(found.len() == 200 && visits <= 200 + SHARDS, "{visits}");
    assert_eq!(find(&topics, "g7/d8/t").1, 1);
}

#[test]
fn a_topic_belongs_to_the_first_table_that_matches() {
    let table = |filter: &str| TopicSettings {
        filter: filter.to_owned(),
        store: StoreKind::Memory,
        max_topics: 10,
        max_bytes: 100,
    };
    let topics = Topics::new(FakeHost::new().host("retain"), vec![table("a/+"), table("a/#")]);
    for topic in ["a/b", "a/b/c", "x"] {
        keep(&topics, topic, "1");
    }
    assert_eq!([0, 1].map(|table| topics.tables()[table].topics()), [1, 1]);
    assert!(topics.get("x").is_none());
}
