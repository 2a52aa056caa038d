//! A connected socket. Owns every system call of the generator's clients.

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
    time::Duration,
};

use super::is_path;
use crate::BoxError;

/// A broker that neither reads nor writes for this long has lost a message.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// A blocking socket with a timeout.
pub(crate) struct Connection(OwnedFd);

impl Connection {
    /// Connects to a UNIX socket if the address is a path, else to `host:port` over TCP.
    pub(crate) fn connect(address: &str) -> Result<Self, BoxError> {
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
        Ok(Connection(socket))
    }

    /// A second handle of the same socket.
    pub(crate) fn try_clone(&self) -> Result<Self, BoxError> {
        Ok(Connection(self.0.try_clone()?))
    }

    #[inline]
    pub(crate) fn send(&self, mut bytes: &[u8]) -> Result<(), BoxError> {
        while !bytes.is_empty() {
            match retry_on_intr(|| send(&self.0, bytes, SendFlags::NOSIGNAL)) {
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
        match retry_on_intr(|| recv(&self.0, &mut *buffer, RecvFlags::empty())) {
            Ok((0, _)) => Err(closed()),
            Ok((count, _)) => Ok(count),
            Err(Errno::AGAIN) => Err(timed_out("sent", "a message is lost")),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends what has arrived to `out`; `false` if nothing has. Does not block.
    pub(crate) fn try_receive(&self, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        let mut buffer = [0; 8192];
        match retry_on_intr(|| recv(&self.0, &mut buffer, RecvFlags::DONTWAIT)) {
            Ok((0, _)) => Err(closed()),
            Ok((count, _)) => {
                out.extend_from_slice(&buffer[..count]);
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn wait_readable(&self) -> Result<(), BoxError> {
        let timeout = Timespec::try_from(TIMEOUT)?;
        let mut sockets = [PollFd::new(&self.0, PollFlags::IN)];
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
        self.0.as_fd()
    }
}

fn closed() -> BoxError {
    "the broker closed the connection".into()
}

fn timed_out(action: &str, consequence: &str) -> BoxError {
    format!("the broker {action} nothing for {} s: {consequence}", TIMEOUT.as_secs()).into()
}
