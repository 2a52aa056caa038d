//! Encodes mixed runs: frames of one sender that share nothing else.

use super::{DELIVERY_HEADER_BYTES, LONG_TEMPLATE, SHORT_TEMPLATE, finish, write_len};
use crate::FrameKind;

/// Returns the bytes of a mixed run of `count` frames, which have `tail_bytes` behind their senders in total;
/// `usize::MAX`, which no buffer can have, if the number overflows.
#[inline]
pub fn mixed_run_len(sender: &str, tail_bytes: usize, count: usize) -> usize {
    let prefix = sender.len().saturating_add(DELIVERY_HEADER_BYTES + 1);
    prefix.saturating_mul(count).saturating_add(tail_bytes)
}

/// Writes the frames of a mixed run to the beginning of `out`, and returns how many bytes they take.
///
/// Each frame is its kind, message or publish, and its tail: the payload of a message; of a publication the
/// topic, a NUL and the payload, as they arrived. `out` should have [`mixed_run_len`] plus
/// [`RUN_SLACK`](super::RUN_SLACK) bytes; what lies behind the returned length is scratch. Encoding stops
/// before a frame that does not fit.
#[inline]
pub fn encode_mixed_run<'p>(
    out: &mut [u8],
    sender: &str,
    frames: impl Iterator<Item = (FrameKind, &'p [u8])>,
) -> usize {
    let prefix = DELIVERY_HEADER_BYTES + 1 + sender.len();
    let mut template = [0; LONG_TEMPLATE];
    if let Some(place) = template.get_mut(DELIVERY_HEADER_BYTES..prefix - 1) {
        place.copy_from_slice(sender.as_bytes());
    }
    let mut end = 0;
    for (kind, tail) in frames {
        let Ok(len) = u32::try_from(sender.len() + 1 + tail.len()) else { break };
        let Some(room) = out.get_mut(end..) else { break };
        if prefix <= SHORT_TEMPLATE
            && let (Some(start), Some(short)) = (room.first_chunk_mut(), template.first_chunk())
        {
            let (start, short): (&mut [u8; SHORT_TEMPLATE], &[u8; SHORT_TEMPLATE]) = (start, short);
            *start = *short;
        } else if prefix <= LONG_TEMPLATE
            && let Some(start) = room.first_chunk_mut::<LONG_TEMPLATE>()
        {
            *start = template;
        } else if let Some(place) = room.get_mut(..prefix) {
            write_prefix(place, sender);
        } else {
            break;
        }
        // into the copy and not into the template: that would stall the next copy
        if let Some(head) = room.first_mut() {
            *head = kind as u8;
        }
        write_len(room, len);
        let Some(total) = finish(room, prefix, tail) else { break };
        end += total;
    }
    end
}

/// Writes the prefix of a frame, with kind and length of zero.
#[inline(never)]
fn write_prefix(place: &mut [u8], sender: &str) {
    place.fill(0);
    if let Some(text) = place.get_mut(DELIVERY_HEADER_BYTES..DELIVERY_HEADER_BYTES + sender.len()) {
        text.copy_from_slice(sender.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{DeliveryHead, RUN_SLACK, encode_run};

    #[test]
    fn every_prefix_length_and_slack_gives_the_encoding_of_single_frames() {
        let payloads: [&[u8]; 4] = [b"", b"p", &[7; 100], &[8; 31]];
        for sender in (1..90).chain([900]) {
            let sender = "s".repeat(sender);
            let (mut plain, mut tails) = (vec![], vec![]);
            for (number, payload) in payloads.into_iter().enumerate() {
                let topic = ["", "topic"][number % 2];
                let kind = if number < 3 { FrameKind::Publish } else { FrameKind::Message };
                let head = DeliveryHead { kind, realtime: false, sender: &sender, topic };
                let mut one = vec![0; head.encoded_len(payload.len(), 1)];
                assert_eq!(encode_run(&mut one, &head, [payload]), one.len());
                plain.extend(one);
                let tail = match kind {
                    FrameKind::Publish => [topic.as_bytes(), b"\0", payload].concat(),
                    _ => payload.to_vec(),
                };
                tails.push((kind, tail));
            }
            let tail_bytes = tails.iter().map(|(_, tail)| tail.len()).sum();
            assert_eq!(mixed_run_len(&sender, tail_bytes, tails.len()), plain.len());
            let frames = || tails.iter().map(|(kind, tail)| (*kind, &tail[..]));
            for slack in [0, 1, 31, 32, 63, RUN_SLACK] {
                let mut out = vec![0xAA; plain.len() + slack];
                let written = encode_mixed_run(&mut out, &sender, frames());
                assert_eq!(out[..written], plain);
            }
            for room in 0..plain.len() {
                let mut out = vec![0xAA; room];
                let written = encode_mixed_run(&mut out, &sender, frames());
                assert!(written <= room && plain.starts_with(&out[..written]), "whole frames only");
            }
        }
        assert_eq!(mixed_run_len("s", usize::MAX, 2), usize::MAX);
    }
}
