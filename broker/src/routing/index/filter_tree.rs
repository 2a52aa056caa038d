//! Topic filters of many members, and which members a topic matches (protocol section 6).
//!
//! Filters without wildcards are found by a hash of their whole text. The others are in a tree over their
//! segments: a node holds as many segments as no filter branches at, wildcards included, and its children
//! differ in their first segment. Matching visits only nodes that lead to filters with wildcards and agree
//! with the topic so far, each at most once.
//!
//! Filters without wildcards and children are found by hash, so a node is small: one cache line if its label
//! is short. A lookup does not depend on the number of siblings.
//!
//! A filter ends at its `#`: `a/#/b` is the filter `a/#`.

mod matching;

use std::hash::{BuildHasher, Hasher};

use super::{hash_index::HashIndex, id_set::IdSet, label::Label, paged_slab::PagedSlab};
use crate::routing::Hashing;

/// The node of a filter. Valid while at least one member has the filter.
pub(in crate::routing) type NodeId = u32;

/// The root of the tree.
const ROOT: NodeId = 0;
const NONE: NodeId = 0;
/// Stands for the parent of a filter without wildcards, which is not in the tree.
const WHOLE: NodeId = NodeId::MAX;

#[derive(Default)]
#[repr(align(64))]
struct Node {
    /// One or more segments, joined by `/`. `#` is only the last one. Unused in the root.
    label: Label,
    members: IdSet,
    parent: NodeId,
    /// The child whose label begins with `+`.
    plus: NodeId,
    /// The child whose label is `#`.
    hash: NodeId,
    /// The number of other children.
    children: u32,
}

/// Filters and the members that have them.
pub(in crate::routing) struct FilterTree {
    nodes: PagedSlab<Node>,
    /// Filters without wildcards by their text.
    whole: HashIndex,
    /// Children by parent and the first segment of their label. Separate from `whole`: a topic looks up many
    /// that do not exist, which touches less memory here.
    children: HashIndex,
    hashing: Hashing,
}

impl Default for FilterTree {
    fn default() -> Self {
        let mut nodes = PagedSlab::default();
        nodes.add(Node::default());
        FilterTree {
            nodes,
            whole: HashIndex::default(),
            children: HashIndex::default(),
            hashing: Hashing::default(),
        }
    }
}

fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
}

/// The first segment of a path and, unless it was the last one, the rest.
#[inline]
fn split_first(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(end) => (&path[..end], Some(&path[end + 1..])),
        None => (path, None),
    }
}

/// A filter up to its `#`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::routing) struct Filter<'f> {
    text: &'f [u8],
    is_wild: bool,
}

impl<'f> From<&'f str> for Filter<'f> {
    fn from(filter: &'f str) -> Self {
        let text = filter.as_bytes();
        let (mut is_wild, mut start) = (false, 0);
        for segment in segments(text) {
            if segment == b"#" {
                return Filter { text: &text[..=start], is_wild: true };
            }
            is_wild |= segment == b"+";
            start += segment.len() + 1;
        }
        Filter { text, is_wild }
    }
}

impl<'f> Filter<'f> {
    /// Returns its text.
    pub(in crate::routing) fn text(self) -> &'f [u8] {
        self.text
    }

    /// Returns whether it has a `+` or a `#`.
    pub(in crate::routing) fn is_wild(self) -> bool {
        self.is_wild
    }

    /// Returns its segments, a `#` included.
    pub(in crate::routing) fn segments(self) -> impl Iterator<Item = &'f [u8]> {
        segments(self.text)
    }
}

/// Returns the length of the whole segments that `label` and `path` share at their beginning. They share the
/// first segment.
fn common_segments(label: &[u8], path: &[u8]) -> usize {
    let common = segments(label).zip(segments(path)).take_while(|(a, b)| a == b);
    common.map(|(segment, _)| segment.len() + 1).sum::<usize>().max(1) - 1
}

/// Returns `path` without its first `bytes` and the `/` after them; `None` if nothing is left.
fn after(path: &[u8], bytes: usize) -> Option<&[u8]> {
    path.get(bytes + 1..)
}

impl FilterTree {
    /// Adds the filter to `member`. Returns its node, or `None` if the member had it already.
    pub(in crate::routing) fn insert<'f>(
        &mut self,
        filter: impl Into<Filter<'f>>,
        member: u32,
    ) -> Option<NodeId> {
        let filter = filter.into();
        let at = if filter.is_wild { self.place_wild(filter.text) } else { self.place_whole(filter.text) };
        self.nodes[at].members.insert(member).then_some(at)
    }

    /// Removes the filter from `member`. Returns its node, or `None` if the member did not have it.
    pub(in crate::routing) fn remove<'f>(
        &mut self,
        filter: impl Into<Filter<'f>>,
        member: u32,
    ) -> Option<NodeId> {
        let at = self.find(filter.into())?;
        self.remove_at(at, member).then_some(at)
    }

    /// Returns whether `member` has the filter.
    pub(in crate::routing) fn has(&self, filter: Filter<'_>, member: u32) -> bool {
        self.find(filter).is_some_and(|at| self.nodes[at].members.contains(member))
    }

    /// Returns the node of a filter that some member has.
    pub(in crate::routing) fn find(&self, filter: Filter<'_>) -> Option<NodeId> {
        if filter.is_wild { self.find_wild(filter.text) } else { self.find_whole(filter.text) }
    }

    /// Removes the filter of the node `at` from `member`.
    pub(in crate::routing) fn remove_at(&mut self, at: NodeId, member: u32) -> bool {
        let was = self.nodes[at].members.remove(member);
        self.prune(at);
        was
    }

    /// Returns the filter of the node `at`, up to its `#`.
    pub(in crate::routing) fn text_at(&self, at: NodeId) -> String {
        let (mut labels, mut at) = (vec![], at);
        while at != ROOT {
            let node = &self.nodes[at];
            labels.push(&*node.label);
            at = if node.parent == WHOLE { ROOT } else { node.parent };
        }
        labels.reverse();
        String::from_utf8_lossy(&labels.join(&b'/')).into_owned()
    }

    /// Returns whether there are no filters.
    pub(in crate::routing) fn is_empty(&self) -> bool {
        let root = &self.nodes[ROOT];
        self.whole.is_empty() && root.children == 0 && root.plus == NONE && root.hash == NONE
    }

    #[inline]
    fn hash_of(&self, parent: NodeId, text: &[u8]) -> u64 {
        let mut hasher = self.hashing.build_hasher();
        hasher.write_u32(parent);
        hasher.write(text);
        hasher.finish()
    }

    #[inline]
    fn is_whole(&self, id: NodeId, filter: &[u8]) -> bool {
        let node = &self.nodes[id];
        node.parent == WHOLE && *node.label == *filter
    }

    #[inline]
    fn is_child(&self, id: NodeId, parent: NodeId, segment: &[u8]) -> bool {
        let node = &self.nodes[id];
        let label = &*node.label;
        node.parent == parent
            && matches!(label.get(segment.len()), None | Some(b'/'))
            && label.starts_with(segment)
    }

    /// Returns the node of a filter without wildcards.
    fn find_whole(&self, filter: &[u8]) -> Option<NodeId> {
        self.whole.find(self.hash_of(WHOLE, filter), |id| self.is_whole(id, filter))
    }

    fn child(&self, at: NodeId, segment: &[u8]) -> Option<NodeId> {
        let child = match segment {
            b"+" => self.nodes[at].plus,
            b"#" => self.nodes[at].hash,
            _ => return self.children.find(self.hash_of(at, segment), |id| self.is_child(id, at, segment)),
        };
        (child != NONE).then_some(child)
    }

    fn attach(&mut self, child: NodeId) {
        let parent = self.nodes[child].parent;
        match split_first(&self.nodes[child].label).0 {
            b"+" => self.nodes[parent].plus = child,
            b"#" => self.nodes[parent].hash = child,
            segment => {
                self.children.insert(self.hash_of(parent, segment), child);
                self.nodes[parent].children += 1;
            }
        }
    }

    fn detach(&mut self, child: NodeId) {
        let parent = self.nodes[child].parent;
        match split_first(&self.nodes[child].label).0 {
            b"+" => self.nodes[parent].plus = NONE,
            b"#" => self.nodes[parent].hash = NONE,
            segment => {
                self.children.remove(self.hash_of(parent, segment), child);
                self.nodes[parent].children -= 1;
            }
        }
    }

    fn add(&mut self, parent: NodeId, label: &[u8]) -> NodeId {
        self.nodes.add(Node { parent, label: label.into(), ..Default::default() })
    }

    fn place_whole(&mut self, filter: &[u8]) -> NodeId {
        self.find_whole(filter).unwrap_or_else(|| {
            let id = self.add(WHOLE, filter);
            self.whole.insert(self.hash_of(WHOLE, filter), id);
            id
        })
    }

    /// Returns the node of a filter with wildcards, created or split off if necessary.
    fn place_wild(&mut self, filter: &[u8]) -> NodeId {
        let mut at = ROOT;
        let mut rest = Some(filter);
        while let Some(path) = rest {
            let Some(child) = self.child(at, split_first(path).0) else {
                let id = self.add(at, path);
                self.attach(id);
                return id;
            };
            let label = &self.nodes[child].label;
            let common = common_segments(label, path);
            at = if common == label.len() { child } else { self.split(child, common) };
            rest = after(path, common);
        }
        at
    }

    /// Splits the label of `child` after `common` bytes. Returns the new upper node.
    fn split(&mut self, child: NodeId, common: usize) -> NodeId {
        self.detach(child);
        let label = std::mem::take(&mut self.nodes[child].label);
        let upper = self.add(self.nodes[child].parent, &label[..common]);
        self.attach(upper);
        let lower = &mut self.nodes[child];
        lower.label = label[common + 1..].into();
        lower.parent = upper;
        self.attach(child);
        upper
    }

    fn find_wild(&self, filter: &[u8]) -> Option<NodeId> {
        let mut at = ROOT;
        let mut rest = Some(filter);
        while let Some(path) = rest {
            at = self.child(at, split_first(path).0)?;
            let left = path.strip_prefix(&*self.nodes[at].label)?;
            rest = match left {
                [] => None,
                [b'/', left @ ..] => Some(left),
                _ => return None,
            };
        }
        Some(at)
    }

    /// Removes nodes without members and children, from `at` upwards.
    fn prune(&mut self, mut at: NodeId) {
        while at != ROOT {
            let node = &self.nodes[at];
            // A node that only leads to one other is kept. Its only child keeps it, so there are never more
            // of them than segments of filters in use.
            if !node.members.is_empty() || node.children > 0 || node.plus != NONE || node.hash != NONE {
                return;
            }
            let parent = node.parent;
            if parent == WHOLE {
                self.whole.remove(self.hash_of(WHOLE, &node.label), at);
                self.nodes.release(at);
                return;
            }
            self.detach(at);
            self.nodes.release(at);
            at = parent;
        }
    }
}

#[cfg(test)]
mod tests;
