//! The mapping of topics to subjects is reversible and gives only valid subjects.

use super::*;
use proptest::prelude::*;

#[test]
fn the_mapping_is_that_of_nats_server_for_mqtt() {
    let mirror = Mirror::new("plant", true);
    for (topic, subject) in [
        ("foo/bar", "foo.bar"),
        ("/foo/bar", "/.foo.bar"),
        ("foo/bar/", "foo.bar./"),
        ("foo//bar", "foo./.bar"),
        ("//foo/bar", "/./.foo.bar"),
        ("foo.bar", "foo//bar"),
        ("foo..bar/x", "foo////bar.x"),
        ("", "/"),
        ("/", "/./"),
        ("a b", "a%20b"),
        ("*/>", "%2A.%3E"),
        ("a*/b>", "a*.b>"),
        ("100%", "100%"),
        ("a%20b", "a%2520b"),
        ("a%41", "a%41"),
        ("$SYS/x$", "%24SYS.x$"),
        ("é\n", "é%0A"),
    ] {
        assert_eq!(mirror.subject(topic).as_deref(), Some(subject), "{topic:?}");
        assert_eq!(mirror.topic(subject).as_deref(), Some(topic), "{subject:?}");
    }
}

#[test]
fn subjects_of_links_and_unknown_subjects_have_no_topic() {
    let bare = Mirror::new("plant", true);
    for subject in ["plant.all", "plant.to.mill", "plant.to", "plant.topic.x", "a/b", "a..b", ""] {
        assert_eq!(bare.topic(subject), None, "{subject:?}");
    }
    assert_eq!(bare.subject("plant/all"), None);
    assert_eq!(bare.subject("plant/to/mill"), None);
    assert_eq!(bare.subject("plant/total").as_deref(), Some("plant.total"));
    let below = Mirror::new("plant", false);
    assert_eq!(below.subject("plant/all").as_deref(), Some("plant.topic.plant.all"));
    assert_eq!(below.topic("other.topic.x"), None);
    assert_eq!(below.subject(&"x".repeat(5000)), None);
}

#[test]
fn a_bridge_recognises_what_bridges_of_its_bus_have_published() {
    let mirror = Mirror::new("plant", true);
    assert!(mirror.is_from_bridge(Some("plant")));
    assert!(!mirror.is_from_bridge(Some("plant2")) && !mirror.is_from_bridge(None));
}

#[test]
fn filters_become_subjects_with_wildcards() {
    let mirror = Mirror::new("plant", false);
    assert_eq!(mirror.subject_of_filter("a/+/b.c").as_deref(), Some("plant.topic.a.*.b//c"));
    assert_eq!(mirror.subject_of_filter("a/#/x").as_deref(), Some("plant.topic.a.>"));
}

proptest! {
    #[test]
    fn every_topic_survives_the_mapping(topic in "[a-c/.%*>$ 0-9A-F+#\\x00-\\x1f\\x7fé]{0,24}", bare: bool) {
        let mirror = Mirror::new("plant", bare);
        let subject = mirror.subject(&topic).unwrap();
        prop_assert!(subject.split('.').all(|token| !token.is_empty() && token != "*" && token != ">"));
        let is_printable = subject.chars().all(|c| c > ' ' && c != '\u{7F}');
        prop_assert!(is_printable);
        prop_assert_eq!(mirror.topic(&subject), Some(topic));
    }

    #[test]
    fn every_subject_has_at_most_one_topic(subject in "[a-c/.%*>0-9A-F]{0,24}") {
        let mirror = Mirror::new("plant", true);
        if let Some(topic) = mirror.topic(&subject) {
            prop_assert!(mirror.subject(&topic).is_some());
        }
    }
}

#[test]
fn subjects_match_as_in_nats() {
    for (pattern, subject, expected) in [
        ("a.b", "a.b", true),
        ("a.b", "a.b.c", false),
        ("a.*", "a.b", true),
        ("a.*", "a", false),
        ("*.b", "a.b", true),
        (">", "a.b.c", true),
        ("a.>", "a", false),
        ("a.>", "b.c", false),
        ("a.*.>", "a.b.c.d", true),
    ] {
        assert_eq!(subject_matches(pattern, subject), expected, "{pattern} {subject}");
    }
}
