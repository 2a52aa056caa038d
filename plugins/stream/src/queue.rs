//! What waits for one client, in order: small frames in one contiguous buffer, large payloads by reference count in
//! between. Owns bytes and their count; never a socket or a lock.

use bytes::Bytes;
use elbus_plugin_api::Queued;
use elbus_protocol::EncodeError;
use elbus_protocol::delivery::{DeliveryHead, encode_ack, encode_head};
use std::{collections::VecDeque, io::IoSlice};

use crate::spares;

/// A sent part of the buffer is cut off when it is larger than this, and than what is left, in bytes.
const COMPACT_BYTES: usize = 256 * 1024;
/// The most pieces that are sent at once.
pub(crate) const PIECES: usize = 16;

/// The bytes that wait.
#[derive(Default)]
pub(crate) struct Queue {
    /// Frames, and the heads of large ones. Unallocated while nothing waits.
    buffer: Vec<u8>,
    /// How much of the buffer has been sent.
    sent: usize,
    /// Payloads that go between the bytes of the buffer.
    large: VecDeque<Large>,
    /// All bytes that wait.
    waiting: usize,
    /// Bytes and frames since the queue was last empty, for the estimate of [`queued`](Queue::queued).
    bytes: u64,
    frames: u64,
}

struct Large {
    /// Where in the buffer it goes: before the byte there.
    at: usize,
    sent: usize,
    payload: Bytes,
}

impl Queue {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Bytes that wait.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes exactly; frames as the share of those appended since the queue was last empty, rounded up.
    pub(crate) fn queued(&self) -> Queued {
        let bytes = self.waiting as u64;
        let all = u128::from(self.bytes.max(1));
        let frames = (u128::from(self.frames) * u128::from(bytes)).div_ceil(all);
        Queued { frames: u64::try_from(frames).unwrap_or(u64::MAX), bytes }
    }

    /// Appends whole frames.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8], frames: usize) {
        self.room().extend_from_slice(bytes);
        self.count(bytes.len(), frames);
    }

    /// Appends acknowledgements.
    #[inline]
    pub(crate) fn push_acks(&mut self, op_ids: &[u32], code: u8) {
        let buffer = self.room();
        let before = buffer.len();
        buffer.reserve(op_ids.len() * elbus_protocol::delivery::ACK_BYTES);
        for id in op_ids {
            buffer.extend_from_slice(&encode_ack(*id, code));
        }
        let bytes = buffer.len() - before;
        self.count(bytes, op_ids.len());
    }

    /// Appends a frame whose payload is kept, not copied.
    pub(crate) fn push_large(&mut self, head: &DeliveryHead<'_>, payload: Bytes) -> Result<(), EncodeError> {
        let buffer = self.room();
        let before = buffer.len();
        encode_head(buffer, head, payload.len())?;
        let at = buffer.len();
        let bytes = at - before + payload.len();
        self.large.push_back(Large { at, sent: 0, payload });
        self.count(bytes, 1);
        Ok(())
    }

    /// Takes the last byte back: a one-byte answer that turned out to be another one.
    pub(crate) fn pop_byte(&mut self) {
        if self.buffer.len() > self.sent && self.buffer.pop().is_some() {
            self.waiting -= 1;
            self.bytes = self.bytes.saturating_sub(1);
        }
    }

    #[inline]
    fn count(&mut self, bytes: usize, frames: usize) {
        self.waiting += bytes;
        self.bytes += bytes as u64;
        self.frames += frames as u64;
    }

    #[inline]
    fn room(&mut self) -> &mut Vec<u8> {
        if self.buffer.capacity() == 0 {
            self.buffer = spares::take();
        } else if self.sent > COMPACT_BYTES && self.sent > self.buffer.len() / 2 {
            self.buffer.drain(..self.sent);
            for large in &mut self.large {
                large.at -= self.sent; // what lies before the sent part is gone from the list
            }
            self.sent = 0;
        }
        &mut self.buffer
    }

    /// What waits, where it is one piece: the usual case.
    #[inline]
    pub(crate) fn single(&self) -> Option<&[u8]> {
        if self.large.is_empty() { self.buffer.get(self.sent..) } else { None }
    }

    /// The first pieces of what waits; tells how many places it has filled.
    pub(crate) fn pieces<'a>(&'a self, places: &mut [IoSlice<'a>; PIECES]) -> usize {
        let between = |from: usize, to: usize| self.buffer.get(from..to).unwrap_or_default();
        let mut from = self.sent;
        let large = self.large.iter().flat_map(|large| {
            let before = between(from, large.at);
            from = large.at;
            [before, large.payload.get(large.sent..).unwrap_or_default()]
        });
        let last = self.large.back().map_or(self.sent, |large| large.at);
        let all = large.chain([between(last, self.buffer.len())]).filter(|piece| !piece.is_empty());
        let mut used = 0;
        for (place, piece) in places.iter_mut().zip(all) {
            *place = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    /// Forgets the first `count` bytes: they have been sent.
    pub(crate) fn advance(&mut self, count: usize) {
        self.waiting = self.waiting.saturating_sub(count);
        if self.waiting == 0 {
            return self.clear();
        }
        let mut left = count;
        while left > 0 {
            let end = self.large.front().map_or(self.buffer.len(), |large| large.at);
            let step = left.min(end - self.sent);
            self.sent += step;
            left -= step;
            let Some(large) = self.large.front_mut().filter(|large| large.at == self.sent) else { break };
            let step = left.min(large.payload.len() - large.sent);
            large.sent += step;
            left -= step;
            if large.sent == large.payload.len() {
                self.large.pop_front();
            }
        }
    }

    /// Drops everything; the buffer goes to whoever needs one next.
    #[inline]
    pub(crate) fn clear(&mut self) {
        spares::give_back(std::mem::take(&mut self.buffer));
        if self.large.capacity() > 0 {
            self.large = VecDeque::new();
        }
        self.sent = 0;
        self.waiting = 0;
        self.bytes = 0;
        self.frames = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_protocol::FrameKind;

    /// Sends everything in steps of `step` bytes, as a socket would take it.
    fn drain(queue: &mut Queue, step: usize) -> Vec<u8> {
        let mut all = vec![];
        while !queue.is_empty() {
            let mut places = [IoSlice::new(&[]); PIECES];
            let used = queue.pieces(&mut places);
            let bytes: Vec<u8> = places[..used].iter().flat_map(|piece| piece.to_vec()).collect();
            let taken = step.min(bytes.len());
            if let Some(single) = queue.single() {
                assert_eq!(single, bytes);
            }
            all.extend_from_slice(&bytes[..taken]);
            queue.advance(taken);
        }
        all
    }

    #[test]
    fn small_and_large_stay_in_order_however_they_are_sent() {
        let head = DeliveryHead { kind: FrameKind::Message, realtime: false, sender: "me", topic: "" };
        for step in [1, 2, 3, 7, 64, 1000, 100_000] {
            let (mut queue, mut expected) = (Queue::default(), vec![]);
            for i in 0..20u8 {
                queue.push(&[i; 5], 1);
                expected.extend([i; 5]);
                if i % 3 == 0 {
                    let payload = vec![100 + i; 50];
                    encode_head(&mut expected, &head, 50).unwrap();
                    expected.extend(&payload);
                    queue.push_large(&head, payload.into()).unwrap();
                }
            }
            queue.push_acks(&[1, 2], 1);
            expected.extend([0xFE, 1, 0, 0, 0, 1, 0xFE, 2, 0, 0, 0, 1]);
            assert_eq!(queue.queued(), Queued { frames: 29, bytes: expected.len() as u64 });
            assert_eq!(drain(&mut queue, step), expected);
            assert_eq!((queue.queued(), queue.buffer.capacity()), (Queued::default(), 0));
            assert_eq!(queue.large.capacity(), 0);
        }
    }

    #[test]
    fn a_sent_part_is_cut_off() {
        let head = DeliveryHead { kind: FrameKind::Message, realtime: false, sender: "me", topic: "" };
        let mut queue = Queue::default();
        queue.push(&vec![1; 400_000], 1);
        queue.push_large(&head, vec![2; 70_000].into()).unwrap();
        queue.advance(300_000);
        queue.push(&[3; 10], 1);
        assert!(queue.buffer.len() < 110_000 && queue.sent == 0);
        let rest = drain(&mut queue, 9_999);
        assert_eq!(rest.len(), 100_000 + 9 + 70_000 + 10);
        assert!(rest.ends_with(&[3; 10]) && rest[100_009..].starts_with(&[2; 70_000]));
    }

    #[test]
    fn frames_are_estimated_by_what_is_left() {
        let mut queue = Queue::default();
        queue.push(&[0; 1000], 10);
        queue.advance(650);
        assert_eq!(queue.queued(), Queued { frames: 4, bytes: 350 });
        queue.pop_byte();
        assert_eq!(queue.waiting(), 349);
    }
}
