//! Topic filters of many members, and which members a topic matches (protocol section 6).
//!
//! A tree over the segments of filters. Plain segments that nothing branches at share one node, whose label then
//! holds several of them; `+` and `#` are nodes of their own. Children are found through one hash table for the
//! whole tree, so a node is small and a look-up does not depend on how many siblings there are. Matching visits
//! each node at most once, and only nodes that agree with the topic so far.
//!
//! A filter ends at its `#`: `a/#/b` is the filter `a/#`.

use hashbrown::HashTable;
use std::hash::BuildHasher;

use super::{Hashing, free_list::FreeList, id_set::IdSet};

/// Where a filter stands in the tree. Valid as long as somebody has the filter.
pub(super) type NodeId = u32;

const ROOT: NodeId = 0;
/// No node: the root is nobody's child.
const NONE: NodeId = 0;

struct Node {
    parent: NodeId,
    /// One or more segments, joined by `/`; `+` and `#` stand alone. Unused in the root.
    label: Box<str>,
    kind: Kind,
    plus: NodeId,
    hash: NodeId,
    /// How many plain children there are.
    children: u32,
    members: IdSet,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Root,
    Plain,
    Plus,
    Hash,
    /// A free place.
    Free,
}

/// Filters and who has them.
pub(super) struct FilterTree {
    nodes: Vec<Node>,
    free: FreeList,
    /// Plain children by parent and first segment of their label.
    edges: HashTable<NodeId>,
    hashing: Hashing,
}

impl Default for FilterTree {
    fn default() -> Self {
        let root = Node::new(NONE, Kind::Root, "");
        FilterTree {
            nodes: vec![root],
            free: FreeList::default(),
            edges: HashTable::new(),
            hashing: Hashing::default(),
        }
    }
}

impl Node {
    fn new(parent: NodeId, kind: Kind, label: &str) -> Self {
        Node {
            parent,
            label: label.into(),
            kind,
            plus: NONE,
            hash: NONE,
            children: 0,
            members: IdSet::default(),
        }
    }
}

/// The first segment of a path and, unless it was the last one, the rest.
fn split_first(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    }
}

/// What of `filter` a node with plain segments can hold: everything before the next wildcard segment.
fn split_plain(filter: &str) -> (&str, Option<&str>) {
    let mut start = 0;
    for segment in filter.split('/') {
        if segment == "+" || segment == "#" {
            return (&filter[..start.max(1) - 1], Some(&filter[start..]));
        }
        start += segment.len() + 1;
    }
    (filter, None)
}

/// How many bytes of whole segments `label` and `path` have in common at their beginning.
fn common_segments(label: &str, path: &str) -> usize {
    let mut common = 0;
    for (a, b) in label.split('/').zip(path.split('/')) {
        if a != b {
            break;
        }
        common += a.len() + 1;
    }
    common.max(1) - 1
}

/// `path` without its first `bytes` and the `/` after them; `None` where nothing is left.
fn after(path: &str, bytes: usize) -> Option<&str> {
    path.get(bytes + 1..)
}

impl FilterTree {
    /// Gives `member` the filter. Returns where it stands, or `None` where the member had it already.
    pub(super) fn insert(&mut self, filter: &str, member: u32) -> Option<NodeId> {
        let mut at = ROOT;
        let mut rest = Some(filter);
        while let Some(path) = rest {
            (at, rest) = match split_first(path) {
                ("#", _) => (self.wildcard_child(at, Kind::Hash), None),
                ("+", rest) => (self.wildcard_child(at, Kind::Plus), rest),
                _ => self.plain_child(at, path),
            };
        }
        self.nodes[at as usize].members.insert(member).then_some(at)
    }

    /// Takes the filter from `member`. Returns where it stood, or `None` where the member did not have it.
    pub(super) fn remove(&mut self, filter: &str, member: u32) -> Option<NodeId> {
        let at = self.find(filter)?;
        self.remove_at(at, member).then_some(at)
    }

    /// Takes the filter that stands at `at` from `member`.
    pub(super) fn remove_at(&mut self, at: NodeId, member: u32) -> bool {
        let was = self.nodes[at as usize].members.remove(member);
        self.prune(at);
        was
    }

    /// Adds the members with a filter that matches `topic` to `out`, each of them once.
    pub(super) fn matches(&self, topic: &str, out: &mut Vec<u32>) {
        let before = out.len();
        let mut hits = 0;
        let mut open: smallvec::SmallVec<[(NodeId, Option<&str>); 16]> =
            smallvec::smallvec![(ROOT, Some(topic))];
        while let Some((at, rest)) = open.pop() {
            let node = &self.nodes[at as usize];
            let Some(rest) = rest else {
                hits += usize::from(!node.members.is_empty());
                node.members.extend_into(out);
                continue;
            };
            if node.hash != NONE {
                hits += 1;
                self.nodes[node.hash as usize].members.extend_into(out);
            }
            let (first, left) = split_first(rest);
            if node.plus != NONE {
                open.push((node.plus, left));
            }
            if node.children > 0
                && let Some(child) = self.edge(at, first)
            {
                let label = &*self.nodes[child as usize].label;
                if rest.starts_with(label) {
                    match rest.as_bytes().get(label.len()) {
                        None => open.push((child, None)),
                        Some(b'/') => open.push((child, Some(&rest[label.len() + 1..]))),
                        Some(_) => {}
                    }
                }
            }
        }
        if hits > 1 {
            out[before..].sort_unstable();
            let mut kept = before;
            for i in before..out.len() {
                if kept == before || out[kept - 1] != out[i] {
                    out[kept] = out[i];
                    kept += 1;
                }
            }
            out.truncate(kept);
        }
    }

    /// Whether nobody has any filter.
    pub(super) fn is_empty(&self) -> bool {
        let root = &self.nodes[ROOT as usize];
        root.children == 0 && root.plus == NONE && root.hash == NONE
    }

    fn hash_of(&self, parent: NodeId, segment: &str) -> u64 {
        self.hashing.hash_one((parent, segment))
    }

    fn edge(&self, parent: NodeId, segment: &str) -> Option<NodeId> {
        let same = |id: &NodeId| {
            let node = &self.nodes[*id as usize];
            node.parent == parent && split_first(&node.label).0 == segment
        };
        self.edges.find(self.hash_of(parent, segment), same).copied()
    }

    fn link(&mut self, child: NodeId) {
        let node = &self.nodes[child as usize];
        let hash = self.hash_of(node.parent, split_first(&node.label).0);
        let (nodes, hashing) = (&self.nodes, &self.hashing);
        let rehash = |id: &NodeId| {
            let node = &nodes[*id as usize];
            hashing.hash_one((node.parent, split_first(&node.label).0))
        };
        self.edges.insert_unique(hash, child, rehash);
    }

    fn unlink(&mut self, child: NodeId) {
        let node = &self.nodes[child as usize];
        let hash = self.hash_of(node.parent, split_first(&node.label).0);
        if let Ok(entry) = self.edges.find_entry(hash, |id| *id == child) {
            entry.remove();
        }
        if self.edges.len() < self.edges.capacity() / 4 {
            let (nodes, hashing) = (&self.nodes, &self.hashing);
            let target = self.edges.len() * 2;
            self.edges.shrink_to(target, |id| {
                let node = &nodes[*id as usize];
                hashing.hash_one((node.parent, split_first(&node.label).0))
            });
        }
    }

    fn add(&mut self, node: Node) -> NodeId {
        match self.free.take() {
            Some(id) => {
                self.nodes[id as usize] = node;
                id
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as NodeId
            }
        }
    }

    fn release(&mut self, id: NodeId) {
        self.nodes[id as usize] = Node::new(NONE, Kind::Free, "");
        self.free.release(id, &mut self.nodes);
    }

    fn wildcard_child(&mut self, at: NodeId, kind: Kind) -> NodeId {
        let node = &self.nodes[at as usize];
        let existing = if kind == Kind::Plus { node.plus } else { node.hash };
        if existing != NONE {
            return existing;
        }
        let id = self.add(Node::new(at, kind, ""));
        let node = &mut self.nodes[at as usize];
        *(if kind == Kind::Plus { &mut node.plus } else { &mut node.hash }) = id;
        id
    }

    /// The child of `at` that begins `path`, made or split off as needed, and what of the path is left.
    fn plain_child<'a>(&mut self, at: NodeId, path: &'a str) -> (NodeId, Option<&'a str>) {
        let (plain, wild) = split_plain(path);
        let Some(child) = self.edge(at, split_first(path).0) else {
            let id = self.add(Node::new(at, Kind::Plain, plain));
            self.nodes[at as usize].children += 1;
            self.link(id);
            return (id, wild);
        };
        let label = &self.nodes[child as usize].label;
        let common = common_segments(label, plain);
        let top = if common == label.len() { child } else { self.split(child, common) };
        let rest = if common == plain.len() { wild } else { after(path, common) };
        (top, rest)
    }

    /// Splits the label of `child` after `common` bytes; returns the new upper node.
    fn split(&mut self, child: NodeId, common: usize) -> NodeId {
        self.unlink(child);
        let parent = self.nodes[child as usize].parent;
        let label = std::mem::take(&mut self.nodes[child as usize].label);
        let upper = self.add(Node::new(parent, Kind::Plain, &label[..common]));
        self.nodes[upper as usize].children = 1;
        let lower = &mut self.nodes[child as usize];
        lower.label = label[common + 1..].into();
        lower.parent = upper;
        self.link(upper);
        self.link(child);
        upper
    }

    fn find(&self, filter: &str) -> Option<NodeId> {
        let mut at = ROOT;
        let mut rest = Some(filter);
        while let Some(path) = rest {
            let node = &self.nodes[at as usize];
            (at, rest) = match split_first(path) {
                ("#", _) => (node.hash, None),
                ("+", rest) => (node.plus, rest),
                (first, _) => {
                    let child = self.edge(at, first)?;
                    let label = &*self.nodes[child as usize].label;
                    let left = path.strip_prefix(label)?;
                    match left.strip_prefix('/') {
                        Some(left) => (child, Some(left)),
                        None if left.is_empty() => (child, None),
                        None => return None,
                    }
                }
            };
            if at == NONE {
                return None;
            }
        }
        Some(at)
    }

    /// Takes nodes without purpose away, from `at` upwards.
    fn prune(&mut self, mut at: NodeId) {
        loop {
            let node = &self.nodes[at as usize];
            if node.kind == Kind::Root || !node.members.is_empty() || node.plus != NONE || node.hash != NONE {
                return;
            }
            let (parent, kind) = (node.parent, node.kind);
            match (node.children, kind) {
                (0, Kind::Plain) => {
                    self.unlink(at);
                    self.nodes[parent as usize].children -= 1;
                }
                (0, Kind::Plus) => self.nodes[parent as usize].plus = NONE,
                (0, Kind::Hash) => self.nodes[parent as usize].hash = NONE,
                // A node that only leads to one other is left as it is. Its only child keeps it, so there are
                // never more of them than segments of filters that somebody has.
                _ => return,
            }
            self.release(at);
            if parent == ROOT {
                return;
            }
            at = parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let mut out = vec![];
        tree.matches(topic, &mut out);
        let len = out.len();
        out.sort_unstable();
        out.dedup();
        assert_eq!(out.len(), len, "a member came twice");
        out
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
            assert!(tree.is_empty() && tree.nodes.len() == 1 && tree.edges.is_empty());
        }
    }

    #[test]
    fn deep_filters_cost_little() {
        let mut tree = FilterTree::default();
        let deep = vec!["x"; 1000].join("/");
        tree.insert(&deep, 1).unwrap();
        assert_eq!(tree.nodes.len(), 2, "one node for a thousand plain levels");
        tree.insert(&vec!["+"; 1000].join("/"), 2).unwrap();
        tree.insert(&format!("{}/#", vec!["x"; 500].join("/")), 3).unwrap();
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
                    prop_assert_eq!(tree.insert(&filter, member).is_some(), model.insert(key));
                } else {
                    prop_assert_eq!(tree.remove(&filter, member).is_some(), model.remove(&key));
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
                prop_assert!(tree.remove(&filter, member).is_some());
            }
            prop_assert!(tree.is_empty());
            prop_assert!(tree.edges.is_empty());
        }
    }
}
