//! Messages that pass interceptors together, and what became of each. Calls no interceptor and routes
//! nothing.

use elbus_plugin_api::{
    Code, Frame, Op, Payload, Qos, Request,
    abi::{PendingObject, RunFrame},
};
use smallvec::SmallVec;
use std::ops::Range;

/// Most runs have few messages: no allocation for these.
const FEW: usize = 8;

/// Numbers, one for each of some messages.
pub(super) type Positions = SmallVec<[usize; FEW]>;

/// Messages of one sender, with the same operation and quality of service.
#[derive(Clone, Copy)]
pub(super) enum Messages<'a> {
    /// With the same target.
    Run(Request<'a>),
    /// Frames of a mixed run.
    Mixed(&'a [Frame<'a>]),
}

/// Consecutive messages, and where the first of them stands among the [`Results`].
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    pub(super) messages: Messages<'a>,
    pub(super) first: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn len(&self) -> usize {
        match self.messages {
            Messages::Run(request) => request.payloads().len(),
            Messages::Mixed(frames) => frames.len(),
        }
    }

    /// Returns where its messages stand among the results.
    pub(super) fn places(&self) -> Range<usize> {
        self.first..self.first + self.len()
    }

    /// Returns some of its messages.
    pub(super) fn part(&self, messages: Range<usize>) -> Self {
        let first = self.first + messages.start;
        let messages = match self.messages {
            Messages::Run(request) => Messages::Run(part(&request, messages)),
            Messages::Mixed(frames) => Messages::Mixed(frames.get(messages).unwrap_or_default()),
        };
        Batch { messages, first }
    }

    pub(super) fn qos(&self) -> Qos {
        match self.messages {
            Messages::Run(request) => request.qos(),
            Messages::Mixed(frames) => frames.first().map_or(Qos::NO, Frame::qos),
        }
    }

    /// Returns a message as interceptors get it.
    pub(super) fn frame(&self, index: usize) -> Option<RunFrame<'a>> {
        match self.messages {
            Messages::Run(request) => Some(RunFrame::new(request.target(), *request.payloads().get(index)?)),
            Messages::Mixed(frames) => {
                let frame = frames.get(index)?;
                Some(RunFrame::new(frame.target(), Payload::from(frame.payload())))
            }
        }
    }
}

/// Returns the request for some of its messages.
pub(super) fn part<'a>(request: &Request<'a>, messages: Range<usize>) -> Request<'a> {
    // the whole run keeps what its sender shares
    if messages == (0..request.payloads().len()) {
        return *request;
    }
    request.with_frames(request.target(), request.payloads().get(messages).unwrap_or_default())
}

/// Returns the request for a frame of a mixed run, whose payload this is.
pub(super) fn request_of<'a>(frame: &Frame<'a>, payload: &'a [Payload<'a>]) -> Request<'a> {
    let op = frame.op().unwrap_or(Op::Message);
    let request = Request::new(op, frame.qos(), frame.target(), payload);
    if frame.qos().wants_ack() { request.deferrable() } else { request }
}

/// The results of messages, in order.
#[derive(Default)]
pub(super) struct Results {
    /// 0: not decided yet, or supplied later.
    pub(super) codes: SmallVec<[u8; FEW]>,
    /// The marks of those that are kept, else 0, see [`replays`](crate::routing::replays).
    pub(super) marks: SmallVec<[u64; FEW]>,
    /// The most recipients of messages that were routed together.
    pub(super) reached: u32,
    /// Work of mixed runs.
    pub(super) work: u32,
    /// Messages whose codes are supplied later.
    pub(super) pending: Vec<(Range<usize>, PendingObject)>,
}

impl Results {
    pub(super) fn of(messages: usize) -> Self {
        Results {
            codes: SmallVec::from_elem(0, messages),
            marks: SmallVec::from_elem(0, messages),
            ..Results::default()
        }
    }

    /// Returns which messages of a batch are not decided, by their positions in it.
    pub(super) fn undecided(&self, batch: &Batch<'_>) -> Positions {
        let codes = self.codes.get(batch.places()).unwrap_or_default();
        codes.iter().enumerate().filter(|(_, code)| **code == 0).map(|(position, _)| position).collect()
    }

    /// Sets the code of messages.
    pub(super) fn decide(&mut self, messages: Range<usize>, code: Code) {
        if let Some(codes) = self.codes.get_mut(messages) {
            codes.fill(code as u8);
        }
    }

    pub(super) fn set_mark(&mut self, message: usize, mark: u64) {
        if let Some(place) = self.marks.get_mut(message) {
            *place = mark;
        }
    }

    /// Returns the code and the mark of a message.
    pub(super) fn of_message(&self, message: usize) -> (u8, u64) {
        let mark = self.marks.get(message).copied();
        (self.codes.get(message).copied().unwrap_or_default(), mark.unwrap_or_default())
    }
}
