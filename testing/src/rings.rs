//! A blocking client that has rings of shared memory, and a hostile one: what it writes to the shared words
//! is up to the test.

use elbus_protocol::handshake::encode_client_name;
use elbus_ring::{End, Handover, PeerWaker, Received};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{pwrite, retry_on_intr},
};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

/// Where the words of the ring to the broker are, and those of the ring from it (`docs/protocol.md`, section
/// 12).
pub mod word {
    pub const TO_BROKER_TAIL: u64 = 128;
    pub const TO_BROKER_WANTS_ROOM: u64 = 132;
    pub const TO_BROKER_BASE: u64 = 136;
    pub const TO_BROKER_HEAD: u64 = 256;
    pub const TO_BROKER_SLEEPS: u64 = 260;
    pub const FROM_BROKER_TAIL: u64 = 384;
    pub const FROM_BROKER_WANTS_ROOM: u64 = 388;
    pub const FROM_BROKER_BASE: u64 = 392;
    pub const FROM_BROKER_HEAD: u64 = 512;
    pub const FROM_BROKER_SLEEPS: u64 = 516;
    /// All of them.
    pub const ALL: [u64; 10] = [
        TO_BROKER_TAIL,
        TO_BROKER_WANTS_ROOM,
        TO_BROKER_BASE,
        TO_BROKER_HEAD,
        TO_BROKER_SLEEPS,
        FROM_BROKER_TAIL,
        FROM_BROKER_WANTS_ROOM,
        FROM_BROKER_BASE,
        FROM_BROKER_HEAD,
        FROM_BROKER_SLEEPS,
    ];
}

/// How often a writer looks for room by itself: the reader of the same client may have taken its wake-up.
const LOOK: Duration = Duration::from_millis(5);

/// A client with rings. Clones are the same client; one may read and one may write.
#[derive(Clone)]
pub struct RingPeer(Arc<Inner>);

struct Inner {
    socket: UnixStream,
    end: End,
    /// For a hostile client.
    memory: OwnedFd,
    counter: OwnedFd,
    pipe: OwnedFd,
    waker: PeerWaker,
    limit: std::sync::Mutex<Duration>,
}

/// The answer of a broker that passes no rings.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused(pub u8);

fn receive(socket: &UnixStream) -> io::Result<(u8, Option<Handover>)> {
    let mut polled = [PollFd::new(socket, PollFlags::IN)];
    retry_on_intr(|| poll(&mut polled, Some(&Timespec { tv_sec: 30, tv_nsec: 0 }))).unwrap();
    match elbus_ring::receive(socket)? {
        Received::Byte(byte, rings) => Ok((byte, rings)),
        Received::Nothing => panic!("no answer within 30 s"),
        Received::End => Err(ErrorKind::UnexpectedEof.into()),
    }
}

impl RingPeer {
    /// Asks for rings of a size class, and registers.
    pub fn connect(path: &Path, name: &str, class: u8) -> Result<Self, Refused> {
        Self::attempt(path, name, class).unwrap()
    }

    /// As [`connect`](Self::connect), but the broker can be absent, or end the connection at any time.
    pub fn attempt(path: &Path, name: &str, class: u8) -> io::Result<Result<Self, Refused>> {
        let mut socket = UnixStream::connect(path)?;
        for expected in [0xEB, 1, 0] {
            assert_eq!(receive(&socket)?.0, expected);
        }
        socket.write_all(&[0xEB, 1, 0x80 | class])?;
        let (code, rings) = receive(&socket)?;
        if code != 1 {
            return Ok(Err(Refused(code)));
        }
        assert!(rings.is_none(), "before the client is registered");
        socket.write_all(&encode_client_name(name).unwrap())?;
        let (code, rings) = receive(&socket)?;
        if code != 1 {
            assert!(rings.is_none());
            return Ok(Err(Refused(code)));
        }
        // a connection that ends meanwhile has none
        let rings = rings.ok_or(ErrorKind::ConnectionAborted)?;
        let [memory, counter, pipe] = rings.descriptors().map(|fd| fd.try_clone_to_owned().unwrap());
        let (end, _, waker) = rings.open().unwrap();
        let limit = std::sync::Mutex::new(Duration::from_secs(30));
        Ok(Ok(RingPeer(Arc::new(Inner { socket, end, memory, counter, pipe, waker, limit }))))
    }

    /// Limits each wait of a read.
    pub fn set_limit(&self, limit: Duration) {
        *self.0.limit.lock().unwrap() = limit;
    }

    /// Shuts the socket down.
    pub fn shutdown(&self, how: Shutdown) {
        let _ = self.0.socket.shutdown(how);
    }

    /// Returns the size of a ring.
    pub fn ring_bytes(&self) -> u32 {
        self.0.end.ring_bytes()
    }

    /// Returns the descriptors that the broker has passed: the memory, the eventfd, the pipe.
    pub fn descriptors(&self) -> [&OwnedFd; 3] {
        [&self.0.memory, &self.0.counter, &self.0.pipe]
    }

    /// Writes a value to a shared word, and wakes the broker.
    pub fn forge(&self, word: u64, value: u32) {
        pwrite(&self.0.memory, &value.to_ne_bytes(), word).unwrap();
        self.0.waker.wake();
    }

    /// Writes bytes to the socket, which the protocol does not allow.
    pub fn write_on_socket(&self, bytes: &[u8]) -> bool {
        (&self.0.socket).write_all(bytes).is_ok()
    }

    /// Returns whether the broker has closed the connection.
    pub fn is_closed(&self) -> bool {
        is_hung_up(&self.0.socket)
    }

    fn wait(&self, limit: Duration, drains: bool) -> io::Result<bool> {
        let limit = Timespec::try_from(limit).unwrap();
        let mut polled =
            [PollFd::new(&self.0.pipe, PollFlags::IN), PollFd::new(&self.0.socket, PollFlags::RDHUP)];
        let ready = retry_on_intr(|| poll(&mut polled, Some(&limit)))? > 0;
        if drains && polled[0].revents().contains(PollFlags::IN) {
            let _ = rustix::io::read(&self.0.pipe, &mut [0; 256]);
        }
        Ok(ready)
    }
}

fn is_hung_up(socket: impl AsFd) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::RDHUP)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
}

impl Read for RingPeer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let is_closed = self.is_closed();
            let read = self.0.end.read(buffer)?;
            if read.wake {
                self.0.waker.wake();
            }
            if read.bytes > 0 || is_closed {
                return Ok(read.bytes);
            }
            if self.0.end.prepare_sleep()? {
                let limit = *self.0.limit.lock().unwrap();
                let is_ready = self.wait(limit, true)?;
                self.0.end.end_sleep();
                if !is_ready {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
        }
    }
}

impl Write for RingPeer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.is_closed() {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let written = self.0.end.write([bytes].into_iter())?;
            if written.wake {
                self.0.waker.wake();
            }
            if written.bytes > 0 || bytes.is_empty() {
                return Ok(written.bytes);
            }
            if self.0.end.await_room() {
                self.wait(LOOK, false)?;
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
