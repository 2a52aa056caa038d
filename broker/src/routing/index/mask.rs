//! Broadcast masks (protocol section 6): names are split at `.`, `?` stands for one segment, `*` for the
//! rest. Finds matching names in an ordered map; knows nothing of clients.
//!
//! The walk visits the names in order and skips ranges that cannot match. Names with the same first segments
//! are adjacent: all names that begin with `a.b.` are between `a.b.` and `a.b/`, because `/` is the byte
//! after `.`. So a name that does not match determines where the next match may be: at the same segments
//! followed by the literal segments of the mask, or at the end of the range of these segments. No name is
//! visited twice.

use std::{
    collections::BTreeMap,
    ops::Bound::{Included, Unbounded},
    sync::Arc,
};

/// The most names that are visited one by one before a jump: a jump is a lookup in the map, which costs
/// several steps.
const PATIENCE: usize = 16;
/// After this many jumps, one more name is visited before each: a mask with few jumps makes them early, and a
/// mask with many short jumps costs no more than visiting every name.
const JUMPS_PER_PATIENCE: usize = 4;
/// The most bytes of the mask in the start of the next search, if the current name is not longer.
const LITERAL_BYTES: usize = 256;

/// Calls `found` for each name that matches, in order. Returns the number of visited names, the measure of
/// its cost: at most the number of names with the literal prefix of the mask.
pub(in crate::routing) fn each_match<'n, T>(
    mask: &str,
    names: &'n BTreeMap<Arc<str>, T>,
    mut found: impl FnMut(&'n str, &'n T),
) -> usize {
    let Some(prefix) = literal_prefix(mask) else {
        if let Some((name, value)) = names.get_key_value(mask) {
            found(name, value);
        }
        return 1;
    };
    let mut start = prefix.to_owned();
    let (mut visited, mut jumps) = (0, 0);
    'jump: loop {
        let patience = (1 + jumps / JUMPS_PER_PATIENCE).min(PATIENCE);
        let mut passed = 0;
        let mut next: Option<Start<'_, '_>> = None;
        for (name, value) in names.range::<str, _>((Included(&*start), Unbounded)) {
            visited += 1;
            if let Some(next) = next.filter(|next| next.is_behind(name)) {
                passed += 1;
                if passed > patience {
                    start.clear();
                    start.extend([next.kept, next.then]);
                    jumps += 1;
                    continue 'jump;
                }
                continue;
            }
            passed = 0;
            match fit(mask, name) {
                Fit::Matches => found(name, value),
                Fit::Differs => {}
                Fit::NoneBefore(start) => next = Some(start),
                Fit::NoneLeft => return visited,
            }
        }
        return visited;
    }
}

/// The result of comparing a mask with a name.
#[derive(Debug, PartialEq, Eq)]
enum Fit<'m, 'n> {
    Matches,
    /// The name does not match; the next one may.
    Differs,
    /// No name before this start matches.
    NoneBefore(Start<'m, 'n>),
    /// Neither this name nor any after it matches.
    NoneLeft,
}

/// A start for the search of the next match: a prefix of a name followed by something else. It is greater
/// than that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Start<'m, 'n> {
    kept: &'n str,
    then: &'m str,
}

impl Start<'_, '_> {
    /// Returns whether a name is before this start. The name must be after the one that the start was made
    /// from.
    fn is_behind(&self, name: &str) -> bool {
        name.strip_prefix(self.kept).is_some_and(|rest| rest < self.then)
    }
}

/// Compares a mask with a name. Linear in the length of the name, whatever the length of the mask; no
/// allocation.
fn fit<'m, 'n>(mask: &'m str, name: &'n str) -> Fit<'m, 'n> {
    // the beginnings of the current segments, and of the first segment after the last `?`
    let (mut mask_at, mut name_at) = (0, 0);
    let (mut mask_run, mut name_run) = (0, 0);
    loop {
        let (mask_rest, name_rest) = (&mask[mask_at..], &name[name_at..]);
        let mask_end = mask_rest.find('.');
        let name_end = name_rest.find('.');
        let mask_segment = &mask_rest[..mask_end.unwrap_or(mask_rest.len())];
        let name_segment = &name_rest[..name_end.unwrap_or(name_rest.len())];
        match (mask_segment, mask_end, name_end) {
            ("*", ..) | ("?", None, None) => return Fit::Matches,
            ("?", Some(_), None) => return Fit::Differs,
            ("?", None, Some(end)) => return behind(name, name_at + end),
            ("?", Some(mask_end), Some(name_end)) => {
                (mask_at, name_at) = (mask_at + mask_end + 1, name_at + name_end + 1);
                (mask_run, name_run) = (mask_at, name_at);
            }
            _ if mask_segment == name_segment && mask_end.is_some() == name_end.is_some() => {
                let Some(end) = mask_end else { return Fit::Matches };
                (mask_at, name_at) = (mask_at + end + 1, name_at + end + 1);
            }
            // they differ in this segment or in the dot behind it, before any wildcard
            _ if name_rest < mask_rest => {
                let then = literal_run(&mask[mask_run..], name.len() - name_run);
                return Fit::NoneBefore(Start { kept: &name[..name_run], then });
            }
            _ if name_run == 0 => return Fit::NoneLeft,
            _ => return behind(name, name_run - 1),
        }
    }
}

/// Returns that no other name with the same segments up to the dot at `dot` matches.
fn behind<'m, 'n>(name: &'n str, dot: usize) -> Fit<'m, 'n> {
    Fit::NoneBefore(Start { kept: &name[..dot], then: "/" })
}

/// Returns the literal prefix of the mask, cut if it is long compared with the name: it stays greater than
/// `name_bytes` bytes that are less than the whole.
fn literal_run(mask: &str, name_bytes: usize) -> &str {
    let cut = (name_bytes + 1).max(LITERAL_BYTES);
    let cut = (cut..mask.len()).find(|at| mask.is_char_boundary(*at)).unwrap_or(mask.len());
    let mask = &mask[..cut];
    literal_prefix(mask).unwrap_or(mask)
}

/// Returns the prefix of every matching name: the segments before the first wildcard, with their dots. `None`
/// if the mask has no wildcard and matches only itself.
fn literal_prefix(mask: &str) -> Option<&str> {
    let mut start = 0;
    for segment in mask.split('.') {
        if segment == "?" || segment == "*" {
            return Some(&mask[..start]);
        }
        start += segment.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_protocol::name::mask_matches;
    use proptest::prelude::*;

    fn map(names: &[&str]) -> BTreeMap<Arc<str>, ()> {
        names.iter().map(|name| ((*name).into(), ())).collect()
    }

    fn found<'n>(mask: &str, names: &'n BTreeMap<Arc<str>, ()>) -> Vec<&'n str> {
        let mut found = vec![];
        each_match(mask, names, |name, ()| found.push(name));
        found
    }

    fn expected<'n>(mask: &str, names: &'n BTreeMap<Arc<str>, ()>) -> Vec<&'n str> {
        names.keys().map(|name| &**name).filter(|name| mask_matches(mask, name)).collect()
    }

    #[test]
    fn masks_of_the_specification() {
        for (mask, name, matches) in [
            ("a.*", "a.b", true),
            ("a.*", "a.b.c", true),
            ("a.*", "a", false),
            ("?", "a", true),
            ("?", "a.b", false),
            ("*", "a.b.c", true),
            ("*", "", true),
            ("a.?.c", "a.b.c", true),
            ("a.?.c", "a..c", true),
            ("a.?.c", "a.b.d", false),
            ("a.*.z", "a.b", true),
            ("ab*", "abc", false),
            ("ab*", "ab*", true),
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.?", "a.b%%0", true),
        ] {
            assert_eq!(mask_matches(mask, name), matches, "{mask} {name}");
            assert_eq!(found(mask, &map(&[name])).len(), usize::from(matches), "{mask} {name}");
            if matches {
                let prefix = literal_prefix(mask).unwrap_or(mask);
                assert!(name.starts_with(prefix), "{mask} {name} {prefix}");
            }
        }
    }

    #[test]
    fn prefixes() {
        assert_eq!(literal_prefix("a.b.*"), Some("a.b."));
        assert_eq!(literal_prefix("?.b"), Some(""));
        assert_eq!(literal_prefix("*"), Some(""));
        assert_eq!(literal_prefix("a.b*"), None);
    }

    #[test]
    fn names_that_sort_around_a_dot_are_met_once() {
        let names = map(&[
            "", ".", "..", "a", "a.", "a..", "a..b", "a.b", "ab", "ab!c", "ab!c.x", "ab.", "ab.x", "ab.x!",
            "ab.x%%0", "ab.x.y", "ab.x/", "ab/", "ab/.x", "ab0", "ab?", "ab*", "?", "?.x", "*", "*.x", "ü.x",
            "ü.x.y",
        ]);
        for (mask, matching) in [
            ("?", &["", "*", "?", "a", "ab", "ab!c", "ab*", "ab/", "ab0", "ab?"][..]),
            ("?.x", &["*.x", "?.x", "ab!c.x", "ab.x", "ab/.x", "ü.x"]),
            ("?.", &[".", "a.", "ab."]),
            ("?..", &["..", "a.."]),
            ("?..b", &["a..b"]),
            ("?.?.y", &["ab.x.y", "ü.x.y"]),
            ("?.x.*", &["ab.x.y", "ü.x.y"]),
            ("ab*", &["ab*"]),
            ("ab?", &["ab?"]),
            ("ab?.*", &[]),
            ("ab.?", &["ab.", "ab.x", "ab.x!", "ab.x%%0", "ab.x/"]),
            ("ab.*.z", &["ab.", "ab.x", "ab.x!", "ab.x%%0", "ab.x.y", "ab.x/"]),
            ("", &[""]),
            ("ü.?", &["ü.x"]),
        ] {
            assert_eq!(found(mask, &names), matching, "{mask}");
            assert_eq!(expected(mask, &names), matching, "{mask}");
        }
    }

    #[test]
    fn a_long_mask_and_a_deep_name_need_no_stack() {
        let deep = vec!["x"; 30_000].join(".");
        let names = map(&[&deep, &deep[2..], "x"]);
        for mask in [
            vec!["?"; 30_000].join("."),
            format!("?.{}", &deep[2..]),
            format!("{}.*", vec!["?"; 29_999].join(".")),
        ] {
            assert_eq!(found(&mask, &names), [&*deep], "{}", &mask[..9]);
        }
        assert_eq!(found(&format!("{deep}.?"), &names), [""; 0]);
    }

    #[test]
    fn a_literal_run_is_cut_behind_what_the_name_can_say() {
        let run = "ü".repeat(1000);
        assert_eq!(literal_run(&run, 10).len(), LITERAL_BYTES);
        assert_eq!(literal_run(&run, 300).len(), 302);
        assert_eq!(literal_run(&run, 5000), run);
        assert_eq!(literal_run("a.b.?.c", 1), "a.b.");
        let names = map(&[&format!("a.{}", &run[..600]), &format!("b.{run}"), &format!("b.{run}.x")]);
        assert_eq!(found(&format!("?.{run}"), &names), [format!("b.{run}")]);
    }

    #[test]
    fn a_leading_wildcard_does_not_visit_all_names() {
        let name = |n: usize| Arc::from(format!("plant.line{}.sensor{n}.out", n % 100));
        let names: BTreeMap<Arc<str>, ()> = (0..100_000).map(|n| (name(n), ())).collect();
        for (mask, matching, at_most) in [
            ("?.line5.sensor105.out", 1, 10),
            ("?.line5.?.out", 1000, 1010),
            ("plant.?.sensor105.out", 1, 2500),
            ("?.line5", 0, 10),
            ("?", 0, 10),
            ("?.?.?", 0, 100_000),
            ("?.line5.*", 1000, 1010),
        ] {
            let mut found = 0;
            let visited = each_match(mask, &names, |_, ()| found += 1);
            assert_eq!(found, matching, "{mask}");
            assert!(visited <= at_most, "{mask} looked at {visited}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn finds_what_the_rule_says(
            names in prop::collection::vec("[ab.!/?*]{0,8}|([ab]{0,2}\\.){0,4}[ab!]{0,2}(%%[a.])?", 0..60),
            masks in prop::collection::vec("[ab.!/?*]{0,8}|([ab]{0,2}|[?])(\\.([ab]{0,2}|[?]|[?])){0,4}(\\.[*])?", 1..20),
        ) {
            let names: BTreeMap<Arc<str>, ()> = names.iter().map(|name| (name.as_str().into(), ())).collect();
            for mask in &masks {
                prop_assert_eq!(found(mask, &names), expected(mask, &names), "{}", mask);
                for name in names.keys() {
                    if let Fit::NoneBefore(start) = fit(mask, name) {
                        let start = [start.kept, start.then].concat();
                        prop_assert!(start.as_str() > &**name, "{} {}", mask, start);
                    }
                }
            }
        }
    }

    #[test]
    fn many_dots_cost_little() {
        let name = vec!["x"; 30_000].join(".");
        let mask = vec!["?"; 30_000].join(".");
        assert!(mask_matches(&mask, &name));
        assert!(!mask_matches(&mask, &name[2..]));
    }
}
