//! How one end wakes the other. Owns the descriptor; never blocks, whatever the peer does with its own.

use rustix::io::write;
use std::os::fd::OwnedFd;

/// Wakes the peer.
///
/// The client gets the reading end of a pipe. The broker never writes to an eventfd that a client has: the
/// flag `O_NONBLOCK` of an eventfd belongs to both, and a client that clears it and fills the counter would
/// block the broker. The two ends of a pipe have flags of their own.
#[derive(Debug)]
pub enum PeerWaker {
    /// The writing end of a pipe, which only the broker has.
    Client(OwnedFd),
    /// The eventfd that the broker polls and never reads.
    Broker(OwnedFd),
}

impl PeerWaker {
    /// Wakes the peer. A full pipe or counter has woken it already; a closed pipe means that the peer is
    /// gone, which the socket reports.
    #[inline]
    pub fn wake(&self) {
        let _ = match self {
            PeerWaker::Client(pipe) => write(pipe, &[0]),
            PeerWaker::Broker(counter) => write(counter, &1u64.to_ne_bytes()),
        };
    }
}
