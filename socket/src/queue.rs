//! The bytes queued for one peer, in order: small frames in one contiguous buffer, with large and shared
//! chunks in between by reference count. Owns the bytes and their count; never a socket or a lock, and does
//! not parse frames.

use bytes::Bytes;
use std::{collections::VecDeque, io::IoSlice};

use crate::buffer_pool;

/// The sent part of the buffer is removed once it is larger than this and than the rest, in bytes.
const COMPACT_BYTES: usize = 256 * 1024;
/// Memory up to this size is kept even if little of it is unsent, in bytes.
const SMALL_BYTES: usize = 64 * 1024;
/// Maximum number of pieces per system call.
pub(crate) const PIECES: usize = 16;

/// The length of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Complete frames; an estimate after a partial send.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Bytes to be sent. Has no limit: the owner enforces one. No call blocks; an empty queue holds no memory
/// except what [`buffer_pool`] keeps for the thread that emptied it.
#[derive(Default)]
pub struct Queue {
    /// Frames, and the heads of frames whose payload is shared, followed by leftovers, so that memory is not
    /// zeroed for each run. Unallocated while the queue is empty.
    buffer: Vec<u8>,
    /// End of the queued bytes in the buffer.
    end: usize,
    /// Bytes of the buffer that have been sent.
    sent: usize,
    /// Chunks between the bytes of the buffer.
    kept: VecDeque<SharedChunk>,
    /// Length of all chunks, including the sent part of the first.
    kept_bytes: usize,
    /// All queued bytes.
    queued_bytes: usize,
    /// Queued frames; an estimate after a partial send.
    frames: u64,
}

struct SharedChunk {
    /// Its position: before the byte of the buffer at this index.
    at: usize,
    sent: usize,
    bytes: Bytes,
}

impl Queue {
    /// Returns whether the queue is empty.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queued_bytes == 0
    }

    /// Returns the number of queued bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Returns the length of the queue. Bytes are exact; after a partial send, frames are estimated as if all
    /// had the same length.
    pub fn queued(&self) -> QueueDepth {
        QueueDepth { frames: self.frames, bytes: self.queued_bytes as u64 }
    }

    /// Returns the bytes of memory in use, including parts of a buffer or chunk that were sent and are not
    /// freed yet.
    #[inline]
    pub fn memory(&self) -> usize {
        // a buffer was more than half full when it grew last
        self.buffer.len().max(self.buffer.capacity() / 2) + self.kept_bytes
    }

    /// Moves the rest of a buffer or chunk of which more than three quarters were sent into memory of its
    /// own, so that [`memory`](Self::memory) is at most four times the queued bytes. Copies; call it
    /// occasionally for queues that stay full.
    pub fn shrink(&mut self) {
        let unsent = self.buffer.get(self.sent..self.end).unwrap_or_default();
        if is_worth_moving(unsent.len(), self.buffer.capacity()) {
            self.buffer = unsent.to_vec();
            for kept in &mut self.kept {
                kept.at -= self.sent; // the sent part is no longer in the buffer
            }
            self.end -= self.sent;
            self.sent = 0;
        }
        if let Some(first) = self.kept.front_mut()
            && let unsent = first.bytes.get(first.sent..).unwrap_or_default()
            && is_worth_moving(unsent.len(), first.bytes.len())
        {
            let unsent = Bytes::copy_from_slice(unsent);
            self.kept_bytes -= first.sent;
            (first.bytes, first.sent) = (unsent, 0);
        }
    }

    /// Appends the bytes of `frames` complete frames.
    #[inline]
    pub fn push(&mut self, bytes: &[u8], frames: usize) {
        let (buffer, end) = self.room();
        let behind = *end + bytes.len();
        match buffer.get_mut(*end..behind) {
            Some(place) => place.copy_from_slice(bytes),
            None => {
                buffer.truncate(*end);
                buffer.extend_from_slice(bytes);
            }
        }
        *end = behind;
        self.count(bytes.len(), frames);
    }

    /// Appends what `write` appends to the buffer: `frames` complete frames. `write` must not change the
    /// bytes that are already there. After an error the queue is unchanged.
    #[inline]
    pub fn push_with<E>(
        &mut self,
        frames: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let bytes = self.append(write)?;
        self.count(bytes, frames);
        Ok(())
    }

    /// Appends `frames` complete frames that `write` writes into a buffer of `room` bytes; `write` returns
    /// the number of bytes written. The other bytes are leftovers, possibly of another peer.
    #[inline]
    pub fn push_within(&mut self, room: usize, frames: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let (buffer, end) = self.room();
        let behind = *end + room;
        if buffer.len() < behind {
            buffer.resize(behind, 0);
        }
        let used = buffer.get_mut(*end..behind).map_or(0, write).min(room);
        *end += used;
        self.count(used, frames);
    }

    /// Counts frames of bytes that were appended without a count.
    #[inline]
    pub fn count_frames(&mut self, frames: usize) {
        self.count(0, frames);
    }

    /// Appends a shared chunk of `frames` complete frames, without copying it.
    #[inline]
    pub fn push_shared(&mut self, bytes: Bytes, frames: usize) {
        self.count(bytes.len(), frames);
        self.keep(bytes);
    }

    /// Appends one frame with a shared payload, without copying the payload. `write_head` appends the head to
    /// the buffer and must not change the bytes that are already there. After an error the queue is
    /// unchanged.
    #[inline]
    pub fn push_large<E>(
        &mut self,
        payload: Bytes,
        write_head: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let head = self.append(write_head)?;
        self.count(head + payload.len(), 1);
        self.keep(payload);
        Ok(())
    }

    #[inline]
    fn keep(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.kept_bytes += bytes.len();
            self.kept.push_back(SharedChunk { at: self.end, sent: 0, bytes });
        }
    }

    /// Returns the number of bytes that `write` appended; after an error the buffer is unchanged.
    #[inline]
    fn append<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<usize, E> {
        let (buffer, end) = self.room();
        let before = *end;
        buffer.truncate(before);
        match write(buffer) {
            Ok(()) => {
                debug_assert!(buffer.len() >= before, "queued bytes were removed");
                *end = buffer.len();
                Ok(buffer.len().saturating_sub(before))
            }
            Err(error) => {
                if self.queued_bytes == 0 {
                    self.clear();
                }
                Err(error)
            }
        }
    }

    /// Removes the last byte, for replacing a one-byte answer. Does nothing if that byte was sent or is in a
    /// shared chunk.
    pub fn pop_byte(&mut self) {
        let behind = self.kept.back().map_or(self.sent, |kept| kept.at);
        if self.end > behind {
            self.end -= 1;
            self.queued_bytes -= 1;
            if self.queued_bytes == 0 {
                self.clear();
            }
        }
    }

    #[inline]
    fn count(&mut self, bytes: usize, frames: usize) {
        self.queued_bytes += bytes;
        self.frames += frames as u64;
    }

    /// Returns the buffer, and the position for the next bytes.
    #[inline]
    fn room(&mut self) -> (&mut Vec<u8>, &mut usize) {
        if self.buffer.capacity() == 0 {
            self.buffer = buffer_pool::take();
        } else if self.sent > COMPACT_BYTES && self.sent > self.end / 2 {
            self.buffer.copy_within(self.sent..self.end, 0); // leftovers stay where they are
            self.end -= self.sent;
            for kept in &mut self.kept {
                kept.at -= self.sent; // the sent part is no longer in the buffer
            }
            self.sent = 0;
        }
        (&mut self.buffer, &mut self.end)
    }

    /// Returns all queued bytes if they are contiguous, which is the usual case.
    #[inline]
    pub(crate) fn single(&self) -> Option<&[u8]> {
        let piece = self.first_piece();
        (piece.len() == self.queued_bytes).then_some(piece)
    }

    /// Returns the first contiguous bytes; empty if the queue is empty.
    #[inline]
    pub fn first_piece(&self) -> &[u8] {
        let piece = match self.kept.front() {
            Some(kept) if kept.at == self.sent => kept.bytes.get(kept.sent..),
            kept => self.buffer.get(self.sent..kept.map_or(self.end, |kept| kept.at)),
        };
        piece.unwrap_or_default()
    }

    /// Returns all queued bytes in order, in contiguous pieces.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let between = |from: usize, to: usize| self.buffer.get(from..to).unwrap_or_default();
        let mut from = self.sent;
        let kept = self.kept.iter().flat_map(move |kept| {
            let before = between(from, kept.at);
            from = kept.at;
            [before, kept.bytes.get(kept.sent..).unwrap_or_default()]
        });
        let last = self.kept.back().map_or(self.sent, |kept| kept.at);
        kept.chain([between(last, self.end)]).filter(|piece| !piece.is_empty())
    }

    /// Writes the first pieces to `places`; returns their number.
    pub(crate) fn pieces<'a>(&'a self, places: &mut [IoSlice<'a>; PIECES]) -> usize {
        let mut used = 0;
        for (place, piece) in places.iter_mut().zip(self.chunks()) {
            *place = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    /// Removes the first `count` bytes, which were sent.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        let before = self.queued_bytes;
        self.queued_bytes = before.saturating_sub(count);
        if self.queued_bytes == 0 {
            self.clear();
        } else {
            self.frames = share(self.frames, self.queued_bytes, before);
            self.advance_within(count);
        }
    }

    fn advance_within(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let end = self.kept.front().map_or(self.end, |kept| kept.at);
            let step = left.min(end - self.sent);
            self.sent += step;
            left -= step;
            let Some(kept) = self.kept.front_mut().filter(|kept| kept.at == self.sent) else { break };
            let step = left.min(kept.bytes.len() - kept.sent);
            kept.sent += step;
            left -= step;
            if kept.sent == kept.bytes.len() {
                self.kept_bytes -= kept.sent;
                self.kept.pop_front();
            }
        }
    }

    /// Removes everything; returns the buffer to the thread's pool.
    #[inline]
    pub fn clear(&mut self) {
        buffer_pool::give_back(std::mem::take(&mut self.buffer));
        if self.kept.capacity() > 0 {
            self.kept = VecDeque::new();
        }
        self.kept_bytes = 0;
        self.end = 0;
        self.sent = 0;
        self.queued_bytes = 0;
        self.frames = 0;
    }
}

fn is_worth_moving(unsent: usize, occupied: usize) -> bool {
    occupied > SMALL_BYTES && unsent < occupied / 4
}

/// Scales a number of frames by `left` of `all` bytes, rounded to nearest; at least one if there are any.
fn share(frames: u64, left: usize, all: usize) -> u64 {
    let (left, all) = (left as u128, all.max(1) as u128);
    let nearest = (u128::from(frames) * left + all / 2) / all;
    u64::try_from(nearest).unwrap_or(frames).max(frames.min(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Sends everything in steps of `step` bytes, as a socket could take it.
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

    /// Appends a large frame: three bytes of head, and the payload.
    fn push_large(queue: &mut Queue, payload: Vec<u8>) {
        let Ok(()) = queue.push_large(payload.into(), |buffer| {
            buffer.extend([0xF0; 3]);
            Ok::<_, Infallible>(())
        });
    }

    #[test]
    fn small_and_large_frames_stay_in_order_for_any_send_size() {
        for step in [1, 2, 3, 7, 64, 1000, 100_000] {
            let (mut queue, mut expected) = (Queue::default(), vec![]);
            for i in 0..20u8 {
                queue.push(&[i; 5], 1);
                expected.extend([i; 5]);
                if i % 3 == 0 {
                    let payload = vec![100 + i; 50];
                    expected.extend([0xF0; 3]);
                    expected.extend(&payload);
                    push_large(&mut queue, payload);
                }
            }
            let written = queue.push_with(2, |buffer| {
                buffer.extend([0xFE, 1, 0xFE, 2]);
                Ok::<_, ()>(())
            });
            assert_eq!(written, Ok(()));
            expected.extend([0xFE, 1, 0xFE, 2]);
            assert_eq!(queue.queued(), QueueDepth { frames: 29, bytes: expected.len() as u64 });
            assert_eq!(drain(&mut queue, step), expected);
            assert_eq!((queue.queued(), queue.buffer.capacity()), (QueueDepth::default(), 0));
            assert_eq!(queue.kept.capacity(), 0);
        }
    }

    #[test]
    fn shared_chunks_keep_their_place_between_own_frames() {
        let encoded = Bytes::from((0..60).collect::<Vec<u8>>());
        for step in [1, 7, 59, 60, 61, 1000] {
            let (mut queue, mut expected) = (Queue::default(), vec![]);
            for i in 0..10u8 {
                queue.push_shared(encoded.clone(), 3);
                expected.extend(&encoded);
                if i == 0 {
                    assert_eq!(queue.single(), Some(&encoded[..]));
                }
                queue.push_within(20, 2, |room| {
                    room[..4].fill(i);
                    if i % 2 == 0 { 4 } else { 0 }
                });
                expected.extend(vec![i; if i % 2 == 0 { 4 } else { 0 }]);
            }
            queue.push_shared(Bytes::new(), 0);
            assert_eq!(queue.queued(), QueueDepth { frames: 50, bytes: expected.len() as u64 });
            assert_eq!(drain(&mut queue, step), expected);
            assert_eq!((queue.buffer.capacity(), queue.kept.capacity()), (0, 0));
        }
    }

    #[test]
    fn bytes_beyond_the_room_are_not_counted() {
        std::thread::spawn(|| {
            // a new thread, hence a buffer without leftovers
            let mut queue = Queue::default();
            queue.push_within(3, 1, |room| room.len() + 5);
            assert_eq!(drain(&mut queue, 2), [0; 3]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn leftovers_of_a_buffer_are_never_sent() {
        for way in 0..4 {
            let mut queue = Queue::default();
            queue.push_within(100, 1, |room| {
                room.fill(0xEE);
                50
            });
            assert_eq!(drain(&mut queue, 7), [0xEE; 50]);
            queue.push(&[1; 3], 1);
            match way {
                0 => queue.push(&[2; 300], 1),
                1 => queue.push_within(20, 1, |room| {
                    room[..4].fill(2);
                    4
                }),
                2 => push_large(&mut queue, vec![2; 10]),
                _ => assert!(queue.push_with(1, |_| Err::<(), _>(())).is_err()),
            }
            queue.push(&[3], 1);
            queue.pop_byte();
            queue.push(&[4], 1);
            let expected = match way {
                0 => [&[1; 3][..], &[2; 300], &[4]].concat(),
                1 => [&[1; 3][..], &[2; 4], &[4]].concat(),
                2 => [&[1; 3][..], &[0xF0; 3], &[2; 10], &[4]].concat(),
                _ => vec![1, 1, 1, 4],
            };
            assert_eq!((queue.bytes(), drain(&mut queue, 3)), (expected.len(), expected), "{way}");
        }
    }

    #[test]
    fn the_sent_part_of_a_buffer_is_removed() {
        let mut queue = Queue::default();
        queue.push(&vec![1; 400_000], 1);
        push_large(&mut queue, vec![2; 70_000]);
        queue.advance(300_000);
        queue.push(&[3; 10], 1);
        assert!(queue.end < 110_000 && queue.sent == 0);
        let rest = drain(&mut queue, 9_999);
        assert_eq!(rest.len(), 100_000 + 3 + 70_000 + 10);
        assert!(rest.ends_with(&[3; 10]) && rest[100_003..].starts_with(&[2; 70_000]));
    }

    #[test]
    fn memory_shrinks_with_the_unsent_part_of_a_chunk_or_buffer() {
        const LARGE: usize = 1 << 20;
        let mut queue = Queue::default();
        push_large(&mut queue, vec![1; LARGE]);
        push_large(&mut queue, vec![2; LARGE]);
        let whole = queue.memory();
        assert!(whole >= 2 * LARGE);
        queue.advance(LARGE * 3 / 4 + 3);
        queue.shrink();
        assert_eq!(queue.memory(), whole, "a quarter is unsent");
        queue.advance(1);
        assert_eq!(queue.memory(), whole, "occupied until it is moved");
        queue.shrink();
        assert_eq!(whole - queue.memory(), LARGE * 3 / 4 + 1);
        queue.advance(LARGE / 4 - 1);
        assert!(whole - queue.memory() == LARGE, "the first piece is gone");
        let rest = drain(&mut queue, 100_000);
        assert!(rest[..3] == [0xF0; 3] && rest[3..] == [2; LARGE] && queue.memory() == 0);

        queue.push(&[3; LARGE], 1);
        push_large(&mut queue, vec![4; 10]);
        queue.push(&[5; 10], 1);
        queue.advance(LARGE / 4);
        queue.shrink();
        assert!(queue.memory() >= LARGE);
        queue.advance(LARGE * 5 / 8);
        queue.shrink();
        assert!(queue.memory() < LARGE / 8 + 100);
        queue.push(&[6; 10], 1);
        let expected = [&[3; LARGE / 8][..], &[0xF0; 3], &[4; 10], &[5; 10], &[6; 10]].concat();
        assert!(drain(&mut queue, 9_999) == expected && queue.memory() == 0);
    }

    #[test]
    fn a_buffer_counts_its_whole_capacity_as_memory() {
        let mut queue = Queue::default();
        queue.push(&vec![1; 1 << 20], 1);
        queue.advance(700_000);
        push_large(&mut queue, vec![2; 10]);
        assert!(queue.end < 400_000 && queue.memory() >= 1 << 19, "sent bytes removed, no memory freed");
        queue.advance(300_000);
        queue.shrink();
        assert!(queue.memory() < 100_000);
    }

    #[test]
    fn frames_are_estimated_from_the_unsent_bytes() {
        let mut queue = Queue::default();
        queue.push(&[0; 1000], 10);
        queue.advance(650);
        assert_eq!(queue.queued(), QueueDepth { frames: 4, bytes: 350 });
        queue.push(&[0; 650], 6);
        (0..9).for_each(|_| queue.advance(100));
        assert_eq!(queue.queued(), QueueDepth { frames: 1, bytes: 100 });
        queue.push(&[0; 250], 2);
        queue.pop_byte();
        assert_eq!(queue.bytes(), 349);
    }

    #[test]
    fn a_failed_write_leaves_the_queue_unchanged() {
        let fail = |buffer: &mut Vec<u8>| {
            buffer.extend([9; 100]);
            Err("too long")
        };
        let mut queue = Queue::default();
        assert_eq!(queue.push_with(1, fail), Err("too long"));
        assert_eq!(queue.push_large(vec![2; 10].into(), fail), Err("too long"));
        assert_eq!((queue.queued(), queue.buffer.capacity()), (QueueDepth::default(), 0));
        queue.push(&[1; 3], 1);
        assert_eq!(queue.push_with(1, fail), Err("too long"));
        assert_eq!(queue.push_large(vec![2; 10].into(), fail), Err("too long"));
        assert_eq!(queue.queued(), QueueDepth { frames: 1, bytes: 3 });
        assert_eq!(drain(&mut queue, 2), [1; 3]);
    }

    #[test]
    fn pop_byte_removes_only_an_unsent_byte_of_the_buffer() {
        let mut queue = Queue::default();
        queue.push(&[9], 0);
        queue.pop_byte();
        queue.pop_byte();
        assert_eq!((queue.queued(), queue.buffer.capacity()), (QueueDepth::default(), 0));
        queue.push(&[1, 2], 1);
        push_large(&mut queue, vec![3; 4]);
        queue.pop_byte();
        assert_eq!(queue.bytes(), 9);
        queue.push(&[4], 0);
        queue.pop_byte();
        assert_eq!(drain(&mut queue, 5), [1, 2, 0xF0, 0xF0, 0xF0, 3, 3, 3, 3]);
    }
}
