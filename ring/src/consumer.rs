//! The reading side of a ring. Owns the private head; never moves the tail.

use std::{
    io,
    mem::MaybeUninit,
    sync::atomic::Ordering::{Acquire, Relaxed, Release},
};

use crate::{
    Transfer,
    layout::Words,
    memory::RingBytes,
    out_of_bounds,
    sync::{AtomicU32, Fence, take_flag},
};

/// The reading side.
#[derive(Default)]
pub(crate) struct Consumer {
    /// Bytes read so far. Private: the peer's copy is never read back.
    head: AtomicU32,
}

impl Consumer {
    /// Returns how many bytes can be read.
    #[inline]
    pub(crate) fn available(&self, words: &Words, ring: RingBytes<'_>) -> io::Result<u32> {
        let tail = words.producer.tail.load(Acquire);
        let available = tail.wrapping_sub(self.head.load(Relaxed));
        if available > ring.len() { Err(out_of_bounds()) } else { Ok(available) }
    }

    /// Copies out what there is, as much as there is space for.
    #[inline]
    pub(crate) fn read(
        &self,
        words: &Words,
        ring: RingBytes<'_>,
        into: &mut [MaybeUninit<u8>],
    ) -> io::Result<Transfer> {
        let wanted = (self.available(words, ring)? as usize).min(into.len());
        if wanted == 0 {
            return Ok(Transfer::NONE);
        }
        let head = self.head.load(Relaxed);
        // belongs to the tail: it cannot change before the ring is empty
        let place = ring.place(head, words.producer.base.load(Relaxed));
        let bytes = ring.copy_out(place, into.get_mut(..wanted).unwrap_or_default());
        let head = head.wrapping_add(bytes as u32);
        self.head.store(head, Relaxed);
        words.consumer.head.store(head, Release);
        Ok(Transfer { bytes, wake: self.must_wake_producer(words, ring) })
    }

    /// Returns whether a producer that waits for room must be woken: only once half of the ring is free, not
    /// for every read. The last read of all bytes always qualifies.
    #[inline]
    fn must_wake_producer(&self, words: &Words, ring: RingBytes<'_>) -> bool {
        Fence::HeadThenWantsRoom.execute();
        let wants_room = &words.producer.wants_room;
        wants_room.load(Relaxed) != 0
            // an index out of bounds shows again at the next read
            && self.available(words, ring).is_ok_and(|left| left <= ring.len() / 2)
            && take_flag(wants_room)
    }

    /// Announces that this side is about to sleep. Returns `false` if there are bytes: it must not sleep.
    #[inline]
    pub(crate) fn prepare_sleep(&self, words: &Words, ring: RingBytes<'_>) -> io::Result<bool> {
        words.consumer.sleeps.store(1, Relaxed);
        Fence::SleepsThenTail.execute();
        let is_empty = self.available(words, ring)? == 0;
        if !is_empty {
            words.consumer.sleeps.store(0, Relaxed);
        }
        Ok(is_empty)
    }

    /// Announces that this side no longer sleeps.
    #[inline]
    pub(crate) fn end_sleep(&self, words: &Words) {
        words.consumer.sleeps.store(0, Relaxed);
    }

    /// Continues at a count, for a test.
    #[cfg(all(test, not(elbus_model)))]
    pub(crate) fn start_at(&self, count: u32) {
        self.head.store(count, Relaxed);
    }
}
