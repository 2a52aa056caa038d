//! Encodes and decodes frames from broker to client (section 4). Never decides which clients receive them.
//!
//! [`encode_run`] and [`encode_mixed_run`] are the other half of the broker's hot path: they write all frames
//! of a run from one template.

mod decode;
mod mixed;

pub use decode::{Delivery, DeliveryLayout, decode_delivery, locate_delivery};
pub use mixed::{encode_mixed_run, mixed_run_len};

use crate::{EncodeError, FrameKind};

/// Bytes before the body of every delivery, and the whole of a NOP and an acknowledgement.
pub const DELIVERY_HEADER_BYTES: usize = 6;
/// Bytes of an acknowledgement.
pub const ACK_BYTES: usize = DELIVERY_HEADER_BYTES;
/// The keep-alive frame (section 5).
pub const NOP: [u8; DELIVERY_HEADER_BYTES] = [0; DELIVERY_HEADER_BYTES];
/// Room behind a run's encoding that lets [`encode_run`] copy short prefixes whole, in bytes.
pub const RUN_SLACK: usize = LONG_TEMPLATE;

const SHORT_TEMPLATE: usize = 32;
const LONG_TEMPLATE: usize = 64;

/// An acknowledgement of the request with this op id. The code is a [`Code`](crate::Code), as a number.
#[inline]
pub fn encode_ack(op_id: u32, code: u8) -> [u8; ACK_BYTES] {
    let [i0, i1, i2, i3] = op_id.to_le_bytes();
    [FrameKind::Ack as u8, i0, i1, i2, i3, code]
}

/// What the frames of a run have in common on their way to a client.
///
/// The texts must not hold a NUL, which would break the framing; names and topics that came through this
/// crate do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryHead<'a> {
    /// Publish, message or broadcast. The other kinds have no body: nothing is encoded for them.
    pub kind: FrameKind,
    /// Whether the frame was sent as real-time.
    pub realtime: bool,
    /// Full name of the sender.
    pub sender: &'a str,
    /// Topic of a publication, perhaps empty; ignored for the other kinds.
    pub topic: &'a str,
}

impl<'a> DeliveryHead<'a> {
    /// Bytes before the payload, header included; 0 for a kind without body.
    #[inline]
    pub fn prefix_len(&self) -> usize {
        let fixed = DELIVERY_HEADER_BYTES + 1;
        match self.kind {
            FrameKind::Message | FrameKind::Broadcast => fixed.saturating_add(self.sender.len()),
            FrameKind::Publish => {
                (fixed + 1).saturating_add(self.sender.len()).saturating_add(self.topic.len())
            }
            FrameKind::Nop | FrameKind::Ack => 0,
        }
    }

    /// Returns the bytes of `count` frames whose payloads have `payload_bytes` in total; `usize::MAX`, which
    /// no buffer can have, if the number overflows.
    #[inline]
    pub fn encoded_len(&self, payload_bytes: usize, count: usize) -> usize {
        match self.prefix_len() {
            0 => 0,
            prefix => prefix.saturating_mul(count).saturating_add(payload_bytes),
        }
    }

    /// Returns the header with this length field.
    #[inline]
    fn header(&self, len: u32) -> [u8; DELIVERY_HEADER_BYTES] {
        let [l0, l1, l2, l3] = len.to_le_bytes();
        [self.kind as u8, l0, l1, l2, l3, u8::from(self.realtime)]
    }

    /// Returns the topic if the kind has one.
    #[inline]
    fn topic_text(&self) -> Option<&'a str> {
        (self.kind == FrameKind::Publish).then_some(self.topic)
    }

    /// Returns the length field of a frame with such a payload; `None` if it exceeds 32 bits.
    #[inline]
    fn body_len(prefix: usize, payload: usize) -> Option<u32> {
        u32::try_from((prefix - DELIVERY_HEADER_BYTES).checked_add(payload)?).ok()
    }
}

/// Writes the frames of a run to the beginning of `out`, one for each payload, and tells how many bytes they
/// take.
///
/// `out` should have [`DeliveryHead::encoded_len`] plus [`RUN_SLACK`] bytes; what lies behind the returned
/// length is scratch. It works without the slack, only slower. The encoding stops, whole frames only, before
/// one that does not fit into `out` or whose body a 32-bit length cannot say (limits keep such frames from
/// getting here); then the result is less than `encoded_len`.
#[inline]
pub fn encode_run<'p>(
    out: &mut [u8],
    head: &DeliveryHead<'_>,
    payloads: impl IntoIterator<Item = &'p [u8]>,
) -> usize {
    let payloads = payloads.into_iter();
    match head.prefix_len() {
        0 => 0,
        prefix @ 1..=SHORT_TEMPLATE => from_template::<SHORT_TEMPLATE>(out, head, prefix, payloads),
        prefix @ ..=LONG_TEMPLATE => from_template::<LONG_TEMPLATE>(out, head, prefix, payloads),
        prefix => from_first_frame(out, head, prefix, payloads),
    }
}

/// For a prefix of at most `SIZE` bytes: copied as `SIZE` bytes, of which the payload overwrites the rest.
#[inline]
fn from_template<'p, const SIZE: usize>(
    out: &mut [u8],
    head: &DeliveryHead<'_>,
    prefix: usize,
    payloads: impl Iterator<Item = &'p [u8]>,
) -> usize {
    let mut template = [0; SIZE];
    write_prefix(&mut template, head);
    let mut end = 0;
    for payload in payloads {
        let Some(len) = DeliveryHead::body_len(prefix, payload.len()) else { break };
        let Some(room) = out.get_mut(end..) else { break };
        if let Some(start) = room.first_chunk_mut() {
            // The length goes into the copy and not into the template: that would stall the next copy.
            *start = template;
            start[1..5].copy_from_slice(&len.to_le_bytes());
        } else if room.len() >= prefix {
            write_prefix(room, head);
            write_len(room, len);
        }
        let Some(total) = finish(room, prefix, payload) else { break };
        end += total;
    }
    end
}

/// For long prefixes: the first frame is the template.
fn from_first_frame<'p>(
    out: &mut [u8],
    head: &DeliveryHead<'_>,
    prefix: usize,
    payloads: impl Iterator<Item = &'p [u8]>,
) -> usize {
    let mut end = 0;
    for payload in payloads {
        let Some(len) = DeliveryHead::body_len(prefix, payload.len()) else { break };
        if out.len() - end < prefix {
            break;
        }
        if end == 0 {
            write_prefix(out, head);
        } else {
            out.copy_within(..prefix, end);
        }
        let Some(room) = out.get_mut(end..) else { break };
        write_len(room, len);
        let Some(total) = finish(room, prefix, payload) else { break };
        end += total;
    }
    end
}

/// Adds the payload and tells the length of the whole frame; `None` if it does not fit.
#[inline]
fn finish(room: &mut [u8], prefix: usize, payload: &[u8]) -> Option<usize> {
    let total = prefix.checked_add(payload.len())?;
    room.get_mut(prefix..total)?.copy_from_slice(payload);
    Some(total)
}

#[inline]
fn write_len(frame: &mut [u8], len: u32) {
    if let Some(place) = frame.get_mut(1..5) {
        place.copy_from_slice(&len.to_le_bytes());
    }
}

/// Writes as much of the prefix as fits, with a length of zero. Not inlined, since it would slow down the
/// loops of its callers, which need it for the first frame only.
#[inline(never)]
fn write_prefix(room: &mut [u8], head: &DeliveryHead<'_>) {
    let Some((header, rest)) = room.split_first_chunk_mut() else { return };
    *header = head.header(0);
    let rest = write_text(rest, head.sender);
    if let Some(topic) = head.topic_text() {
        rest.and_then(|rest| write_text(rest, topic));
    }
}

/// Writes a text and the NUL that ends it, and returns what is behind them.
#[inline]
fn write_text<'r>(room: &'r mut [u8], text: &str) -> Option<&'r mut [u8]> {
    let (place, rest) = room.split_at_mut_checked(text.len())?;
    place.copy_from_slice(text.as_bytes());
    let (nul, rest) = rest.split_first_mut()?;
    *nul = 0;
    Some(rest)
}

/// Appends everything of a frame but its payload, which travels behind it on its own: `payload_len` bytes.
/// After an error `out` is as before.
pub fn encode_head(
    out: &mut Vec<u8>,
    head: &DeliveryHead<'_>,
    payload_len: usize,
) -> Result<(), EncodeError> {
    let prefix = head.prefix_len();
    if prefix == 0 {
        return Ok(());
    }
    let too_long = EncodeError::TooLong { len: (prefix - DELIVERY_HEADER_BYTES).saturating_add(payload_len) };
    let len = DeliveryHead::body_len(prefix, payload_len).ok_or(too_long)?;
    out.reserve(prefix);
    out.extend_from_slice(&head.header(len));
    out.extend_from_slice(head.sender.as_bytes());
    out.push(0);
    if let Some(topic) = head.topic_text() {
        out.extend_from_slice(topic.as_bytes());
        out.push(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head<'a>(kind: FrameKind, sender: &'a str, topic: &'a str) -> DeliveryHead<'a> {
        DeliveryHead { kind, realtime: false, sender, topic }
    }

    fn run(head: &DeliveryHead<'_>, payloads: &[&[u8]], slack: usize) -> Vec<u8> {
        let len = head.encoded_len(payloads.iter().map(|payload| payload.len()).sum(), payloads.len());
        let mut out = vec![0xAA; len + slack];
        assert_eq!(encode_run(&mut out, head, payloads.iter().copied()), len);
        out.truncate(len);
        out
    }

    #[test]
    fn the_bytes_of_section_4() {
        assert_eq!(encode_ack(0x0403_0201, 0x71), [0xFE, 1, 2, 3, 4, 0x71]);
        let mut message = head(FrameKind::Message, "a.b", "ignored");
        assert_eq!(run(&message, &[b"hi", b""], 0), b"\x12\x06\0\0\0\0a.b\0hi\x12\x04\0\0\0\0a.b\0");
        message.realtime = true;
        assert_eq!(run(&message, &[b"hi"], RUN_SLACK), b"\x12\x06\0\0\0\x01a.b\0hi");
        let publication = head(FrameKind::Publish, "s", "t/u");
        assert_eq!(run(&publication, &[b"\0"], 0), b"\x01\x07\0\0\0\0s\0t/u\0\0");
    }

    #[test]
    fn an_empty_topic_keeps_its_nul() {
        let publication = head(FrameKind::Publish, "s", "");
        assert_eq!(publication.prefix_len(), 9);
        assert_eq!(run(&publication, &[b"p"], RUN_SLACK), b"\x01\x04\0\0\0\0s\0\0p");
    }

    #[test]
    fn every_prefix_length_and_slack_gives_the_plain_encoding() {
        let payloads: [&[u8]; 4] = [b"", b"p", &[7; 100], &[8; 31]];
        for sender in 1..90 {
            let sender = "s".repeat(sender);
            for kind in [FrameKind::Publish, FrameKind::Message, FrameKind::Broadcast] {
                let head = head(kind, &sender, "topic");
                let mut plain = vec![];
                for payload in payloads {
                    encode_head(&mut plain, &head, payload.len()).unwrap();
                    plain.extend_from_slice(payload);
                }
                for slack in [0, 1, 31, 32, 63, RUN_SLACK] {
                    assert_eq!(run(&head, &payloads, slack), plain);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        for sender in ["s".to_owned(), "s".repeat(40), "s".repeat(200)] {
            let head = head(FrameKind::Message, &sender, "");
            let one = head.encoded_len(3, 1);
            let payloads: [&[u8]; 2] = [b"abc", b"def"];
            for room in 0..2 * one {
                let mut out = vec![0; room];
                let written = encode_run(&mut out, &head, payloads);
                assert_eq!(written, if room < one { 0 } else { one });
            }
        }
    }

    #[test]
    fn lengths_never_wrap() {
        let message = head(FrameKind::Message, "s", "");
        assert_eq!(message.encoded_len(usize::MAX, 2), usize::MAX);
        let mut out = vec![];
        let long = encode_head(&mut out, &message, u32::MAX as usize - 1);
        assert_eq!((long, out.len()), (Err(EncodeError::TooLong { len: u32::MAX as usize + 1 }), 0));
        assert!(encode_head(&mut out, &message, u32::MAX as usize - 2).is_ok());
    }

    #[test]
    fn kinds_without_body_encode_to_nothing() {
        let nop = head(FrameKind::Nop, "s", "t");
        assert_eq!((nop.prefix_len(), nop.encoded_len(5, 1)), (0, 0));
        assert_eq!(encode_run(&mut [0; 99], &nop, [&b"p"[..]]), 0);
    }
}
