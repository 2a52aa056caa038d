//! A set of slot numbers: three inline, more as bits in an ordered map. Slots are assigned from the lowest
//! on, so the numbers of one client are close together and take little more than a bit each. No insertion
//! takes long, however large the set is.

use smallvec::SmallVec;
use std::collections::BTreeMap;

const FEW: usize = 3;

/// Numbers collected from sets.
pub(in crate::routing) type Ids = SmallVec<[u32; 32]>;

/// A set of numbers.
pub(in crate::routing) enum IdSet {
    Few { len: u8, ids: [u32; FEW] },
    Many(Box<Bits>),
}

/// Bit sets of 64 numbers each, by the number divided by 64.
#[derive(Default)]
pub(in crate::routing) struct Bits {
    len: usize,
    words: BTreeMap<u32, u64>,
}

impl Bits {
    fn insert(&mut self, id: u32) -> bool {
        let word = self.words.entry(id / 64).or_default();
        let new = *word & (1 << (id % 64)) == 0;
        *word |= 1 << (id % 64);
        self.len += usize::from(new);
        new
    }

    fn remove(&mut self, id: u32) -> bool {
        let Some(word) = self.words.get_mut(&(id / 64)) else { return false };
        let was = *word & (1 << (id % 64)) != 0;
        *word &= !(1 << (id % 64));
        self.len -= usize::from(was);
        if *word == 0 {
            self.words.remove(&(id / 64));
        }
        was
    }

    fn contains(&self, id: u32) -> bool {
        self.words.get(&(id / 64)).is_some_and(|word| word & (1 << (id % 64)) != 0)
    }

    fn each(&self, mut found: impl FnMut(u32)) {
        self.words.iter().for_each(|(high, word)| each_bit(*high, *word, &mut found));
    }
}

/// Calls `found` for each number whose bit is set in a word.
fn each_bit(high: u32, mut word: u64, mut found: impl FnMut(u32)) {
    while word != 0 {
        found(high * 64 + word.trailing_zeros());
        word &= word - 1;
    }
}

/// The union of sets with many common members: a bit for each number up to the greatest one. Adding a set
/// takes time proportional to its words, not its members.
#[derive(Default)]
pub(in crate::routing) struct Union(Vec<u64>);

impl Union {
    pub(in crate::routing) fn add(&mut self, set: &IdSet) {
        match set {
            IdSet::Few { len, ids } => {
                few(*len, ids).iter().for_each(|id| self.word(id / 64, 1 << (id % 64)))
            }
            IdSet::Many(bits) => bits.words.iter().for_each(|(high, word)| self.word(*high, *word)),
        }
    }

    fn word(&mut self, high: u32, bits: u64) {
        let high = high as usize;
        if self.0.len() <= high {
            self.0.resize(high + 1, 0);
        }
        self.0[high] |= bits;
    }

    /// Adds its numbers to `out`, in order.
    pub(in crate::routing) fn extend_into(&self, out: &mut Ids) {
        self.0.iter().zip(0..).for_each(|(word, high)| each_bit(high, *word, |id| out.push(id)));
    }
}

impl Default for IdSet {
    fn default() -> Self {
        IdSet::Few { len: 0, ids: [0; FEW] }
    }
}

fn few(len: u8, ids: &[u32; FEW]) -> &[u32] {
    &ids[..usize::from(len).min(FEW)]
}

impl IdSet {
    /// Adds a number. Returns `false` if it was in the set.
    pub(in crate::routing) fn insert(&mut self, id: u32) -> bool {
        match self {
            IdSet::Few { len, ids } if few(*len, ids).contains(&id) => false,
            IdSet::Few { len, ids } => {
                if let Some(free) = ids.get_mut(usize::from(*len)) {
                    *free = id;
                    *len += 1;
                } else {
                    let mut bits = Bits::default();
                    ids.iter().chain([&id]).for_each(|id| _ = bits.insert(*id));
                    *self = IdSet::Many(Box::new(bits));
                }
                true
            }
            IdSet::Many(bits) => bits.insert(id),
        }
    }

    /// Removes a number. Returns `false` if it was not in the set. A set that has become small returns its
    /// memory.
    pub(in crate::routing) fn remove(&mut self, id: u32) -> bool {
        match self {
            IdSet::Few { len, ids } => {
                let Some(at) = few(*len, ids).iter().position(|other| *other == id) else { return false };
                *len -= 1;
                ids[at] = ids[usize::from(*len)];
                true
            }
            IdSet::Many(bits) => {
                let was = bits.remove(id);
                // one fewer than fit inline: a number that comes and goes at the limit allocates nothing
                if bits.len < FEW {
                    let mut few = IdSet::default();
                    bits.each(|id| _ = few.insert(id));
                    *self = few;
                }
                was
            }
        }
    }

    pub(in crate::routing) fn len(&self) -> usize {
        match self {
            IdSet::Few { len, .. } => usize::from(*len),
            IdSet::Many(bits) => bits.len,
        }
    }

    pub(in crate::routing) fn contains(&self, id: u32) -> bool {
        match self {
            IdSet::Few { len, ids } => few(*len, ids).contains(&id),
            IdSet::Many(bits) => bits.contains(id),
        }
    }

    #[inline]
    pub(in crate::routing) fn is_empty(&self) -> bool {
        // `Many` is never empty
        matches!(self, IdSet::Few { len: 0, .. })
    }

    pub(in crate::routing) fn extend_into(&self, out: &mut Ids) {
        match self {
            IdSet::Few { len, ids } => out.extend_from_slice(few(*len, ids)),
            IdSet::Many(bits) => {
                out.reserve(bits.len);
                bits.each(|id| out.push(id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NUMBERS: &[u32] = &[0, 1, 62, 63, 64, 130, u32::MAX];

    #[test]
    fn grows_and_shrinks() {
        let mut set = IdSet::default();
        for id in 0..1000 {
            assert!(set.insert(id));
            assert!(!set.insert(id));
        }
        assert!(matches!(set, IdSet::Many(_)));
        let mut all = Ids::new();
        set.extend_into(&mut all);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000));
        for id in 0..999 {
            assert!(set.remove(id));
            assert!(!set.remove(id));
        }
        assert!(matches!(set, IdSet::Few { .. }));
        assert_eq!(set.len(), 1);
        assert!(!set.is_empty());
        assert_eq!(size_of::<IdSet>(), 16);
    }

    proptest! {
        #[test]
        fn a_union_has_the_numbers_of_all_sets_once_and_in_order(
            numbers in prop::collection::vec(prop::collection::vec(0..300u32, 0..20), 0..20),
        ) {
            let mut union = Union::default();
            for numbers in &numbers {
                let mut set = IdSet::default();
                numbers.iter().for_each(|id| _ = set.insert(*id));
                union.add(&set);
            }
            let mut all = Ids::new();
            union.extend_into(&mut all);
            let expected: std::collections::BTreeSet<_> = numbers.into_iter().flatten().collect();
            prop_assert!(all.into_iter().eq(expected));
        }

        #[test]
        fn equals_a_set(
            steps in prop::collection::vec((any::<bool>(), prop::sample::select(NUMBERS)), 1..100)
        ) {
            let mut set = IdSet::default();
            let mut model = std::collections::BTreeSet::new();
            for (add, id) in steps {
                if add {
                    prop_assert_eq!(set.insert(id), model.insert(id));
                } else {
                    prop_assert_eq!(set.remove(id), model.remove(&id));
                }
                let mut all = Ids::new();
                set.extend_into(&mut all);
                all.sort_unstable();
                prop_assert!(all.iter().eq(&model));
                prop_assert_eq!((set.len(), set.is_empty()), (model.len(), model.is_empty()));
                for id in NUMBERS.iter().copied() {
                    prop_assert_eq!(set.contains(id), model.contains(&id));
                }
            }
        }
    }
}
