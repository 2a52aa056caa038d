//! The rings of shared memory of a client: reading, writing and waiting in them. Owns the descriptors that
//! the broker has passed; a blocking client, as one in any language is written from `docs/protocol.md`.

use elbus_ring::{End, Handover, PeerWaker};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::{Errno, retry_on_intr},
};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::timeout::{TIMEOUT, closed, timed_out};
use crate::BoxError;

/// Wake-ups between two reads of the pipe. An edge is reported for each, whether or not the pipe is empty.
const EMPTY_EVERY: u32 = 512;
/// A writer looks for room by itself after this time: a thread that reads may have taken its wake-up.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);

/// Both rings of a client. One thread at a time may read, and one may write.
pub(crate) struct Rings {
    end: End,
    pipe: OwnedFd,
    broker: PeerWaker,
    /// Reports the edges of the pipe, so that a wait is one system call, and the end of the socket.
    waits: OwnedFd,
    wakeups: AtomicU32,
}

impl Rings {
    pub(crate) fn open(handover: Handover, socket: impl AsFd) -> Result<Self, BoxError> {
        let (end, pipe, broker) = handover.open()?;
        let waits = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&waits, &pipe, data, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        epoll::add(&waits, socket, data, epoll::EventFlags::RDHUP)?;
        Ok(Rings { end, pipe, broker, waits, wakeups: AtomicU32::new(0) })
    }

    /// Writes all bytes.
    #[inline]
    pub(crate) fn send(&self, mut bytes: &[u8]) -> Result<(), BoxError> {
        loop {
            let written = self.end.write([bytes].into_iter())?;
            if written.wake {
                self.broker.wake();
            }
            bytes = bytes.get(written.bytes..).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(());
            }
            self.wait_for_room()?;
        }
    }

    #[cold]
    fn wait_for_room(&self) -> Result<(), BoxError> {
        let mut waited = Duration::ZERO;
        while self.end.await_room() {
            if waited >= TIMEOUT {
                return Err(timed_out("read", "a receiver is stuck"));
            }
            if !self.wait(LOOK_FOR_ROOM)? {
                waited += LOOK_FOR_ROOM;
            }
        }
        Ok(())
    }

    /// Reads what there is; 0 bytes if there is nothing.
    #[inline]
    pub(crate) fn try_receive(&self, buffer: &mut [u8]) -> Result<usize, BoxError> {
        let read = self.end.read(buffer)?;
        if read.wake {
            self.broker.wake();
        }
        Ok(read.bytes)
    }

    /// Blocks until there is something to read.
    #[inline]
    pub(crate) fn wait_readable(&self) -> Result<(), BoxError> {
        while self.prepare_wait()? {
            let woken = self.wait(TIMEOUT)?;
            self.end.end_sleep();
            if !woken {
                return Err(timed_out("sent", "a message is lost"));
            }
        }
        Ok(())
    }

    /// Announces a wait for [`pipe`](Self::pipe). Returns `false` if there is something to read.
    #[inline]
    pub(crate) fn prepare_wait(&self) -> Result<bool, BoxError> {
        Ok(!self.end.has_bytes()? && self.end.prepare_sleep()?)
    }

    /// What becomes readable when the broker wakes this client, for a thread that waits for several.
    pub(crate) fn pipe(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Forgets earlier wake-ups, before [`prepare_wait`](Self::prepare_wait).
    pub(crate) fn empty_pipe(&self) -> Result<(), BoxError> {
        match retry_on_intr(|| rustix::io::read(&self.pipe, &mut [0; 2 * EMPTY_EVERY as usize])) {
            Ok(0) => Err(closed()),
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the next wake-up; returns whether there was one.
    fn wait(&self, limit: Duration) -> Result<bool, BoxError> {
        let limit = Timespec::try_from(limit)?;
        let mut events = Vec::with_capacity(2);
        if retry_on_intr(|| epoll::wait(&self.waits, spare_capacity(&mut events), Some(&limit)))? == 0 {
            return Ok(false);
        }
        let ends = epoll::EventFlags::HUP | epoll::EventFlags::RDHUP;
        let has_ended = |event: &epoll::Event| {
            let flags = event.flags; // the structure is packed
            flags.intersects(ends)
        };
        if events.iter().any(has_ended) {
            return Err(closed());
        }
        if self.wakeups.fetch_add(1, Ordering::Relaxed).is_multiple_of(EMPTY_EVERY) {
            self.empty_pipe()?;
        }
        Ok(true)
    }
}
