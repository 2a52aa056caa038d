//! The free places of a growing list: the lowest is used first, and free places at the end are given back, so that a
//! crowd that came and went leaves nothing behind.

use std::collections::BTreeSet;

/// Indices of a `Vec` that nobody uses.
#[derive(Default)]
pub(super) struct FreeList(BTreeSet<u32>);

impl FreeList {
    /// The lowest free place.
    pub(super) fn take(&mut self) -> Option<u32> {
        self.0.pop_first()
    }

    /// Gives a place of `list` back; those at its end are cut off.
    pub(super) fn release<T>(&mut self, place: u32, list: &mut Vec<T>) {
        self.0.insert(place);
        while self.0.last().is_some_and(|last| *last as usize + 1 == list.len()) {
            self.0.pop_last();
            list.pop();
        }
        if list.len() < list.capacity() / 4 {
            list.shrink_to(list.len() * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_places_first_and_the_end_is_cut_off() {
        let mut list: Vec<u32> = (0..1000).collect();
        let mut free = FreeList::default();
        for place in [5, 998, 3] {
            free.release(place, &mut list);
        }
        assert_eq!(list.len(), 1000);
        free.release(999, &mut list);
        assert_eq!(list.len(), 998);
        assert_eq!((free.take(), free.take(), free.take()), (Some(3), Some(5), None));
        for place in 1..998 {
            free.release(place, &mut list);
        }
        assert_eq!(list.len(), 1);
        assert!(list.capacity() < 10);
    }
}
