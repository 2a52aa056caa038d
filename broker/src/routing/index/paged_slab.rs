//! A growing list with stable numbers, in pages: it grows by a page and never moves values, so no insertion
//! takes long. The lowest free slot is used first, and unused pages are freed, so that many values that came
//! and went leave no memory in use.

use std::{
    collections::BTreeSet,
    ops::{Index, IndexMut},
};

const PAGE: usize = 256;
const WORDS: usize = PAGE / 64;

/// Values by number. A free slot contains the default value.
pub(in crate::routing) struct PagedSlab<T> {
    /// A freed page is empty, unless it was at the end.
    pages: Vec<Box<[T]>>,
    /// The occupied slots of each page, a bit each.
    taken: Vec<[u64; WORDS]>,
    /// Pages with free slots, freed ones included.
    open: BTreeSet<u32>,
    /// An unused page that is kept: a value that comes and goes does not allocate and free a page each time.
    spare: Option<usize>,
}

impl<T> Default for PagedSlab<T> {
    fn default() -> Self {
        PagedSlab { pages: vec![], taken: vec![], open: BTreeSet::new(), spare: None }
    }
}

fn page_of(slot: u32) -> usize {
    slot as usize / PAGE
}

impl<T: Default> PagedSlab<T> {
    /// Stores the value in the lowest free slot and returns its number.
    pub(in crate::routing) fn add(&mut self, value: T) -> u32 {
        let page = match self.open.first() {
            Some(page) => *page as usize,
            None => {
                self.pages.push(Box::default());
                self.taken.push([0; WORDS]);
                let page = self.pages.len() - 1;
                self.open.insert(page as u32);
                page
            }
        };
        if self.pages[page].is_empty() {
            self.pages[page] = (0..PAGE).map(|_| T::default()).collect();
        }
        self.spare = self.spare.filter(|spare| *spare != page);
        let taken = &mut self.taken[page];
        let word = taken.iter().position(|word| *word != u64::MAX).unwrap_or_default();
        let bit = taken[word].trailing_ones() as usize;
        taken[word] |= 1 << bit;
        if taken.iter().all(|word| *word == u64::MAX) {
            self.open.remove(&(page as u32));
        }
        let at = word * 64 + bit;
        self.pages[page][at] = value;
        (page * PAGE + at) as u32
    }

    /// Frees a slot and returns its value.
    pub(in crate::routing) fn release(&mut self, slot: u32) -> T {
        let page = page_of(slot);
        let at = slot as usize % PAGE;
        let value = std::mem::take(&mut self.pages[page][at]);
        self.taken[page][at / 64] &= !(1 << (at % 64));
        self.open.insert(page as u32);
        if self.taken[page] == [0; WORDS] {
            let spare = self.spare.unwrap_or(page);
            self.spare = Some(spare.min(page));
            if spare != page {
                self.pages[spare.max(page)] = Box::default();
                self.cut();
            }
        }
        value
    }

    /// Removes freed pages at the end.
    fn cut(&mut self) {
        while self.pages.last().is_some_and(|page| page.is_empty()) {
            self.pages.pop();
            self.taken.pop();
            self.open.remove(&(self.pages.len() as u32));
        }
        if self.pages.len() < self.pages.capacity() / 4 {
            self.pages.shrink_to(self.pages.len() * 2);
            self.taken.shrink_to(self.taken.len() * 2);
        }
    }
}

impl<T> Index<u32> for PagedSlab<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: u32) -> &T {
        &self.pages[page_of(slot)][slot as usize % PAGE]
    }
}

impl<T> IndexMut<u32> for PagedSlab<T> {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut T {
        &mut self.pages[page_of(slot)][slot as usize % PAGE]
    }
}

#[cfg(test)]
impl<T> PagedSlab<T> {
    /// Returns the number of occupied slots.
    pub(in crate::routing) fn taken(&self) -> usize {
        self.taken.iter().flatten().map(|word| word.count_ones() as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn low_places_first_and_the_end_is_cut_off() {
        let mut list: PagedSlab<u32> = PagedSlab::default();
        for n in 0..1000 {
            assert_eq!(list.add(n), n);
        }
        for slot in [998, 5, 3] {
            assert_eq!(list.release(slot), slot);
        }
        assert_eq!([list.add(1), list.add(2), list.add(3), list.add(4)], [3, 5, 998, 1000]);
        assert_eq!((list[3], list[999], list[1000]), (1, 999, 4));
        for slot in (1..=1000).rev() {
            list.release(slot);
        }
        assert_eq!((list.pages.len(), list.taken()), (2, 1), "one free page is kept");
        assert!(list.pages.capacity() <= 8);
    }

    #[test]
    fn a_page_between_others_is_given_back_and_used_again() {
        let mut list: PagedSlab<u32> = PagedSlab::default();
        (0..10 * PAGE as u32).for_each(|n| _ = list.add(n));
        for slot in PAGE as u32..9 * PAGE as u32 {
            list.release(slot);
        }
        assert_eq!(list.pages.iter().filter(|page| !page.is_empty()).count(), 3, "one free page is kept");
        assert_eq!(list[9 * PAGE as u32], 9 * PAGE as u32);
        for n in PAGE as u32..9 * PAGE as u32 {
            assert_eq!(list.add(n), n);
        }
        assert_eq!(list.add(0), 10 * PAGE as u32);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn equals_a_map(steps in prop::collection::vec((0..3u8, 0..700u32), 1..2000)) {
            let mut list: PagedSlab<u32> = PagedSlab::default();
            let mut model = std::collections::BTreeMap::new();
            for (kind, n) in steps {
                // whole ranges are removed, so that pages become free
                let gone = if kind == 0 { n..n + 300 } else { n..n };
                for slot in gone {
                    if let Some(value) = model.remove(&slot) {
                        prop_assert_eq!(list.release(slot), value);
                    }
                }
                let slot = list.add(n);
                prop_assert_eq!(model.insert(slot, n), None);
                prop_assert!((slot as usize) < model.len(), "not the lowest");
                for (slot, value) in &model {
                    prop_assert_eq!(list[*slot], *value);
                }
            }
            prop_assert_eq!(list.taken(), model.len());
            let there = list.pages.iter().filter(|page| !page.is_empty()).count();
            let used: BTreeSet<_> = model.keys().map(|slot| page_of(*slot)).collect();
            prop_assert_eq!(there, used.len() + usize::from(list.spare.is_some()));
        }
    }
}
