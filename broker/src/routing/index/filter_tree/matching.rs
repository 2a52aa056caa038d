//! The filters that a topic matches: the walk over the tree. Owns its order; changes nothing.

use smallvec::SmallVec;

use super::{FilterTree, NONE, Node, NodeId, ROOT, WHOLE, split_first};
use crate::routing::index::id_set::{IdSet, Ids, Union};

/// How a label matches the rest of the topic.
enum Fit<'t> {
    Differs,
    /// The topic ends where the label ends, or the label with `#`.
    Ends,
    /// The rest of the topic after the label.
    Goes(&'t [u8]),
}

#[inline]
fn fit<'t>(label: &[u8], topic: &'t [u8]) -> Fit<'t> {
    if label == b"+" {
        return split_first(topic).1.map_or(Fit::Ends, Fit::Goes);
    }
    // most labels have no wildcards, or are one
    if let Some(rest) = topic.strip_prefix(label)
        && !matches!(label.last(), Some(b'+' | b'#'))
    {
        return match rest {
            [] => Fit::Ends,
            [b'/', rest @ ..] => Fit::Goes(rest),
            _ => Fit::Differs,
        };
    }
    let (mut label, mut topic) = (label, topic);
    loop {
        let (segment, label_left) = split_first(label);
        if segment == b"#" {
            return Fit::Ends;
        }
        let (first, topic_left) = split_first(topic);
        if segment != first && segment != b"+" {
            return Fit::Differs;
        }
        match (label_left, topic_left) {
            (Some(label_left), Some(topic_left)) => (label, topic) = (label_left, topic_left),
            (None, Some(topic_left)) => return Fit::Goes(topic_left),
            (None, None) => return Fit::Ends,
            (Some(_), None) => return Fit::Differs,
        }
    }
}

/// If the matched filters have more members than this in total, they are united as bit sets: sorting would
/// take longer.
const UNITED_MEMBERS: usize = 256;

impl FilterTree {
    /// Adds the members with a filter that matches `topic` to `out`, each of them once. Returns the number of
    /// visited nodes, the measure of its cost, which [`shapes`](crate::routing::shapes) bounds.
    pub(in crate::routing) fn matches(&self, topic: &str, out: &mut Ids) -> usize {
        let mut hits = SmallVec::new();
        let visited = self.hits(topic, &mut hits);
        self.members_of(&hits, out);
        visited
    }

    /// Returns the nodes of the filters of a member that match `topic`.
    pub(in crate::routing) fn nodes_of(&self, topic: &str, member: u32) -> SmallVec<[NodeId; 16]> {
        let mut hits = SmallVec::new();
        self.hits(topic, &mut hits);
        hits.retain(|node| self.nodes[*node].members.contains(member));
        hits
    }

    /// Finds the nodes with members that match `topic`. Returns the number of visited nodes.
    #[inline(always)]
    fn hits(&self, topic: &str, hits: &mut SmallVec<[NodeId; 16]>) -> usize {
        let topic = topic.as_bytes();
        let mut visited = 1;
        let mut hit = |id: NodeId, node: &Node| {
            if !node.members.is_empty() {
                hits.push(id);
            }
        };
        // In a large tree, memory latency dominates: this lookup overlaps with those of the tree.
        let whole = (!self.whole.is_empty()).then(|| self.whole.begin(self.hash_of(WHOLE, topic)));
        let mut open: SmallVec<[(NodeId, &[u8]); 16]> = SmallVec::new();
        let mut next = (ROOT, topic);
        loop {
            let (at, rest) = next;
            let node = &self.nodes[at];
            if node.hash != NONE {
                visited += 1;
                hit(node.hash, &self.nodes[node.hash]);
            }
            if node.plus != NONE {
                visited += 1;
                let child = &self.nodes[node.plus];
                match fit(&child.label, rest) {
                    Fit::Differs => {}
                    Fit::Ends => hit(node.plus, child),
                    Fit::Goes(rest) => open.push((node.plus, rest)),
                }
            }
            if node.children > 0 {
                let first = split_first(rest).0;
                let same = |id| self.is_child(id, at, first);
                if let Some(id) = self.children.find(self.hash_of(at, first), same) {
                    visited += 1;
                    let child = &self.nodes[id];
                    match fit(&child.label, rest) {
                        Fit::Differs => {}
                        Fit::Ends => hit(id, child),
                        Fit::Goes(rest) => {
                            next = (id, rest);
                            continue;
                        }
                    }
                }
            }
            let Some(other) = open.pop() else { break };
            next = other;
        }
        if let Some(search) = whole
            && let Some(id) = self.whole.end(search, |id| self.is_whole(id, topic))
        {
            visited += 1;
            hit(id, &self.nodes[id]);
        }
        visited
    }

    /// Adds the members of these nodes to `out`, each of them once.
    #[inline]
    fn members_of(&self, hits: &[NodeId], out: &mut Ids) {
        match hits {
            [] => {}
            [only] => self.nodes[*only].members.extend_into(out),
            _ => self.members_of_many(hits, out),
        }
    }

    fn members_of_many(&self, hits: &[NodeId], out: &mut Ids) {
        let sets = || hits.iter().map(|id| &self.nodes[*id].members);
        if sets().map(IdSet::len).sum::<usize>() > UNITED_MEMBERS {
            let mut union = Union::default();
            sets().for_each(|set| union.add(set));
            return union.extend_into(out);
        }
        let before = out.len();
        sets().for_each(|set| set.extend_into(out));
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
