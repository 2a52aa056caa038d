//! Where everything is in the shared memory: one page of indices and flags, the bytes from the client to the
//! broker, the bytes from the broker to the client. Owns the sizes; reads nothing.
//!
//! Producer and consumer write to different pairs of cache lines, since processors fetch lines in pairs.

use crate::sync::AtomicU32;

/// Bytes in front of the two rings.
pub(crate) const CONTROL_BYTES: usize = 4096;
/// The first word of the memory: `EBRG`.
pub(crate) const MAGIC: u32 = u32::from_ne_bytes(*b"EBRG");
/// The version of the layout.
pub(crate) const VERSION: u32 = 1;
/// The smallest ring, in bytes.
pub const MIN_RING_BYTES: u32 = 64 * 1024;
/// The largest ring, in bytes.
pub const MAX_RING_BYTES: u32 = 16 * 1024 * 1024;
/// The ring from the client to the broker.
pub(crate) const TO_BROKER: usize = 0;
/// The ring from the broker to the client.
pub(crate) const TO_CLIENT: usize = 1;

/// Returns the size of a ring for a size class of the greeting (1 to 9), in bytes; `None` for others.
///
/// ```
/// assert_eq!(elbus_ring::ring_bytes_of_class(1), Some(64 * 1024));
/// assert_eq!(elbus_ring::ring_bytes_of_class(4), Some(512 * 1024));
/// assert_eq!(elbus_ring::ring_bytes_of_class(0), None);
/// ```
pub fn ring_bytes_of_class(class: u8) -> Option<u32> {
    (1..=9).contains(&class).then(|| 1 << (15 + u32::from(class)))
}

/// Returns whether a ring can have this size.
pub(crate) fn is_ring_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && (MIN_RING_BYTES..=MAX_RING_BYTES).contains(&bytes)
}

/// Returns the size of the memory with two rings of this size.
pub(crate) fn memory_bytes(ring_bytes: u32) -> usize {
    CONTROL_BYTES + 2 * ring_bytes as usize
}

/// What the client checks before anything else. Written once, by the broker.
#[repr(C, align(128))]
#[derive(Default)]
pub(crate) struct Header {
    pub(crate) magic: AtomicU32,
    pub(crate) version: AtomicU32,
    pub(crate) ring_bytes: AtomicU32,
}

/// Written by the producer; a consumer that wakes it clears `wants_room`.
#[repr(C, align(128))]
#[derive(Default)]
pub(crate) struct ProducerWords {
    /// Number of bytes written so far, modulo 2^32.
    pub(crate) tail: AtomicU32,
    /// Not 0 while the producer sleeps until there is room.
    pub(crate) wants_room: AtomicU32,
    /// The count at which the ring last began at its first byte: the byte of count `c` is at
    /// `(c - base) % ring_bytes`. Changes only while the ring is empty, and before the next store of `tail`,
    /// so that a consumer that sees a tail sees the base that belongs to it.
    pub(crate) base: AtomicU32,
}

/// Written by the consumer; a producer that wakes it clears `sleeps`.
#[repr(C, align(128))]
#[derive(Default)]
pub(crate) struct ConsumerWords {
    /// Number of bytes read so far, modulo 2^32.
    pub(crate) head: AtomicU32,
    /// Not 0 while the consumer sleeps until there are bytes.
    pub(crate) sleeps: AtomicU32,
}

/// The words of one ring.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Words {
    pub(crate) producer: ProducerWords,
    pub(crate) consumer: ConsumerWords,
}

/// The first page.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Control {
    pub(crate) header: Header,
    pub(crate) rings: [Words; 2],
}

// the numbers of docs/protocol.md, section 12
#[cfg(not(all(test, elbus_model)))]
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Control, rings) == 128 && size_of::<Words>() == 256);
    assert!(size_of::<Control>() <= CONTROL_BYTES && align_of::<Control>() <= CONTROL_BYTES);
    assert!(offset_of!(Words, consumer) == 128);
    assert!(offset_of!(ProducerWords, tail) == 0 && offset_of!(ProducerWords, wants_room) == 4);
    assert!(offset_of!(ProducerWords, base) == 8);
    assert!(offset_of!(ConsumerWords, head) == 0 && offset_of!(ConsumerWords, sleeps) == 4);
};
