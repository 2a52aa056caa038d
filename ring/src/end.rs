//! One end of a pair of rings: reads one of them and writes the other. Owns the mapping.

use std::{
    fmt, io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use crate::{
    Transfer,
    consumer::Consumer,
    layout::{TO_BROKER, TO_CLIENT, Words},
    memory::{Memory, RingBytes},
    producer::{KEPT_BYTES, Producer},
};

/// One end of a pair of rings; unmaps the memory when it is dropped. Nothing blocks.
///
/// One thread at a time may read, and one may write; otherwise bytes are repeated, lost or mixed, as on a
/// socket, but nothing outside the rings is touched. Errors are final for the connection: the peer has
/// written an index that it cannot have reached.
pub struct End {
    memory: Memory,
    /// The ring that is read.
    inbound: usize,
    consumer: Consumer,
    producer: Producer,
}

impl End {
    /// Makes the memory with two rings of this size, and returns the broker's end and the descriptor to pass
    /// to the client.
    ///
    /// # Errors
    /// The size is no power of two between [`MIN_RING_BYTES`](crate::MIN_RING_BYTES) and
    /// [`MAX_RING_BYTES`](crate::MAX_RING_BYTES), or the system has no descriptor, mapping or memory left.
    pub fn create(ring_bytes: u32) -> io::Result<(Self, OwnedFd)> {
        let (memory, fd) = Memory::create(ring_bytes)?;
        Ok((Self::of(memory, TO_BROKER), fd))
    }

    /// Maps memory that a broker has made, and returns the client's end. The descriptor can be closed.
    ///
    /// # Errors
    /// The descriptor is not memory of fixed size with two rings, or it cannot be mapped.
    pub fn open(memory: impl AsFd) -> io::Result<Self> {
        Memory::open(memory.as_fd()).map(|memory| Self::of(memory, TO_CLIENT))
    }

    fn of(memory: Memory, inbound: usize) -> Self {
        End { memory, inbound, consumer: Consumer::default(), producer: Producer::default() }
    }

    /// Returns the size of each ring, in bytes.
    pub fn ring_bytes(&self) -> u32 {
        self.memory.ring_bytes()
    }

    #[inline]
    fn ring(&self, index: usize) -> (&Words, RingBytes<'_>) {
        let [to_broker, to_client] = &self.memory.control().rings;
        (if index == TO_BROKER { to_broker } else { to_client }, self.memory.bytes(index))
    }

    #[inline]
    fn inbound(&self) -> (&Words, RingBytes<'_>) {
        self.ring(self.inbound)
    }

    #[inline]
    fn outbound(&self) -> (&Words, RingBytes<'_>) {
        self.ring(1 - self.inbound)
    }

    /// Returns whether there are bytes to read.
    #[inline]
    pub fn has_bytes(&self) -> io::Result<bool> {
        let (words, ring) = self.inbound();
        self.consumer.available(words, ring).map(|bytes| bytes > 0)
    }

    /// Reads what there is into a buffer; 0 bytes if there is nothing.
    #[inline]
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Transfer> {
        // SAFETY: a `MaybeUninit<u8>` has the layout of a `u8`, and `Consumer::read` writes bytes only
        let buffer = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
        let (words, ring) = self.inbound();
        self.consumer.read(words, ring, buffer)
    }

    /// Reads what there is into the spare capacity of a buffer, without growing it.
    #[inline]
    pub fn read_more(&self, buffer: &mut Vec<u8>) -> io::Result<Transfer> {
        let (words, ring) = self.inbound();
        let read = self.consumer.read(words, ring, buffer.spare_capacity_mut())?;
        // SAFETY: `Consumer::read` has written this many bytes to the beginning of the spare capacity
        unsafe { buffer.set_len(buffer.len() + read.bytes) };
        Ok(read)
    }

    /// Writes as much of the pieces as there is room for; 0 bytes if the ring is full.
    #[inline]
    pub fn write<'a>(&self, pieces: impl Iterator<Item = &'a [u8]> + Clone) -> io::Result<Transfer> {
        let (words, ring) = self.outbound();
        self.producer.write(words, ring, pieces)
    }

    /// Gives the memory of the ring that is written back to the system if the peer has read everything,
    /// except for the first pages, in which idle traffic stays. Returns whether there was anything to give
    /// back. It counts as a write.
    ///
    /// A burst touches all pages of a ring, and they would stay for the life of the connection.
    pub fn give_back_memory(&self) -> io::Result<bool> {
        let (words, ring) = self.outbound();
        let has_rewound = self.producer.rewind_to_give_back(words, ring)?;
        if has_rewound {
            self.memory.give_back(1 - self.inbound, KEPT_BYTES);
        }
        Ok(has_rewound)
    }

    /// Gives all memory back to the system, unread bytes and words included, although the peer or somebody to
    /// whom it has passed the descriptor may have it for longer. For the end of a connection.
    pub fn give_back_all_memory(&self) {
        self.memory.give_back_all();
    }

    /// Returns whether the peer has read everything that this end has written.
    pub fn is_read(&self) -> io::Result<bool> {
        let (words, ring) = self.outbound();
        self.producer.is_read(words, ring)
    }

    /// Gives the memory of both rings back to the system, but not the words, so that a peer that has read
    /// everything finds nothing more. For the end of a connection.
    pub fn give_back_rings(&self) {
        [TO_BROKER, TO_CLIENT].into_iter().for_each(|ring| self.memory.give_back(ring, 0));
    }

    /// Announces that this end is about to sleep until bytes arrive. Returns `false` if there are bytes. The
    /// caller must have forgotten earlier wake-ups before.
    #[inline]
    pub fn prepare_sleep(&self) -> io::Result<bool> {
        let (words, ring) = self.inbound();
        self.consumer.prepare_sleep(words, ring)
    }

    /// Announces that this end no longer sleeps. Without it the peer wakes this end once more.
    #[inline]
    pub fn end_sleep(&self) {
        self.consumer.end_sleep(self.inbound().0);
    }

    /// Announces that this end is about to sleep until half of the ring that it writes is free. Returns
    /// `false` if it is already. The caller must have forgotten earlier wake-ups before. Another thread can
    /// write meanwhile.
    pub fn await_room(&self) -> bool {
        let (words, ring) = self.outbound();
        self.producer.await_room(words, ring)
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End").field("ring_bytes", &self.ring_bytes()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(elbus_model)))]
mod tests;
