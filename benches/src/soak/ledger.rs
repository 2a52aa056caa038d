//! The account of one kind of message: how many were sent, and what arrived of them at each of its receivers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of the last message of a sender.
pub(super) const LAST: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Account {
    pub(super) kind: &'static str,
    pub(super) receivers: u64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) reordered: AtomicU64,
    /// Not taken by the broker, which said so: they count as not sent.
    pub(super) refused: AtomicU64,
}

impl Account {
    pub(super) fn new(kind: &'static str, receivers: u64) -> Self {
        let zero = AtomicU64::default;
        Account {
            kind,
            receivers,
            sent: zero(),
            received: zero(),
            lost: zero(),
            reordered: zero(),
            refused: zero(),
        }
    }

    /// All of it that was wrong.
    pub(super) fn wrong(&self) -> u64 {
        self.lost.load(Relaxed) + self.reordered.load(Relaxed)
    }
}

/// What one receiver is to get next.
#[derive(Debug, Default)]
pub(super) struct Expected(u64);

impl Expected {
    /// Takes a message in; `false` where it was the last.
    pub(super) fn take(&mut self, number: u64, account: &Account) -> bool {
        if number == LAST {
            account.lost.fetch_add(account.sent.load(Relaxed).saturating_sub(self.0), Relaxed);
            return false;
        }
        account.received.fetch_add(1, Relaxed);
        if number < self.0 {
            account.reordered.fetch_add(1, Relaxed);
        } else {
            account.lost.fetch_add(number - self.0, Relaxed);
            self.0 = number + 1;
        }
        true
    }
}

/// A payload of so many bytes, at least eight, with its number.
pub(super) fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = vec![number as u8; bytes.max(8)];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

/// The number of a payload; `None` where it is none of ours, or not as it was sent.
pub(super) fn number(payload: &[u8]) -> Option<u64> {
    let (head, rest) = payload.split_first_chunk::<8>()?;
    let number = u64::from_le_bytes(*head);
    rest.iter().all(|byte| *byte == number as u8).then_some(number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "what fails ends the test")]
mod tests {
    use super::*;

    #[test]
    fn gaps_repetitions_and_a_missing_end_are_counted() {
        let account = Account::new("test", 1);
        account.sent.store(10, Relaxed);
        let mut expected = Expected::default();
        for number in [0, 1, 4, 3, 4, 5] {
            assert!(expected.take(number, &account));
        }
        assert!(!expected.take(LAST, &account));
        // 2 and 3, then 6 to 9; 3 and 4 came too late
        assert_eq!((account.lost.load(Relaxed), account.reordered.load(Relaxed)), (2 + 4, 2));
        assert_eq!(account.received.load(Relaxed), 6);
        assert_eq!(account.wrong(), 8);
    }

    #[test]
    fn a_payload_that_was_changed_is_none_of_ours() {
        let mut bytes = payload(300, 20);
        assert_eq!(number(&bytes), Some(300));
        bytes[19] ^= 1;
        assert_eq!(number(&bytes), None);
        assert_eq!(number(b"short"), None);
    }
}
