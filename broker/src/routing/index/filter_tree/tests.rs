//! The tree against the specification, word for word, and what its walks cost.

use super::{super::id_set::Ids, *};
use proptest::prelude::*;

/// The specification, word for word.
fn naive(filter: &str, topic: &str) -> bool {
    let mut filters = filter.split('/');
    let mut topics = topic.split('/');
    loop {
        match (filters.next(), topics.next()) {
            (Some("#"), Some(_)) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(f), Some(t)) if f == t => {}
            _ => return false,
        }
    }
}

fn matched(tree: &FilterTree, topic: &str) -> Vec<u32> {
    let mut out = Ids::new();
    tree.matches(topic, &mut out);
    let len = out.len();
    out.sort_unstable();
    out.dedup();
    assert_eq!(out.len(), len, "a member came twice");
    out.to_vec()
}

#[test]
fn filters_of_the_specification() {
    for (filter, topic, matches) in [
        ("a/#", "a", false),
        ("a/#", "a/", true),
        ("a/#", "a/b/c", true),
        ("#", "", true),
        ("#", "/x", true),
        ("#", ".broker/info", true),
        ("+", "", true),
        ("+/b", "/b", true),
        ("a/+", "a/+", true),
        ("a/b", "a/+", false),
        ("a/b+", "a/bc", false),
        ("a/b+", "a/b+", true),
        ("", "", true),
        ("", "a", false),
        ("a//b", "a//b", true),
        ("a/+/b", "a//b", true),
        (".broker/+", ".broker/warn", true),
        ("a/#/b", "a/x", true),
    ] {
        let mut tree = FilterTree::default();
        tree.insert(filter, 1).unwrap();
        assert_eq!(!matched(&tree, topic).is_empty(), matches, "{filter} {topic}");
        assert_eq!(naive(filter, topic), matches, "{filter} {topic}");
        assert!(tree.remove(filter, 1).is_some());
        assert!(
            tree.is_empty() && tree.nodes.taken() == 1 && tree.whole.is_empty() && tree.children.is_empty()
        );
    }
}

#[test]
fn deep_filters_cost_little() {
    let mut tree = FilterTree::default();
    let deep = vec!["x"; 1000].join("/");
    tree.insert(&*deep, 1).unwrap();
    tree.insert(&*vec!["+"; 1000].join("/"), 2).unwrap();
    tree.insert(&*format!("{}/#", vec!["x"; 500].join("/")), 3).unwrap();
    assert_eq!(tree.nodes.taken(), 4, "one node for a thousand levels");
    assert_eq!(matched(&tree, &deep), [1, 2, 3]);
    assert_eq!(matched(&tree, &deep[2..]), [3]);
}

#[test]
fn a_set_for_each_member() {
    let mut tree = FilterTree::default();
    let at = tree.insert("a/b", 1).unwrap();
    assert_eq!(tree.insert("a/b", 1), None);
    assert_eq!(tree.insert("a/b", 2), Some(at));
    assert_eq!(tree.remove("a/c", 1), None);
    assert_eq!(tree.remove("a", 1), None);
    assert_eq!(tree.remove("a/b", 1), Some(at));
    assert_eq!(matched(&tree, "a/b"), [2]);
}

#[test]
fn a_client_is_matched_once_however_many_of_its_filters_match() {
    let mut tree = FilterTree::default();
    let topic = ["t"; 8].join("/");
    for member in 0..300 {
        for set in 0..1 << 8 {
            let segment = |at: usize| if set >> at & 1 == 1 { "+" } else { "t" };
            let filter = (0..8).map(segment).collect::<Vec<_>>().join("/");
            assert!(tree.insert(&*filter, member).is_some());
        }
    }
    assert!(matched(&tree, &topic).into_iter().eq(0..300));
    let mut out = Ids::new();
    assert!(tree.matches(&topic, &mut out) <= 512, "no node is looked at twice");
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "", "+", "#", "ab", "a+"]), 1..6)
        .prop_map(|segments| segments.join("/"))
}

proptest! {
    #[test]
    fn equals_the_naive_matcher(
        steps in prop::collection::vec((any::<bool>(), path(), 0u32..4), 1..60),
        topics in prop::collection::vec(path(), 1..20),
    ) {
        // a filter ends at its `#`
        let normal = |f: &str| {
            let mut segments: Vec<&str> = f.split('/').collect();
            if let Some(at) = segments.iter().position(|s| *s == "#") {
                segments.truncate(at + 1);
            }
            segments.join("/")
        };
        let mut tree = FilterTree::default();
        let mut model = std::collections::BTreeSet::new();
        for (add, filter, member) in steps {
            let key = (normal(&filter), member);
            if add {
                prop_assert_eq!(tree.insert(&*filter, member).is_some(), model.insert(key));
            } else {
                prop_assert_eq!(tree.remove(&*filter, member).is_some(), model.remove(&key));
            }
            for topic in &topics {
                let mut expected: Vec<u32> =
                    model.iter().filter(|(f, _)| naive(f, topic)).map(|(_, m)| *m).collect();
                expected.sort_unstable();
                expected.dedup();
                prop_assert_eq!(matched(&tree, topic), expected, "topic {}", topic);
            }
        }
        for (filter, member) in model {
            prop_assert!(tree.remove(&*filter, member).is_some());
        }
        prop_assert!(tree.is_empty());
        prop_assert!(tree.whole.is_empty() && tree.children.is_empty() && tree.nodes.taken() == 1);
    }
}
