//! The rings that replace the bytes of a socket, and how their tasks wait. Owns the descriptors that wake the
//! two ends, and the order of forgetting, looking and sleeping, on which no wake-up may be lost. The rings
//! themselves are in `elbus-ring`.
//!
//! The socket stays open: its end is the end of the connection, and a byte on it is an error.
//!
//! The broker is woken by an eventfd that it never reads: each write to it is an edge for epoll, also of a
//! second registration. The client is woken by a pipe, which must be emptied sometimes. That can take an edge
//! away from the other task of the client before epoll has reported it, so a task that empties the pipe
//! notifies the other one.

mod room_twin;

use elbus_ring::{End, Handover, PeerWaker};
use parking_lot::Mutex;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, fcntl_dupfd_cloexec},
    net::{RecvFlags, SendFlags, recv},
};
use std::{
    any::Any,
    fmt,
    future::poll_fn,
    io::{self, ErrorKind, IoSlice},
    os::fd::AsFd,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{net::unix::pipe, sync::Notify, task::coop::consume_budget};

use crate::received::Received;
pub(crate) use room_twin::RoomTwin;
use room_twin::Spare;

/// Bytes of the pipe that are read at once: each is one wake-up.
const PIPE_BYTES: usize = 256;
/// Number of reads after which the pipe is left alone, whatever is in it: a broker that never stops writing
/// must not keep the other tasks of a client from running. Twice what a pipe holds.
const PIPE_READS: usize = 512;
/// How long the registration of a writer is kept for the next one. A ring that is full once is full again
/// soon: to duplicate and register two descriptors each time costs as much as copying some kilobytes.
const SPARE_KEPT: Duration = Duration::from_secs(1);

/// The socket is used for now: the descriptors go with the next byte.
const OFFERED: u8 = 0;
/// The client was refused; the socket is used for good.
const WITHDRAWN: u8 = 1;
/// The rings are used.
const ACTIVE: u8 = 2;

/// A pair of rings and what wakes their ends.
pub(crate) struct Rings {
    end: End,
    state: AtomicU8,
    /// What wakes this side: an eventfd in the broker, a pipe in the client.
    wakes: pipe::Receiver,
    peer: PeerWaker,
    /// Nobody is owed what is unread: all memory is given back when the connection has ended.
    is_forfeit: AtomicBool,
    /// What is passed to the client. A leaf lock.
    handover: Mutex<Option<Handover>>,
    /// The peer will write no more.
    has_ended: AtomicBool,
    /// The peer will not read either, or this side writes no more.
    is_gone: AtomicBool,
    /// In a client: the other task has emptied the pipe.
    for_reader: Notify,
    /// The same, or this side writes no more.
    for_writer: Notify,
    /// What the last writer has waited with, for the next one. A leaf lock.
    spare: Mutex<Option<Spare>>,
    has_spare: AtomicBool,
    /// Dropped with the rings: what counts them.
    _permit: Option<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Rings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rings").field("end", &self.end).finish_non_exhaustive()
    }
}

impl Rings {
    /// Makes the rings of a client. Must be called within the runtime.
    pub(crate) fn create(ring_bytes: u32, permit: Box<dyn Any + Send + Sync>) -> io::Result<Self> {
        let (end, polled, peer, handover) = Handover::create(ring_bytes)?;
        let wakes = pipe::Receiver::from_owned_fd_unchecked(polled)?;
        Ok(Self::of(end, wakes, peer, (Some(handover), OFFERED), Some(permit)))
    }

    /// Maps the rings that a broker has made. Must be called within the runtime.
    pub(crate) fn open(handover: Handover) -> io::Result<Self> {
        let (end, pipe, peer) = handover.open()?;
        let wakes = pipe::Receiver::from_owned_fd_unchecked(pipe)?;
        Ok(Self::of(end, wakes, peer, (None, ACTIVE), None))
    }

    fn of(
        end: End,
        wakes: pipe::Receiver,
        peer: PeerWaker,
        (handover, state): (Option<Handover>, u8),
        permit: Option<Box<dyn Any + Send + Sync>>,
    ) -> Self {
        Rings {
            end,
            state: AtomicU8::new(state),
            wakes,
            peer,
            handover: Mutex::new(handover),
            has_ended: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            for_reader: Notify::new(),
            for_writer: Notify::new(),
            is_forfeit: AtomicBool::new(false),
            spare: Mutex::new(None),
            has_spare: AtomicBool::new(false),
            _permit: permit,
        }
    }

    /// Returns the size of each ring, in bytes.
    pub(crate) fn ring_bytes(&self) -> u32 {
        self.end.ring_bytes()
    }

    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.state.load(Ordering::Acquire) == ACTIVE
    }

    /// Returns whether the next byte goes with the descriptors.
    pub(crate) fn is_offered(&self) -> bool {
        self.state.load(Ordering::Acquire) == OFFERED
    }

    /// Offers the rings again, or no longer. Does nothing once they are used.
    pub(crate) fn set_offered(&self, offered: bool) {
        let state = if offered { OFFERED } else { WITHDRAWN };
        let change = |current| (current != ACTIVE).then_some(state);
        let _ = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
    }

    /// Sends this byte with the descriptors. From then on the rings are used.
    #[cold]
    pub(crate) fn hand_over(&self, socket: impl AsFd, answer: u8) -> io::Result<()> {
        let mut handover = self.handover.lock();
        // a full socket is an error as well: there is nothing to wait with
        let sent = handover.as_ref().ok_or(ErrorKind::NotConnected)?.send(&socket, answer);
        if let Err(error) = sent {
            // too many descriptors may be in flight, of clients that do not read their answers: without them
            // the answer means that the client connects again, and uses the socket
            let _ = rustix::net::send(&socket, &[answer], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            return Err(error);
        }
        *handover = None;
        self.state.store(ACTIVE, Ordering::Release);
        Ok(())
    }

    /// Reads once from the ring.
    #[inline]
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        // before the bytes: what the peer wrote before its end must be found
        let has_ended = self.has_ended.load(Ordering::Acquire);
        self.received(self.end.read(buffer)?, has_ended)
    }

    /// Reads once into the spare capacity of a buffer.
    #[inline]
    pub(crate) fn receive_more(&self, buffer: &mut Vec<u8>) -> io::Result<Received> {
        let has_ended = self.has_ended.load(Ordering::Acquire);
        self.received(self.end.read_more(buffer)?, has_ended)
    }

    #[inline]
    fn received(&self, read: elbus_ring::Transfer, has_ended: bool) -> io::Result<Received> {
        if read.wake {
            self.peer.wake();
        }
        Ok(match read.bytes {
            0 if has_ended => Received::End,
            0 => Received::Nothing,
            bytes => Received::Bytes(bytes),
        })
    }

    /// Writes what there is room for. Empty pieces are allowed.
    #[inline]
    pub(crate) fn send(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(pieces.iter().map(|piece| &piece[..]))
    }

    /// Writes what there is room for.
    #[inline]
    pub(crate) fn write<'a>(&self, pieces: impl Iterator<Item = &'a [u8]> + Clone) -> io::Result<usize> {
        let written = self.end.write(pieces)?;
        if written.wake {
            self.peer.wake();
        }
        if written.bytes == 0 && self.is_gone.load(Ordering::Acquire) {
            return Err(ErrorKind::BrokenPipe.into());
        }
        Ok(written.bytes)
    }

    /// Returns whether there are bytes to read, or an error.
    pub(crate) fn has_unread(&self) -> bool {
        self.end.has_bytes().unwrap_or(true)
    }

    /// Waits until there are bytes or the peer has ended. Cancel safe.
    pub(crate) async fn readable(&self, socket: &pipe::Receiver) -> io::Result<()> {
        // as tokio's own descriptors do: a peer that always has bytes must not keep others from running
        consume_budget().await;
        let mut woken = false;
        loop {
            // what is forgotten here is looked at below, so nothing is missed
            forget(&self.wakes);
            if woken {
                self.empty_pipe(&self.wakes, &self.for_writer);
            }
            self.look_at(socket)?;
            if self.has_ended.load(Ordering::Acquire) || !self.end.prepare_sleep()? {
                return Ok(());
            }
            self.drop_old_spare();
            let waited = wait(&self.wakes, Some(socket), &self.for_reader).await;
            self.end.end_sleep();
            woken = waited?;
        }
    }

    /// Gives memory that a burst has left in the ring to the peer back to the system. Counts as a write.
    pub(crate) fn give_back_memory(&self) {
        // an index out of bounds shows again at the next write
        let _ = self.end.give_back_memory();
    }

    /// Ends the writer that waits for room: a peer that neither reads nor closes does not wake it.
    pub(crate) fn end_writing(&self) {
        self.is_gone.store(true, Ordering::Release);
        self.for_writer.notify_one();
    }

    /// Records that the client is owed nothing.
    pub(crate) fn forfeit(&self) {
        self.is_forfeit.store(true, Ordering::Relaxed);
    }

    /// Returns a descriptor that reports the end of the client's pipe if something is unread that the client
    /// is owed. Must be called within the runtime.
    pub(crate) fn end_of_unread(&self) -> Option<pipe::Sender> {
        let PeerWaker::Client(pipe) = &self.peer else { return None };
        if self.is_forfeit.load(Ordering::Relaxed) || !matches!(self.end.is_read(), Ok(false)) {
            return None;
        }
        pipe::Sender::from_owned_fd_unchecked(fcntl_dupfd_cloexec(pipe, 3).ok()?).ok()
    }

    fn drop_old_spare(&self) {
        if self.has_spare.load(Ordering::Relaxed) {
            let mut spare = self.spare.lock();
            if spare.as_ref().is_none_or(|spare| spare.since.elapsed() >= SPARE_KEPT) {
                self.has_spare.store(false, Ordering::Relaxed);
                *spare = None;
            }
        }
    }

    /// Finds out whether the peer has ended: nothing may arrive on the socket.
    fn look_at(&self, socket: &pipe::Receiver) -> io::Result<()> {
        let mut byte = [0];
        let unexpected = "bytes on the socket of a client with rings";
        let looked = socket.try_io(|| match recv(socket, &mut byte, RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => {
                self.has_ended.store(true, Ordering::Release);
                Ok(())
            }
            Ok(_) => Err(io::Error::new(ErrorKind::InvalidData, unexpected)),
            Err(error) => Err(error.into()),
        });
        let nothing = |kind: ErrorKind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted);
        looked.or_else(|error| if nothing(error.kind()) { Ok(()) } else { Err(error) })
    }

    /// Looks at the socket although no event was reported.
    pub(crate) fn look_unannounced(&self, socket: impl AsFd) {
        if matches!(recv(socket, &mut [0; 1], RecvFlags::DONTWAIT), Ok((_, 0)) | Err(Errno::CONNRESET)) {
            self.has_ended.store(true, Ordering::Release);
        }
    }

    /// In a client: empties the pipe, and notifies the task that may have missed its edge because of that.
    /// Must come after forgetting the edge and before looking at the ring.
    fn empty_pipe(&self, pipe: &pipe::Receiver, other: &Notify) {
        if matches!(self.peer, PeerWaker::Client(_)) {
            return; // an eventfd is never read
        }
        for _ in 0..PIPE_READS {
            let Ok(bytes) = rustix::io::read(pipe, &mut [0; PIPE_BYTES]) else { return };
            if bytes == 0 {
                // the broker has closed the connection; tokio reports that from now on at once
                self.has_ended.store(true, Ordering::Release);
                self.is_gone.store(true, Ordering::Release);
            }
            other.notify_one();
            if bytes < PIPE_BYTES {
                return;
            }
        }
    }
}

impl Drop for Rings {
    fn drop(&mut self) {
        if !matches!(self.peer, PeerWaker::Client(_)) {
            return;
        }
        // a client, or another holder of its descriptors, could keep the memory of many connections
        match self.end.is_read() {
            Ok(false) if !*self.is_forfeit.get_mut() => {}
            Ok(true) if !*self.is_forfeit.get_mut() => self.end.give_back_rings(),
            _ => self.end.give_back_all_memory(),
        }
    }
}

/// Keeps the rings of a connection that has ended until the client has closed the pipe that woke it: until
/// then it may read what is unread, and counts as a client with rings. Its memory is given back then.
pub(crate) async fn keep_until_closed(rings: Arc<Rings>, pipe: pipe::Sender) {
    loop {
        // what is forgotten here is looked at below
        let _ = pipe.try_io(|| Err::<(), _>(ErrorKind::WouldBlock.into()));
        let mut polled = [PollFd::new(&pipe, PollFlags::empty())];
        let _ = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        let [polled] = polled;
        // without an event the runtime ends
        if polled.revents().intersects(PollFlags::ERR | PollFlags::HUP) || pipe.writable().await.is_err() {
            break;
        }
    }
    rings.forfeit();
}

/// Waits for a wake-up, an event of the socket, or the notification of the other task. Returns whether it was
/// a wake-up.
async fn wait(wakes: &pipe::Receiver, socket: Option<&pipe::Receiver>, notify: &Notify) -> io::Result<bool> {
    let mut woken = pin!(wakes.readable());
    let mut ended = pin!(async {
        match socket {
            Some(socket) => socket.readable().await,
            None => std::future::pending().await,
        }
    });
    let mut notified = pin!(notify.notified());
    poll_fn(|context| {
        if let Poll::Ready(result) = woken.as_mut().poll(context) {
            return Poll::Ready(result.map(|()| true));
        }
        if let Poll::Ready(result) = ended.as_mut().poll(context) {
            return Poll::Ready(result.map(|()| false));
        }
        notified.as_mut().poll(context).map(|()| Ok(false))
    })
    .await
}

/// Makes tokio wait for the next edge.
fn forget(descriptor: &pipe::Receiver) {
    let _ = descriptor.try_io(|| Err::<(), _>(ErrorKind::WouldBlock.into()));
}

#[cfg(test)]
mod tests;
