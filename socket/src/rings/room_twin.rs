//! Waiting for room in a full ring. Owns the descriptors that a writer waits with; writes nothing.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::fcntl_dupfd_cloexec,
};
use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};
use tokio::{net::unix::pipe, task::coop::consume_budget};

use super::{Rings, forget, wait};

/// Waits for room in a full ring, with descriptors of its own: were it to share those of the reader, each
/// could forget what the other has not seen.
#[derive(Debug)]
pub(crate) struct RoomTwin {
    rings: Arc<Rings>,
    /// `Some` until it is dropped.
    waits: Option<Waits>,
}

/// Registered descriptors: second ones of what wakes this side, and of the socket.
#[derive(Debug)]
struct Waits {
    wakes: pipe::Receiver,
    socket: pipe::Receiver,
}

/// What a writer has left for the next one.
pub(super) struct Spare {
    waits: Waits,
    pub(super) since: Instant,
}

impl RoomTwin {
    /// Must be called within the runtime.
    pub(crate) fn new(rings: Arc<Rings>, socket: impl AsFd) -> io::Result<Self> {
        let spare = rings.spare.lock().take();
        let waits = match spare {
            Some(spare) => spare.waits,
            None => Waits {
                wakes: pipe::Receiver::from_owned_fd_unchecked(fcntl_dupfd_cloexec(&rings.wakes, 3)?)?,
                socket: pipe::Receiver::from_owned_fd_unchecked(fcntl_dupfd_cloexec(socket, 3)?)?,
            },
        };
        Ok(RoomTwin { rings, waits: Some(waits) })
    }

    /// Waits until half of the ring is free or the peer is gone. Cancel safe.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        consume_budget().await;
        let Some(Waits { wakes, socket }) = &self.waits else { return Ok(()) };
        let mut woken = false;
        loop {
            forget(wakes);
            forget(socket);
            if woken {
                self.rings.empty_pipe(wakes, &self.rings.for_reader);
            }
            let events = events_of(socket);
            if events.intersects(PollFlags::HUP | PollFlags::ERR) {
                self.rings.is_gone.store(true, Ordering::Release);
            }
            if self.rings.is_gone.load(Ordering::Acquire) || !self.rings.end.await_room() {
                return Ok(());
            }
            // tokio would report a half-closed socket at once, again and again
            let socket = (!events.contains(PollFlags::RDHUP)).then_some(socket);
            woken = wait(wakes, socket, &self.rings.for_writer).await?;
        }
    }
}

impl Drop for RoomTwin {
    fn drop(&mut self) {
        if let Some(waits) = self.waits.take() {
            let spare = Spare { waits, since: Instant::now() };
            *self.rings.spare.lock() = Some(spare);
            self.rings.has_spare.store(true, Ordering::Relaxed);
        }
    }
}

/// Returns whether the peer has closed one direction or both.
fn events_of(socket: &pipe::Receiver) -> PollFlags {
    let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
    let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    let [polled] = polled;
    polled.revents()
}
