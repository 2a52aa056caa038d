//! Numbers by text: a hash table with open addressing and linear probing, its texts in one piece of memory.
//! Owns how texts are found; the caller bounds how many there are.

use std::hash::{BuildHasher, Hash, Hasher};

use crate::routing::Hashing;

const LEAST_SLOTS: usize = 16;

/// Texts of at most 64 KiB, each with a number.
#[derive(Default)]
pub(in crate::routing) struct TextTable {
    /// None, or a power of two, at least half of them free.
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
    start: u32,
    len: u32,
    number: u32,
}

/// Bytes, hashed without the length that slices add.
struct Text<'a>(&'a [u8]);

impl Hash for Text<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}

impl TextTable {
    /// Returns the memory that one text of this length takes, in bytes.
    pub(in crate::routing) fn bytes_of(len: usize) -> usize {
        // vectors grow to twice what they need, and up to four slots belong to an entry
        len * 2 + size_of::<Entry>() * 2 + size_of::<Slot>() * 4
    }

    pub(in crate::routing) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the number of a text.
    #[inline]
    pub(in crate::routing) fn get(&self, text: &[u8]) -> Option<u32> {
        self.find(text).and_then(|entry| self.entries.get(entry)).map(|entry| entry.number)
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
        let start = self.texts.len() as u32;
        self.texts.extend_from_slice(text);
        self.entries.push(Entry { start, len: text.len() as u32, number });
        let slot = Slot { hash: self.hash(text) as u32, entry: self.entries.len() as u32 };
        put(&mut self.slots, slot);
        true
    }

    /// Returns the index of the entry of a text.
    #[inline]
    fn find(&self, text: &[u8]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let hash = self.hash(text) as u32;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots.get(at)?;
            let index = (slot.entry as usize).checked_sub(1)?;
            if slot.hash == hash
                && let Some(entry) = self.entries.get(index)
                && let Some(known) = self.texts.get(entry.start as usize..)
                && entry.len as usize == text.len()
                && let Some(known) = known.get(..text.len())
                && is_same(known, text)
            {
                return Some(index);
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn hash(&self, text: &[u8]) -> u64 {
        self.hashing.hash_one(Text(text))
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

/// Compares texts of the same length, those of 8 to 32 bytes without a call: by their first and last bytes.
#[inline]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() <= 32
        && let (Some(start), Some(end)) = (one.first_chunk::<16>(), one.last_chunk::<16>())
        && let (Some(other_start), Some(other_end)) = (other.first_chunk(), other.last_chunk())
    {
        return start == other_start && end == other_end;
    }
    if one.len() <= 16
        && let (Some(start), Some(end)) = (one.first_chunk::<8>(), one.last_chunk::<8>())
        && let (Some(other_start), Some(other_end)) = (other.first_chunk(), other.last_chunk())
    {
        return start == other_start && end == other_end;
    }
    one == other
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
    fn texts_that_differ_anywhere_are_not_the_same() {
        for len in 0..70 {
            let text = vec![7; len];
            assert!(is_same(&text, &text.clone()));
            for wrong in 0..len {
                let mut other = text.clone();
                other[wrong] ^= 1;
                assert!(!is_same(&text, &other), "{wrong} of {len}");
            }
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
