//! Interceptors: the run that they get, and their verdict about each frame of it.

use abi_stable::{
    StableAbi,
    std_types::{
        ROption::{self, RNone, RSome},
        RSlice, RSliceMut, RStr, RString, RVec,
    },
};
use elbus_protocol::{Code, Op, Qos};

use crate::buffer::Payload;

/// Decides about messages before they are routed. A function will do.
///
/// Called by the threads of senders, concurrently, for each run of messages in its
/// [scope](super::HookScope). The messages of a run can have different targets. It must not block: the sender
/// waits for it. It can use clients of its own instance; see [the rules for hooks](super).
///
/// # Examples
/// ```
/// use elbus_plugin_api::{
///     Code, Op,
///     hooks::{HookScope, InterceptedFrame, OnFailure, Verdict},
///     testing::FakeHost,
/// };
///
/// let fake = FakeHost::new();
/// let scope = HookScope::new().publications(["sensors/#"]);
/// let numbers_only = |frame: &InterceptedFrame<'_>| {
///     let text = std::str::from_utf8(frame.payload()).unwrap_or_default();
///     if text.parse::<f64>().is_ok() { Verdict::Continue } else { Verdict::Reject(Code::BadData) }
/// };
/// let _hook = fake.host("numbers").add_interceptor(&scope, OnFailure::Closed, numbers_only)?;
/// let verdicts = fake.intercept("boiler", Op::Publish, "sensors/boiler", &[b"20.5", b"warm"]);
/// assert_eq!(verdicts, [Verdict::Continue, Verdict::Reject(Code::BadData)]);
/// # Ok::<(), elbus_plugin_api::PluginError>(())
/// ```
pub trait Interceptor: Send + Sync + 'static {
    /// Decides about one message.
    fn intercept(&self, frame: &InterceptedFrame<'_>) -> Verdict;

    /// Decides about a run of messages; by default, about each by itself.
    fn intercept_run(&self, run: &mut InterceptedRun<'_>) {
        for index in 0..run.len() {
            let verdict = run.frame(index).map(|frame| self.intercept(&frame));
            run.set_verdict(index, verdict.unwrap_or_default());
        }
    }
}

impl<F: Fn(&InterceptedFrame<'_>) -> Verdict + Send + Sync + 'static> Interceptor for F {
    fn intercept(&self, frame: &InterceptedFrame<'_>) -> Verdict {
        self(frame)
    }
}

/// What happens to an intercepted message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Verdict {
    /// It goes on unchanged.
    #[default]
    Continue,
    /// It is not routed; its sender gets this code. [`Code::Ok`] is not allowed and becomes [`Code::Other`].
    Reject(Code),
    /// It is not routed; its sender gets [`Code::Ok`].
    Consume,
    /// It goes on with another target, another payload, or both.
    Replace(Replacement),
}

/// What replaces the target or the payload of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replacement {
    /// The new target; it must be of the same kind: a topic for a publication, a name for a message, a mask
    /// for a broadcast. The sender needs the right to send there.
    pub target: Option<String>,
    /// The new payload.
    pub payload: Option<Vec<u8>>,
}

impl Verdict {
    /// Replaces the payload.
    pub fn replace_payload(payload: impl Into<Vec<u8>>) -> Self {
        Verdict::Replace(Replacement { target: None, payload: Some(payload.into()) })
    }

    /// Replaces the target.
    pub fn redirect(target: impl Into<String>) -> Self {
        Verdict::Replace(Replacement { target: Some(target.into()), payload: None })
    }
}

/// Target and payload of a message of a run.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RunFrame<'a> {
    target: RStr<'a>,
    payload: Payload<'a>,
}

impl<'a> RunFrame<'a> {
    /// Creates a frame.
    #[inline]
    pub fn new(target: &'a str, payload: Payload<'a>) -> Self {
        RunFrame { target: RStr::from_str(target), payload }
    }
}

/// What all messages of an intercepted run have in common.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RunHeader<'a> {
    op: u8,
    qos: u8,
    flags: u32,
    sender: RStr<'a>,
    sender_id: u64,
    receiver: RStr<'a>,
}

impl<'a> RunHeader<'a> {
    /// Creates the header of a run of an operation by a sender. `receiver` is that of a limited publication,
    /// else empty.
    #[inline]
    pub fn new(op: Op, qos: Qos, sender: &'a str, sender_id: u64, receiver: &'a str) -> Self {
        RunHeader {
            op: op as u8,
            qos: qos.bits(),
            flags: 0,
            sender: RStr::from_str(sender),
            sender_id,
            receiver: RStr::from_str(receiver),
        }
    }
}

/// Messages of one sender with the same operation and quality of service, as an [`Interceptor`] gets them. In
/// the order in which they were sent, without those that another interceptor has rejected, consumed or
/// replaced.
#[repr(C)]
#[derive(StableAbi)]
pub struct InterceptedRun<'a> {
    header: RunHeader<'a>,
    frames: RSlice<'a, RunFrame<'a>>,
    /// Those that are not [`Verdict::Continue`].
    verdicts: RVec<RawVerdict>,
    marks: RSliceMut<'a, u64>,
}

/// See [`Verdict`].
#[repr(C)]
#[derive(StableAbi, Clone)]
struct RawVerdict {
    index: u32,
    kind: u8,
    code: u8,
    flags: u16,
    target: ROption<RString>,
    payload: ROption<RVec<u8>>,
}

const REJECT: u8 = 1;
const CONSUME: u8 = 2;
const REPLACE: u8 = 3;

impl<'a> InterceptedRun<'a> {
    /// Creates a run. `marks` gets the marks of its messages, and has a place for each.
    #[inline]
    pub fn new(header: RunHeader<'a>, frames: &'a [RunFrame<'a>], marks: &'a mut [u64]) -> Self {
        InterceptedRun {
            header,
            frames: RSlice::from_slice(frames),
            verdicts: RVec::new(),
            marks: RSliceMut::from_mut_slice(marks),
        }
    }

    /// Returns the number of messages.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Returns whether there are no messages. The broker passes at least one.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns a message.
    #[inline]
    pub fn frame(&self, index: usize) -> Option<InterceptedFrame<'a>> {
        self.frames.as_slice().get(index).map(|frame| InterceptedFrame { header: self.header, frame: *frame })
    }

    /// Returns all messages in the order in which they were sent.
    pub fn frames(&self) -> impl Iterator<Item = InterceptedFrame<'a>> + use<'a> {
        let header = self.header;
        self.frames.as_slice().iter().map(move |frame| InterceptedFrame { header, frame: *frame })
    }

    /// Sets the verdict about a message, which is [`Verdict::Continue`] before. The last one counts. Without
    /// effect if there is no such message.
    #[inline]
    pub fn set_verdict(&mut self, index: usize, verdict: Verdict) {
        if verdict != Verdict::Continue || !self.verdicts.is_empty() {
            self.push_verdict(index, verdict);
        }
    }

    #[cold]
    fn push_verdict(&mut self, index: usize, verdict: Verdict) {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        if verdict == Verdict::Continue && self.verdicts.iter().all(|set| set.index != index) {
            return;
        }
        let (kind, code, replacement) = match verdict {
            Verdict::Continue => (0, Code::Ok, Replacement::default()),
            Verdict::Reject(code) => (REJECT, code, Replacement::default()),
            Verdict::Consume => (CONSUME, Code::Ok, Replacement::default()),
            Verdict::Replace(replacement) => (REPLACE, Code::Ok, replacement),
        };
        self.verdicts.push(RawVerdict {
            index,
            kind,
            code: code as u8,
            flags: 0,
            target: replacement.target.map(RString::from).into(),
            payload: replacement.payload.map(RVec::from).into(),
        });
    }

    /// Marks a publication, see [`Replay`](super::Replay): it has been kept with this mark of
    /// [`Host::next_mark`](crate::Host::next_mark). Publications of one topic and run that have one mark are
    /// delivered together. 0 is no mark. Without effect if there is no such message.
    #[inline]
    pub fn set_mark(&mut self, index: usize, mark: u64) {
        if let Some(place) = self.marks.as_mut_slice().get_mut(index) {
            *place = mark;
        }
    }

    /// Takes the verdicts that were set: for each its message and the verdict, the last one of each message,
    /// in the order of the messages. Whatever the interceptor did, there is at most one for each message, and
    /// what cannot be understood is a rejection.
    pub fn take_verdicts(&mut self) -> Vec<(usize, Verdict)> {
        let frames = self.frames.len();
        let mut verdicts: Vec<_> = std::mem::take(&mut self.verdicts)
            .into_iter()
            .map(|verdict| (verdict.index as usize, Verdict::from(verdict)))
            .filter(|(index, _)| *index < frames)
            .collect();
        // stable, so that the last one stays the last
        verdicts.reverse();
        verdicts.sort_by_key(|(index, _)| *index);
        verdicts.dedup_by_key(|(index, _)| *index);
        verdicts.retain(|(_, verdict)| *verdict != Verdict::Continue);
        verdicts
    }
}

impl From<RawVerdict> for Verdict {
    fn from(raw: RawVerdict) -> Self {
        match raw.kind {
            0 => Verdict::Continue,
            CONSUME => Verdict::Consume,
            REPLACE => Verdict::Replace(Replacement {
                target: match raw.target {
                    RSome(target) => Some(target.into_string()),
                    RNone => None,
                },
                payload: match raw.payload {
                    RSome(payload) => Some(payload.into_vec()),
                    RNone => None,
                },
            }),
            _ => match Code::from_wire(raw.code) {
                Some(code) if code != Code::Ok => Verdict::Reject(code),
                _ => Verdict::Reject(Code::Other),
            },
        }
    }
}

/// One message, as an [`Interceptor`] gets it.
#[derive(Clone, Copy)]
pub struct InterceptedFrame<'a> {
    header: RunHeader<'a>,
    frame: RunFrame<'a>,
}

impl<'a> InterceptedFrame<'a> {
    /// Returns the operation: message, broadcast, publication or limited publication.
    #[inline]
    pub fn op(&self) -> Op {
        Op::from_wire(self.header.op).unwrap_or(Op::Message)
    }

    /// Returns the quality of service.
    #[inline]
    pub fn qos(&self) -> Qos {
        Qos::from_bits(self.header.qos)
    }

    /// Returns the full registered name of the sender.
    #[inline]
    pub fn sender(&self) -> &'a str {
        self.header.sender.as_str()
    }

    /// Returns the id of the sender's registration.
    #[inline]
    pub fn sender_id(&self) -> u64 {
        self.header.sender_id
    }

    /// Returns the primary name that a limited publication is for; empty for other operations.
    #[inline]
    pub fn receiver(&self) -> &'a str {
        self.header.receiver.as_str()
    }

    /// Returns the name, mask or topic that the message is sent to.
    #[inline]
    pub fn target(&self) -> &'a str {
        self.frame.target.as_str()
    }

    /// Returns the payload.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.frame.payload.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<'a>(frames: &'a [RunFrame<'a>]) -> InterceptedRun<'a> {
        InterceptedRun::new(RunHeader::new(Op::PublishFor, Qos::NO, "s", 7, "r"), frames, &mut [])
    }

    fn frames() -> [RunFrame<'static>; 3] {
        [b"0", b"1", b"2"].map(|payload| RunFrame::new("t", Payload::from(&payload[..])))
    }

    #[test]
    fn each_message_gets_one_verdict() {
        let frames = frames();
        let mut run = run(&frames);
        let decide = |frame: &InterceptedFrame<'_>| {
            assert_eq!((frame.op(), frame.sender(), frame.sender_id()), (Op::PublishFor, "s", 7));
            assert_eq!((frame.target(), frame.receiver()), ("t", "r"));
            match frame.payload() {
                b"1" => Verdict::Consume,
                b"2" => Verdict::replace_payload(*b"x"),
                _ => Verdict::Continue,
            }
        };
        decide.intercept_run(&mut run);
        assert_eq!(run.take_verdicts(), [(1, Verdict::Consume), (2, Verdict::replace_payload(*b"x"))]);
        assert_eq!(run.take_verdicts(), []);
    }

    #[test]
    fn the_last_verdict_about_a_message_counts_and_others_than_its_messages_are_ignored() {
        let frames = frames();
        let mut run = run(&frames);
        for verdict in [Verdict::Reject(Code::Busy), Verdict::redirect("u"), Verdict::Consume] {
            run.set_verdict(2, verdict);
        }
        run.set_verdict(0, Verdict::Consume);
        run.set_verdict(0, Verdict::Continue);
        run.set_verdict(3, Verdict::Consume);
        run.set_verdict(usize::MAX, Verdict::Consume);
        assert_eq!(run.take_verdicts(), [(2, Verdict::Consume)]);
    }

    #[test]
    fn each_message_has_a_mark_of_its_own() {
        let (frames, mut marks) = (frames(), [0; 3]);
        let mut run = InterceptedRun::new(run(&frames).header, &frames, &mut marks);
        for (index, mark) in [(0, 7), (2, 8), (2, 9), (3, 10), (usize::MAX, 11)] {
            run.set_mark(index, mark);
        }
        assert_eq!(marks, [7, 0, 9]);
    }

    #[test]
    fn what_cannot_be_understood_is_a_rejection() {
        let raw = |kind, code| RawVerdict { index: 0, kind, code, flags: 0, target: RNone, payload: RNone };
        assert_eq!(Verdict::from(raw(9, Code::Ok as u8)), Verdict::Reject(Code::Other));
        assert_eq!(Verdict::from(raw(REJECT, Code::Ok as u8)), Verdict::Reject(Code::Other));
        assert_eq!(Verdict::from(raw(REJECT, 3)), Verdict::Reject(Code::Other));
        assert_eq!(Verdict::from(raw(REJECT, Code::Busy as u8)), Verdict::Reject(Code::Busy));
        assert_eq!(Verdict::from(raw(REPLACE, 0)), Verdict::Replace(Replacement::default()));
    }
}
