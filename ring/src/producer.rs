//! The writing side of a ring. Owns the private tail and base; never moves the head.

use std::{
    io,
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

use crate::{
    Transfer,
    layout::Words,
    memory::RingBytes,
    out_of_bounds,
    sync::{AtomicU32, Fence, take_flag},
};

/// Bytes at the beginning of a ring that are never given back, so that idle traffic faults no pages.
pub(crate) const KEPT_BYTES: usize = 16 * 1024;
/// Bytes after which the producer looks whether the ring is empty, since the head costs a cache miss.
const REWIND_STEP: u32 = 4096;

/// The writing side. Only one thread at a time may write, which the owner's lock ensures.
#[derive(Default)]
pub(crate) struct Producer {
    /// Bytes written so far. Private, as is the base.
    tail: AtomicU32,
    base: AtomicU32,
    /// The head that was last seen and checked.
    known_head: AtomicU32,
    /// Not 0 if bytes were written behind [`KEPT_BYTES`] since memory was last given back.
    has_spread: AtomicU32,
}

impl Producer {
    /// Appends as much of the pieces as there is room for.
    #[inline]
    pub(crate) fn write<'a>(
        &self,
        words: &Words,
        ring: RingBytes<'_>,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> io::Result<Transfer> {
        let wanted = pieces.clone().fold(0usize, |sum, piece| sum.saturating_add(piece.len()));
        self.rewind_if_empty(words, ring, wanted)?;
        let bytes = self.room(words, ring, wanted)?.min(wanted);
        if bytes == 0 {
            return Ok(Transfer::NONE);
        }
        let (mut tail, base) = (self.tail.load(Relaxed), self.base.load(Relaxed));
        if ring.place(tail, base) + bytes > KEPT_BYTES {
            self.has_spread.store(1, Relaxed);
        }
        let mut left = bytes;
        for piece in pieces {
            let piece = piece.get(..left).unwrap_or(piece);
            ring.copy_in(ring.place(tail, base), piece);
            tail = tail.wrapping_add(piece.len() as u32);
            left -= piece.len();
            if left == 0 {
                break;
            }
        }
        self.tail.store(tail, Relaxed);
        words.producer.tail.store(tail, Release);
        Fence::TailThenSleeps.execute();
        Ok(Transfer { bytes, wake: take_flag(&words.consumer.sleeps) })
    }

    /// Continues at the first byte if the ring is empty: a ring that is idle or kept up with touches few
    /// pages and stays in the cache.
    #[inline]
    fn rewind_if_empty(&self, words: &Words, ring: RingBytes<'_>, wanted: usize) -> io::Result<()> {
        let tail = self.tail.load(Relaxed);
        let place = ring.place(tail, self.base.load(Relaxed));
        let step = REWIND_STEP.min(ring.len() / 4) as usize;
        if place == 0 || (place & (step - 1)).saturating_add(wanted) <= step {
            return Ok(());
        }
        if self.check_head(words, ring)? == tail {
            self.base.store(tail, Relaxed);
            words.producer.base.store(tail, Relaxed); // the next store of the tail releases it
        }
        Ok(())
    }

    /// Continues at the first byte if the ring is empty and bytes were written behind [`KEPT_BYTES`]. Returns
    /// whether it has: nobody needs what is behind them then.
    pub(crate) fn rewind_to_give_back(&self, words: &Words, ring: RingBytes<'_>) -> io::Result<bool> {
        let tail = self.tail.load(Relaxed);
        if self.has_spread.load(Relaxed) == 0 || self.check_head(words, ring)? != tail {
            return Ok(false);
        }
        self.has_spread.store(0, Relaxed);
        self.base.store(tail, Relaxed);
        words.producer.base.store(tail, Relaxed); // the next store of the tail releases it
        Ok(true)
    }

    /// Returns whether the consumer has read everything.
    pub(crate) fn is_read(&self, words: &Words, ring: RingBytes<'_>) -> io::Result<bool> {
        Ok(self.check_head(words, ring)? == self.tail.load(Relaxed))
    }

    /// Returns the room; reads the peer's head only if the known one leaves too little.
    #[inline]
    fn room(&self, words: &Words, ring: RingBytes<'_>, wanted: usize) -> io::Result<usize> {
        let tail = self.tail.load(Relaxed);
        let free = |head: u32| ring.len().saturating_sub(tail.wrapping_sub(head)) as usize;
        let known = free(self.known_head.load(Relaxed));
        if known >= wanted { Ok(known) } else { self.check_head(words, ring).map(free) }
    }

    /// Reads and checks the head of the peer.
    #[inline]
    fn check_head(&self, words: &Words, ring: RingBytes<'_>) -> io::Result<u32> {
        let head = words.consumer.head.load(Acquire);
        if self.tail.load(Relaxed).wrapping_sub(head) > ring.len() {
            return Err(out_of_bounds());
        }
        self.known_head.store(head, Relaxed);
        Ok(head)
    }

    /// Announces that this side is about to sleep until half of the ring is free. Returns `false` if it is:
    /// it must not sleep. Another thread can write meanwhile.
    pub(crate) fn await_room(&self, words: &Words, ring: RingBytes<'_>) -> bool {
        words.producer.wants_room.store(1, Relaxed);
        Fence::WantsRoomThenHead.execute();
        // the head first: the own tail cannot be behind it then. What another thread writes in between makes
        // the ring look fuller than it is, but then the head has moved since, and the peer sees the flag.
        let head = words.consumer.head.load(Acquire);
        let is_full = self.tail.load(Relaxed).wrapping_sub(head) > ring.len() / 2;
        if !is_full {
            words.producer.wants_room.store(0, Relaxed);
        }
        is_full
    }

    /// Continues at a count, for a test.
    #[cfg(all(test, not(elbus_model)))]
    pub(crate) fn start_at(&self, count: u32) {
        self.tail.store(count, Relaxed);
        self.known_head.store(count, Relaxed);
    }
}
