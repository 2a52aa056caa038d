//! Cycles in a wait-for graph. Only searches; takes time linear in nodes and edges.

use std::collections::{HashMap, VecDeque};

/// The nodes that each node waits for.
pub(super) type Edges = Vec<Vec<usize>>;

/// Returns the sets of nodes that all wait for each other, directly or not (Tarjan's algorithm). Nodes in no
/// cycle are left out.
pub(super) fn components(edges: &Edges) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let count = edges.len();
    let (mut order, mut low, mut on_stack) = (vec![UNSEEN; count], vec![0; count], vec![false; count]);
    let (mut stack, mut found, mut next) = (Vec::new(), Vec::new(), 0);
    for start in 0..count {
        if order[start] != UNSEEN {
            continue;
        }
        // the current path, each node with the number of edges that were followed
        let mut path = vec![(start, 0)];
        while let Some((node, followed)) = path.last_mut() {
            let node = *node;
            if *followed == 0 {
                (order[node], low[node], on_stack[node]) = (next, next, true);
                next += 1;
                stack.push(node);
            }
            if let Some(&to) = edges[node].get(*followed) {
                *followed += 1;
                if order[to] == UNSEEN {
                    path.push((to, 0));
                } else if on_stack[to] {
                    low[node] = low[node].min(order[to]);
                }
                continue;
            }
            path.pop();
            if let Some(&(before, _)) = path.last() {
                low[before] = low[before].min(low[node]);
            }
            if low[node] == order[node] {
                let at = stack.iter().rposition(|other| *other == node).unwrap_or(0);
                let members = stack.split_off(at);
                members.iter().for_each(|member| on_stack[*member] = false);
                if members.len() > 1 || edges[node].contains(&node) {
                    found.push(members);
                }
            }
        }
    }
    found
}

/// Returns a shortest cycle through `start` within `component`, beginning with it.
pub(super) fn cycle_through(edges: &Edges, component: &[usize], start: usize) -> Vec<usize> {
    if edges[start].contains(&start) {
        return vec![start];
    }
    // the predecessor of each reached node; nodes outside the component are ignored
    let mut from: HashMap<usize, Option<usize>> = component.iter().map(|node| (*node, None)).collect();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for &to in &edges[node] {
            if to == start {
                let back = std::iter::successors(Some(node), |node| from.get(node).copied().flatten());
                let mut cycle: Vec<_> = back.collect();
                cycle.reverse();
                return cycle;
            }
            if let Some(before @ None) = from.get_mut(&to) {
                *before = Some(node);
                queue.push_back(to);
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(mut found: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
        found.iter_mut().for_each(|members| members.sort_unstable());
        found.sort();
        found
    }

    #[test]
    fn rings_pairs_and_loops_are_found_and_clients_that_wait_for_them_are_not() {
        // a ring of three, one that waits for it, a pair that it waits for, one alone that waits for itself
        let edges = vec![vec![1], vec![2], vec![0, 4], vec![0], vec![5], vec![4], vec![6], vec![]];
        assert_eq!(sorted(components(&edges)), [vec![0, 1, 2], vec![4, 5], vec![6]]);
        assert_eq!(cycle_through(&edges, &[0, 1, 2], 1), [1, 2, 0]);
        assert_eq!(cycle_through(&edges, &[4, 5], 5), [5, 4]);
        assert_eq!(cycle_through(&edges, &[6], 6), [6]);
    }

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        let count = 4096;
        let edges: Edges = (0..count).map(|node| vec![(node + 1) % count]).collect();
        let found = components(&edges);
        assert_eq!((found.len(), found[0].len()), (1, count));
        assert_eq!(cycle_through(&edges, &found[0], 7).len(), count);
    }

    proptest! {
        #[test]
        fn components_are_clients_that_reach_each_other(
            edges in prop::collection::vec(prop::collection::vec(0..8usize, 0..4), 8)
        ) {
            let reaches = |from: usize, to: usize| {
                let (mut seen, mut left) = ([false; 8], edges[from].clone());
                while let Some(node) = left.pop() {
                    if !std::mem::replace(&mut seen[node], true) {
                        left.extend(&edges[node]);
                    }
                }
                seen[to]
            };
            let found = components(&edges);
            for one in 0..8 {
                for other in 0..8 {
                    let together = found.iter().any(|set| set.contains(&one) && set.contains(&other));
                    prop_assert_eq!(together, reaches(one, other) && reaches(other, one));
                }
            }
            for members in &found {
                for member in members {
                    let cycle = cycle_through(&edges, members, *member);
                    prop_assert_eq!(cycle.first(), Some(member));
                    for (at, node) in cycle.iter().enumerate() {
                        prop_assert!(edges[*node].contains(&cycle[(at + 1) % cycle.len()]));
                    }
                }
            }
        }
    }
}
