//! The contents of payloads, and the check that each of them arrives once and in order. Owns the layout: a
//! sequence number, then a timestamp.
//!
//! The upper 16 bits of the sequence number are the sender, the next bit marks the sender's last message. The
//! timestamp is in nanoseconds since the start of the run in the first message of each batch, and zero in the
//! others: reading the clock for each message would be a considerable part of the load.

use std::time::Instant;

use super::latency::LatencyHistogram;
use crate::BoxError;

/// The shortest payload.
pub(super) const HEADER_BYTES: usize = 16;
pub(super) const MAX_SENDERS: usize = 1 << 16;
const SENDER_SHIFT: u32 = 48;
const LAST: u64 = 1 << 47;

/// Writes the sequence number and the timestamp into a payload.
#[inline]
pub(super) fn stamp(payload: &mut [u8], sender: usize, number: u64, last: bool, nanos: u64) {
    let sequence = (sender as u64) << SENDER_SHIFT | if last { LAST } else { 0 } | number;
    if let Some((first, rest)) = payload.split_first_chunk_mut::<8>() {
        *first = sequence.to_le_bytes();
        if let Some(timestamp) = rest.first_chunk_mut::<8>() {
            *timestamp = nanos.to_le_bytes();
        }
    }
}

/// The time since the start of the run; never zero.
#[inline]
pub(super) fn nanos_since(begin: Instant) -> u64 {
    (begin.elapsed().as_nanos() as u64).max(1)
}

/// The little-endian number at an offset of a payload.
#[inline]
pub(super) fn number_at(payload: &[u8], offset: usize) -> Option<u64> {
    payload.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Checks the messages of one receiver and records their latency.
pub(super) struct SequenceCheck {
    begin: Instant,
    /// The next sequence number of each sender.
    expected: Vec<u64>,
    unfinished: usize,
    /// The time of the current read; zero until a message of it has a timestamp.
    read_at: u64,
    latency: LatencyHistogram,
}

impl SequenceCheck {
    pub(super) fn new(senders: usize, begin: Instant) -> Result<Self, BoxError> {
        let expected = (0..senders as u64).map(|sender| sender << SENDER_SHIFT).collect();
        let latency = LatencyHistogram::new()?;
        Ok(SequenceCheck { begin, expected, unfinished: senders, read_at: 0, latency })
    }

    /// A new read begins: the latency of its messages is measured until now.
    #[inline]
    pub(super) fn begin_read(&mut self) {
        self.read_at = 0;
    }

    #[inline]
    pub(super) fn accept(&mut self, payload: &[u8]) -> Result<(), BoxError> {
        let (Some(sequence), Some(timestamp)) = (number_at(payload, 0), number_at(payload, 8)) else {
            return Err(too_short(payload.len()));
        };
        let Some(expected) = self.expected.get_mut((sequence >> SENDER_SHIFT) as usize) else {
            return Err(unexpected(sequence, None));
        };
        if sequence != *expected {
            if sequence != *expected | LAST {
                return Err(unexpected(sequence, Some(*expected)));
            }
            self.unfinished = self.unfinished.saturating_sub(1); // each sender has one last message
        }
        *expected = sequence + 1;
        if timestamp != 0 {
            self.record(timestamp);
        }
        Ok(())
    }

    /// Records the latency of the first message of a batch.
    #[cold]
    fn record(&mut self, sent_at: u64) {
        if self.read_at == 0 {
            self.read_at = nanos_since(self.begin);
        }
        self.latency.record(self.read_at.saturating_sub(sent_at));
    }

    /// Whether the last message of every sender has arrived.
    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        self.unfinished == 0
    }

    /// The number of messages received from a sender.
    #[inline]
    pub(super) fn received(&self, sender: usize) -> u64 {
        self.expected.get(sender).map_or(0, |expected| expected & (LAST - 1))
    }

    pub(super) fn total_received(&self) -> u64 {
        (0..self.expected.len()).map(|sender| self.received(sender)).sum()
    }

    pub(super) fn latency(&self) -> &LatencyHistogram {
        &self.latency
    }
}

#[cold]
fn too_short(bytes: usize) -> BoxError {
    format!("received a payload of {bytes} bytes, shorter than any that was sent").into()
}

#[cold]
fn unexpected(received: u64, expected: Option<u64>) -> BoxError {
    let describe =
        |sequence: u64| format!("message {} of sender {}", sequence & (LAST - 1), sequence >> SENDER_SHIFT);
    let received = describe(received);
    match expected.map(describe) {
        Some(expected) => {
            format!("received {received}, expected {expected}: lost, repeated or out of order").into()
        }
        None => format!("received {received}, which does not exist").into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn payload(sender: usize, number: u64, last: bool) -> [u8; 20] {
        let mut payload = [0; 20];
        stamp(&mut payload, sender, number, last, number % 2);
        payload
    }

    #[test]
    fn messages_in_order_complete_the_check() {
        let mut check = SequenceCheck::new(2, Instant::now()).unwrap();
        for (sender, number, last) in
            [(0, 0, false), (1, 0, false), (1, 1, true), (0, 1, false), (0, 2, true)]
        {
            assert!(!check.is_complete());
            assert!(check.accept(&payload(sender, number, last)).is_ok());
        }
        assert!(check.is_complete());
        assert_eq!((check.received(0), check.received(1), check.total_received()), (3, 2, 5));
        assert!(check.accept(&payload(0, 3, false)).is_err(), "after the last");
        assert_eq!(check.latency().samples(), 2);
    }

    #[test]
    fn lost_repeated_and_reordered_messages_are_errors() {
        for wrong in [payload(0, 2, false), payload(0, 0, false), payload(1, 1, false), payload(0, 2, true)] {
            let mut check = SequenceCheck::new(1, Instant::now()).unwrap();
            assert!(check.accept(&payload(0, 0, false)).is_ok());
            assert!(check.accept(&wrong).is_err());
        }
        assert!(SequenceCheck::new(1, Instant::now()).unwrap().accept(&[0; 15]).is_err());
    }
}
