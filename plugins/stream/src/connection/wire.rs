//! The wire form of a run, and the cheapest way to pass it on: copied, encoded in place, sent from the read
//! buffer, or shared by reference count. Owns that choice; never a lock, a limit or a connection.

use bytes::Bytes;
use elbus_plugin_api::{Payload, Run, SHARE_FROM_BYTES};
use elbus_protocol::{
    EncodeError, FrameKind,
    delivery::{DeliveryHead, RUN_SLACK, encode_head, encode_run},
};
use elbus_socket::{Queue, Socket};
use std::{convert::Infallible, io::IoSlice};

/// The number of this wire format, for [`Encoding`](elbus_plugin_api::Encoding).
pub(super) const PROTOCOL: u32 = 0xEB01;

/// Messages of this length on average are copied piece by piece; shorter ones are written by a faster loop,
/// into memory that has to be zeroed before.
const LONG_BYTES: usize = 1024;
/// Runs from this length on, and of at most this many frames, are sent immediately if the queue is empty.
const AHEAD_BYTES: usize = 32 * 1024;
const AHEAD_FRAMES: usize = 8;

/// A run in the form in which it is queued. Made outside the lock of a connection, queued within.
pub struct Wire<'r> {
    len: usize,
    frames: usize,
    form: Form<'r>,
}

enum Form<'r> {
    /// A head to be written, and a payload to be kept.
    Large { head: DeliveryHead<'r>, payload: Bytes },
    /// For one recipient: written where it is sent from.
    One { head: DeliveryHead<'r>, payloads: &'r [Payload<'r>] },
    /// For one recipient, of longer payloads: heads apart, so that the rest can be sent from where it was
    /// read.
    Long { heads: Vec<u8>, payloads: &'r [Payload<'r>] },
    /// For many recipients, and long enough to be shared.
    Shared(Bytes),
    /// For many recipients: written once, and copied.
    Copied(&'r [u8]),
}

impl<'r> Wire<'r> {
    /// The wire form of a run. What is for many recipients is encoded by the first of them.
    #[inline]
    pub fn of(run: &'r mut Run<'_>) -> Self {
        let head = DeliveryHead {
            kind: run.kind(),
            realtime: run.is_realtime(),
            sender: run.sender(),
            topic: run.topic(),
        };
        let payloads = run.payloads();
        let frames = payloads.len();
        if let Some(shared) = run.shared().filter(|shared| shared.len() >= SHARE_FROM_BYTES) {
            let payload = Bytes::from(shared.clone());
            return Wire {
                len: head.prefix_len() + payload.len(),
                frames,
                form: Form::Large { head, payload },
            };
        }
        let len = || head.encoded_len(payloads.iter().map(|payload| payload.len()).sum(), frames);
        if head.kind == FrameKind::Message {
            let len = len();
            let form = if len < LONG_BYTES.saturating_mul(frames) {
                Form::One { head, payloads }
            } else {
                Form::Long { heads: heads(&head, payloads), payloads }
            };
            return Wire { len, frames, form };
        }
        let encoded = run.encoding().get_or_make(
            PROTOCOL,
            || len() + RUN_SLACK,
            |out| encode_run(out, &head, payloads.iter().map(|payload| payload.bytes())),
        );
        let form = match encoded.shared() {
            Some(shared) => Form::Shared(Bytes::from(shared.clone())),
            None => Form::Copied(encoded.bytes()),
        };
        Wire { len: encoded.bytes().len(), frames, form }
    }

    /// Returns its length in bytes.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// Sends as much as the socket takes, if that saves enough copying to be worth a system call of its own;
    /// called only while the queue is empty. Returns the number of bytes sent.
    #[inline]
    pub(crate) fn send_ahead(&self, socket: &Socket) -> usize {
        match &self.form {
            Form::Long { heads, payloads } if self.len >= AHEAD_BYTES && self.frames <= AHEAD_FRAMES => {
                let mut places = [IoSlice::new(&[]); 2 * AHEAD_FRAMES];
                let mut used = 0;
                for (place, piece) in places.iter_mut().zip(pieces(heads, payloads)) {
                    *place = IoSlice::new(piece);
                    used += 1;
                }
                // an error shows again when the rest is sent
                socket.send_pieces(places.get(..used).unwrap_or_default()).unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Appends it to a queue, but for its first `sent` bytes, which have been sent already; `false` where it
    /// is too long for a frame, which limits rule out.
    #[inline]
    pub fn push(self, queue: &mut Queue, sent: usize) -> bool {
        match self.form {
            Form::Large { head, payload } => {
                let len = payload.len();
                return queue.push_large(payload, |buffer| encode_head(buffer, &head, len)).is_ok();
            }
            Form::One { head, payloads: [payload] } => {
                let written = queue.push_with(1, |buffer| {
                    encode_head(buffer, &head, payload.len())?;
                    buffer.extend_from_slice(payload);
                    Ok::<_, EncodeError>(())
                });
                return written.is_ok();
            }
            Form::One { head, payloads } => queue.push_within(self.len + RUN_SLACK, self.frames, |out| {
                encode_run(out, &head, payloads.iter().map(|payload| payload.bytes()))
            }),
            Form::Long { heads, payloads } => {
                let mut sent = sent;
                let Ok(()) = queue.push_with(self.frames, |buffer| {
                    buffer.reserve(self.len.saturating_sub(sent));
                    for piece in pieces(&heads, payloads) {
                        buffer.extend_from_slice(piece.get(sent..).unwrap_or_default());
                        sent = sent.saturating_sub(piece.len());
                    }
                    Ok::<_, Infallible>(())
                });
            }
            Form::Shared(bytes) => queue.push_shared(bytes, self.frames),
            Form::Copied(bytes) => queue.push(bytes, self.frames),
        }
        true
    }
}

/// The heads of all frames, one behind the other; all have the same length.
fn heads(head: &DeliveryHead<'_>, payloads: &[Payload<'_>]) -> Vec<u8> {
    let mut heads = Vec::with_capacity(payloads.len() * head.prefix_len());
    for payload in payloads {
        if encode_head(&mut heads, head, payload.len()).is_err() {
            break; // whole frames only
        }
    }
    heads
}

/// Heads and payloads in turn.
fn pieces<'a>(heads: &'a [u8], payloads: &'a [Payload<'a>]) -> impl Iterator<Item = &'a [u8]> {
    let prefix = (heads.len() / payloads.len().max(1)).max(1);
    heads.chunks(prefix).zip(payloads).flat_map(|(head, payload)| [head, payload.bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::{Encoding, Qos, SharedBytes};

    /// What two recipients get, which is queued behind something else, without the first `sent` bytes for the
    /// second.
    fn queued(
        kind: FrameKind,
        payloads: &[Vec<u8>],
        shared: Option<&SharedBytes>,
        sent: usize,
    ) -> [Vec<u8>; 2] {
        let payloads: Vec<_> = payloads.iter().map(|payload| Payload::from(&payload[..])).collect();
        let mut encoding = Encoding::new();
        let mut run = Run::new(kind, Qos::NO, "s", "t/u", &payloads, shared, &mut encoding);
        [0, sent].map(|sent| {
            let mut queue = Queue::default();
            queue.push(b"before", 1);
            let wire = Wire::of(&mut run);
            let len = wire.bytes();
            assert!(wire.push(&mut queue, sent));
            assert_eq!(queue.bytes(), 6 + len - sent);
            assert_eq!(queue.queued().frames, 1 + payloads.len() as u64);
            let mut all = vec![];
            while !queue.is_empty() {
                let piece = queue.first_piece().to_vec();
                queue.advance(piece.len());
                all.extend(piece);
            }
            all
        })
    }

    #[test]
    fn what_was_sent_ahead_is_not_queued() {
        let payloads = [vec![1; 3000], vec![], vec![2; 5000]];
        let [all, _] = queued(FrameKind::Message, &payloads, None, 0);
        for sent in [1, 7, 8, 9, 3007, 3008, 3016, 3017, 3024, 8023, 8024] {
            let [_, rest] = queued(FrameKind::Message, &payloads, None, sent);
            assert!(rest[..6] == *b"before" && rest[6..] == all[6 + sent..], "{sent}");
        }
    }

    #[test]
    fn whatever_its_form_the_bytes_are_the_same() {
        for kind in [FrameKind::Message, FrameKind::Broadcast, FrameKind::Publish] {
            for (count, size) in [(1, 0), (1, 5), (3, 100), (60, 100), (1, SHARE_FROM_BYTES), (2, 70_000)] {
                let payloads: Vec<_> = (0..count).map(|number| vec![number as u8; size]).collect();
                let shared = (count == 1).then(|| SharedBytes::from(payloads[0].clone()));
                let topic = if kind == FrameKind::Publish { "t/u" } else { "" };
                let head = DeliveryHead { kind, realtime: false, sender: "s", topic };
                let mut expected = b"before".to_vec();
                for payload in &payloads {
                    assert!(encode_head(&mut expected, &head, payload.len()).is_ok());
                    expected.extend(payload);
                }
                for bytes in queued(kind, &payloads, shared.as_ref(), 0) {
                    assert!(bytes == expected, "{kind:?} {count} {size}");
                }
            }
        }
    }
}
