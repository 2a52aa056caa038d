//! The bound of what one publication costs, counted in visited nodes.

use proptest::prelude::*;

use super::*;
use crate::routing::{index::filter_tree::FilterTree, index::id_set::Ids};

const LIMIT: usize = 8192;

/// Filters of clients, admitted as the registry does.
#[derive(Default)]
struct Admitting {
    tree: FilterTree,
    shapes: Shapes,
    own: HashMap<u32, ClientShapes>,
}

impl Admitting {
    fn add(&mut self, filter: &str, client: u32, limit: usize) -> bool {
        let shape = self.shapes.of(filter.into());
        if self.tree.has(filter.into(), client) {
            return true;
        }
        let own = self.own.entry(client).or_insert_with(|| ClientShapes::of(client.into()));
        if shape.is_some_and(|shape| !self.shapes.reserve(own, shape, limit)) {
            return false;
        }
        self.tree.insert(filter, client).is_some()
    }

    fn remove(&mut self, filter: &str, client: u32) {
        if self.tree.remove(filter, client).is_some()
            && let Some(shape) = self.shapes.of(filter.into())
        {
            self.shapes.release(self.own.entry(client).or_default(), shape);
        }
    }

    fn visited(&self, topic: &str) -> usize {
        self.tree.matches(topic, &mut Ids::new())
    }
}

/// The filter with a `+` at each position whose bit is set.
fn crossing(set: u64, segments: usize, rest: bool) -> String {
    let segment = |at: usize| match at {
        at if rest && at + 1 == segments => "#",
        at if set >> at & 1 == 1 => "+",
        _ => "t",
    };
    (0..segments).map(segment).collect::<Vec<_>>().join("/")
}

#[test]
fn ordinary_filters_have_a_maximum_cost() {
    let mut admitting = Admitting::default();
    for segments in 1..=ORDINARY_SEGMENTS {
        for set in 0..1u64 << segments {
            if segments > FREE_SEGMENTS && set.count_ones() as usize > FEW_PLUSES {
                continue;
            }
            for (rest, client) in [(false, 1), (true, 2)] {
                if !rest || set >> (segments - 1) == 0 {
                    assert!(admitting.add(&crossing(set, segments, rest), client, 0), "{set:b} {segments}");
                }
            }
        }
    }
    assert_eq!(admitting.shapes.cost(), 0);
    assert_eq!(admitting.visited(&crossing(0, ORDINARY_SEGMENTS, false)), MOST_ORDINARY);
    assert!(admitting.visited(&crossing(0, ORDINARY_SEGMENTS + 4, false)) <= MOST_ORDINARY);
}

#[test]
fn crossing_filters_are_limited_for_one_client_and_for_all() {
    let (segments, mut admitting) = (18, Admitting::default());
    let mut taken = HashMap::<u32, usize>::new();
    for set in (1..1u64 << segments).step_by(7) {
        let client = set as u32 % 100;
        *taken.entry(client).or_default() +=
            usize::from(admitting.add(&crossing(set, segments, false), client, LIMIT));
    }
    let all: usize = taken.values().sum();
    assert_eq!(all, LIMIT / segments);
    assert!(taken.values().all(|one| *one <= LIMIT / CLIENTS_PART / segments));
    assert!(admitting.visited(&crossing(0, segments, false)) <= MOST_ORDINARY + LIMIT);
    // more filters of a shape that it uses cost a client nothing
    let mut other = Admitting::default();
    let filter = |number: usize| crossing(7, segments, false).replace('t', &number.to_string());
    assert!((0..1000).all(|number| other.add(&filter(number), 1, LIMIT)));
    assert_eq!(other.shapes.cost(), segments);
}

#[test]
fn a_client_that_leaves_gives_back_what_it_used() {
    let mut admitting = Admitting::default();
    for client in 0..8 {
        for set in 0..1000 {
            admitting.add(&crossing(set << 2 | u64::from(client), 20, false), client, LIMIT);
        }
    }
    assert!(admitting.shapes.cost() > LIMIT / 2);
    for own in admitting.own.values() {
        admitting.shapes.release_all(own);
    }
    assert_eq!((admitting.shapes.cost(), admitting.shapes.in_use.len()), (0, 0));
}

#[test]
fn the_clients_of_one_identity_leave_filters_for_others() {
    let (segments, mut admitting) = (20, Admitting::default());
    let mut hostile: Vec<_> = (0..100).map(|_| ClientShapes::of(1)).collect();
    let shape =
        |admitting: &Admitting, set| admitting.shapes.of((&*crossing(set, segments, false)).into()).unwrap();
    for set in 1 << 10..1 << 14u64 {
        let shape = shape(&admitting, set << 2 | 3);
        let own = &mut hostile[set as usize % 100];
        admitting.shapes.reserve(own, shape, LIMIT);
    }
    assert_eq!(admitting.shapes.cost(), LIMIT / IDENTITYS_PART / segments * segments);
    let mut other = ClientShapes::of(2);
    let new = shape(&admitting, 1 << 18 | 7);
    assert!(!admitting.shapes.reserve(&mut hostile[0], new, LIMIT));
    assert!(admitting.shapes.reserve(&mut other, new, LIMIT));
    hostile.iter().for_each(|own| admitting.shapes.release_all(own));
    assert_eq!(admitting.shapes.cost(), segments);
    admitting.shapes.release_all(&other);
    assert!(admitting.shapes.by_identity.is_empty());
}

#[test]
fn long_filters_cost_by_their_length() {
    let mut admitting = Admitting::default();
    let long = |number: usize| format!("{}/+/{number}", "x".repeat(64_000));
    assert!(admitting.add(&long(0), 1, LIMIT));
    assert!(!admitting.add(&long(1), 1, LIMIT), "a second one of the same shape");
    let others = (1..100).filter(|number| admitting.add(&long(*number), 1 + *number as u32, LIMIT));
    assert_eq!(others.count(), 7);
    assert!(admitting.add(&"x".repeat(65_000), 1, LIMIT), "without wildcards any length");
}

fn filter() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["a", "b", "+", "+"]);
    (prop::collection::vec(segment, 1..24), any::<bool>()).prop_map(|(mut segments, rest)| {
        if rest {
            segments.push("#");
        }
        segments.join("/")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_topic_visits_more_nodes_than_the_bound(
        steps in prop::collection::vec((0..4u8, filter(), 0..6u32), 1..400),
        topics in prop::collection::vec(prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..30), 1..10),
    ) {
        let (limit, mut admitting) = (400, Admitting::default());
        for (kind, filter, client) in &steps {
            if *kind == 0 {
                admitting.remove(filter, *client);
            } else {
                admitting.add(filter, *client, limit);
            }
        }
        prop_assert!(admitting.shapes.cost() <= limit);
        for topic in topics {
            let visited = admitting.visited(&topic.join("/"));
            prop_assert!(visited <= MOST_ORDINARY + 1 + admitting.shapes.cost(), "{visited}");
        }
        for (_, filter, client) in &steps {
            admitting.remove(filter, *client);
        }
        prop_assert_eq!(admitting.shapes.cost(), 0);
        prop_assert!(admitting.tree.is_empty() && admitting.own.values().all(ClientShapes::is_empty));
    }
}
