//! What a run is on the wire, and the cheapest way of queueing it: copied, encoded where it is sent from, or kept by
//! reference count. Owns that choice; never a lock, a limit or a connection.

use bytes::Bytes;
use elbus_plugin_api::{Payload, Run, SHARE_FROM_BYTES};
use elbus_protocol::{
    FrameKind,
    delivery::{DeliveryHead, RUN_SLACK, encode_head, encode_run},
};
use elbus_socket::Queue;

/// The number of this wire format, for [`Encoding`](elbus_plugin_api::Encoding).
const PROTOCOL: u32 = 0xEB01;

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
            return Wire { len: len(), frames, form: Form::One { head, payloads } };
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

    /// How many bytes it has.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// Appends it to a queue; `false` where it is too long for a frame, which limits rule out.
    #[inline]
    pub fn push(self, queue: &mut Queue) -> bool {
        match self.form {
            Form::Large { head, payload } => {
                let len = payload.len();
                return queue.push_large(payload, |buffer| encode_head(buffer, &head, len)).is_ok();
            }
            Form::One { head, payloads } => queue.push_within(self.len + RUN_SLACK, self.frames, |out| {
                encode_run(out, &head, payloads.iter().map(|payload| payload.bytes()))
            }),
            Form::Shared(bytes) => queue.push_shared(bytes, self.frames),
            Form::Copied(bytes) => queue.push(bytes, self.frames),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::{Encoding, Qos, SharedBytes};

    /// What two recipients get, which is queued behind something else.
    fn queued(kind: FrameKind, payloads: &[Vec<u8>], shared: Option<&SharedBytes>) -> [Vec<u8>; 2] {
        let payloads: Vec<_> = payloads.iter().map(|payload| Payload::from(&payload[..])).collect();
        let mut encoding = Encoding::new();
        let mut run = Run::new(kind, Qos::NO, "s", "t/u", &payloads, shared, &mut encoding);
        [(); 2].map(|()| {
            let mut queue = Queue::default();
            queue.push(b"before", 1);
            let wire = Wire::of(&mut run);
            let len = wire.bytes();
            assert!(wire.push(&mut queue));
            assert_eq!(queue.waiting(), 6 + len);
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
                for bytes in queued(kind, &payloads, shared.as_ref()) {
                    assert!(bytes == expected, "{kind:?} {count} {size}");
                }
            }
        }
    }
}
