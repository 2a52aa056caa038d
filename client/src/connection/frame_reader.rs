//! Reads a connection: bytes become acknowledgements and frames. Owns the read buffer and the beginning of an
//! incomplete frame; does not decide which consumer gets a frame.
//!
//! The frames of one read are copied once, into shared memory of exactly their size. A large frame is read
//! into memory of its own and not copied; that memory grows with what has arrived, not with the length that
//! the frame claims.

use bytes::Bytes;
use elbus_protocol::{
    FrameError, FrameKind, Limits,
    delivery::{DELIVERY_HEADER_BYTES, DeliveryLayout, locate_delivery},
};
use elbus_socket::{Received, Socket};
use std::{cell::Cell, io, sync::Arc, time::Duration};

use crate::frame::Frame;

/// Size of a thread's read buffer.
const READ_BYTES: usize = 128 * 1024;
/// Minimum reservation for an incomplete frame, in bytes.
const PARTIAL_BYTES: usize = 64 * 1024;
/// Capacity that a batch keeps between reads, in frames.
const RETAINED_CAPACITY: usize = 4096;

thread_local! {
    static READ_BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The result of one read. Reused for its memory.
#[derive(Default)]
pub(crate) struct ReadBatch {
    pub(crate) acks: Vec<(u32, u8)>,
    pub(crate) frames: Vec<Frame>,
    /// Size of the memory that the frames share.
    pub(crate) shared_bytes: usize,
    spans: Vec<FrameSpan>,
}

/// The position of a frame in the bytes of a read.
struct FrameSpan {
    kind: FrameKind,
    realtime: bool,
    start: usize,
    end: usize,
    sender_len: usize,
    payload_at: usize,
}

/// Why reading has ended.
pub(crate) enum ReadEnd {
    /// The broker has closed the connection.
    Closed,
    Io(io::Error),
    Protocol(FrameError),
}

pub(crate) struct FrameReader {
    socket: Arc<Socket>,
    limits: Limits,
    /// The beginning of an incomplete frame.
    partial: Vec<u8>,
    /// Bytes read so far.
    pub(crate) bytes: u64,
}

impl FrameReader {
    /// `read_ahead` holds the bytes that were read with the handshake.
    pub(crate) fn new(socket: Arc<Socket>, max_frame_bytes: usize, read_ahead: Vec<u8>) -> Self {
        // a delivered frame has sender and topic besides the payload that the sender's limit is about
        let limits = Limits { max_frame_bytes: max_frame_bytes.saturating_add(2 * 64 * 1024) };
        FrameReader { socket, limits, partial: read_ahead, bytes: 0 }
    }

    /// Parses the bytes that were read with the handshake.
    pub(crate) fn begin(&mut self, batch: &mut ReadBatch) -> Result<(), ReadEnd> {
        let read_ahead = std::mem::take(&mut self.partial);
        self.parse_owned(read_ahead, batch)
    }

    /// Waits for bytes and parses them. The thread polls for the duration `busy` before it sleeps.
    pub(crate) async fn read(&mut self, batch: &mut ReadBatch, busy: Duration) -> Result<(), ReadEnd> {
        batch.release_excess();
        loop {
            self.socket.readable_busy(busy).await.map_err(ReadEnd::Io)?;
            let received =
                if self.partial.is_empty() { self.read_whole(batch) } else { self.read_partial(batch) }?;
            match received {
                Received::End => return Err(ReadEnd::Closed),
                Received::Nothing => {}
                Received::Bytes(count) => {
                    self.bytes += count as u64;
                    return Ok(());
                }
            }
        }
    }

    /// Reads into the buffer of the thread.
    fn read_whole(&mut self, batch: &mut ReadBatch) -> Result<Received, ReadEnd> {
        let mut buffer = READ_BUFFER.try_with(Cell::take).unwrap_or_default();
        buffer.resize(READ_BYTES, 0);
        let result = self.socket.receive(&mut buffer).map_err(ReadEnd::Io).and_then(|received| {
            if let Received::Bytes(count) = received {
                let bytes = buffer.get(..count).unwrap_or_default();
                let parsed = self.parse(bytes, batch);
                if let (Some(first), Some(last)) = (batch.spans.first(), batch.spans.last()) {
                    let from = first.start;
                    let shared = Bytes::copy_from_slice(bytes.get(from..last.end).unwrap_or_default());
                    batch.slice_frames(&shared, from);
                }
                self.partial.extend_from_slice(bytes.get(parsed?..).unwrap_or_default());
            }
            Ok(received)
        });
        let _ = READ_BUFFER.try_with(|cell| cell.set(buffer));
        result
    }

    /// Reads the rest of an incomplete frame.
    fn read_partial(&mut self, batch: &mut ReadBatch) -> Result<Received, ReadEnd> {
        let needed = self.needed();
        let missing = needed.saturating_sub(self.partial.len());
        if self.partial.capacity() - self.partial.len() < missing.min(PARTIAL_BYTES) {
            // doubles the received length, or adds the missing bytes
            self.partial.reserve_exact(missing.min(self.partial.len().max(PARTIAL_BYTES)));
        }
        let received = self.socket.receive_more(&mut self.partial).map_err(ReadEnd::Io)?;
        if self.partial.len() >= needed {
            let bytes = std::mem::take(&mut self.partial);
            self.parse_owned(bytes, batch)?;
        }
        Ok(received)
    }

    /// Returns how many bytes complete the incomplete frame, or its header.
    fn needed(&self) -> usize {
        match self.partial.first_chunk::<DELIVERY_HEADER_BYTES>() {
            Some([_, l0, l1, l2, l3, _]) => {
                (u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize).saturating_add(DELIVERY_HEADER_BYTES)
            }
            None => DELIVERY_HEADER_BYTES,
        }
    }

    fn parse_owned(&mut self, bytes: Vec<u8>, batch: &mut ReadBatch) -> Result<(), ReadEnd> {
        let parsed = self.parse(&bytes, batch);
        let rest = bytes.get(*parsed.as_ref().unwrap_or(&bytes.len())..).unwrap_or_default();
        self.partial.extend_from_slice(rest);
        if !batch.spans.is_empty() {
            batch.slice_frames(&Bytes::from(bytes), 0);
        }
        parsed.map(drop)
    }

    /// Adds the acknowledgements and the spans of frames to the batch, including those before an invalid
    /// frame. Returns how many bytes were parsed.
    fn parse(&self, bytes: &[u8], batch: &mut ReadBatch) -> Result<usize, ReadEnd> {
        let mut at = 0;
        while let Some((layout, used)) =
            locate_delivery(bytes.get(at..).unwrap_or_default(), &self.limits).map_err(ReadEnd::Protocol)?
        {
            let start = at + DELIVERY_HEADER_BYTES;
            at += used;
            match layout {
                DeliveryLayout::Nop => {}
                DeliveryLayout::Ack { op_id, code } => batch.acks.push((op_id, code)),
                DeliveryLayout::Body { kind, realtime, sender_len, payload_at } => {
                    batch.spans.push(FrameSpan { kind, realtime, start, end: at, sender_len, payload_at });
                }
            }
        }
        Ok(at)
    }
}

impl ReadBatch {
    /// Releases the memory of a burst of tiny frames.
    fn release_excess(&mut self) {
        if self.spans.capacity() > RETAINED_CAPACITY {
            self.spans = Vec::new();
            self.frames = Vec::new();
        }
    }

    /// Converts the spans to frames that share `bytes`, which starts at the position `base`.
    fn slice_frames(&mut self, bytes: &Bytes, base: usize) {
        self.shared_bytes = bytes.len();
        self.frames.extend(self.spans.drain(..).map(|span| {
            let body = bytes.slice(span.start - base..span.end - base);
            Frame::from_wire(span.kind, span.realtime, body, span.sender_len, span.payload_at)
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_protocol::delivery::{DeliveryHead, encode_ack, encode_head};
    use std::os::fd::OwnedFd;
    use tokio::io::AsyncWriteExt;

    fn encode(sender: &str, topic: &str, payload: &[u8]) -> Vec<u8> {
        let kind = if topic.is_empty() { FrameKind::Message } else { FrameKind::Publish };
        let mut out = vec![];
        let head = DeliveryHead { kind, realtime: false, sender, topic };
        encode_head(&mut out, &head, payload.len()).unwrap();
        out.extend_from_slice(payload);
        out
    }

    /// Reads bytes that arrive in chunks of `step`. Returns all acknowledgements and frames.
    async fn read_in_steps(bytes: &[u8], step: usize) -> (Vec<(u32, u8)>, Vec<Frame>) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let socket = Arc::new(Socket::new(OwnedFd::from(ours.into_std().unwrap())).unwrap());
        let mut reader = FrameReader::new(socket, 1 << 20, vec![]);
        let bytes = bytes.to_vec();
        let writer = tokio::spawn(async move {
            let mut theirs = theirs;
            for chunk in bytes.chunks(step) {
                theirs.write_all(chunk).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (mut batch, mut acks, mut frames) = (ReadBatch::default(), vec![], vec![]);
        let busy = Duration::from_micros(50);
        let mut open = true;
        while open {
            open = reader.read(&mut batch, busy).await.is_ok();
            acks.append(&mut batch.acks);
            frames.append(&mut batch.frames);
        }
        writer.await.unwrap();
        (acks, frames)
    }

    #[tokio::test]
    async fn frames_do_not_depend_on_how_their_bytes_are_split() {
        let large = vec![7; 300_000];
        let mut bytes = encode("a", "", b"one");
        bytes.extend(encode_ack(5, 1));
        bytes.extend(encode("b.c", "x/y", b""));
        bytes.extend([0; 6]);
        bytes.extend(encode("b.c", "x", &large));
        bytes.extend(encode_ack(6, 0x71));
        bytes.extend(encode("a", "", b"two"));
        for step in [1, 5, 1000, 70_000, 1 << 20] {
            let part = if step == 1 { bytes.len() - 250_000 } else { bytes.len() };
            let (acks, frames) = read_in_steps(&bytes[..part], step).await;
            let texts: Vec<_> = frames.iter().map(|f| (f.sender(), f.topic(), f.payload().len())).collect();
            let expected = [("a", "", 3), ("b.c", "x/y", 0), ("b.c", "x", 300_000), ("a", "", 3)];
            let complete = if step == 1 { 2 } else { 4 };
            assert_eq!(texts, expected[..complete]);
            assert_eq!(acks, &[(5, 1), (6, 0x71)][..complete / 2]);
            assert!(frames.get(2).is_none_or(|f| f.payload() == large));
        }
    }

    #[tokio::test]
    async fn an_invalid_frame_ends_reading() {
        let bytes = [&encode_ack(1, 1)[..], &encode("a", "", b"one"), &[0x55; 6]].concat();
        let (acks, frames) = read_in_steps(&bytes, 100).await;
        assert_eq!((acks.len(), frames.len()), (1, 1), "frames before the invalid one are delivered");
        let too_long = [0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0];
        assert!(read_in_steps(&too_long, 6).await.1.is_empty());
    }
}
