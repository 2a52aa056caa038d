//! A set of small numbers that is mostly tiny: four in place, a short list, or a hash set once it is large.

use smallvec::SmallVec;
use std::collections::HashSet;

use super::Hashing;

const LIST_MAX: usize = 32;

/// A set of numbers; iteration has no order.
pub(super) enum IdSet {
    Few(SmallVec<[u32; 4]>),
    #[expect(clippy::box_collection, reason = "in place it would double the size of every node and client")]
    Many(Box<HashSet<u32, Hashing>>),
}

impl Default for IdSet {
    fn default() -> Self {
        IdSet::Few(SmallVec::new())
    }
}

impl IdSet {
    /// Adds; `false` where it was there already.
    pub(super) fn insert(&mut self, id: u32) -> bool {
        match self {
            IdSet::Few(list) if list.contains(&id) => false,
            IdSet::Few(list) if list.len() < LIST_MAX => {
                list.push(id);
                true
            }
            IdSet::Few(list) => {
                let mut set: HashSet<u32, Hashing> = list.iter().copied().collect();
                set.insert(id);
                *self = IdSet::Many(Box::new(set));
                true
            }
            IdSet::Many(set) => set.insert(id),
        }
    }

    /// Removes; `false` where it was not there. A set that has become small gives its memory back.
    pub(super) fn remove(&mut self, id: u32) -> bool {
        match self {
            IdSet::Few(list) => match list.iter().position(|x| *x == id) {
                Some(at) => {
                    list.swap_remove(at);
                    true
                }
                None => false,
            },
            IdSet::Many(set) => {
                let was = set.remove(&id);
                if set.len() <= LIST_MAX / 2 {
                    *self = IdSet::Few(set.iter().copied().collect());
                } else if set.len() < set.capacity() / 4 {
                    set.shrink_to(set.len() * 2);
                }
                was
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            IdSet::Few(list) => list.len(),
            IdSet::Many(set) => set.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn extend_into(&self, out: &mut Vec<u32>) {
        match self {
            IdSet::Few(list) => out.extend_from_slice(list),
            IdSet::Many(set) => out.extend(set.iter()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks() {
        let mut set = IdSet::default();
        for id in 0..1000 {
            assert!(set.insert(id));
            assert!(!set.insert(id));
        }
        assert!(matches!(set, IdSet::Many(_)));
        let mut all = vec![];
        set.extend_into(&mut all);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000));
        for id in 0..999 {
            assert!(set.remove(id));
            assert!(!set.remove(id));
        }
        assert!(matches!(set, IdSet::Few(_)));
        assert_eq!(set.len(), 1);
        assert!(!set.is_empty());
    }
}
