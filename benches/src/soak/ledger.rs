//! The ledger of one stream: how many messages were sent, and what became of them at each receiver.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of the last message of a sender.
pub(super) const LAST: u64 = u64::MAX;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) stream: &'static str,
    pub(super) receivers: u64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) reordered: AtomicU64,
    /// Messages that the broker refused with a negative acknowledgement. They do not count as sent.
    pub(super) refused: AtomicU64,
}

impl Ledger {
    pub(super) fn new(stream: &'static str, receivers: u64) -> Self {
        Ledger { stream, receivers, ..Ledger::default() }
    }

    /// Messages lost or reordered.
    pub(super) fn errors(&self) -> u64 {
        self.lost.load(Relaxed) + self.reordered.load(Relaxed)
    }
}

/// The numbers that one receiver expects: the next one, and every `stride`-th after it.
#[derive(Debug)]
pub(super) struct Sequence {
    next: u64,
    stride: u64,
}

impl Sequence {
    /// The sequence of a receiver that gets every `stride`-th message.
    pub(super) fn of(receiver: u64, stride: u64) -> Self {
        Sequence { next: receiver % stride, stride }
    }

    /// Returns whether a message is meant for the receiver.
    pub(super) fn is_own(&self, number: u64) -> bool {
        number == LAST || number % self.stride == self.next % self.stride
    }

    /// Enters a message into the ledger; `false` if it was the last.
    pub(super) fn accept(&mut self, number: u64, ledger: &Ledger) -> bool {
        let missing = |before: u64| before.saturating_sub(self.next).div_ceil(self.stride);
        if number == LAST {
            ledger.lost.fetch_add(missing(ledger.sent.load(Relaxed)), Relaxed);
            return false;
        }
        ledger.received.fetch_add(1, Relaxed);
        if number < self.next {
            ledger.reordered.fetch_add(1, Relaxed);
        } else {
            ledger.lost.fetch_add(missing(number), Relaxed);
            self.next = number + self.stride;
        }
        true
    }
}

/// A payload with this number, at least eight bytes long.
pub(super) fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = vec![number as u8; bytes.max(8)];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

/// The number of a payload; `None` if it is damaged.
pub(super) fn number(payload: &[u8]) -> Option<u64> {
    let (head, rest) = payload.split_first_chunk::<8>()?;
    let number = u64::from_le_bytes(*head);
    rest.iter().all(|byte| *byte == number as u8).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_repetitions_and_a_missing_end_are_counted() {
        let ledger = Ledger::new("test", 1);
        ledger.sent.store(10, Relaxed);
        let mut sequence = Sequence::of(0, 1);
        for number in [0, 1, 4, 3, 4, 5] {
            assert!(sequence.accept(number, &ledger));
        }
        assert!(!sequence.accept(LAST, &ledger));
        // lost: 2 and 3, then 6 to 9; reordered: 3 and 4
        assert_eq!((ledger.lost.load(Relaxed), ledger.reordered.load(Relaxed)), (2 + 4, 2));
        assert_eq!(ledger.received.load(Relaxed), 6);
        assert_eq!(ledger.errors(), 8);
    }

    #[test]
    fn a_receiver_of_every_fourth_message_misses_its_own_only() {
        let ledger = Ledger::new("test", 4);
        ledger.sent.store(24, Relaxed);
        let mut sequence = Sequence::of(1, 4);
        assert!(sequence.is_own(5) && sequence.is_own(LAST) && !sequence.is_own(6));
        for number in [1, 5, 13] {
            assert!(sequence.accept(number, &ledger));
        }
        assert!(!sequence.accept(LAST, &ledger));
        // lost: 9, then 17 and 21
        assert_eq!((ledger.lost.load(Relaxed), ledger.reordered.load(Relaxed)), (3, 0));
    }

    #[test]
    fn a_damaged_payload_has_no_number() {
        let mut bytes = payload(300, 20);
        assert_eq!(number(&bytes), Some(300));
        bytes[19] ^= 1;
        assert_eq!(number(&bytes), None);
        assert_eq!(number(b"short"), None);
    }
}
