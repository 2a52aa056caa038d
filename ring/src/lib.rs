//! Two byte rings in shared memory, one for each direction between a broker and one client.
//!
//! [`End`] owns the mapping and the indices of one side, [`PeerWaker`] the descriptor that wakes the other
//! side, and [`Handover`] what the broker passes to the client. This crate never waits, never interprets the
//! bytes in the rings, and keeps no reference to memory that the peer can write, except to atomics.
//!
//! **The peer is hostile.** It can write anything to the whole memory at any time. Each shared word is read
//! once and checked, the bytes are copied out before anybody looks at them, and what this side has written is
//! never read back. The worst that a peer achieves is an error, which ends its own connection, or bytes that
//! it could have sent anyway. The layout is described in `docs/protocol.md`, section 12.
//!
//! ```
//! # fn main() -> std::io::Result<()> {
//! let (broker, memory) = elbus_ring::End::create(elbus_ring::MIN_RING_BYTES)?;
//! let client = elbus_ring::End::open(&memory)?;
//! client.write([&b"hello"[..]].into_iter())?;
//! let mut buffer = [0; 100];
//! assert_eq!(broker.read(&mut buffer)?.bytes, 5);
//! assert_eq!(&buffer[..5], b"hello");
//! # Ok(())
//! # }
//! ```

mod consumer;
mod end;
mod handover;
mod layout;
mod memory;
#[cfg(all(test, elbus_model))]
#[allow(clippy::unwrap_used, reason = "a model that cannot go on has failed")]
mod models;
mod peer_waker;
mod producer;
mod sync;

pub use end::End;
pub use handover::{Handover, Received, receive};
pub use layout::{MAX_RING_BYTES, MIN_RING_BYTES, ring_bytes_of_class};
pub use peer_waker::PeerWaker;

/// What a read or a write has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes read or written.
    pub bytes: usize,
    /// Whether the peer sleeps and must be [woken](PeerWaker::wake).
    pub wake: bool,
}

impl Transfer {
    const NONE: Transfer = Transfer { bytes: 0, wake: false };
}

/// The error of an index that the peer cannot have reached.
#[cold]
fn out_of_bounds() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, "an index in the peer's ring is out of bounds")
}
