//! Quotas of senders in the queue of a full receiver: a sender that floods it does not hold up the others.
//! Owns what each sender has in the queue since it was full; asks no sink.
//!
//! Queues are in order: a delivery has been taken when no more frames are queued than were delivered after
//! it.

use std::collections::{HashMap, VecDeque};

use super::{Hashing, client_keys::ClientKeys};

/// All senders together may queue half as much as was queued when the receiver became full. Of that, one
/// identity may have a quarter and one name an eighth.
const OF_QUEUE: u64 = 2;
/// The most bytes of all senders, however long the frame is that filled the queue.
const MOST_BYTES: u64 = 4 << 20;
const IDENTITIES: u64 = 4;
const NAMES: u64 = 8;
/// The most deliveries that are counted separately. Consecutive deliveries of a sender are counted as one, up
/// to a 64th of the bytes of all.
const MOST_DELIVERIES: usize = 4096;
const PARTS: u64 = 64;

/// What was delivered to a receiver since it became full and is still in its queue.
pub(super) struct SenderQuotas {
    /// Bytes of all.
    most: u64,
    deliveries: VecDeque<Delivered>,
    /// Queued bytes of each name and identity.
    sums: HashMap<u64, u64, Hashing>,
    total: u64,
}

struct Delivered {
    /// The number of frames delivered to the receiver up to and including this delivery.
    until: u64,
    sender: ClientKeys,
    bytes: u64,
}

impl SenderQuotas {
    /// Creates the quotas of a receiver that became full with `queued` bytes.
    pub(super) fn new(queued: u64) -> Self {
        let (deliveries, sums) = (VecDeque::new(), HashMap::default());
        SenderQuotas { most: (queued / OF_QUEUE).min(MOST_BYTES), deliveries, sums, total: 0 }
    }

    /// Removes deliveries that are among the first `frames` frames: those have been taken.
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

    /// Returns whether a sender can deliver `bytes` more.
    pub(super) fn has_room_for(&self, sender: ClientKeys, bytes: u64) -> bool {
        let with = |key| self.sum(key).saturating_add(bytes);
        self.total.saturating_add(bytes) <= self.most
            && with(sender.name) <= self.most / NAMES
            && (sender.identity == 0 || with(sender.identity) <= self.most / IDENTITIES)
            && self.deliveries.len() < MOST_DELIVERIES
    }

    /// Returns whether a sender uses less than half of its quota.
    pub(super) fn has_little_of(&self, sender: ClientKeys) -> bool {
        self.sum(sender.name) <= self.most / NAMES / 2
    }

    fn sum(&self, key: u64) -> u64 {
        self.sums.get(&key).copied().unwrap_or(0)
    }

    /// Counts a delivery of a sender; `until` is the number of frames delivered with it. Bytes beyond its
    /// quota are not counted, so that they do not reduce the quotas of others.
    pub(super) fn add(&mut self, sender: ClientKeys, bytes: u64, until: u64) {
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

    fn sender(name: u64, identity: u64) -> ClientKeys {
        ClientKeys { name, identity }
    }

    #[test]
    fn one_name_and_one_identity_leave_room_for_others() {
        let mut quotas = SenderQuotas::new(1600); // 800 in all
        quotas.add(sender(1, 10), 99, 1);
        assert!(quotas.has_room_for(sender(1, 10), 1) && !quotas.has_room_for(sender(1, 10), 2));
        quotas.add(sender(1, 10), 1_000_000, 2);
        assert!(!quotas.has_room_for(sender(1, 10), 1) && quotas.has_room_for(sender(2, 10), 100));
        assert!(!quotas.has_room_for(sender(2, 10), 101));
        quotas.add(sender(2, 10), 100, 3);
        assert!(!quotas.has_room_for(sender(3, 10), 1) && quotas.has_room_for(sender(3, 11), 100));
        (4..10).for_each(|number| quotas.add(sender(number, number + 20), 100, number));
        assert!(!quotas.has_room_for(sender(3, 11), 1), "all have no more than that");
    }

    #[test]
    fn taken_deliveries_are_no_longer_counted() {
        let mut quotas = SenderQuotas::new(1600);
        quotas.add(sender(1, 10), 60, 101);
        quotas.add(sender(2, 11), 30, 102);
        quotas.add(sender(1, 10), 40, 105);
        quotas.taken(100);
        assert!(!quotas.has_room_for(sender(1, 10), 1));
        quotas.taken(104);
        assert!(quotas.has_room_for(sender(1, 10), 60) && quotas.has_little_of(sender(1, 10)));
        quotas.add(sender(1, 10), 20, 106);
        assert!(quotas.has_room_for(sender(1, 10), 40) && !quotas.has_little_of(sender(1, 10)));
        quotas.taken(106);
        assert_eq!((quotas.total, quotas.sums.len(), quotas.deliveries.len()), (0, 0, 0));
    }

    #[test]
    fn the_number_of_separate_deliveries_is_bounded() {
        let mut quotas = SenderQuotas::new(MOST_BYTES);
        (0..100_000).for_each(|number| quotas.add(sender(number % 100 + 2, 0), 1, number));
        assert!(quotas.deliveries.len() <= 2 * MOST_DELIVERIES && !quotas.has_room_for(sender(1, 0), 1));
    }

    #[test]
    fn a_steady_sender_gets_room_as_its_first_deliveries_are_taken() {
        let mut quotas = SenderQuotas::new(16_000);
        for number in 0..1000 {
            assert!(quotas.has_room_for(sender(1, 10), 10), "{number}");
            quotas.add(sender(1, 10), 10, number);
            quotas.taken(number.saturating_sub(50));
        }
    }

    #[test]
    fn a_receiver_with_an_empty_queue_takes_nothing_more() {
        assert!(!SenderQuotas::new(0).has_room_for(sender(1, 2), 1));
    }

    #[test]
    fn the_quota_after_a_long_frame_has_a_fixed_limit() {
        let quotas = SenderQuotas::new(256 << 20);
        assert!(quotas.has_room_for(sender(1, 2), 512 << 10));
        assert!(!quotas.has_room_for(sender(1, 2), (512 << 10) + 1));
    }
}
