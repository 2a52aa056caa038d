//! Mixed runs: consecutive frames of one sender with different targets, dispatched together and delivered
//! together to each recipient.

use abi_stable::{
    StableAbi,
    std_types::{
        ROption::{self, RNone, RSome},
        RSlice, RStr,
    },
};
use elbus_protocol::{FrameKind, Op, Qos};

use crate::{buffer::Payload, request::Dispatch, run::Encoding};

/// One message or publication of a mixed run, as [`Client::dispatch_mixed`](crate::Client::dispatch_mixed)
/// takes it.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{Frame, Op, Qos};
///
/// let frame = Frame::new(Op::Publish, Qos::NO, b"sensors/boiler\x0020.5", 14);
/// assert_eq!((frame.target(), frame.payload()), ("sensors/boiler", &b"20.5"[..]));
/// ```
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Frame<'a> {
    body: Payload<'a>,
    target_len: u32,
    op: u8,
    qos: u8,
    flags: u16,
}

/// [`Frame::flags`]: operation, quality of service and target are those of the frame before.
const REPEATS: u16 = 1;

impl<'a> Frame<'a> {
    /// Creates a frame from its body: the target of a message or the topic of a publication, `target_len`
    /// bytes of UTF-8, a NUL, and the payload (protocol section 3).
    #[inline]
    pub fn new(op: Op, qos: Qos, body: &'a [u8], target_len: u32) -> Self {
        Frame { body: Payload::from(body), target_len, op: op as u8, qos: qos.bits(), flags: 0 }
    }

    /// Declares whether operation, quality of service and target are those of the frame before, so that they
    /// are not looked up again.
    #[inline]
    pub fn repeating(mut self, repeats: bool) -> Self {
        self.flags = if repeats { REPEATS } else { 0 };
        self
    }

    /// Returns whether operation, quality of service and target are those of the frame before.
    #[inline]
    pub fn repeats(&self) -> bool {
        self.flags & REPEATS != 0
    }

    /// Returns the operation: [`Op::Message`] or [`Op::Publish`]; `None` if it is another one, which no mixed
    /// run can have.
    #[inline]
    pub fn op(&self) -> Option<Op> {
        const MESSAGE: u8 = Op::Message as u8;
        const PUBLISH: u8 = Op::Publish as u8;
        match self.op {
            MESSAGE => Some(Op::Message),
            PUBLISH => Some(Op::Publish),
            _ => None,
        }
    }

    /// Returns the quality of service.
    #[inline]
    pub fn qos(&self) -> Qos {
        Qos::from_bits(self.qos)
    }

    /// Returns the whole body: target or topic, NUL and payload.
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        self.body.bytes()
    }

    /// Returns the bytes of the target or topic, which are UTF-8.
    #[inline]
    pub fn target_bytes(&self) -> &'a [u8] {
        self.body.bytes().get(..self.target_len as usize).unwrap_or_default()
    }

    /// Returns the target or topic.
    pub fn target(&self) -> &'a str {
        std::str::from_utf8(self.target_bytes()).unwrap_or_default()
    }

    /// Returns the payload.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.body.bytes().get((self.target_len as usize).saturating_add(1)..).unwrap_or_default()
    }

    /// Returns the kind of frame that recipients get.
    #[inline]
    pub fn kind(&self) -> FrameKind {
        if self.op == Op::Publish as u8 { FrameKind::Publish } else { FrameKind::Message }
    }

    /// Returns the length of the [tail](Self::tail) in bytes.
    #[inline]
    pub fn tail_len(&self) -> usize {
        let target =
            if self.op == Op::Publish as u8 { 0 } else { (self.target_len as usize).saturating_add(1) };
        self.body.len().saturating_sub(target)
    }

    /// Returns what recipients get behind the name of the sender: of a publication the body, of a message the
    /// payload.
    #[inline]
    pub fn tail(&self) -> &'a [u8] {
        if self.op == Op::Publish as u8 { self.body() } else { self.payload() }
    }
}

/// The result of a mixed run.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
pub struct MixedDispatch {
    dispatched: u32,
    work: u32,
    flags: u32,
}

impl MixedDispatch {
    const GONE: u32 = Dispatch::GONE as u32;
    const PENDING: u32 = Dispatch::PENDING as u32;
    /// Above all flags of [`Dispatch`].
    const ALONE: u32 = 1 << 8;

    /// Creates the result of a run of which `dispatched` frames were dispatched, at the cost of `work`.
    #[inline]
    pub fn new(dispatched: u32, work: u32) -> Self {
        MixedDispatch { dispatched, work, flags: 0 }
    }

    /// Creates the result of a run whose first frame must be dispatched alone.
    pub fn alone() -> Self {
        Self::new(0, 0).next_alone(true)
    }

    /// Creates the result for a sender that is no longer registered.
    pub fn gone() -> Self {
        MixedDispatch { dispatched: 0, work: 0, flags: Self::GONE }
    }

    /// Sets whether the first frame that was not dispatched must be dispatched alone.
    #[inline]
    pub fn next_alone(mut self, alone: bool) -> Self {
        self.flags |= if alone { Self::ALONE } else { 0 };
        self
    }

    /// Declares that the codes of some frames are supplied later: the client has the result.
    #[inline]
    pub fn pending(mut self) -> Self {
        self.flags |= Self::PENDING;
        self
    }

    /// Returns whether the codes of some frames are supplied later: those whose code is 0.
    /// [`Client::take_pending`](crate::Client::take_pending) returns the result, by the positions of the
    /// frames.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.flags & Self::PENDING != 0
    }

    /// Returns how many frames were dispatched: the first ones, each of which has a result code. At least
    /// one, unless the next one must be dispatched [alone](Self::is_next_alone). The others can be dispatched
    /// by another call.
    #[inline]
    pub fn dispatched(&self) -> usize {
        self.dispatched as usize
    }

    /// Returns the work that was done, in recipients and messages.
    #[inline]
    pub fn work(&self) -> u32 {
        self.work
    }

    /// Returns whether the first frame that was not dispatched must be dispatched as a
    /// [`Request`](crate::Request) of its own, for instance because a recipient is over its limit.
    #[inline]
    pub fn is_next_alone(&self) -> bool {
        self.flags & Self::ALONE != 0
    }

    /// Returns whether the sender is no longer registered.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.flags & Self::GONE != 0
    }
}

/// The frames of a mixed run that one recipient gets.
#[repr(C)]
#[derive(StableAbi)]
pub struct MixedRun<'a> {
    flags: u32,
    sender: RStr<'a>,
    sender_id: u64,
    frames: RSlice<'a, Frame<'a>>,
    selected: RSlice<'a, u32>,
    tail_bytes: usize,
    encoding: ROption<&'a mut Encoding>,
}

/// [`MixedRun::flags`]: nothing is sent until [`Sink::resume_sending`](crate::Sink::resume_sending).
const PAUSES: u32 = 1;

impl<'a> MixedRun<'a> {
    /// Creates a run of those `frames` whose indices are `selected`, with `tail_bytes` in their
    /// [tails](Frame::tail) in total.
    #[inline]
    pub fn new(
        sender: &'a str,
        sender_id: u64,
        frames: &'a [Frame<'a>],
        selected: &'a [u32],
        tail_bytes: usize,
    ) -> Self {
        MixedRun {
            flags: 0,
            sender: RStr::from_str(sender),
            sender_id,
            frames: RSlice::from_slice(frames),
            selected: RSlice::from_slice(selected),
            tail_bytes,
            encoding: RNone,
        }
    }

    /// Sets the wire form that all recipients of the same frames share. It must be
    /// [reset](Encoding::reset) for the first of them.
    #[inline]
    pub fn with_encoding(mut self, encoding: &'a mut Encoding) -> Self {
        self.encoding = RSome(encoding);
        self
    }

    /// Declares that the sink must send nothing until
    /// [`resume_sending`](crate::Sink::resume_sending).
    #[inline]
    pub fn pausing(mut self, pauses: bool) -> Self {
        self.flags = if pauses { PAUSES } else { 0 };
        self
    }

    /// Returns whether the sink must send nothing, neither these frames nor what it queues after them, until
    /// [`resume_sending`](crate::Sink::resume_sending): other recipients get earlier frames of the same
    /// sender first.
    #[inline]
    pub fn pauses(&self) -> bool {
        self.flags & PAUSES != 0
    }

    /// Returns the full registered name of the sender.
    #[inline]
    pub fn sender(&self) -> &'a str {
        self.sender.as_str()
    }

    /// Returns the id of the sender's registration.
    #[inline]
    pub fn sender_id(&self) -> u64 {
        self.sender_id
    }

    /// Returns the number of frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.selected.len()
    }

    /// Returns whether there are no frames. The broker delivers at least one.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.selected.is_empty()
    }

    /// Returns the length of all [tails](Frame::tail) in bytes.
    #[inline]
    pub fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// Returns the frames in the order in which they were sent.
    #[inline]
    pub fn frames(&self) -> impl Iterator<Item = &'a Frame<'a>> + use<'a> {
        let frames = self.frames.as_slice();
        self.selected.as_slice().iter().filter_map(move |index| frames.get(*index as usize))
    }

    /// Returns the wire form of the run if other recipients get the same frames.
    #[inline]
    pub fn encoding(&mut self) -> Option<&mut Encoding> {
        match &mut self.encoding {
            RSome(encoding) => Some(encoding),
            RNone => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_whose_parts_are_not_in_its_body_is_empty() {
        let frame = Frame::new(Op::Message, Qos::NO, b"ab\0c", 9);
        assert_eq!((frame.target(), frame.payload(), frame.tail()), ("", &b""[..], &b""[..]));
        let frame = Frame::new(Op::Message, Qos::NO, b"ab\0c", u32::MAX);
        assert_eq!((frame.target_bytes(), frame.payload()), (&b""[..], &b""[..]));
        assert_eq!((frame.tail_len(), frame.tail().len()), (0, 0));
        assert_eq!(Frame::new(Op::Publish, Qos::NO, b"\xFF\0", 1).target(), "");
        assert_eq!(Frame::new(Op::Broadcast, Qos::NO, b"a\0", 1).op(), None);
    }

    #[test]
    fn a_recipient_gets_the_selected_frames() {
        let frames = [b"a\0x", b"b\0y", b"c\0z"].map(|body| Frame::new(Op::Publish, Qos::NO, body, 1));
        let run = MixedRun::new("s", 7, &frames, &[0, 2, 9], 6).pausing(true);
        let payloads: Vec<_> = run.frames().map(Frame::payload).collect();
        assert_eq!(payloads, [b"x", b"z"], "an index beyond the frames is none");
        assert!(run.pauses() && run.sender() == "s" && run.sender_id() == 7);
    }
}
