//! Finds mixed runs: consecutive short messages and publications whose targets differ. Leaves everything
//! else, invalid frames included, to [`next_run`](super::next_run).

use super::{
    Header, Limits, MAX_RUN, REQUEST_HEADER_BYTES,
    prefix::{find_nul_ascii, starts_with},
};
use crate::{Op, Qos};

/// More consecutive frames with the same target than this are left to [`next_run`](super::next_run), which
/// takes them for less.
const MAX_ALIKE: u32 = 5;

/// A message or publication of a mixed run. Its target is valid UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MixedFrame<'a> {
    /// The op id.
    pub op_id: u32,
    /// [`Op::Message`] or [`Op::Publish`].
    pub op: Op,
    /// The quality of service, not real-time.
    pub qos: Qos,
    /// The target or topic, a NUL, and the payload.
    pub body: &'a [u8],
    /// Bytes of the target or topic.
    pub target_len: u32,
    /// Whether operation, quality of service and target are those of the frame before in this mixed run.
    pub repeats: bool,
}

/// Why a mixed run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MixedEnd {
    /// It has [`MAX_RUN`] frames.
    Limit,
    /// Frames with the same target follow, which [`next_run`](super::next_run) takes for less.
    Alike,
    /// Something else follows: another operation, a long, real-time, incomplete or invalid frame, a target
    /// that begins with a dot, or nothing.
    Other,
}

/// Parses the next mixed run of `input` at `pos`, passes its frames to `take` and moves `pos` behind it.
///
/// Bodies longer than `max_body` end it. Pings are skipped. A mixed run can be empty.
#[inline]
pub fn next_mixed_run<'a>(
    input: &'a [u8],
    pos: &mut usize,
    limits: &Limits,
    max_body: usize,
    mut take: impl FnMut(MixedFrame<'a>),
) -> MixedEnd {
    const MESSAGE: u8 = Op::Message as u8;
    const PUBLISH: u8 = Op::Publish as u8;
    let mut rest = input.get(*pos..).unwrap_or_default();
    let max_body = max_body.min(limits.max_frame_bytes);
    let (mut count, mut alike, mut texts, mut flags) = (0, 0, &[][..], 0);
    let end = loop {
        if count == MAX_RUN {
            break MixedEnd::Limit;
        }
        let Some((header, after)) = rest.split_first_chunk::<REQUEST_HEADER_BYTES>() else {
            break MixedEnd::Other;
        };
        let header = Header::read(header);
        if header.flags == 0 {
            rest = after;
            continue;
        }
        let (op, qos) = match header.flags & 0x3F {
            MESSAGE => (Op::Message, Qos::from_bits(header.flags >> 6)),
            PUBLISH => (Op::Publish, Qos::from_bits(header.flags >> 6)),
            _ => break MixedEnd::Other,
        };
        let len = header.len as usize;
        if len > max_body || qos.is_realtime() {
            break MixedEnd::Other;
        }
        let Some((body, next)) = after.split_at_checked(len) else { break MixedEnd::Other };
        let repeats = header.flags == flags && starts_with(body, texts);
        if repeats {
            alike += 1;
            if alike > MAX_ALIKE {
                break MixedEnd::Alike;
            }
        } else {
            let Some((nul, is_ascii)) = find_nul_ascii(body) else { break MixedEnd::Other };
            let Some((target, _)) = body.split_at_checked(nul) else { break MixedEnd::Other };
            if target.first() == Some(&b'.') || !is_ascii && std::str::from_utf8(target).is_err() {
                break MixedEnd::Other;
            }
            (alike, flags) = (1, header.flags);
            texts = body.get(..nul + 1).unwrap_or_default();
        }
        let target_len = (texts.len() as u32).saturating_sub(1);
        take(MixedFrame { op_id: header.op_id, op, qos, body, target_len, repeats });
        rest = next;
        count += 1;
    };
    *pos = input.len() - rest.len();
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{PING, RunBuffer, Step, encode_request, next_run};
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { max_frame_bytes: 4096 };

    fn request(out: &mut Vec<u8>, op: Op, qos: Qos, target: &str, payload: &[u8]) {
        encode_request(out, 7, op, qos, target, "", payload).unwrap();
    }

    fn targets(wire: &[u8]) -> (Vec<(&[u8], bool)>, MixedEnd, usize) {
        let (mut pos, mut found) = (0, vec![]);
        let end = next_mixed_run(wire, &mut pos, &LIMITS, 100, |frame| {
            found.push((&frame.body[..frame.target_len as usize], frame.repeats));
        });
        (found, end, pos)
    }

    #[test]
    fn frames_of_different_targets_make_a_mixed_run() {
        let mut wire = vec![];
        request(&mut wire, Op::Message, Qos::NO, "a.b", b"1");
        request(&mut wire, Op::Publish, Qos::PROCESSED, "a/b", b"2");
        wire.extend_from_slice(&PING);
        request(&mut wire, Op::Publish, Qos::PROCESSED, "a/b", b"3");
        request(&mut wire, Op::Publish, Qos::NO, "a/b", b"4");
        request(&mut wire, Op::Publish, Qos::NO, "\u{e9}", b"");
        let all = [(&b"a.b"[..], false), (b"a/b", false), (b"a/b", true), (b"a/b", false)];
        let accented = ("\u{e9}".as_bytes(), false);
        assert_eq!(targets(&wire), ([&all[..], &[accented]].concat(), MixedEnd::Other, wire.len()));
    }

    #[test]
    fn everything_else_ends_a_mixed_run_before_it() {
        let mut first = vec![];
        request(&mut first, Op::Message, Qos::NO, "a", b"");
        let others = [
            (Op::Broadcast, Qos::NO, "a", 0),
            (Op::Message, Qos::REALTIME, "a", 0),
            (Op::Message, Qos::NO, ".broker", 0),
            (Op::Publish, Qos::NO, ".broker/info", 0),
            (Op::Publish, Qos::NO, "a", 100),
        ];
        for (op, qos, target, payload) in others {
            let mut wire = first.clone();
            request(&mut wire, op, qos, target, &vec![0; payload]);
            assert_eq!(targets(&wire), (vec![(&b"a"[..], false)], MixedEnd::Other, first.len()), "{target}");
        }
        let subscribe = b"\x01\0\0\0\x02\x02\0\0\0ab";
        let (without_nul, not_utf8) = (b"\x01\0\0\0\x12\x02\0\0\0ab", b"\x01\0\0\0\x12\x02\0\0\0\xFF\0");
        for other in [&subscribe[..], without_nul, not_utf8, b"\x01\0\0\0"] {
            let wire = [&first, other].concat();
            assert_eq!(targets(&wire), (vec![(&b"a"[..], false)], MixedEnd::Other, first.len()));
        }
    }

    #[test]
    fn more_frames_or_more_alike_than_the_limit_are_left() {
        let mut wire = vec![];
        (0..MAX_RUN + 1).for_each(|number| {
            request(&mut wire, Op::Publish, Qos::NO, &(number % 10).to_string(), b"");
        });
        let (found, end, _) = targets(&wire);
        assert_eq!((found.len(), end), (MAX_RUN, MixedEnd::Limit));
        let mut wire = vec![];
        (0..8).for_each(|_| request(&mut wire, Op::Publish, Qos::NO, "t", b""));
        let (found, end, _) = targets(&wire);
        assert_eq!((found.len(), end), (MAX_ALIKE as usize, MixedEnd::Alike));
    }

    proptest! {
        /// A mixed run has the frames that runs have.
        #[test]
        fn equals_runs(
            frames in prop::collection::vec((0..12u8, 0..4u8, "[ab.\u{e9}]{0,3}", 0..60usize), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut wire = vec![];
            for (op, qos, target, payload) in &frames {
                let op = [Op::Message, Op::Publish, Op::Broadcast][usize::from(op / 5)];
                request(&mut wire, op, Qos::from_bits(*qos), target, &vec![b'p'; *payload]);
            }
            wire.truncate(cut.index(wire.len() + 1));
            let (mut pos, mut mixed) = (0, vec![]);
            next_mixed_run(&wire, &mut pos, &LIMITS, 50, |frame| {
                let (target, payload) = frame.body.split_at(frame.target_len as usize);
                let target = std::str::from_utf8(target).unwrap();
                mixed.push((frame.op, frame.qos, target, payload[1..].to_vec()));
            });
            let (mut at, mut run, mut plain) = (0, RunBuffer::<&[u8]>::new(), vec![]);
            while let Ok(Step::Run(head)) = next_run(&wire, &mut at, &LIMITS, &mut run) {
                let payloads = run.payloads[..head.len].iter();
                plain.extend(payloads.map(|payload| (head.op, head.qos, head.target, payload.to_vec())));
            }
            prop_assert_eq!(&mixed[..], &plain[..mixed.len()]);
            // what follows is parsed as if nothing had been before it
            let (mut at, mut left) = (pos, 0);
            while let Ok(Step::Run(head)) = next_run(&wire, &mut at, &LIMITS, &mut run) {
                left += head.len;
            }
            prop_assert_eq!(mixed.len() + left, plain.len());
        }
    }
}
