//! Frames of groups that a closed connection has not sent: the broker gives them to other members. Owns where
//! whole frames begin in the queue; never decides who gets them.
//!
//! Only a connection that has got frames because of a group pays for this: after a partial write, it looks
//! for the first frame that is not sent at all.

use elbus_plugin_api::{
    Encoding, FrameKind, Payload, Qos, Run,
    inproc::{OwnedRun, RunBatch},
};
use elbus_protocol::{
    Limits,
    delivery::{DELIVERY_HEADER_BYTES, Delivery, decode_delivery},
};
use elbus_socket::Queue;

use crate::connection::{SendState, wire::Wire};

/// What is known of the frames in the queue of a member of a group.
#[derive(Default)]
pub(crate) struct GroupFrames {
    /// Bytes at the front of the queue before the first frame that is known to begin there and is whole.
    skip: usize,
    /// The queue, once the connection has closed.
    unsent: Queue,
}

/// Reads headers from the pieces of a queue.
struct Cursor<'q, I> {
    piece: &'q [u8],
    pieces: I,
}

impl<'q, I: Iterator<Item = &'q [u8]>> Cursor<'q, I> {
    fn skip(&mut self, mut bytes: usize) {
        while bytes > self.piece.len() {
            bytes -= self.piece.len();
            match self.pieces.next() {
                Some(piece) => self.piece = piece,
                None => return self.piece = &[],
            }
        }
        self.piece = self.piece.get(bytes..).unwrap_or_default();
    }

    /// Returns the length of the frame that begins here. The header is consumed.
    fn frame(&mut self) -> Option<usize> {
        let mut header = [0; DELIVERY_HEADER_BYTES];
        let mut read = 0;
        while let Some(rest) = header.get_mut(read..).filter(|rest| !rest.is_empty()) {
            if self.piece.is_empty() {
                self.piece = self.pieces.next()?;
            }
            let len = rest.len().min(self.piece.len());
            let (now, behind) = self.piece.split_at_checked(len)?;
            rest.get_mut(..len)?.copy_from_slice(now);
            self.piece = behind;
            read += len;
        }
        let [kind, l0, l1, l2, l3, _] = header;
        let body = match FrameKind::from_wire(kind)? {
            FrameKind::Nop | FrameKind::Ack => 0,
            _ => u32::from_le_bytes([l0, l1, l2, l3]) as usize,
        };
        Some(DELIVERY_HEADER_BYTES + body)
    }
}

impl GroupFrames {
    /// Creates the frames of a group, the first of which are queued behind this number of bytes.
    pub(crate) fn behind(bytes: usize) -> Self {
        GroupFrames { skip: bytes, unsent: Queue::default() }
    }

    /// The rest of a frame that was partly sent is alone in the queue.
    pub(crate) fn skip_all(&mut self, queue: &Queue) {
        self.skip = queue.bytes();
    }

    /// The first `sent` bytes of the queue are sent, and about to be removed.
    pub(crate) fn advance(&mut self, queue: &Queue, sent: usize) {
        if sent <= self.skip {
            self.skip -= sent;
        } else if sent >= queue.bytes() {
            self.skip = 0;
        } else {
            let mut cursor = Cursor { piece: &[], pieces: queue.chunks() };
            let mut at = self.skip;
            cursor.skip(at);
            while at < sent {
                // whatever is not a frame is the rest
                let Some(len) = cursor.frame() else { return self.skip = queue.bytes() - sent };
                cursor.skip(len - DELIVERY_HEADER_BYTES);
                at += len;
            }
            self.skip = at - sent;
        }
    }

    /// Keeps the queue of a connection that has closed.
    pub(crate) fn keep(&mut self, queue: Queue) {
        self.unsent = queue;
    }

    /// Adds the publications that were kept, each as a run.
    pub(crate) fn take_into(self, unsent: &mut RunBatch) {
        let bytes: Vec<u8> = self.unsent.chunks().flatten().copied().collect();
        let mut rest = bytes.get(self.skip..).unwrap_or_default();
        let limits = Limits { max_frame_bytes: usize::MAX };
        let mut encoding = Encoding::new();
        while let Ok(Some((delivery, used))) = decode_delivery(rest, &limits) {
            rest = rest.get(used..).unwrap_or_default();
            if let Delivery::Publish { sender, topic, payload, realtime } = delivery {
                let payloads = [Payload::from(payload)];
                let qos = if realtime { Qos::REALTIME } else { Qos::NO };
                let run = Run::new(FrameKind::Publish, qos, sender, topic, &payloads, None, &mut encoding);
                unsent.push(OwnedRun::new(&run));
            }
        }
    }
}

impl SendState {
    /// Queues a run for a member of a group. None of it is sent ahead, so that it begins in the queue.
    #[cold]
    pub(super) fn push_for_group(&mut self, wire: Wire<'_>) -> bool {
        let before = self.queue.bytes();
        let held = self.held.get_or_insert_default();
        held.group_frames.get_or_insert_with(|| Box::new(GroupFrames::behind(before)));
        wire.push(&mut self.queue, 0)
    }

    /// The queue has the rest of what was sent ahead, or nothing.
    pub(super) fn skip_partial_frame(&mut self) {
        if let Some(held) = &mut self.held
            && let Some(frames) = &mut held.group_frames
        {
            frames.skip_all(&self.queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use elbus_protocol::delivery::{DeliveryHead, encode_run};
    use proptest::prelude::*;

    fn frame(kind: FrameKind, number: u8, len: usize) -> Vec<u8> {
        let head = DeliveryHead { kind, realtime: false, sender: "s", topic: "t" };
        let payload = vec![number; len];
        let mut out = vec![0; 100 + len];
        let used = encode_run(&mut out, &head, [payload.as_slice()]);
        out.truncate(used);
        out
    }

    proptest! {
        /// However the queue was sent, exactly the whole publications behind the first frame of a group are
        /// left.
        #[test]
        fn whole_publications_are_left(
            before in 0..50usize,
            frames in prop::collection::vec((0..4u8, 0..40usize, any::<bool>()), 1..40),
            writes in prop::collection::vec(1..200usize, 0..30),
        ) {
            let mut queue = Queue::default();
            queue.push(&vec![0xEE; before], 1);
            let mut group = GroupFrames::behind(queue.bytes());
            let (mut ends, mut at) = (vec![], before);
            for (number, (kind, len, shared)) in (0u8..).zip(&frames) {
                let bytes = match kind {
                    0 => vec![0xFE, 1, 0, 0, 0, 1],
                    1 => frame(FrameKind::Message, number, *len),
                    _ => frame(FrameKind::Publish, number, *len),
                };
                at += bytes.len();
                if *kind > 1 {
                    ends.push((at - bytes.len(), vec![number; *len]));
                }
                match shared {
                    true => queue.push_shared(Bytes::from(bytes), 1),
                    false => queue.push(&bytes, 1),
                }
            }
            let mut total = 0;
            for sent in writes {
                let sent = sent.min(queue.bytes().saturating_sub(1));
                group.advance(&queue, sent);
                queue.advance(sent);
                total += sent;
            }
            let expected: Vec<_> = ends.into_iter().filter(|(start, _)| *start >= total).collect();
            group.keep(queue);
            let mut unsent = RunBatch::default();
            group.take_into(&mut unsent);
            let messages = unsent.into_messages();
            let got: Vec<_> = messages.iter().map(|message| message.payload().to_vec()).collect();
            let expected: Vec<_> = expected.into_iter().map(|(_, payload)| payload).collect();
            prop_assert_eq!(got, expected);
        }
    }
}
