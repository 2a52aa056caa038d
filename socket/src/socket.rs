//! A connected or listening socket, registered for reading only. Owns every system call on it; never blocks.
//!
//! With write readiness in its interest, every read by the peer would wake this end through EPOLLOUT for
//! nothing, which is the largest part of a round trip. tokio's own sockets always register for both, and
//! `AsyncFd` cannot be created for one without `unsafe`. Its pipe ends can: they take any file descriptor,
//! own it, and register it for one direction. Their reads and writes are not used.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, recv, send, sendmsg},
};
use std::{
    any::Any,
    future::poll_fn,
    io::{self, ErrorKind, IoSlice},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::pin,
    sync::{Arc, OnceLock},
    task::Poll,
    time::{Duration, Instant},
};
use tokio::net::unix::pipe;

use crate::{
    queue::{PIECES, Queue},
    received::Received,
    rings::{Rings, RoomTwin, keep_until_closed},
};

/// The best size of a read whose bytes are passed on: slightly less than the default socket buffer (208 KiB),
/// so that one read fits into the sockets of its receivers. A larger read would leave a part of it queued.
pub const READ_BYTES: usize = 192 * 1024;

const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// One byte of a handshake, see [`Socket::receive_answer`].
#[derive(Debug)]
pub enum ReceivedAnswer {
    /// Nothing has arrived.
    Nothing,
    /// One byte, and the rings if they came with it.
    Byte(u8, Option<RingDescriptors>),
    /// The peer will send no more.
    End,
}

/// The descriptors of two rings that a broker has passed, see [`Socket::use_rings`].
#[derive(Debug)]
pub struct RingDescriptors(elbus_ring::Handover);

/// A connected or listening socket that is registered for reading. Closes the descriptor when it is dropped.
///
/// The bytes of a connection can be in two rings of shared memory instead, in which the same methods read and
/// write: see [`offer_rings`](Self::offer_rings) and [`use_rings`](Self::use_rings).
///
/// All methods except [`new`](Self::new) can be called concurrently from any thread, inside or outside a
/// runtime; none of them blocks.
#[derive(Debug)]
pub struct Socket {
    fd: pipe::Receiver,
    /// Set once; of few connections.
    rings: OnceLock<Arc<Rings>>,
}

impl Socket {
    /// Takes ownership of a non-blocking socket; closes it if the registration with the runtime fails.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime that has its I/O driver enabled.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let fd = pipe::Receiver::from_owned_fd_unchecked(socket)?;
        Ok(Socket { fd, rings: OnceLock::new() })
    }

    /// Returns the rings if they replace the bytes of the socket.
    #[inline]
    fn active_rings(&self) -> Option<&Rings> {
        self.rings.get().filter(|rings| rings.is_active()).map(|rings| &**rings)
    }

    #[cfg(test)]
    pub(crate) fn as_fd_for_test(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns the size of the rings of this connection, in bytes; `None` if its bytes are on the socket.
    pub fn ring_bytes(&self) -> Option<u32> {
        self.active_rings().map(Rings::ring_bytes)
    }

    /// Creates two rings of this size. Their descriptors are passed with the next byte that is sent; from
    /// then on both directions are in the rings. `permit` is dropped with the rings. If there are rings
    /// already, which were [withdrawn](Self::withdraw_rings), offers them again.
    ///
    /// # Errors
    /// The size is not a power of two from 64 KiB to 16 MiB, or the system has no descriptor, mapping or
    /// memory left.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime that has its I/O driver enabled.
    pub fn offer_rings(&self, ring_bytes: u32, permit: Box<dyn Any + Send + Sync>) -> io::Result<()> {
        if self.rings.get().is_none() {
            let _ = self.rings.set(Arc::new(Rings::create(ring_bytes, permit)?));
        }
        self.reoffer_rings();
        Ok(())
    }

    /// Offers rings again that were withdrawn.
    pub fn reoffer_rings(&self) {
        self.rings.get().into_iter().for_each(|rings| rings.set_offered(true));
    }

    /// Withdraws rings that were not passed: the bytes stay on the socket.
    pub fn withdraw_rings(&self) {
        self.rings.get().into_iter().for_each(|rings| rings.set_offered(false));
    }

    /// Reads one byte, and the descriptors of rings that came with it. An error is final for the connection.
    pub fn receive_answer(&self) -> io::Result<ReceivedAnswer> {
        let mut answer = ReceivedAnswer::Nothing;
        let result = self.fd.try_io(|| {
            answer = match elbus_ring::receive(&self.fd)? {
                elbus_ring::Received::Nothing => return Err(ErrorKind::WouldBlock.into()),
                elbus_ring::Received::Byte(byte, rings) => {
                    ReceivedAnswer::Byte(byte, rings.map(RingDescriptors))
                }
                elbus_ring::Received::End => ReceivedAnswer::End,
            };
            Ok(())
        });
        match result {
            Err(error) if !is_temporary(&error) => Err(error),
            _ => Ok(answer),
        }
    }

    /// Reads and writes in rings that the broker has passed, from now on.
    ///
    /// # Errors
    /// The descriptors are not those of rings, or the system has no mapping left. The socket is unchanged.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime that has its I/O driver enabled.
    pub fn use_rings(&self, descriptors: RingDescriptors) -> io::Result<()> {
        let _ = self.rings.set(Arc::new(Rings::open(descriptors.0)?));
        Ok(())
    }

    /// Waits until there may be something to read or accept; a read can still find nothing. Only one task at
    /// a time should wait. Fails only when the runtime ends. Cancel safe.
    pub async fn readable(&self) -> io::Result<()> {
        match self.active_rings() {
            None => self.fd.readable().await,
            // boxed, since it would be part of the task of every connection
            Some(rings) => Box::pin(rings.readable(&self.fd)).await,
        }
    }

    /// Waits as [`readable`](Self::readable) does, but first polls for the time `busy`, yielding to other
    /// tasks, so that the thread does not sleep. Uses a whole processor and saves the time it takes to wake
    /// it.
    pub async fn readable_busy(&self, busy: Duration) -> io::Result<()> {
        let mut readable = pin!(self.readable());
        if busy.is_zero() {
            return readable.await;
        }
        let begun = Instant::now();
        if let Some(rings) = self.active_rings() {
            // without announcing a sleep, so that the peer need not wake this end
            while begun.elapsed() < busy && !rings.has_unread() {
                tokio::task::yield_now().await;
            }
            return readable.await;
        }
        while begun.elapsed() < busy {
            let polled = poll_fn(|context| Poll::Ready(readable.as_mut().poll(context))).await;
            if let Poll::Ready(result) = polled {
                return result;
            }
            tokio::task::yield_now().await;
        }
        readable.await
    }

    /// Reads once into a buffer that is not empty. An error is final for the connection.
    #[inline]
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        if let Some(rings) = self.active_rings() {
            return rings.receive(buffer);
        }
        let room = buffer.len();
        self.read(room, |socket| recv(socket, buffer, RecvFlags::DONTWAIT).map(|(_, count)| count))
    }

    /// Reads once into the spare capacity of a buffer, which must not be 0, without growing it. An error is
    /// final for the connection.
    #[inline]
    pub fn receive_more(&self, buffer: &mut Vec<u8>) -> io::Result<Received> {
        if let Some(rings) = self.active_rings() {
            return rings.receive_more(buffer);
        }
        let room = buffer.capacity() - buffer.len();
        self.read(room, |socket| {
            let spare = rustix::buffer::spare_capacity(buffer);
            recv(socket, spare, RecvFlags::DONTWAIT).map(|(_, count)| count)
        })
    }

    /// Reads as [`receive`](Self::receive) does, even if no readiness was reported. There, a short read
    /// counts as the last one, but a read also ends before an out-of-band byte and at bytes sent with file
    /// descriptors.
    pub fn receive_unannounced(&self, buffer: &mut [u8]) -> io::Result<Received> {
        if let Some(rings) = self.active_rings() {
            rings.look_unannounced(&self.fd);
            return rings.receive(buffer);
        }
        match recv(&self.fd, buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Ok(Received::End),
            Ok((_, count)) => Ok(Received::Bytes(count)),
            Err(error) => match io::Error::from(error) {
                error if is_temporary(&error) => Ok(Received::Nothing),
                error => Err(error),
            },
        }
    }

    #[inline]
    fn read(
        &self,
        room: usize,
        read: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<usize>,
    ) -> io::Result<Received> {
        let mut received = Received::Nothing;
        let result = self.fd.try_io(|| match read(self.fd.as_fd())? {
            0 => {
                received = Received::End;
                Ok(())
            }
            count => {
                received = Received::Bytes(count);
                // a short read has emptied the socket: reporting that saves a read that would find nothing
                if count < room { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
            }
        });
        match result {
            Err(error) if !is_temporary(&error) => Err(error),
            _ => Ok(received),
        }
    }

    /// Reads and discards up to a few megabytes. A TCP socket that is closed with unread bytes resets the
    /// connection, and the peer loses the last bytes sent to it.
    pub fn discard(&self) {
        if self.active_rings().is_some() {
            return; // bytes in the rings reset nothing
        }
        let mut buffer = [0; 16 * 1024];
        for _ in 0..256 {
            if !recv(&self.fd, &mut buffer, RecvFlags::DONTWAIT).is_ok_and(|(_, count)| count > 0) {
                return;
            }
        }
    }

    /// Accepts a connection, non-blocking and closed on exec; returns `None` if none is pending. The error
    /// can concern one connection or be a lack of file descriptors, so a listener continues after it.
    pub fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let result = self.fd.try_io(|| Ok(rustix::net::accept_with(self.fd.as_fd(), flags)?));
        match result {
            Ok(socket) => Ok(Some(socket)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns whether the peer has closed the connection or its sending side. Unread bytes may be left.
    pub fn peer_has_closed(&self) -> bool {
        self.polls(PollFlags::RDHUP, PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
    }

    /// Returns whether unread bytes or the end of the stream have arrived.
    pub fn has_unread(&self) -> bool {
        if let Some(rings) = self.active_rings() {
            return rings.has_unread() || self.peer_has_closed();
        }
        self.polls(PollFlags::IN, PollFlags::IN)
    }

    fn polls(&self, asked: PollFlags, expected: PollFlags) -> bool {
        let mut polled = [PollFd::new(&self.fd, asked)];
        let result = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        result.is_ok_and(|_| polled.iter().any(|socket| socket.revents().intersects(expected)))
    }

    /// Sends the part of a queue that the socket accepts; the caller then [removes](Queue::advance) that
    /// part. Returns 0 if the socket is full. An error is final for the connection. Only one caller at a time
    /// may send, which the owner's lock ensures; otherwise bytes interleave.
    #[inline]
    pub fn send(&self, queue: &Queue) -> io::Result<usize> {
        if let Some(rings) = self.rings.get() {
            return self.send_in_rings(rings, queue);
        }
        self.send_on_socket(queue)
    }

    #[inline]
    fn send_on_socket(&self, queue: &Queue) -> io::Result<usize> {
        match queue.single() {
            Some(bytes) => taken(send(&self.fd, bytes, SEND)),
            None => {
                let mut places = [IoSlice::new(&[]); PIECES];
                let used = queue.pieces(&mut places);
                self.send_pieces_on_socket(places.get(..used).unwrap_or_default())
            }
        }
    }

    fn send_in_rings(&self, rings: &Rings, queue: &Queue) -> io::Result<usize> {
        let mut places = [IoSlice::new(&[]); PIECES];
        if rings.is_active() {
            if let Some(bytes) = queue.single() {
                return rings.write(std::iter::once(bytes));
            }
            let used = queue.pieces(&mut places);
            return rings.send(places.get(..used).unwrap_or_default());
        }
        if !rings.is_offered() {
            return self.send_on_socket(queue);
        }
        let used = queue.pieces(&mut places);
        let Some(([first], rest)) = places.get_mut(..used).and_then(|all| all.split_first_chunk_mut()) else {
            return Ok(0);
        };
        let Some(answer) = first.first().copied() else { return Ok(0) };
        rings.hand_over(&self.fd, answer)?;
        first.advance(1);
        let behind = std::iter::once(&**first).chain(rest.iter().map(|piece| &piece[..]));
        rings.write(behind).map(|written| 1 + written)
    }

    /// Sends the part of these pieces that the socket accepts, as [`send`](Self::send) does for a queue. The
    /// pieces must not be empty.
    #[inline]
    pub fn send_pieces(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.rings.get() {
            Some(rings) if rings.is_active() => rings.send(pieces),
            // the byte that the descriptors go with is queued
            Some(rings) if rings.is_offered() => Ok(0),
            _ => self.send_pieces_on_socket(pieces),
        }
    }

    #[inline]
    fn send_pieces_on_socket(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        taken(sendmsg(&self.fd, pieces, &mut SendAncillaryBuffer::default(), SEND))
    }

    /// Creates a second file descriptor of the same socket, registered for writing, that reports when there
    /// is room. Fails if the process is out of file descriptors.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime that has its I/O driver enabled.
    pub fn writable_twin(&self) -> io::Result<WritableTwin> {
        if let Some(rings) = self.rings.get().filter(|rings| rings.is_active()) {
            return RoomTwin::new(rings.clone(), &self.fd).map(Twin::Ring).map(WritableTwin);
        }
        let twin = rustix::io::fcntl_dupfd_cloexec(&self.fd, 3)?;
        pipe::Sender::from_owned_fd_unchecked(twin).map(Twin::Socket).map(WritableTwin)
    }

    /// Gives memory back to the system that a burst has left in the ring to the peer, if the peer has read
    /// everything. Only the one who may [`send`](Self::send) may call it. Does nothing without rings.
    pub fn give_back_memory(&self) {
        self.active_rings().into_iter().for_each(Rings::give_back_memory);
    }

    /// For the end of a connection, before it is shut down. If the peer is gone or `is_violation` says that
    /// it has broken the protocol, it is owed nothing: all memory of its rings is given back when the socket
    /// is dropped, although somebody may keep the descriptors. Does nothing without rings.
    pub fn forfeit_rings(&self, is_violation: bool) {
        if let Some(rings) = self.active_rings()
            && (is_violation || self.polls(PollFlags::HUP, PollFlags::HUP | PollFlags::ERR))
        {
            rings.forfeit();
        }
    }

    /// For the end of a connection, after it is shut down: if the peer can still read what is unread in its
    /// ring, returns what keeps the rings and their permit until it has closed the pipe that woke it.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime that has its I/O driver enabled.
    pub fn unread_rings(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let rings = self.rings.get().filter(|rings| rings.is_active())?;
        Some(keep_until_closed(rings.clone(), rings.end_of_unread()?))
    }

    /// Stops reading; wakes tasks that wait for the socket. The peer does not notice yet.
    pub fn shutdown_read(&self) {
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Read);
    }

    /// Stops sending and wakes a task that waits for room; the peer can still send.
    pub fn shutdown_write(&self) {
        // fails if the peer is gone, which is fine
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Write);
        self.active_rings().into_iter().for_each(Rings::end_writing);
    }

    /// Ends both directions and wakes tasks that wait for the socket. A listening socket stops accepting.
    pub fn shutdown(&self) {
        let _ = rustix::net::shutdown(&self.fd, Shutdown::Both);
        self.active_rings().into_iter().for_each(Rings::end_writing);
    }
}

/// Returns the number of bytes sent: 0 if the socket is full.
#[inline]
fn taken(sent: rustix::io::Result<usize>) -> io::Result<usize> {
    match sent.map_err(io::Error::from) {
        Err(error) if is_temporary(&error) => Ok(0),
        sent => sent,
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Waits for room in a full socket, see [`Socket::writable_twin`]. Drop it when the queue is empty: while it
/// exists, each read of the peer wakes this end, and the connection stays open.
#[derive(Debug)]
pub struct WritableTwin(Twin);

#[derive(Debug)]
enum Twin {
    Socket(pipe::Sender),
    Ring(RoomTwin),
}

impl WritableTwin {
    /// Waits until there may be room, or the connection is broken. Fails only when the runtime ends. Cancel
    /// safe.
    pub async fn writable(&self) -> io::Result<()> {
        match &self.0 {
            Twin::Socket(socket) => socket.writable().await,
            Twin::Ring(ring) => ring.writable().await,
        }
    }

    /// Runs `write` unless the socket is known to be full. If `write` returns `false`, the socket counts as
    /// full, and [`writable`](Self::writable) waits again.
    pub fn while_writable(&self, write: impl FnOnce() -> bool) {
        let full = || io::Error::from(ErrorKind::WouldBlock);
        match &self.0 {
            Twin::Socket(socket) => {
                let _ = socket.try_io(|| if write() { Ok(()) } else { Err(full()) });
            }
            // it looks at the ring itself before it waits
            Twin::Ring(_) => drop(write()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::{io::Write, os::unix::net::UnixStream, thread};

    const LONG: Duration = Duration::from_secs(3600);

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Socket::new(ours.into()).unwrap(), theirs)
    }

    /// Reads all bytes until the end; each wait polls for `busy` first.
    async fn read_to_end(socket: &Socket, busy: Duration) -> Vec<u8> {
        let (mut all, mut buffer) = (vec![], [0; 64]);
        loop {
            socket.readable_busy(busy).await.unwrap();
            match socket.receive(&mut buffer).unwrap() {
                Received::Bytes(count) => all.extend_from_slice(&buffer[..count]),
                Received::Nothing => {}
                Received::End => return all,
            }
        }
    }

    #[tokio::test]
    async fn a_busy_wait_misses_nothing_while_polling_and_asleep() {
        for busy in [Duration::ZERO, Duration::from_nanos(1), Duration::from_micros(50), LONG] {
            let (socket, mut peer) = pair();
            let writer = thread::spawn(move || (0..200).for_each(|i: u8| peer.write_all(&[i]).unwrap()));
            assert_eq!(read_to_end(&socket, busy).await, (0..200).collect::<Vec<u8>>(), "{busy:?}");
            writer.join().unwrap();
        }
    }

    #[tokio::test]
    async fn a_closed_peer_is_detected_before_its_last_bytes_are_read() {
        let (socket, mut peer) = pair();
        assert!(!socket.peer_has_closed() && !socket.has_unread());
        peer.write_all(b"last").unwrap();
        assert!(!socket.peer_has_closed() && socket.has_unread());
        drop(peer);
        assert!(socket.peer_has_closed());
        assert_eq!(read_to_end(&socket, Duration::ZERO).await, b"last");
    }

    #[tokio::test]
    async fn a_busy_wait_yields_to_other_tasks() {
        let (socket, mut peer) = pair();
        // on the same thread: the other task runs only if the waiting one yields
        let other = tokio::spawn(async move { peer.write_all(b"x").unwrap() });
        assert_eq!(read_to_end(&socket, LONG).await, b"x");
        other.await.unwrap();
    }
}
