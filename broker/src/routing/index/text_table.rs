//! Numbers by text: a hash table with open addressing and linear probing, its texts in one allocation. The
//! caller limits the number of texts.

use std::hash::{BuildHasher, Hasher};

use crate::routing::Hashing;

const LEAST_SLOTS: usize = 16;

/// Texts of at most 64 KiB, each with a number.
#[derive(Default)]
pub(in crate::routing) struct TextTable {
    /// Empty, or a power of two, at least half of them free.
    slots: Box<[Slot]>,
    entries: Vec<Entry>,
    texts: Vec<u8>,
    hashing: Hashing,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    hash: u32,
    /// Index of the entry plus one; 0: free.
    entry: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    ends: Ends,
    start: u32,
    number: u32,
}

/// The length of a text and its first and last bytes: all of a text of up to [`SHORT_TEXT`] bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ends {
    first: [u64; 2],
    last: [u64; 2],
    len: u32,
}

const SHORT_TEXT: usize = 32;
/// The most texts of [`TextTable::read_ahead`].
const AHEAD: usize = 256;

impl Ends {
    #[inline]
    fn of(text: &[u8]) -> Self {
        let (first, last) = if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
            (words(first), words(last))
        } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
            ([u64::from_le_bytes(*first), u64::from_le_bytes(*last)], [0; 2])
        } else {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(text).for_each(|(place, byte)| *place = *byte);
            ([u64::from_le_bytes(bytes), 0], [0; 2])
        };
        Ends { first, last, len: text.len() as u32 }
    }
}

#[inline]
fn words(bytes: &[u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(*bytes);
    [both as u64, (both >> 64) as u64]
}

impl TextTable {
    /// Returns the memory that one text of this length takes, in bytes.
    pub(in crate::routing) fn bytes_of(len: usize) -> usize {
        // vectors grow to twice what they need, and up to four slots belong to an entry
        let text = if len > SHORT_TEXT { len } else { 0 };
        text * 2 + size_of::<Entry>() * 2 + size_of::<Slot>() * 4
    }

    pub(in crate::routing) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the number of a text.
    #[inline(always)]
    pub(in crate::routing) fn get(&self, text: &[u8]) -> Option<u32> {
        self.find(text).and_then(|entry| self.entries.get(entry)).map(|entry| entry.number)
    }

    /// Reads what [`get`](Self::get) will read for the first [`AHEAD`] of these texts, so that it is then in
    /// the processor's cache. Reads for different texts do not wait for each other.
    #[cold]
    pub(in crate::routing) fn read_ahead<'t>(&self, texts: impl Iterator<Item = &'t [u8]>) {
        let mask = self.slots.len().wrapping_sub(1);
        let mut indices = [0; AHEAD];
        for (index, text) in indices.iter_mut().zip(texts) {
            let hash = self.hash(text, &Ends::of(text)) as u32;
            *index = self.slots.get(hash as usize & mask).map_or(0, |slot| slot.entry);
        }
        let mut sum = 0;
        for entry in indices.iter().filter_map(|index| self.entries.get((*index as usize).wrapping_sub(1))) {
            // an entry may be in two lines
            sum ^= entry.ends.first[0] ^ u64::from(entry.number);
        }
        std::hint::black_box(sum);
    }

    /// Sets the number of a text; returns whether the text is new.
    pub(in crate::routing) fn set(&mut self, text: &[u8], number: u32) -> bool {
        if let Some(entry) = self.find(text).and_then(|entry| self.entries.get_mut(entry)) {
            entry.number = number;
            return false;
        }
        if self.slots.len() < (self.entries.len() + 1) * 2 {
            self.grow();
        }
        let (start, ends) = (self.texts.len() as u32, Ends::of(text));
        if text.len() > SHORT_TEXT {
            self.texts.extend_from_slice(text);
        }
        self.entries.push(Entry { ends, start, number });
        let slot = Slot { hash: self.hash(text, &ends) as u32, entry: self.entries.len() as u32 };
        put(&mut self.slots, slot);
        true
    }

    /// Returns the index of the entry of a text.
    #[inline(always)]
    fn find(&self, text: &[u8]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let ends = Ends::of(text);
        let hash = self.hash(text, &ends) as u32;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots.get(at)?;
            let index = (slot.entry as usize).checked_sub(1)?;
            if slot.hash == hash
                && let Some(entry) = self.entries.get(index)
                && entry.ends == ends
                && (text.len() <= SHORT_TEXT || self.is_text_of(entry, text))
            {
                return Some(index);
            }
            at = (at + 1) & mask;
        }
    }

    /// Returns whether this is the text of an entry, for one that is not short.
    fn is_text_of(&self, entry: &Entry, text: &[u8]) -> bool {
        let known = self.texts.get(entry.start as usize..);
        known.and_then(|known| known.get(..text.len())) == Some(text)
    }

    #[inline]
    fn hash(&self, text: &[u8], ends: &Ends) -> u64 {
        let mut hasher = self.hashing.build_hasher();
        if text.len() <= SHORT_TEXT {
            let [one, two] = ends.first;
            let [three, four] = ends.last;
            hasher.write_u128(u128::from(one) << 64 | u128::from(two));
            hasher.write_u128(u128::from(three) << 64 | u128::from(four));
            hasher.write_u32(ends.len);
        } else {
            hasher.write(text);
        }
        hasher.finish()
    }

    #[cold]
    fn grow(&mut self) {
        let mut slots = vec![Slot::default(); (self.slots.len() * 2).max(LEAST_SLOTS)].into_boxed_slice();
        self.slots.iter().filter(|slot| slot.entry != 0).for_each(|slot| put(&mut slots, *slot));
        self.slots = slots;
    }
}

fn put(slots: &mut [Slot], slot: Slot) {
    let mask = slots.len().wrapping_sub(1);
    let mut at = slot.hash as usize & mask;
    while let Some(taken) = slots.get_mut(at) {
        if taken.entry == 0 {
            *taken = slot;
            return;
        }
        at = (at + 1) & mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn has_every_text_however_many_there_are() {
        let mut table = TextTable::default();
        let text = |number: u32| format!("plant/line{}/{number}", number % 7);
        for number in 0..20_000 {
            assert!(table.set(text(number).as_bytes(), number));
        }
        for number in 0..20_000 {
            assert_eq!(table.get(text(number).as_bytes()), Some(number));
        }
        assert_eq!((table.get(b"plant/line1/0"), table.len()), (None, 20_000));
        let bytes: usize = (0..20_000).map(|number| TextTable::bytes_of(text(number).len())).sum();
        let memory = table.texts.capacity()
            + table.entries.capacity() * size_of::<Entry>()
            + size_of_val(&*table.slots);
        assert!(memory <= bytes, "{memory} of {bytes}");
    }

    #[test]
    fn reading_ahead_changes_nothing() {
        let mut table = TextTable::default();
        let texts: Vec<_> = (0..2 * AHEAD as u32).map(|number| format!("t/{number}")).collect();
        table.read_ahead(texts.iter().map(|text| text.as_bytes()));
        for (number, text) in (0..).zip(&texts[..AHEAD]) {
            table.set(text.as_bytes(), number);
        }
        // more than it reads, half of them unknown
        table.read_ahead(texts.iter().rev().map(|text| text.as_bytes()));
        assert_eq!((table.get(b"t/7"), table.get(b"t/256"), table.len()), (Some(7), None, AHEAD));
    }

    #[test]
    fn texts_that_differ_anywhere_are_not_the_same() {
        for len in 0..70 {
            let text = vec![0; len];
            let mut table = TextTable::default();
            assert!(table.set(&text, 7) && table.get(&text) == Some(7));
            for wrong in 0..len {
                let mut other = text.clone();
                other[wrong] ^= 1;
                assert_eq!(table.get(&other), None, "{wrong} of {len}");
            }
            assert_eq!(table.get(&[&text[..], &[0]].concat()), None);
        }
    }

    proptest! {
        #[test]
        fn equals_a_map(texts in prop::collection::vec(("[ab]{0,20}", any::<u32>()), 0..200)) {
            let (mut table, mut map) = (TextTable::default(), HashMap::new());
            for (text, number) in texts {
                prop_assert_eq!(table.get(text.as_bytes()), map.get(&text).copied());
                prop_assert_eq!(table.set(text.as_bytes(), number), map.insert(text, number).is_none());
            }
            prop_assert_eq!(table.len(), map.len());
            map.iter().for_each(|(text, number)| assert_eq!(table.get(text.as_bytes()), Some(*number)));
        }
    }
}
