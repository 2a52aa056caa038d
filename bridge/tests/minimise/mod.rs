//! Reduces a list of events that makes a test fail to one of which each event is needed (delta debugging).

/// Returns a part of `events`, in order, for which `fails` holds and of which no event can be left out.
/// `fails` must hold for `events`.
pub(crate) fn minimise(events: &[u64], fails: impl Fn(&[u64]) -> bool) -> Vec<u64> {
    let mut kept = events.to_vec();
    let mut length = kept.len().div_ceil(2);
    while length > 0 {
        let (mut at, before) = (0, kept.len());
        while at < kept.len() {
            let end = (at + length).min(kept.len());
            let fewer = [&kept[..at], &kept[end..]].concat();
            if fails(&fewer) {
                kept = fewer;
            } else {
                at = end;
            }
        }
        // single events are tried until none can be left out
        if length > 1 || kept.len() == before {
            length /= 2;
        }
    }
    kept
}

#[test]
fn only_events_that_are_needed_are_kept() {
    let events: Vec<u64> = (0..100).collect();
    let needed = [7, 8, 31, 99];
    let fails = |events: &[u64]| needed.iter().all(|event| events.contains(event));
    assert_eq!(minimise(&events, fails), needed);
    assert_eq!(minimise(&events, |_| true), []);
    // 5 is needed only as long as 60 is there
    let fails = |events: &[u64]| events.contains(&40) && (events.contains(&5) || !events.contains(&60));
    assert_eq!(minimise(&events, fails), [40]);
}
