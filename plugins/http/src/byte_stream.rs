//! A WebSocket connection as a stream of bytes: what is read is the content of binary messages, and what is
//! written becomes binary messages. Owns pongs and close frames; waits for nothing itself.
//!
//! It has no buffer: frames are read into the reader's, and decoded in place.
//!
//! Both directions must be polled by the same task, as the tunnel of `elbus-tls` does: reading can send a
//! pong.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use crate::{
    closing::Closing,
    frames::{FrameDecoder, MAX_CONTROL_BYTES, Step},
};

/// A WebSocket connection whose handshake is complete.
pub(crate) struct ByteStream<S> {
    inner: S,
    decoder: FrameDecoder,
    /// What the client has sent after its request and was not decoded yet.
    ahead: Vec<u8>,
    state: ReadState,
    output: Output,
    closing: Arc<Closing>,
}

/// Whether input has a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReadState {
    Open,
    /// The client has sent a close frame, or closed its end.
    Ended,
    /// The client has violated the protocol: input is discarded while the connection ends.
    Discarding,
}

/// What is being sent.
#[derive(Default)]
struct Output {
    /// The header of a data frame, or a control frame: what of it is not sent yet.
    pending: Vec<u8>,
    /// Payload of the current data frame that is not sent yet.
    frame_left: usize,
    /// The payload of the last ping, if it is to be answered: a client that sends pings faster than it reads
    /// pongs gets the last one.
    pong: Option<Vec<u8>>,
    close: CloseState,
}

/// The state of the close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum CloseState {
    #[default]
    None,
    /// It is to be sent.
    Due,
    /// It is pending or sent: nothing may follow.
    Sent,
}

impl<S> ByteStream<S> {
    /// `ahead` is what the client has sent after its request.
    pub(crate) fn new(inner: S, ahead: Vec<u8>, closing: Arc<Closing>) -> Self {
        ByteStream {
            inner,
            decoder: FrameDecoder::new(Instant::now()),
            ahead,
            state: ReadState::Open,
            output: Output::default(),
            closing,
        }
    }
}

impl Output {
    /// Puts the next control frame into `pending`, if one can be sent now.
    fn begin_control(&mut self, closing: &Closing) {
        if !self.pending.is_empty() || self.frame_left > 0 || self.close == CloseState::Sent {
            return;
        }
        if self.close == CloseState::Due {
            self.close = CloseState::Sent;
            let (code, reason) = closing.close_frame();
            let mut payload = u16::from(code).to_be_bytes().to_vec();
            // a reason that is cut must stay UTF-8
            let ends = reason.char_indices().map(|(at, c)| at + c.len_utf8());
            let end = ends.take_while(|end| *end <= MAX_CONTROL_BYTES - 2).last().unwrap_or(0);
            payload.extend(&reason.as_bytes()[..end]);
            self.control(Control::Close, &payload);
        } else if let Some(payload) = self.pong.take() {
            self.control(Control::Pong, &payload);
        }
    }

    fn control(&mut self, kind: Control, payload: &[u8]) {
        self.header(OpCode::Control(kind), payload.len());
        self.pending.extend(payload);
    }

    fn header(&mut self, opcode: OpCode, len: usize) {
        self.pending.clear();
        let header = FrameHeader { opcode, ..FrameHeader::default() };
        // writing to a `Vec` cannot fail
        let _ = header.format(len as u64, &mut self.pending);
    }
}

impl<S: AsyncWrite + Unpin> ByteStream<S> {
    /// Sends control frames that are due, unless a data frame is being sent.
    fn poll_control(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.frame_left > 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            self.output.begin_control(&self.closing);
            if self.output.pending.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let sent = ready!(Pin::new(&mut self.inner).poll_write(context, &self.output.pending))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.pending.drain(..sent);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ByteStream<S> {
    /// Reads frames into `out`, of whose unfilled part some must be left. Returns how many bytes.
    fn poll_frames(&mut self, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let before = out.filled().len();
        if self.ahead.is_empty() {
            ready!(Pin::new(&mut self.inner).poll_read(context, out))?;
        } else {
            let count = out.remaining().min(self.ahead.len());
            out.put_slice(&self.ahead[..count]);
            self.ahead.drain(..count);
            self.ahead.shrink_to_fit();
        }
        Poll::Ready(Ok(out.filled().len() - before))
    }

    /// Replaces frames by the data in them, which is never longer. Returns its length.
    fn decode(&mut self, frames: &mut [u8]) -> usize {
        let (mut at, mut data) = (0, 0);
        while self.state == ReadState::Open && at < frames.len() {
            match self.decoder.step(&mut frames[at..]) {
                Ok(Step::Skip(count)) => at += count,
                Ok(Step::Data(count)) => {
                    frames.copy_within(at..at + count, data);
                    (at, data) = (at + count, data + count);
                }
                Ok(Step::Ping(count)) => {
                    self.output.pong = Some(self.decoder.control().to_vec());
                    at += count;
                }
                Ok(Step::Close(code)) => {
                    self.closing.received(code);
                    self.state = ReadState::Ended;
                }
                Err(violation) => {
                    self.closing.violated(violation);
                    self.state = ReadState::Discarding;
                }
            }
        }
        data
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ByteStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = out.filled().len();
        while this.state != ReadState::Ended && out.filled().len() == before && out.remaining() > 0 {
            if ready!(this.poll_frames(context, out))? == 0 {
                this.state = ReadState::Ended;
            }
            let data = this.decode(&mut out.filled_mut()[before..]);
            out.set_filled(before + data);
            if this.output.pong.is_some() {
                // what cannot be sent now is sent with the next data; an error is one of the next read as
                // well
                if let Poll::Ready(Ok(())) = this.poll_control(context) {
                    let _ = Pin::new(&mut this.inner).poll_flush(context);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ByteStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.output.frame_left == 0 {
            ready!(this.poll_control(context))?;
            if this.output.close == CloseState::Sent {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            this.output.header(OpCode::Data(Data::Binary), bytes.len());
            this.output.frame_left = bytes.len();
        }
        // the rest of a frame can be any bytes of the stream
        let bytes = &bytes[..bytes.len().min(this.output.frame_left)];
        loop {
            let parts = [IoSlice::new(&this.output.pending), IoSlice::new(bytes)];
            let sent = match this.output.pending.is_empty() {
                true => ready!(Pin::new(&mut this.inner).poll_write(context, bytes))?,
                false => ready!(Pin::new(&mut this.inner).poll_write_vectored(context, &parts))?,
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_header = sent.min(this.output.pending.len());
            this.output.pending.drain(..of_header);
            if sent > of_header {
                this.output.frame_left -= sent - of_header;
                return Poll::Ready(Ok(sent - of_header));
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_control(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    /// Sends a close frame, unless a data frame is incomplete, and closes this direction.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.output.close == CloseState::None {
            this.output.close = CloseState::Due;
        }
        ready!(this.poll_control(context))?;
        ready!(Pin::new(&mut this.inner).poll_flush(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
