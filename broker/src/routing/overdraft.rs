//! What a full receiver takes nevertheless: a little of each sender, so that one who floods it holds up nobody else. Owns who
//! has how much in the queue since it was full; asks no sink.
//!
//! Queues are in order, so what was delivered has been taken when as many frames as were delivered before it are queued no
//! longer.

use std::collections::{HashMap, VecDeque};

use super::{Hashing, hold_budget::Keys};

/// All senders together have half as much as was queued when it was full, and of that one identity a quarter, one name an
/// eighth.
const OF_QUEUE: u64 = 2;
/// No more than this, in bytes, however long the frame is that filled the queue.
const MOST_BYTES: u64 = 4 << 20;
const IDENTITIES: u64 = 4;
const NAMES: u64 = 8;
/// Deliveries that are told apart, and what part of the bytes of all one is at least, where a sender delivers several in turn.
const MOST_DELIVERIES: usize = 4096;
const PARTS: u64 = 64;

/// What was delivered to a receiver since it was full, and is in its queue.
pub(super) struct Overdraft {
    /// Bytes of all.
    most: u64,
    deliveries: VecDeque<Delivered>,
    /// Bytes of each name and identity.
    sums: HashMap<u64, u64, Hashing>,
    total: u64,
}

struct Delivered {
    /// Frames that were delivered until then.
    until: u64,
    sender: Keys,
    bytes: u64,
}

impl Overdraft {
    /// Of a receiver that was full with so many bytes.
    pub(super) fn new(queued: u64) -> Self {
        let (deliveries, sums) = (VecDeque::new(), HashMap::default());
        Overdraft { most: (queued / OF_QUEUE).min(MOST_BYTES), deliveries, sums, total: 0 }
    }

    /// So many frames of all that were ever delivered have been taken.
    pub(super) fn taken(&mut self, frames: u64) {
        while self.deliveries.front().is_some_and(|first| first.until <= frames) {
            let Some(delivered) = self.deliveries.pop_front() else { return };
            self.total -= delivered.bytes;
            for key in [delivered.sender.name, delivered.sender.identity] {
                if let Some(sum) = self.sums.get_mut(&key) {
                    *sum -= delivered.bytes;
                    if *sum == 0 {
                        self.sums.remove(&key);
                    }
                }
            }
        }
    }

    /// Whether a sender may deliver so many bytes.
    pub(super) fn has_room_for(&self, sender: Keys, bytes: u64) -> bool {
        let with = |key| self.sum(key).saturating_add(bytes);
        self.total.saturating_add(bytes) <= self.most
            && with(sender.name) <= self.most / NAMES
            && (sender.identity == 0 || with(sender.identity) <= self.most / IDENTITIES)
            && self.deliveries.len() < MOST_DELIVERIES
    }

    /// Whether a sender has less than half of what it may have.
    pub(super) fn has_little_of(&self, sender: Keys) -> bool {
        self.sum(sender.name) <= self.most / NAMES / 2
    }

    fn sum(&self, key: u64) -> u64 {
        self.sums.get(&key).copied().unwrap_or(0)
    }

    /// A sender has delivered something; so many frames have been delivered now. What it had no room for is not counted: it
    /// leaves others what is theirs.
    pub(super) fn add(&mut self, sender: Keys, bytes: u64, until: u64) {
        let bytes = bytes.min((self.most / NAMES).saturating_sub(self.sum(sender.name)));
        if bytes == 0 || self.deliveries.len() >= 2 * MOST_DELIVERIES {
            return;
        }
        self.total += bytes;
        for key in [sender.name, sender.identity] {
            *self.sums.entry(key).or_default() += bytes;
        }
        match self.deliveries.back_mut() {
            Some(last) if last.sender == sender && last.bytes + bytes <= self.most / PARTS => {
                last.until = last.until.max(until);
                last.bytes += bytes;
            }
            _ => self.deliveries.push_back(Delivered { until, sender, bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(name: u64, identity: u64) -> Keys {
        Keys { name, identity }
    }

    #[test]
    fn one_name_and_one_identity_leave_some_to_others() {
        let mut overdraft = Overdraft::new(1600); // 800 in all
        overdraft.add(sender(1, 10), 99, 1);
        assert!(overdraft.has_room_for(sender(1, 10), 1) && !overdraft.has_room_for(sender(1, 10), 2));
        overdraft.add(sender(1, 10), 1_000_000, 2);
        assert!(!overdraft.has_room_for(sender(1, 10), 1) && overdraft.has_room_for(sender(2, 10), 100));
        assert!(!overdraft.has_room_for(sender(2, 10), 101));
        overdraft.add(sender(2, 10), 100, 3);
        assert!(!overdraft.has_room_for(sender(3, 10), 1) && overdraft.has_room_for(sender(3, 11), 100));
        (4..10).for_each(|number| overdraft.add(sender(number, number + 20), 100, number));
        assert!(!overdraft.has_room_for(sender(3, 11), 1), "all have no more than that");
    }

    #[test]
    fn what_was_taken_is_counted_no_longer() {
        let mut overdraft = Overdraft::new(1600);
        overdraft.add(sender(1, 10), 60, 101);
        overdraft.add(sender(2, 11), 30, 102);
        overdraft.add(sender(1, 10), 40, 105);
        overdraft.taken(100);
        assert!(!overdraft.has_room_for(sender(1, 10), 1));
        overdraft.taken(104);
        assert!(overdraft.has_room_for(sender(1, 10), 60) && overdraft.has_little_of(sender(1, 10)));
        overdraft.add(sender(1, 10), 20, 106);
        assert!(overdraft.has_room_for(sender(1, 10), 40) && !overdraft.has_little_of(sender(1, 10)));
        overdraft.taken(106);
        assert_eq!((overdraft.total, overdraft.sums.len(), overdraft.deliveries.len()), (0, 0, 0));
    }

    #[test]
    fn how_many_deliveries_are_told_apart_is_bounded() {
        let mut overdraft = Overdraft::new(MOST_BYTES);
        (0..100_000).for_each(|number| overdraft.add(sender(number % 100 + 2, 0), 1, number));
        assert!(
            overdraft.deliveries.len() <= 2 * MOST_DELIVERIES && !overdraft.has_room_for(sender(1, 0), 1)
        );
    }

    #[test]
    fn one_that_delivers_all_the_time_gets_room_while_the_first_of_it_is_taken() {
        let mut overdraft = Overdraft::new(16_000);
        for number in 0..1000 {
            assert!(overdraft.has_room_for(sender(1, 10), 10), "{number}");
            overdraft.add(sender(1, 10), 10, number);
            overdraft.taken(number.saturating_sub(50));
        }
    }

    #[test]
    fn a_receiver_of_which_nothing_is_known_takes_nothing() {
        assert!(!Overdraft::new(0).has_room_for(sender(1, 2), 1));
    }

    #[test]
    fn a_long_frame_makes_no_more_room_than_so_much() {
        let overdraft = Overdraft::new(256 << 20);
        assert!(overdraft.has_room_for(sender(1, 2), 512 << 10));
        assert!(!overdraft.has_room_for(sender(1, 2), (512 << 10) + 1));
    }
}
