//! Finds numbers by the hash of their values: one probe of neighbouring slots, which hold hash and number. A
//! value is compared only if the whole hash matches.
//!
//! The index is divided into parts by hash. Each is a table with linear probing that grows and shrinks by
//! itself, so one insertion moves at most one part.

const PARTS: usize = 256;
const LEAST_SLOTS: usize = 4;

/// Numbers by hash. No number is 0.
pub(in crate::routing) struct HashIndex {
    parts: Box<[Part]>,
    len: usize,
}

#[derive(Clone, Default)]
struct Part {
    /// Empty, or a power of two, a quarter of them free.
    slots: Box<[Slot]>,
    len: usize,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    hash: u32,
    /// 0: free.
    place: u32,
}

impl Default for HashIndex {
    fn default() -> Self {
        HashIndex { parts: vec![Part::default(); PARTS].into(), len: 0 }
    }
}

/// A search that has begun: the contents of its first slot.
#[derive(Clone, Copy)]
pub(in crate::routing) struct Search {
    hash: u64,
    home: Slot,
}

/// The highest bits of the hash select the part, the lowest the slot.
fn part_of(hash: u64) -> usize {
    (hash >> 56) as usize
}

impl HashIndex {
    pub(in crate::routing) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Begins a search for a hash. Several searches that begin before the first ends overlap their memory
    /// latency.
    #[inline]
    pub(in crate::routing) fn begin(&self, hash: u64) -> Search {
        let slots = &self.parts[part_of(hash)].slots;
        let home = slots.get(hash as usize & slots.len().wrapping_sub(1)).copied();
        Search { hash, home: home.unwrap_or_default() }
    }

    /// The place with the hash that is the one meant.
    #[inline]
    pub(in crate::routing) fn end(&self, search: Search, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let Search { hash, home } = search;
        if home.place == 0 {
            return None;
        }
        if home.hash == hash as u32 && is_it(home.place) {
            return Some(home.place);
        }
        self.parts[part_of(hash)].find(hash as u32, 1, &mut is_it).map(|(_, place)| place)
    }

    /// Begins and ends a search.
    #[inline]
    pub(in crate::routing) fn find(&self, hash: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.end(self.begin(hash), is_it)
    }

    /// Adds a number that is not in the index.
    pub(in crate::routing) fn insert(&mut self, hash: u64, place: u32) {
        let part = &mut self.parts[part_of(hash)];
        if (part.len + 1) * 4 > part.slots.len() * 3 {
            part.resize((part.slots.len() * 2).max(LEAST_SLOTS));
        }
        part.len += 1;
        self.len += 1;
        part.put(Slot { hash: hash as u32, place });
    }

    /// Removes a number.
    pub(in crate::routing) fn remove(&mut self, hash: u64, place: u32) {
        let part = &mut self.parts[part_of(hash)];
        let Some((at, _)) = part.find(hash as u32, 0, &mut |other| other == place) else { return };
        part.close(at);
        part.len -= 1;
        self.len -= 1;
        if part.len * 8 <= part.slots.len() {
            part.resize(if part.len == 0 { 0 } else { (part.slots.len() / 2).max(LEAST_SLOTS) });
        }
    }
}

impl Part {
    /// Continues a search at this many slots after the first one.
    #[inline]
    fn find(&self, hash: u32, skipped: usize, is_it: &mut impl FnMut(u32) -> bool) -> Option<(usize, u32)> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = (hash as usize + skipped) & mask;
        loop {
            let slot = self.slots[at];
            if slot.place == 0 {
                return None;
            }
            if slot.hash == hash && is_it(slot.place) {
                return Some((at, slot.place));
            }
            at = (at + 1) & mask;
        }
    }

    fn put(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.hash as usize & mask;
        while self.slots[at].place != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    /// Frees a slot. Entries after it that would no longer be found move up.
    fn close(&mut self, mut free: usize) {
        let mask = self.slots.len() - 1;
        let mut at = free;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot.place == 0 {
                break;
            }
            let home = slot.hash as usize & mask;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(free) & mask {
                self.slots[free] = slot;
                free = at;
            }
        }
        self.slots[free] = Slot::default();
    }

    fn resize(&mut self, slots: usize) {
        if slots == self.slots.len() {
            return;
        }
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); slots].into());
        old.iter().filter(|slot| slot.place != 0).for_each(|slot| self.put(*slot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grows_and_shrinks_by_parts() {
        let mut index = HashIndex::default();
        let hash = |n: u32| u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for n in 1..100_000 {
            index.insert(hash(n), n);
        }
        for n in 1..100_000 {
            assert_eq!(index.find(hash(n), |place| place == n), Some(n));
        }
        let most = index.parts.iter().map(|part| part.slots.len()).max().unwrap();
        assert!(most <= 2048, "{most}");
        (1..100_000).for_each(|n| index.remove(hash(n), n));
        assert!(index.is_empty() && index.parts.iter().all(|part| part.slots.is_empty()));
    }

    proptest! {
        #[test]
        fn equals_a_set(steps in prop::collection::vec((any::<bool>(), 0..8u32, 1..40u32), 1..300)) {
            // few homes, so slots are shared, wrap around and move up
            let mut index = HashIndex::default();
            let mut model = std::collections::BTreeSet::new();
            for (add, home, place) in steps {
                let home = u64::from(home.wrapping_sub(4));
                if !add {
                    index.remove(home, place);
                    model.remove(&(home, place));
                } else if model.insert((home, place)) {
                    index.insert(home, place);
                }
                for home in (0..8u32).map(|home| u64::from(home.wrapping_sub(4))) {
                    for place in 1..40 {
                        let expected = model.contains(&(home, place)).then_some(place);
                        prop_assert_eq!(index.find(home, |other| other == place), expected);
                    }
                }
            }
            model.iter().for_each(|(home, place)| index.remove(*home, *place));
            prop_assert!(index.is_empty());
        }
    }
}
