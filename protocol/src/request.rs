//! Frames from client to broker (section 3). Owns finding them in a buffer, checking them and gathering them
//! into runs; never resolves a target or keeps a byte of the buffer.
//!
//! A *run* is what consecutive frames with the same flags, target and receiver make up: it is checked and
//! resolved once. A *mixed run* is consecutive short messages and publications with different targets.
//! [`next_run`] and [`next_mixed_run`] are the hot path of the broker.

mod encode;
mod mixed;
mod prefix;

pub use encode::{PING, encode_filters, encode_ping, encode_request, encode_request_head};
pub use mixed::{MixedEnd, MixedFrame, next_mixed_run};

use crate::{Field, FrameError, MAX_FILTERS_BYTES, Op, Qos};
use prefix::{Prefix, find_nul, find_nul_ascii};

/// Bytes before the body of every request.
pub const REQUEST_HEADER_BYTES: usize = 9;
/// The most frames one run gathers.
pub const MAX_RUN: usize = 256;
/// Where the flags stand in a header.
const FLAGS_AT: usize = 4;
/// [`Limits::max_frame_bytes`] by default: 256 MiB.
pub const DEFAULT_MAX_FRAME_BYTES: usize = 256 << 20;

/// Limits of what a peer can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest body of a frame, in bytes; a longer one is a protocol error as soon as it is declared.
    pub max_frame_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_frame_bytes: DEFAULT_MAX_FRAME_BYTES }
    }
}

impl Limits {
    /// Judges the length a header declares.
    #[inline]
    pub(crate) fn check(&self, len: u32) -> Result<usize, FrameError> {
        match usize::try_from(len) {
            Ok(bytes) if bytes <= self.max_frame_bytes => Ok(bytes),
            _ => Err(FrameError::TooLong { len, limit: self.max_frame_bytes }),
        }
    }
}

/// Where [`next_run`] puts what differs within a run. The first [`RunHead::len`] places are of the last run,
/// the others hold leftovers.
#[derive(Debug, Clone)]
pub struct RunBuffer<P> {
    /// Op id of each frame.
    pub op_ids: Vec<u32>,
    /// Payload of each frame; of a topic operation the whole body.
    pub payloads: Vec<P>,
}

impl<P> RunBuffer<P> {
    /// Creates a buffer without memory; the first run allocates as many entries as its input can need, at
    /// most [`MAX_RUN`].
    #[inline]
    pub const fn new() -> Self {
        RunBuffer { op_ids: Vec::new(), payloads: Vec::new() }
    }
}

impl<P> Default for RunBuffer<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, P: Copy + From<&'a [u8]>> RunBuffer<P> {
    /// Places for all runs of an input of that many bytes.
    #[inline]
    fn make_room(&mut self, input: usize) {
        let places = MAX_RUN.min(input / (REQUEST_HEADER_BYTES + 1) + 1);
        if self.op_ids.len() < places || self.payloads.len() < places {
            self.op_ids.resize(places, 0);
            self.payloads.resize(places, P::from(&[]));
        }
    }
}

/// What the frames of a run have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunHead<'a> {
    /// The operation.
    pub op: Op,
    /// The quality of service.
    pub qos: Qos,
    /// The target, mask or topic. For a topic operation, the whole body, which [`filters`] splits; if that is
    /// longer than [`MAX_FILTERS_BYTES`], a beginning of it that is also longer.
    pub target: &'a str,
    /// The receiver of a [`Op::PublishFor`], else empty.
    pub receiver: &'a str,
    /// Frames in the run, 1 to [`MAX_RUN`]; always 1 for a topic operation.
    pub len: usize,
    /// Sum of the body lengths of these frames, in bytes: what section 7 counts as `r_bytes`.
    pub body_bytes: usize,
}

/// What [`next_run`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A run; its op ids and payloads are in the buffer.
    Run(RunHead<'a>),
    /// Everything before `pos` is done with. The frame that starts there is not whole.
    Incomplete {
        /// Bytes it has in total: [`REQUEST_HEADER_BYTES`] while the header is not complete, header and body
        /// afterwards. A claim: commit no memory for it.
        needed: usize,
    },
}

/// A header, taken apart.
struct Header {
    op_id: u32,
    flags: u8,
    len: u32,
}

impl Header {
    #[inline]
    fn read(bytes: &[u8; REQUEST_HEADER_BYTES]) -> Self {
        let [i0, i1, i2, i3, flags, l0, l1, l2, l3] = *bytes;
        Header {
            op_id: u32::from_le_bytes([i0, i1, i2, i3]),
            flags,
            len: u32::from_le_bytes([l0, l1, l2, l3]),
        }
    }
}

/// Parses the next run of `input` at `pos`, and moves `pos` behind it.
///
/// Pings are skipped. A run ends at the first frame that differs, after [`MAX_RUN`] frames, at a ping and at
/// the end of the input. An unknown operation and a length over the limit are errors as soon as the header
/// has arrived. An error leaves `pos` at the invalid frame; earlier calls returned the valid frames before
/// it.
///
/// The caller chooses the payload type: `&[u8]`, or a type that carries it across a boundary.
#[inline]
pub fn next_run<'a, P: Copy + From<&'a [u8]>>(
    input: &'a [u8],
    pos: &mut usize,
    limits: &Limits,
    run: &mut RunBuffer<P>,
) -> Result<Step<'a>, FrameError> {
    let mut rest = input.get(*pos..).unwrap_or_default();
    let (first, after) = loop {
        let Some((header, after)) = rest.split_first_chunk() else {
            *pos = input.len() - rest.len();
            return Ok(Step::Incomplete { needed: REQUEST_HEADER_BYTES });
        };
        let header = Header::read(header);
        if header.flags != 0 {
            break (header, after);
        }
        rest = after;
    };
    *pos = input.len() - rest.len();
    let op = first.flags & 0x3F;
    let op = Op::from_wire(op).ok_or(FrameError::UnknownOp { op })?;
    let len = limits.check(first.len)?;
    let Some((body, mut rest)) = after.split_at_checked(len) else {
        return Ok(Step::Incomplete { needed: REQUEST_HEADER_BYTES.saturating_add(len) });
    };
    let (mut head, prefix) = head_of(op, Qos::from_bits(first.flags >> 6), body)?;

    run.make_room(input.len() - *pos);
    let mut places = run.op_ids.iter_mut().zip(&mut run.payloads).take(MAX_RUN);
    if let Some((op_id, payload)) = places.next() {
        *op_id = first.op_id;
        *payload = P::from(body.get(prefix..).unwrap_or_default());
    }
    let mut count = 1;
    let texts = body.get(..prefix).unwrap_or_default();
    if !op.is_topic_op() && may_continue_run(rest, first.flags, texts) {
        let prefix = Prefix::new(texts, after);
        // a frame that differs or is invalid ends the run; the next call parses it as a first frame and
        // reports errors
        for (op_id, place) in places {
            let Some((header, after)) = rest.split_first_chunk() else { break };
            let header = Header::read(header);
            if header.flags != first.flags {
                break;
            }
            let Ok(len) = limits.check(header.len) else { break };
            let Some((body, next)) = after.split_at_checked(len) else { break };
            let Some(payload) = prefix.strip(body, after) else { break };
            *op_id = header.op_id;
            *place = P::from(payload);
            count += 1;
            rest = next;
        }
    }
    let end = input.len() - rest.len();
    head.len = count;
    head.body_bytes = end - *pos - count * REQUEST_HEADER_BYTES;
    *pos = end;
    Ok(Step::Run(head))
}

/// Returns whether the next frame can belong to the run, whose frames begin with `texts`. Compares only its
/// flags and the last two bytes of its texts, so that a single frame does not pay for the setup of a run.
#[inline]
fn may_continue_run(rest: &[u8], flags: u8, texts: &[u8]) -> bool {
    let Some(start) = rest.get(..REQUEST_HEADER_BYTES + texts.len()) else { return false };
    start.get(FLAGS_AT) == Some(&flags)
        && texts.last_chunk::<2>().is_none_or(|last| start.last_chunk() == Some(last))
}

/// Checks the texts of a run's first frame. With it comes how many bytes of the body precede the payload.
#[inline]
fn head_of(op: Op, qos: Qos, body: &[u8]) -> Result<(RunHead<'_>, usize), FrameError> {
    let mut head = RunHead { op, qos, target: "", receiver: "", len: 1, body_bytes: body.len() };
    let field = match op {
        Op::Message => Field::Target,
        Op::Broadcast => Field::Mask,
        Op::Publish | Op::PublishFor => Field::Topic,
        Op::Subscribe | Op::Unsubscribe | Op::Exclude | Op::Unexclude => {
            head.target = filters_text(body)?;
            return Ok((head, 0));
        }
    };
    let (target, mut rest) = split_nul(body, field)?;
    if op == Op::PublishFor {
        let (receiver, payload) = split_nul(rest, Field::Receiver)?;
        head.receiver = text(receiver, Field::Receiver)?;
        rest = payload;
    }
    head.target = text(target, field)?;
    Ok((head, body.len() - rest.len()))
}

/// What stands before the first NUL and what behind it.
#[inline]
pub(crate) fn split_nul(bytes: &[u8], field: Field) -> Result<(&[u8], &[u8]), FrameError> {
    let (text, rest) = find_nul(bytes)
        .and_then(|nul| bytes.split_at_checked(nul))
        .ok_or(FrameError::MissingNul { field })?;
    Ok((text, rest.get(1..).unwrap_or_default()))
}

#[inline]
pub(crate) fn text(bytes: &[u8], field: Field) -> Result<&str, FrameError> {
    std::str::from_utf8(bytes).map_err(|_| FrameError::NotUtf8 { field })
}

/// Returns the length of the text before the first NUL. The search finds most texts to be ASCII, so that they
/// are not looked at again.
#[inline]
pub(crate) fn text_len(bytes: &[u8], field: Field) -> Result<usize, FrameError> {
    let (len, is_ascii) = find_nul_ascii(bytes).ok_or(FrameError::MissingNul { field })?;
    if !is_ascii {
        text(bytes.get(..len).unwrap_or_default(), field)?;
    }
    Ok(len)
}

/// Returns the text of a topic operation's body; if the body is too long, a beginning of it that is too long
/// as well. The rest is not examined.
fn filters_text(body: &[u8]) -> Result<&str, FrameError> {
    // a character has at most four bytes
    let Some((beginning, _)) = body.split_at_checked(MAX_FILTERS_BYTES + 4) else {
        return text(body, Field::Filters);
    };
    match std::str::from_utf8(beginning) {
        Ok(beginning) => Ok(beginning),
        Err(error) if error.error_len().is_none() => {
            text(beginning.get(..error.valid_up_to()).unwrap_or_default(), Field::Filters)
        }
        Err(_) => Err(FrameError::NotUtf8 { field: Field::Filters }),
    }
}

/// The filters of a topic operation's body, at least one: an empty body is the empty filter.
pub fn filters(body: &str) -> impl Iterator<Item = &str> {
    body.split('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: u8 = 0x12;

    fn frame(op_id: u32, flags: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u32).to_le_bytes();
        [&op_id.to_le_bytes()[..], &[flags], &len, body].concat()
    }

    fn next<'a>(
        input: &'a [u8],
        pos: &mut usize,
        run: &mut RunBuffer<&'a [u8]>,
    ) -> Result<Step<'a>, FrameError> {
        next_run(input, pos, &Limits { max_frame_bytes: 1024 }, run)
    }

    #[test]
    fn equal_frames_make_one_run() {
        let wire = [
            frame(1, MESSAGE, b"a\0x"),
            frame(2, MESSAGE, b"a\0"),
            vec![9, 9, 9, 9, 0, 9, 9, 9, 9],
            frame(3, MESSAGE, b"a\0\0"),
            frame(4, MESSAGE, b"ab\0z"),
            frame(5, MESSAGE | 64, b"ab\0z"),
        ]
        .concat();
        let (mut pos, mut run) = (0, RunBuffer::new());
        let mut lens = vec![];
        while let Step::Run(head) = next(&wire, &mut pos, &mut run).unwrap() {
            lens.push((head.target, run.op_ids[0], head.len, head.body_bytes));
        }
        assert_eq!(lens, [("a", 1, 2, 5), ("a", 3, 1, 3), ("ab", 4, 1, 4), ("ab", 5, 1, 4)]);
        assert_eq!(pos, wire.len());
    }

    #[test]
    fn texts_of_every_length_make_runs_with_their_like_alone() {
        for len in 0..40 {
            let text = |last: u8| [&vec![b'x'; len][..], &[last]].concat();
            let targets = [text(b'a'), text(b'b'), vec![b'x'; len], [&text(b'a')[..], b"y"].concat()];
            for (one, other) in targets.iter().flat_map(|one| targets.iter().map(move |other| (one, other))) {
                for payload in [&b""[..], b"p", &[7; 40]] {
                    let frame = |target: &[u8]| frame(1, MESSAGE, &[target, b"\0", payload].concat());
                    let wire = [frame(one), frame(other)].concat();
                    let (mut pos, mut run) = (0, RunBuffer::new());
                    let Ok(Step::Run(head)) = next(&wire, &mut pos, &mut run) else { unreachable!() };
                    assert_eq!(head.len, 1 + usize::from(one == other), "{one:?} {other:?}");
                }
            }
        }
    }

    #[test]
    fn good_frames_come_before_the_error() {
        let wire = [frame(1, MESSAGE, b"a\0x"), frame(2, MESSAGE, b"a")].concat();
        let (mut pos, mut run) = (0, RunBuffer::new());
        assert!(matches!(next(&wire, &mut pos, &mut run), Ok(Step::Run(RunHead { len: 1, .. }))));
        for _ in 0..2 {
            let missing = FrameError::MissingNul { field: Field::Target };
            assert_eq!(next(&wire, &mut pos, &mut run), Err(missing));
            assert_eq!(pos, 12);
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_its_body_arrives() {
        let (mut pos, mut run) = (0, RunBuffer::new());
        let long = [0, 0, 0, 0, MESSAGE, 0xFF, 0xFF, 0xFF, 0xFF];
        let error = FrameError::TooLong { len: u32::MAX, limit: 1024 };
        assert_eq!(next(&long, &mut pos, &mut run), Err(error));
        let unknown = [0, 0, 0, 0, 0x40, 1, 0, 0, 0];
        assert_eq!(next(&unknown, &mut pos, &mut run), Err(FrameError::UnknownOp { op: 0 }));
        let whole = frame(1, MESSAGE, b"abc\0def");
        assert_eq!(next(&whole[..10], &mut pos, &mut run), Ok(Step::Incomplete { needed: 16 }));
        assert_eq!(next(&whole[..8], &mut pos, &mut run), Ok(Step::Incomplete { needed: 9 }));
    }

    #[test]
    fn a_topic_operation_is_a_run_of_its_own() {
        let wire = [frame(1, 2, b"a/+\0#"), frame(2, 2, b"a/+\0#"), frame(3, 2, b"")].concat();
        let (mut pos, mut run) = (0, RunBuffer::new());
        let mut all = vec![];
        while let Step::Run(head) = next(&wire, &mut pos, &mut run).unwrap() {
            assert_eq!((head.len, head.target.as_bytes()), (1, run.payloads[0]));
            all.push(filters(head.target).collect::<Vec<_>>());
        }
        assert_eq!(all, [vec!["a/+", "#"], vec!["a/+", "#"], vec![""]]);
    }

    #[test]
    fn the_rest_of_filters_that_are_too_long_is_not_examined() {
        for (character, broken) in [("a", false), ("\u{20ac}", false), ("\u{1f600}", false), ("a", true)] {
            let mut body = character.repeat((MAX_FILTERS_BYTES + 1000) / character.len()).into_bytes();
            if broken {
                *body.last_mut().unwrap() = 0xFF;
            }
            let (wire, mut run) = (frame(1, 2, &body), RunBuffer::<&[u8]>::new());
            let step = next_run(&wire, &mut 0, &Limits::default(), &mut run).unwrap();
            let Step::Run(head) = step else { panic!("{step:?}") };
            assert!((MAX_FILTERS_BYTES + 1..=MAX_FILTERS_BYTES + 4).contains(&head.target.len()));
            assert_eq!(head.body_bytes, body.len());
        }
        let mut body = vec![b'a'; MAX_FILTERS_BYTES];
        body[MAX_FILTERS_BYTES - 1] = 0xFF;
        let (wire, mut run) = (frame(1, 2, &body), RunBuffer::<&[u8]>::new());
        let error = next_run(&wire, &mut 0, &Limits::default(), &mut run);
        assert_eq!(error, Err(FrameError::NotUtf8 { field: Field::Filters }));
    }

    #[test]
    fn a_position_beyond_the_input_is_an_empty_input() {
        let (mut pos, mut run) = (99, RunBuffer::new());
        assert_eq!(next(b"", &mut pos, &mut run), Ok(Step::Incomplete { needed: 9 }));
        assert_eq!(pos, 0);
    }
}
