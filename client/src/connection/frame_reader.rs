//! Reading a connection: bytes become acknowledgements and frames. Owns the read buffer and what is left of a frame
//! that is not whole; never decides who gets a frame.
//!
//! What one read brings is copied once, into memory of just that size which its frames share. A large frame is read
//! into memory of its own and not copied at all; that memory grows with what has arrived, not with what is claimed.

use bytes::Bytes;
use elbus_protocol::{
    FrameError, FrameKind, Limits,
    delivery::{DELIVERY_HEADER_BYTES, Delivery, decode_delivery},
};
use elbus_socket::{Received, Socket};
use std::{cell::Cell, io, sync::Arc, time::Duration};

use crate::Frame;

/// Bytes of the read buffer of a thread.
const READ_BYTES: usize = 128 * 1024;
/// What is reserved at least for a frame that is not whole, in bytes.
const PARTIAL_BYTES: usize = 64 * 1024;
/// Places for frames that are kept between reads.
const KEPT_PLACES: usize = 4096;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What one read brought. Kept between reads for its memory.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) acks: Vec<(u32, u8)>,
    pub(crate) frames: Vec<Frame>,
    places: Vec<Place>,
}

/// Where a frame lies in the bytes.
struct Place {
    kind: FrameKind,
    realtime: bool,
    start: usize,
    end: usize,
    sender_len: usize,
    payload_at: usize,
}

/// Why reading has ended.
pub(crate) enum End {
    /// The broker has closed the connection.
    Closed,
    Io(io::Error),
    Protocol(FrameError),
}

pub(crate) struct Incoming {
    socket: Arc<Socket>,
    limits: Limits,
    /// The beginning of a frame.
    partial: Vec<u8>,
    /// Bytes read so far.
    pub(crate) bytes: u64,
}

impl Incoming {
    /// `ahead` is what was read already.
    pub(crate) fn new(socket: Arc<Socket>, max_frame: usize, ahead: Vec<u8>) -> Self {
        // a frame carries sender and topic besides the payload that the other side's limit was about
        let limits = Limits { max_frame_bytes: max_frame.saturating_add(2 * 64 * 1024) };
        Incoming { socket, limits, partial: ahead, bytes: 0 }
    }

    /// Takes what was read with the handshake.
    pub(crate) fn begin(&mut self, batch: &mut Batch) -> Result<(), End> {
        let ahead = std::mem::take(&mut self.partial);
        self.parse_owned(ahead, batch)
    }

    /// Waits for bytes and takes them in, as often as that needs to bring something. For the time `busy` the thread
    /// does not sleep.
    pub(crate) async fn read(&mut self, batch: &mut Batch, busy: Duration) -> Result<(), End> {
        batch.shrink();
        loop {
            self.socket.readable_busy(busy).await.map_err(End::Io)?;
            let received =
                if self.partial.is_empty() { self.read_small(batch) } else { self.read_on(batch) }?;
            match received {
                Received::End => return Err(End::Closed),
                Received::Nothing => {}
                Received::Bytes(count) => {
                    self.bytes += count as u64;
                    return Ok(());
                }
            }
        }
    }

    /// Reads into the buffer of the thread.
    fn read_small(&mut self, batch: &mut Batch) -> Result<Received, End> {
        let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
        scratch.resize(READ_BYTES, 0);
        let result = self.socket.receive(&mut scratch).map_err(End::Io).and_then(|received| {
            if let Received::Bytes(count) = received {
                let bytes = scratch.get(..count).unwrap_or_default();
                let whole = self.find(bytes, batch);
                if let (Some(first), Some(last)) = (batch.places.first(), batch.places.last()) {
                    let from = first.start;
                    let shared = Bytes::copy_from_slice(bytes.get(from..last.end).unwrap_or_default());
                    batch.cut(&shared, from);
                }
                self.keep(bytes.get(whole?..).unwrap_or_default());
            }
            Ok(received)
        });
        let _ = SCRATCH.try_with(|place| place.set(scratch));
        result
    }

    /// Reads behind the beginning of a frame.
    fn read_on(&mut self, batch: &mut Batch) -> Result<Received, End> {
        let needed = self.needed();
        let missing = needed.saturating_sub(self.partial.len());
        if self.partial.capacity() - self.partial.len() < missing.min(PARTIAL_BYTES) {
            // as much again as has arrived, or what is missing
            self.partial.reserve_exact(missing.min(self.partial.len().max(PARTIAL_BYTES)));
        }
        let received = self.socket.receive_more(&mut self.partial).map_err(End::Io)?;
        if self.partial.len() >= needed {
            let bytes = std::mem::take(&mut self.partial);
            self.parse_owned(bytes, batch)?;
        }
        Ok(received)
    }

    /// Bytes that make the first frame of the partial ones whole, or its header.
    fn needed(&self) -> usize {
        match self.partial.first_chunk::<DELIVERY_HEADER_BYTES>() {
            Some([_, l0, l1, l2, l3, _]) => {
                (u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize).saturating_add(DELIVERY_HEADER_BYTES)
            }
            None => DELIVERY_HEADER_BYTES,
        }
    }

    fn parse_owned(&mut self, bytes: Vec<u8>, batch: &mut Batch) -> Result<(), End> {
        let whole = self.find(&bytes, batch);
        self.keep(bytes.get(*whole.as_ref().unwrap_or(&bytes.len())..).unwrap_or_default());
        if !batch.places.is_empty() {
            batch.cut(&Bytes::from(bytes), 0);
        }
        whole.map(drop)
    }

    fn keep(&mut self, rest: &[u8]) {
        self.partial.extend_from_slice(rest);
    }

    /// Notes acknowledgements and the places of frames, also of those before one that is none; tells how many bytes are
    /// done with.
    fn find(&self, bytes: &[u8], batch: &mut Batch) -> Result<usize, End> {
        let mut at = 0;
        while let Some((delivery, used)) =
            decode_delivery(bytes.get(at..).unwrap_or_default(), &self.limits).map_err(End::Protocol)?
        {
            let start = at + DELIVERY_HEADER_BYTES;
            at += used;
            let (kind, realtime, sender, texts) = match delivery {
                Delivery::Nop => continue,
                Delivery::Ack { op_id, code } => {
                    batch.acks.push((op_id, code));
                    continue;
                }
                Delivery::Message { sender, realtime, .. } => {
                    (FrameKind::Message, realtime, sender, sender.len() + 1)
                }
                Delivery::Broadcast { sender, realtime, .. } => {
                    (FrameKind::Broadcast, realtime, sender, sender.len() + 1)
                }
                Delivery::Publish { sender, topic, realtime, .. } => {
                    (FrameKind::Publish, realtime, sender, sender.len() + topic.len() + 2)
                }
            };
            let (sender_len, payload_at) = (sender.len(), texts);
            batch.places.push(Place { kind, realtime, start, end: at, sender_len, payload_at });
        }
        Ok(at)
    }
}

impl Batch {
    /// A burst of tiny frames is no reason to keep places for as many.
    fn shrink(&mut self) {
        if self.places.capacity() > KEPT_PLACES {
            self.places = Vec::new();
            self.frames = Vec::new();
        }
    }

    /// Makes frames of the places; `base` is where `bytes` begins.
    fn cut(&mut self, bytes: &Bytes, base: usize) {
        self.frames.extend(self.places.drain(..).map(|place| {
            let body = bytes.slice(place.start - base..place.end - base);
            Frame::from_wire(place.kind, place.realtime, body, place.sender_len, place.payload_at)
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

    /// Everything that a reader makes of bytes which arrive in pieces of `step`.
    async fn read_in_steps(bytes: &[u8], step: usize) -> (Vec<(u32, u8)>, Vec<Frame>) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let socket = Arc::new(Socket::new(OwnedFd::from(ours.into_std().unwrap())).unwrap());
        let mut incoming = Incoming::new(socket, 1 << 20, vec![]);
        let bytes = bytes.to_vec();
        let writer = tokio::spawn(async move {
            let mut theirs = theirs;
            for piece in bytes.chunks(step) {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let (mut batch, mut acks, mut frames) = (Batch::default(), vec![], vec![]);
        let busy = Duration::from_micros(50);
        let mut open = true;
        while open {
            open = incoming.read(&mut batch, busy).await.is_ok();
            acks.append(&mut batch.acks);
            frames.append(&mut batch.frames);
        }
        writer.await.unwrap();
        (acks, frames)
    }

    #[tokio::test]
    async fn however_the_bytes_arrive_the_frames_are_the_same() {
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
            let whole = if step == 1 { 2 } else { 4 };
            assert_eq!(texts, expected[..whole]);
            assert_eq!(acks, &[(5, 1), (6, 0x71)][..whole / 2]);
            assert!(frames.get(2).is_none_or(|f| f.payload() == large));
        }
    }

    #[tokio::test]
    async fn what_is_no_frame_ends_it() {
        let bytes = [&encode_ack(1, 1)[..], &encode("a", "", b"one"), &[0x55; 6]].concat();
        let (acks, frames) = read_in_steps(&bytes, 100).await;
        assert_eq!((acks.len(), frames.len()), (1, 1), "what came before still counts");
        let claim = [0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0];
        assert!(read_in_steps(&claim, 6).await.1.is_empty());
    }
}
