//! The groups of `$share` and `$key`: the turn of their members, and the weight of a member for a key. Knows
//! no member.

use std::{
    hash::{BuildHasher, Hasher},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::routing::Hashing;

/// A group, as long as it has members.
pub(in crate::routing) struct Group {
    /// Its options: `$share/GROUP` or `$key/GROUP/N`.
    pub(in crate::routing) name: Box<str>,
    /// Levels of the topic that make up the key; `None` for `$share`.
    pub(in crate::routing) levels: Option<u8>,
    /// Hashes keys and names of members.
    hashing: Hashing,
    /// Where the rotation of all senders is.
    next: AtomicUsize,
}

impl Group {
    pub(in crate::routing) fn new(name: &str, levels: Option<u8>) -> Self {
        Group { name: name.into(), levels, hashing: Hashing::default(), next: AtomicUsize::new(0) }
    }

    /// Returns the turn, and passes it on.
    pub(super) fn take_turn(&self) -> usize {
        self.next.fetch_add(1, Relaxed)
    }

    /// Returns the turn.
    pub(super) fn turn(&self) -> usize {
        self.next.load(Relaxed)
    }

    /// Skips turns, so that those who have got more are not the first again.
    pub(in crate::routing) fn skip(&self, turns: usize) {
        self.next.fetch_add(turns, Relaxed);
    }

    /// Returns a number for a key or a name.
    pub(super) fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.hashing.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

/// Returns the first `levels` levels of a topic.
pub(super) fn key_of(topic: &str, levels: u8) -> &str {
    let end = topic.match_indices('/').nth(usize::from(levels).saturating_sub(1));
    end.and_then(|(end, _)| topic.get(..end)).unwrap_or(topic)
}

/// Returns the weight of a member for a key: a well-mixed number of both hashes.
pub(super) fn weight(key: u64, member: u64) -> u64 {
    let mixed = (key ^ member).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_key_is_the_first_levels() {
        for (topic, levels, key) in [
            ("a/b/c", 1, "a"),
            ("a/b/c", 2, "a/b"),
            ("a/b/c", 3, "a/b/c"),
            ("a/b/c", 32, "a/b/c"),
            ("", 1, ""),
            ("/a", 1, ""),
            ("é/ß/x", 2, "é/ß"),
        ] {
            assert_eq!(key_of(topic, levels), key, "{topic} {levels}");
        }
    }

    proptest! {
        /// A member that joins takes keys over, and no key moves between the others.
        #[test]
        fn a_member_moves_only_its_own_keys(members in 1..20u64, keys in 1..200u64) {
            let group = Group::new("$key/g/1", Some(1));
            let hash = |text: String| group.hash(text.as_bytes());
            let owner = |key: u64, members: u64| {
                (0..members).max_by_key(|member| weight(hash(format!("k{key}")), hash(format!("m{member}"))))
            };
            for key in 0..keys {
                let (before, after) = (owner(key, members), owner(key, members + 1));
                prop_assert!(before == after || after == Some(members));
            }
        }
    }

    #[test]
    fn keys_are_spread_evenly() {
        let group = Group::new("$key/g/1", Some(1));
        let mut counts = [0; 8];
        for key in 0..8000 {
            let key = group.hash(format!("device/{key}").as_bytes());
            let owner = (0..8u8).max_by_key(|member| weight(key, group.hash(&[*member]))).unwrap_or(0);
            counts[usize::from(owner)] += 1;
        }
        assert!(counts.iter().all(|count| (700..1300).contains(count)), "{counts:?}");
    }
}
