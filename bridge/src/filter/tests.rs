//! Overlapping and covering agree with matching.

use super::*;
use elbus_protocol::topic::matches;
use proptest::prelude::*;

/// All topics of up to three levels of these two.
fn topics() -> Vec<String> {
    let levels = ["a", "b", ""];
    let mut topics: Vec<String> = levels.map(str::to_owned).to_vec();
    for length in [1, 2] {
        let shorter: Vec<_> =
            topics.iter().filter(|topic| topic.matches('/').count() == length - 1).cloned().collect();
        topics.extend(shorter.iter().flat_map(|topic| levels.map(|level| format!("{topic}/{level}"))));
    }
    topics
}

proptest! {
    #[test]
    fn relations_agree_with_matching(one in "(a|b|\\+|#)(/(a|b|\\+|#)){0,2}", other in "(a|b|\\+|#)(/(a|b|\\+|#)){0,2}") {
        let topics = topics();
        let both = topics.iter().any(|topic| matches(&one, topic) && matches(&other, topic));
        prop_assert_eq!(overlap(&one, &other), both);
        if covers(&one, &other) {
            prop_assert!(topics.iter().all(|topic| matches(&one, topic) || !matches(&other, topic)));
        }
    }
}

#[test]
fn the_narrower_filter_stands_for_both() {
    let mut set = Intersections::new(&["plant/#".to_owned(), "x".to_owned()]);
    assert_eq!(set.add("#"), ["plant/#", "x"]);
    assert_eq!(set.add("plant/+/t"), ["plant/+/t"]);
    assert!(set.add("other").is_empty());
    assert!(set.add("x").is_empty(), "counted");
    assert_eq!(set.remove("#"), ["plant/#"]);
    assert_eq!(set.remove("x"), ["x"]);
    assert!(set.remove("x").is_empty());
    assert_eq!(set.iter().collect::<Vec<_>>(), ["plant/+/t"]);
}
