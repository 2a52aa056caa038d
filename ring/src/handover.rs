//! What the broker passes to the client with the answer to its registration: the memory, the eventfd that
//! wakes the broker, and the pipe that wakes the client. Owns the system calls that pass descriptors.

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{FileType, OFlags, fcntl_getfl, fstat, fstatfs},
    io::{Errno, fcntl_dupfd_cloexec, ioctl_fionbio, retry_on_intr},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
    pipe::{PipeFlags, pipe_with},
};
use std::{
    io::{self, ErrorKind, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use crate::{End, PeerWaker};

/// Number of descriptors that are passed.
const DESCRIPTORS: usize = 3;
/// The file system of descriptors without a file (`ANON_INODE_FS_MAGIC`).
const ANONYMOUS: u64 = 0x0904_1934;

/// The client's descriptors, until they are passed.
#[derive(Debug)]
pub struct Handover {
    memory: OwnedFd,
    /// Wakes the broker.
    counter: OwnedFd,
    /// Wakes the client.
    pipe: OwnedFd,
}

impl Handover {
    /// Makes the memory and the descriptors of a client. Returns the broker's end, the eventfd that wakes the
    /// broker and must only be polled, what wakes the client, and what to pass to it.
    ///
    /// # Errors
    /// As [`End::create`].
    pub fn create(ring_bytes: u32) -> io::Result<(End, OwnedFd, PeerWaker, Self)> {
        let (end, memory) = End::create(ring_bytes)?;
        let polled = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let counter = fcntl_dupfd_cloexec(&polled, 3)?;
        // the flags of each end are its own
        let (pipe, writing) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok((end, polled, PeerWaker::Client(writing), Handover { memory, counter, pipe }))
    }

    /// Returns the memory, the eventfd that wakes the broker, and the pipe that wakes the client.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; DESCRIPTORS] {
        [self.memory.as_fd(), self.counter.as_fd(), self.pipe.as_fd()]
    }

    /// Sends one byte with the descriptors. Does not block.
    ///
    /// # Errors
    /// Nothing was sent: the socket is full or broken, or too many descriptors are in flight.
    pub fn send(&self, socket: impl AsFd, answer: u8) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = self.descriptors();
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(Errno::NOBUFS.into());
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        retry_on_intr(|| sendmsg(socket.as_fd(), &[IoSlice::new(&[answer])], &mut control, flags))?;
        Ok(())
    }

    /// Maps what a client has received. Returns its end, the pipe that wakes it, and what wakes the broker.
    ///
    /// Neither descriptor blocks. Their flags belong to the broker, too: one that sets them back can block
    /// its client.
    ///
    /// # Errors
    /// As [`End::open`], or the other descriptors are no eventfd and reading end of a pipe.
    pub fn open(self) -> io::Result<(End, OwnedFd, PeerWaker)> {
        let Handover { memory, counter, pipe } = self;
        if !is_anonymous(&counter)? {
            return Err(io::Error::new(ErrorKind::InvalidData, "not an eventfd that wakes the broker"));
        }
        if !is_reading_end(&pipe)? {
            return Err(io::Error::new(ErrorKind::InvalidData, "not a pipe that wakes the client"));
        }
        for descriptor in [&counter, &pipe] {
            ioctl_fionbio(descriptor, true)?;
        }
        Ok((End::open(memory)?, pipe, PeerWaker::Broker(counter)))
    }
}

/// Returns whether a descriptor is of a kind without a file, as an eventfd is. Writing to a file, a pipe or a
/// socket could block, and files would be changed.
fn is_anonymous(descriptor: &OwnedFd) -> rustix::io::Result<bool> {
    fstatfs(descriptor).map(|system| u64::try_from(system.f_type) == Ok(ANONYMOUS))
}

/// Returns whether a descriptor is a pipe that can be read. Other files can have bytes without end.
fn is_reading_end(descriptor: &OwnedFd) -> rustix::io::Result<bool> {
    let is_pipe = FileType::from_raw_mode(fstat(descriptor)?.st_mode) == FileType::Fifo;
    Ok(is_pipe && !fcntl_getfl(descriptor)?.contains(OFlags::WRONLY))
}

/// What [`receive`] has found.
#[derive(Debug)]
pub enum Received {
    /// Nothing has arrived.
    Nothing,
    /// One byte, and the descriptors if all of them came with it.
    Byte(u8, Option<Handover>),
    /// The peer will send no more.
    End,
}

/// Reads one byte and the descriptors that came with it from a non-blocking socket.
///
/// # Errors
/// The connection is broken.
pub fn receive(socket: impl AsFd) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = match recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, flags) {
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
        received => received?,
    };
    // also those that are not wanted: dropping them closes them
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    if received.bytes == 0 {
        return Ok(Received::End);
    }
    let handover = <[OwnedFd; DESCRIPTORS]>::try_from(descriptors).ok();
    let [byte] = byte;
    Ok(Received::Byte(byte, handover.map(|[memory, counter, pipe]| Handover { memory, counter, pipe })))
}

#[cfg(all(test, not(elbus_model)))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::MIN_RING_BYTES;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_come_with_their_byte_and_no_other() {
        let (broker, client) = UnixStream::pair().unwrap();
        let (end, polled, waker, handover) = Handover::create(MIN_RING_BYTES).unwrap();
        assert!(matches!(receive(&client).unwrap(), Received::Nothing));
        rustix::io::write(&broker, &[7]).unwrap();
        handover.send(&broker, 1).unwrap();
        drop(handover);
        assert!(matches!(receive(&client).unwrap(), Received::Byte(7, None)));
        let Received::Byte(1, Some(passed)) = receive(&client).unwrap() else { panic!("no descriptors") };
        let (theirs, pipe, wakes_broker) = passed.open().unwrap();
        theirs.write([&b"abc"[..]].into_iter()).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(end.read(&mut buffer).unwrap().bytes, 3);

        waker.wake();
        assert_eq!(rustix::io::read(&pipe, &mut buffer), Ok(1));
        assert_eq!(rustix::io::read(&pipe, &mut buffer), Err(Errno::AGAIN));
        wakes_broker.wake();
        let mut polled = [rustix::event::PollFd::new(&polled, rustix::event::PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut polled, Some(&Default::default())), Ok(1));
        drop(waker);
        assert_eq!(rustix::io::read(&pipe, &mut buffer), Ok(0), "the broker is gone");
        drop(broker);
        assert!(matches!(receive(&client).unwrap(), Received::End));
    }

    #[test]
    fn descriptors_of_another_kind_are_refused_and_none_blocks() {
        let file = || OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let socket = || OwnedFd::from(UnixStream::pair().unwrap().0);
        let ends = || rustix::pipe::pipe().unwrap();
        let right = || Handover::create(MIN_RING_BYTES).unwrap().3;
        let refused = |handover: Handover| {
            let error = handover.open().map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        };
        for counter in [file(), null(), socket(), ends().0, ends().1, right().memory] {
            refused(Handover { counter, ..right() });
        }
        for pipe in [file(), null(), socket(), ends().1, right().memory, right().counter] {
            refused(Handover { pipe, ..right() });
        }
        let handover = right();
        rustix::fs::fcntl_setfl(&handover.pipe, OFlags::empty()).unwrap();
        rustix::fs::fcntl_setfl(&handover.counter, OFlags::empty()).unwrap();
        let (_end, pipe, waker) = handover.open().unwrap();
        let PeerWaker::Broker(counter) = waker else { panic!("a client wakes by an eventfd") };
        for descriptor in [pipe, counter] {
            assert!(fcntl_getfl(descriptor).unwrap().contains(OFlags::NONBLOCK));
        }
    }

    #[test]
    fn a_client_cannot_make_the_broker_block() {
        let (_end, _polled, waker, handover) = Handover::create(MIN_RING_BYTES).unwrap();
        // the client clears every flag that it can reach, and nobody reads
        rustix::fs::fcntl_setfl(&handover.pipe, OFlags::empty()).unwrap();
        rustix::fs::fcntl_setfl(&handover.counter, OFlags::empty()).unwrap();
        for _ in 0..200_000 {
            waker.wake(); // a pipe holds 65,536 bytes
        }
        rustix::io::write(&handover.counter, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    }
}
