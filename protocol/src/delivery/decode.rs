//! Taking apart what the broker sends, for clients and tests; never waits for more.

use super::DELIVERY_HEADER_BYTES;
use crate::request::{Limits, text, text_len};
use crate::{Field, FrameError, FrameKind};

/// A frame from the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery<'a> {
    /// Keep-alive; no answer is expected.
    Nop,
    /// The outcome of a request that asked for it.
    Ack {
        /// That of the request.
        op_id: u32,
        /// A [`Code`](crate::Code), if this crate knows it.
        code: u8,
    },
    /// A one-to-one message.
    Message {
        /// Full name of the sender.
        sender: &'a str,
        /// Any bytes; by convention a frame of the RPC layer.
        payload: &'a [u8],
        /// Whether it was sent as real-time.
        realtime: bool,
    },
    /// A message to a mask that matched.
    Broadcast {
        /// Full name of the sender.
        sender: &'a str,
        /// Any bytes.
        payload: &'a [u8],
        /// Whether it was sent as real-time.
        realtime: bool,
    },
    /// A publication to a topic that matched.
    Publish {
        /// Full name of the sender.
        sender: &'a str,
        /// The topic, perhaps empty.
        topic: &'a str,
        /// Any bytes.
        payload: &'a [u8],
        /// Whether it was sent as real-time.
        realtime: bool,
    },
}

/// What the first frame of the input is, and where its parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryLayout {
    /// Keep-alive; no answer is expected.
    Nop,
    /// The outcome of a request that asked for it.
    Ack {
        /// That of the request.
        op_id: u32,
        /// A [`Code`](crate::Code), if this crate knows it.
        code: u8,
    },
    /// A message, broadcast or publication. Its body follows the header of [`DELIVERY_HEADER_BYTES`]: sender,
    /// NUL, for a publication topic, NUL, and the payload. Both texts are UTF-8.
    Body {
        /// One of these three.
        kind: FrameKind,
        /// Whether it was sent as real-time.
        realtime: bool,
        /// Length of the sender at the start of the body, in bytes.
        sender_len: usize,
        /// Position of the payload in the body, in bytes.
        payload_at: usize,
    },
}

/// Checks the first frame of the input as [`decode_delivery`] does. Returns where its parts are, and its
/// length in bytes; `None` while it is not whole.
#[inline]
pub fn locate_delivery(input: &[u8], limits: &Limits) -> Result<Option<(DeliveryLayout, usize)>, FrameError> {
    let Some((header, after)) = input.split_first_chunk::<DELIVERY_HEADER_BYTES>() else { return Ok(None) };
    let [kind, l0, l1, l2, l3, last] = *header;
    let number = u32::from_le_bytes([l0, l1, l2, l3]);
    let kind = FrameKind::from_wire(kind).ok_or(FrameError::UnknownKind { kind })?;
    match kind {
        FrameKind::Nop => return Ok(Some((DeliveryLayout::Nop, DELIVERY_HEADER_BYTES))),
        FrameKind::Ack => {
            let ack = DeliveryLayout::Ack { op_id: number, code: last };
            return Ok(Some((ack, DELIVERY_HEADER_BYTES)));
        }
        FrameKind::Publish | FrameKind::Message | FrameKind::Broadcast => {}
    }
    let Some(body) = after.get(..limits.check(number)?) else { return Ok(None) };
    let sender_len = text_len(body, Field::Sender)?;
    let mut payload_at = sender_len + 1;
    if kind == FrameKind::Publish {
        payload_at += text_len(body.get(payload_at..).unwrap_or_default(), Field::Topic)? + 1;
    }
    let layout = DeliveryLayout::Body { kind, realtime: last != 0, sender_len, payload_at };
    Ok(Some((layout, DELIVERY_HEADER_BYTES + body.len())))
}

/// The first frame of the input and its length in bytes, or `None` while it is not whole.
///
/// An unknown kind and a body over the limit are errors as soon as the header is there. The length field of a
/// NOP is ignored, and any value but 0 counts as real-time.
pub fn decode_delivery<'a>(
    input: &'a [u8],
    limits: &Limits,
) -> Result<Option<(Delivery<'a>, usize)>, FrameError> {
    let Some((layout, used)) = locate_delivery(input, limits)? else { return Ok(None) };
    let (kind, realtime, sender_len, payload_at) = match layout {
        DeliveryLayout::Nop => return Ok(Some((Delivery::Nop, used))),
        DeliveryLayout::Ack { op_id, code } => return Ok(Some((Delivery::Ack { op_id, code }, used))),
        DeliveryLayout::Body { kind, realtime, sender_len, payload_at } => {
            (kind, realtime, sender_len, payload_at)
        }
    };
    let body = input.get(DELIVERY_HEADER_BYTES..used).unwrap_or_default();
    let part = |from: usize, to: usize| body.get(from..to).unwrap_or_default();
    let sender = text(part(0, sender_len), Field::Sender)?;
    let payload = part(payload_at, body.len());
    let delivery = match kind {
        FrameKind::Publish => {
            let topic = text(part(sender_len + 1, payload_at.saturating_sub(1)), Field::Topic)?;
            Delivery::Publish { sender, topic, payload, realtime }
        }
        FrameKind::Broadcast => Delivery::Broadcast { sender, payload, realtime },
        _ => Delivery::Message { sender, payload, realtime },
    };
    Ok(Some((delivery, used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &[u8]) -> Result<Option<(Delivery<'_>, usize)>, FrameError> {
        decode_delivery(input, &Limits { max_frame_bytes: 100 })
    }

    #[test]
    fn every_kind() {
        assert_eq!(decode(&super::super::NOP), Ok(Some((Delivery::Nop, 6))));
        let ack = Delivery::Ack { op_id: 5, code: 0x71 };
        assert_eq!(decode(b"\xFE\x05\0\0\0\x71rest"), Ok(Some((ack, 6))));
        let message = Delivery::Message { sender: "s", payload: b"p", realtime: true };
        assert_eq!(decode(b"\x12\x03\0\0\0\x01s\0prest"), Ok(Some((message, 9))));
        let broadcast = Delivery::Broadcast { sender: "s", payload: b"", realtime: false };
        assert_eq!(decode(b"\x13\x02\0\0\0\0s\0"), Ok(Some((broadcast, 8))));
        let publish = Delivery::Publish { sender: "s", topic: "", payload: b"p", realtime: false };
        assert_eq!(decode(b"\x01\x04\0\0\0\0s\0\0p"), Ok(Some((publish, 10))));
    }

    #[test]
    fn what_is_broken_and_what_is_not_yet_whole() {
        assert_eq!(decode(b"\x12\x03\0\0\0"), Ok(None));
        assert_eq!(decode(b"\x12\x03\0\0\0\0s\0"), Ok(None));
        assert_eq!(decode(b"\x12\x65\0\0\0\0"), Err(FrameError::TooLong { len: 101, limit: 100 }));
        assert_eq!(decode(b"\x02\0\0\0\0\0"), Err(FrameError::UnknownKind { kind: 2 }));
        assert_eq!(decode(b"\x12\x01\0\0\0\0s"), Err(FrameError::MissingNul { field: Field::Sender }));
        assert_eq!(decode(b"\x01\x02\0\0\0\0s\0"), Err(FrameError::MissingNul { field: Field::Topic }));
        assert_eq!(decode(b"\x12\x02\0\0\0\0\xFF\0"), Err(FrameError::NotUtf8 { field: Field::Sender }));
    }
}
