//! Frames and bytes from and to clients.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Frames and body bytes from (`received`) and to (`sent`) a client, as `client.list` and `stats` show them.
/// Relaxed atomics: these are statistics, used only to estimate what a full client has taken.
#[derive(Default)]
pub(crate) struct Counts {
    received_frames: AtomicU64,
    received_bytes: AtomicU64,
    sent_frames: AtomicU64,
    sent_bytes: AtomicU64,
}

/// A snapshot of [`Counts`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) received_frames: u64,
    pub(crate) received_bytes: u64,
    pub(crate) sent_frames: u64,
    pub(crate) sent_bytes: u64,
}

impl Counts {
    /// Counts what came from the client. Must be called only by its sender: a single writer does not
    /// have to add atomically.
    #[inline]
    pub(crate) fn received(&self, frames: usize, bytes: usize) {
        let add = |to: &AtomicU64, more: usize| to.store(to.load(Relaxed).wrapping_add(more as u64), Relaxed);
        add(&self.received_frames, frames);
        add(&self.received_bytes, bytes);
    }

    #[inline]
    pub(crate) fn sent(&self, frames: usize, bytes: usize) {
        self.sent_frames.fetch_add(frames as u64, Relaxed);
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Returns the number of frames sent to the client, acknowledgements included.
    pub(crate) fn sent_frames(&self) -> u64 {
        self.sent_frames.load(Relaxed)
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            received_frames: self.received_frames.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            sent_frames: self.sent_frames.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
        }
    }

    /// Adds the totals of a client that has left.
    pub(crate) fn add(&self, totals: Totals) {
        self.received_frames.fetch_add(totals.received_frames, Relaxed);
        self.received_bytes.fetch_add(totals.received_bytes, Relaxed);
        self.sent(totals.sent_frames as usize, totals.sent_bytes as usize);
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.received_frames += other.received_frames;
        self.received_bytes += other.received_bytes;
        self.sent_frames += other.sent_frames;
        self.sent_bytes += other.sent_bytes;
    }
}
