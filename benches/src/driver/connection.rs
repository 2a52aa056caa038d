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
use crate::Failure;

/// A broker that sends nothing for so long has lost something.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A blocking socket, which gives up after a while.
pub(crate) struct Line(OwnedFd);

impl Line {
    /// The address decides: a path is a UNIX socket, all else `host:port` of TCP.
    pub(crate) fn connect(address: &str) -> Result<Self, Failure> {
        let socket: OwnedFd = if is_path(address) {
            UnixStream::connect(address)?.into()
        } else {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.into()
        };
        for direction in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
            sockopt::set_socket_timeout(&socket, direction, Some(PATIENCE))?;
        }
        Ok(Line(socket))
    }

    /// To wait for many at once.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The same socket again.
    pub(crate) fn twin(&self) -> Result<Self, Failure> {
        Ok(Line(self.0.try_clone()?))
    }

    #[inline]
    pub(crate) fn send(&self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            match retry_on_intr(|| send(&self.0, bytes, SendFlags::NOSIGNAL)) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::AGAIN) => return Err(gave_up("took", "the receivers of a message are stuck")),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for bytes; there is at least one.
    #[inline]
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<usize, Failure> {
        match retry_on_intr(|| recv(&self.0, &mut *buffer, RecvFlags::empty())) {
            Ok((0, _)) => Err("the broker closed the connection".into()),
            Ok((count, _)) => Ok(count),
            Err(Errno::AGAIN) => Err(gave_up("sent", "a message is lost")),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends what is there; `false`: nothing is.
    pub(crate) fn receive_now(&self, into: &mut Vec<u8>) -> Result<bool, Failure> {
        let mut buffer = [0; 8192];
        match retry_on_intr(|| recv(&self.0, &mut buffer, RecvFlags::DONTWAIT)) {
            Ok((0, _)) => Err("the broker closed the connection".into()),
            Ok((count, _)) => {
                into.extend_from_slice(&buffer[..count]);
                Ok(true)
            }
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn wait_readable(&self) -> Result<(), Failure> {
        let patience = Timespec::try_from(PATIENCE)?;
        let mut sockets = [PollFd::new(&self.0, PollFlags::IN)];
        match retry_on_intr(|| poll(&mut sockets, Some(&patience)))? {
            0 => Err(gave_up("sent", "an answer is missing")),
            _ => Ok(()),
        }
    }

    /// Reads exactly what is expected.
    pub(crate) fn expect(&self, expected: &[u8]) -> Result<(), Failure> {
        let mut bytes = vec![0; expected.len()];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.receive(&mut bytes[filled..])?;
            if bytes[..filled] != expected[..filled] {
                let said = bytes[..filled].escape_ascii();
                return Err(format!("the broker said {said} instead of {}", expected.escape_ascii()).into());
            }
        }
        Ok(())
    }

    /// Reads a line, byte by byte: nothing behind it is taken.
    pub(crate) fn text_line(&self) -> Result<String, Failure> {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(b"\n") {
            self.receive(&mut byte)?;
            text.extend_from_slice(&byte);
        }
        Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
    }
}

fn gave_up(did: &str, hence: &str) -> Failure {
    format!("the broker {did} nothing for {} s: {hence}", PATIENCE.as_secs()).into()
}
