//! Complex filters: many of them can match one topic. Owns their total cost, which bounds how many nodes of
//! the tree one publication visits; never sees a topic.
//!
//! The *shape* of a filter is its number of segments and the positions of its wildcards: `a/+/c` and `x/+/z`
//! have the same shape. A topic matches at most one filter of a shape, and a walk over the tree visits at
//! most one node for each prefix of a shape. The number of [ordinary](is_complex) shapes is fixed. All others
//! are complex: the number of segments of all complex shapes in use is limited, for one client, for one
//! identity and for all together. So a publication visits at most [`MOST_ORDINARY`] nodes plus that limit,
//! whatever the subscriptions are.

use smallvec::SmallVec;
use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, Hasher},
};

use super::{Hashing, index::filter_tree::Filter};

/// Filters of up to this many segments can have wildcards anywhere.
const FREE_SEGMENTS: usize = 8;
/// Filters of up to this many segments can have a few `+` anywhere, and a `#` at the end.
const ORDINARY_SEGMENTS: usize = 16;
const FEW_PLUSES: usize = 2;
/// A longer filter with wildcards counts by itself and by its length: comparing it takes time as well.
const ORDINARY_BYTES: usize = 1024;
/// Bytes of a long filter that cost as much as a segment.
const BYTES_PER_SEGMENT: usize = 64;
/// One client may have an eighth of what all may have together.
const CLIENTS_PART: usize = 8;
/// All clients of one identity may have half of it: some is left for others.
const IDENTITYS_PART: usize = 2;

/// The most nodes that a topic visits if all filters are ordinary: the root and each prefix of an ordinary
/// shape.
#[cfg(test)]
pub(super) const MOST_ORDINARY: usize = 2074;

/// Whether a filter is complex, and how many segments it has where it has wildcards.
pub(super) fn is_complex(filter: Filter<'_>) -> (bool, usize) {
    if !filter.is_wild() {
        return (false, 0);
    }
    let (mut segments, mut pluses) = (0, 0);
    for segment in filter.segments() {
        segments += 1;
        pluses += usize::from(segment == b"+");
    }
    let is_flat = segments <= FREE_SEGMENTS || segments <= ORDINARY_SEGMENTS && pluses <= FEW_PLUSES;
    (!is_flat || filter.text().len() > ORDINARY_BYTES, segments)
}

/// Returns the kind of a segment in a shape.
fn kind(segment: &[u8]) -> u8 {
    match segment {
        b"+" => b'+',
        b"#" => b'#',
        _ => b'x',
    }
}

/// The shape of a complex filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    key: u64,
    cost: u32,
}

/// The complex shapes that one client uses, or all clients of one identity.
#[derive(Default)]
pub(super) struct ClientShapes {
    /// The identity of the client, as a number.
    identity: u64,
    in_use: HashMap<u64, InUse, Hashing>,
    cost: usize,
}

/// The complex shapes in use.
#[derive(Default)]
pub(super) struct Shapes {
    hashing: Hashing,
    in_use: HashMap<u64, InUse, Hashing>,
    cost: usize,
    by_identity: HashMap<u64, ClientShapes, Hashing>,
}

struct InUse {
    /// The number of filters of the client with the shape, or of clients, in total or of an identity, that
    /// have such filters.
    users: u32,
    cost: u32,
}

impl Shapes {
    /// Returns an identity as a number that clients cannot predict.
    pub(super) fn number(&self, identity: impl Hash) -> u64 {
        self.hashing.hash_one(identity)
    }

    /// Returns the shape of a filter; `None` if it is ordinary.
    pub(super) fn of(&self, filter: Filter<'_>) -> Option<Shape> {
        let (true, segments) = is_complex(filter) else { return None };
        let bytes = filter.text().len();
        let mut hasher = self.hashing.build_hasher();
        let mut cost = segments;
        if bytes > ORDINARY_BYTES {
            hasher.write(filter.text());
            cost += bytes / BYTES_PER_SEGMENT;
        } else {
            let kinds: SmallVec<[u8; 64]> = filter.segments().map(kind).collect();
            hasher.write(&kinds);
            hasher.write_usize(segments);
        }
        Some(Shape { key: hasher.finish(), cost: u32::try_from(cost).unwrap_or(u32::MAX) })
    }

    /// Counts one more filter of the shape. Returns `false` if that exceeds a limit: then nothing is counted.
    pub(super) fn reserve(&mut self, own: &mut ClientShapes, shape: Shape, limit: usize) -> bool {
        if let Some(used) = own.in_use.get_mut(&shape.key) {
            used.users += 1;
            return true;
        }
        let cost = shape.cost as usize;
        let more = if self.in_use.contains_key(&shape.key) { 0 } else { cost };
        let of_identity = self.by_identity.get(&own.identity);
        let more_of_identity = match of_identity {
            Some(shapes) if shapes.in_use.contains_key(&shape.key) => 0,
            _ => cost,
        };
        let has_identity = of_identity.map_or(0, |shapes| shapes.cost);
        if own.cost + cost > limit / CLIENTS_PART
            || has_identity + more_of_identity > limit / IDENTITYS_PART
            || self.cost + more > limit
        {
            return false;
        }
        let of_identity = self.by_identity.entry(own.identity).or_default();
        of_identity.cost += more_of_identity;
        of_identity.in_use.entry(shape.key).or_insert(InUse { users: 0, cost: shape.cost }).users += 1;
        self.cost += more;
        self.in_use.entry(shape.key).or_insert(InUse { users: 0, cost: shape.cost }).users += 1;
        own.in_use.insert(shape.key, InUse { users: 1, cost: shape.cost });
        own.cost += cost;
        true
    }

    /// Counts one filter of the shape less.
    pub(super) fn release(&mut self, own: &mut ClientShapes, shape: Shape) {
        if let Some(cost) = use_less(&mut own.in_use, shape.key) {
            own.cost -= cost;
            self.give_back(own.identity, shape.key);
        }
    }

    /// Releases all shapes of a client that has left.
    pub(super) fn release_all(&mut self, own: &ClientShapes) {
        own.in_use.keys().for_each(|key| self.give_back(own.identity, *key));
    }

    fn give_back(&mut self, identity: u64, key: u64) {
        if let Some(shapes) = self.by_identity.get_mut(&identity) {
            shapes.cost -= use_less(&mut shapes.in_use, key).unwrap_or_default();
            if shapes.is_empty() {
                self.by_identity.remove(&identity);
            }
        }
        self.cost -= use_less(&mut self.in_use, key).unwrap_or_default();
    }

    /// Returns the cost of all complex shapes in use.
    #[cfg(test)]
    pub(super) fn cost(&self) -> usize {
        self.cost
    }
}

/// Counts one user less. Returns the cost of the shape if that was the last one.
fn use_less(shapes: &mut HashMap<u64, InUse, Hashing>, key: u64) -> Option<usize> {
    let used = shapes.get_mut(&key)?;
    used.users -= 1;
    if used.users > 0 {
        return None;
    }
    shapes.remove(&key).map(|used| used.cost as usize)
}

impl ClientShapes {
    /// Creates the shapes of a client without complex filters.
    pub(super) fn of(identity: u64) -> Self {
        ClientShapes { identity, ..ClientShapes::default() }
    }

    /// Returns whether the client has no complex filter.
    pub(super) fn is_empty(&self) -> bool {
        self.in_use.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests;
