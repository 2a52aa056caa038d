//! A connected socket, or the rings of shared memory in its place. Owns the system calls on sockets; those of
//! rings are in [`rings`](super::rings).

use elbus_ring::Received;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, retry_on_intr},
    net::{RecvFlags, SendFlags, recv, send, sockopt},
};
use std::{
    net::TcpStream,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, OnceLock},
};

use super::{
    is_path,
    rings::Rings,
    timeout::{TIMEOUT, closed, timed_out},
    without_rings,
};
use crate::BoxError;

/// A blocking socket with a timeout.
pub(crate) struct Connection {
    socket: OwnedFd,
    /// `Some` if the client asks for rings, which come with the answer to its registration.
    rings: Option<Arc<OnceLock<Rings>>>,
}

impl Connection {
    /// Connects to a UNIX socket if the address is a path, else to `host:port` over TCP.
    pub(crate) fn connect(address: &str) -> Result<Self, BoxError> {
        let (address, asks_for_rings) = without_rings(address);
        let socket: OwnedFd = if is_path(address) {
            UnixStream::connect(address)?.into()
        } else {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.into()
        };
        for direction in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&socket, direction, Some(TIMEOUT))?;
        }
        Ok(Connection { socket, rings: asks_for_rings.then(Arc::default) })
    }

    /// A second handle of the same socket.
    pub(crate) fn try_clone(&self) -> Result<Self, BoxError> {
        Ok(Connection { socket: self.socket.try_clone()?, rings: self.rings.clone() })
    }

    /// Returns whether the client asks for rings.
    pub(crate) fn asks_for_rings(&self) -> bool {
        self.rings.is_some()
    }

    /// Returns the rings, once the client has them.
    #[inline]
    pub(crate) fn rings(&self) -> Option<&Rings> {
        self.rings.as_ref()?.get()
    }

    #[inline]
    pub(crate) fn send(&self, mut bytes: &[u8]) -> Result<(), BoxError> {
        if let Some(rings) = self.rings() {
            return rings.send(bytes);
        }
        while !bytes.is_empty() {
            match retry_on_intr(|| send(&self.socket, bytes, SendFlags::NOSIGNAL)) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::AGAIN) => return Err(timed_out("read", "a receiver is stuck")),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Blocks until at least one byte is received.
    #[inline]
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<usize, BoxError> {
        if self.asks_for_rings() {
            loop {
                match self.try_receive_into(buffer)? {
                    0 => self.wait_readable()?,
                    count => return Ok(count),
                }
            }
        }
        match retry_on_intr(|| recv(&self.socket, &mut *buffer, RecvFlags::empty())) {
            Ok((0, _)) => Err(closed()),
            Ok((count, _)) => Ok(count),
            Err(Errno::AGAIN) => Err(timed_out("sent", "a message is lost")),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends what has arrived to `out`; `false` if nothing has. Does not block.
    pub(crate) fn try_receive(&self, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        let mut buffer = [0; 8192];
        let count = self.try_receive_into(&mut buffer)?;
        out.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(count > 0)
    }

    /// Reads what has arrived; 0 bytes if nothing has. Does not block.
    #[inline]
    fn try_receive_into(&self, buffer: &mut [u8]) -> Result<usize, BoxError> {
        match &self.rings {
            None => match retry_on_intr(|| recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT)) {
                Ok((0, _)) => Err(closed()),
                Ok((count, _)) => Ok(count),
                Err(Errno::AGAIN) => Ok(0),
                Err(error) => Err(error.into()),
            },
            Some(rings) => match rings.get() {
                Some(rings) => rings.try_receive(buffer),
                None => self.receive_answer(rings, buffer),
            },
        }
    }

    /// Reads one byte of the handshake, and the rings if they came with it.
    #[cold]
    fn receive_answer(&self, rings: &OnceLock<Rings>, buffer: &mut [u8]) -> Result<usize, BoxError> {
        match elbus_ring::receive(&self.socket)? {
            Received::Nothing => Ok(0),
            Received::End => Err(closed()),
            Received::Byte(byte, handover) => {
                if let Some(handover) = handover {
                    let _ = rings.set(Rings::open(handover, &self.socket)?);
                }
                if let Some(place) = buffer.first_mut() {
                    *place = byte;
                }
                Ok(1)
            }
        }
    }

    pub(crate) fn wait_readable(&self) -> Result<(), BoxError> {
        if let Some(rings) = self.rings() {
            return rings.wait_readable();
        }
        let timeout = Timespec::try_from(TIMEOUT)?;
        let mut sockets = [PollFd::new(&self.socket, PollFlags::IN)];
        match retry_on_intr(|| poll(&mut sockets, Some(&timeout)))? {
            0 => Err(timed_out("sent", "a reply or an acknowledgement is missing")),
            _ => Ok(()),
        }
    }

    /// Receives exactly these bytes; anything else is an error.
    pub(crate) fn expect(&self, expected: &[u8]) -> Result<(), BoxError> {
        let mut bytes = vec![0; expected.len()];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.receive(&mut bytes[filled..])?;
            if bytes[..filled] != expected[..filled] {
                let (received, expected) = (bytes[..filled].escape_ascii(), expected.escape_ascii());
                return Err(format!("the broker sent {received}, expected {expected}").into());
            }
        }
        Ok(())
    }

    /// Receives one line, byte by byte, so that nothing behind it is consumed.
    pub(crate) fn read_line(&self) -> Result<String, BoxError> {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(b"\n") {
            self.receive(&mut byte)?;
            text.extend_from_slice(&byte);
        }
        Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Waits until one of these connections is readable. Returns for each whether it is.
pub(crate) fn readable<'a>(
    connections: impl Iterator<Item = &'a Connection> + Clone,
) -> Result<Vec<bool>, BoxError> {
    let mut ready = Vec::new();
    for rings in connections.clone().filter_map(Connection::rings) {
        rings.empty_pipe()?;
        ready.push(!rings.prepare_wait()?);
    }
    if ready.contains(&true) {
        return Ok(ready);
    }
    let timeout = Timespec::try_from(TIMEOUT)?;
    let wakes = |connection: &'a Connection| match connection.rings() {
        Some(rings) => PollFd::from_borrowed_fd(rings.pipe(), PollFlags::IN),
        None => PollFd::new(&connection.socket, PollFlags::IN),
    };
    let mut sockets: Vec<_> = connections.map(wakes).collect();
    match retry_on_intr(|| poll(&mut sockets, Some(&timeout)))? {
        0 => Err(timed_out("sent", "a message is lost")),
        _ => Ok(sockets.iter().map(|socket| !socket.revents().is_empty()).collect()),
    }
}
