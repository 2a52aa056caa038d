//! Dispatches the runs of a read and acknowledges them. Owns the length of an encoded run and the position
//! where dispatching stops; keeps no bytes.

use elbus_plugin_api::{Client, DeliveryStatus, Dispatch, Payload, PendingResult, Request, SharedBytes};
use elbus_protocol::{
    Op,
    request::{REQUEST_HEADER_BYTES, RunBuffer, RunHead},
};
use std::{ops::Range, sync::Arc};

use super::mixed::MixedMode;
use crate::{
    connection::{Connection, close_reason::CloseReason},
    session::{
        rate_limiter::RateLimiter,
        time_slice::{self, TimeSlice},
    },
};

/// Longest encoded run of several frames in bytes: a queue exceeds its limit by no more.
pub(crate) const RUN_BYTES: usize = 256 * 1024;
/// Frames to a part of the broker in one run: each can be a call, which is executed while the run is
/// delivered.
const CALLS_PER_RUN: usize = 32;
/// Longest head of an encoded frame without sender, topic and payload.
const AROUND_BYTES: usize = 8;

/// Counters of the current batch, what its acknowledgements require, and how its frames are grouped.
#[derive(Default)]
pub(super) struct ReadBatch {
    pub(super) dirty: bool,
    pub(super) full: bool,
    /// Frames and bytes read since the rate limiter last counted them.
    pub(super) frames: u32,
    pub(super) bytes: u32,
    pub(super) turn: TimeSlice,
    pub(super) mixed: MixedMode,
}

/// Why dispatching stops within a read.
pub(super) enum DispatchStop {
    /// The connection must close.
    Ended(CloseReason),
    /// A receiver is full, or a rate is exhausted. `dispatched` frames of the run were dispatched, the others
    /// were not.
    Blocked { dispatched: usize },
    /// Everything up to the position was dispatched, and the client's own queue is full.
    Full,
    /// Everything up to the position was dispatched, and the time slice is over.
    TurnOver,
}

impl DispatchStop {
    /// Returns where the undispatched bytes begin; `behind` is the end of the run.
    #[cold]
    pub(super) fn position(
        self,
        head: &RunHead<'_>,
        run: &RunBuffer<Payload<'_>>,
        behind: usize,
    ) -> Result<usize, CloseReason> {
        let dispatched = match self {
            DispatchStop::Ended(reason) => return Err(reason),
            DispatchStop::Full | DispatchStop::TurnOver => return Ok(behind),
            DispatchStop::Blocked { dispatched } => dispatched,
        };
        let receiver = if head.op == Op::PublishFor { head.receiver.len() + 1 } else { 0 };
        let around = REQUEST_HEADER_BYTES + head.target.len() + 1 + receiver;
        let left = run.payloads.get(dispatched..head.len).unwrap_or_default();
        Ok(behind - left.iter().map(|payload| around + payload.len()).sum::<usize>())
    }
}

/// What runs are dispatched with.
pub(super) struct Dispatcher<'s> {
    pub(super) client: &'s mut Client,
    pub(super) connection: &'s Arc<Connection>,
    pub(super) batch: &'s mut ReadBatch,
    /// `Some` if the client has rate limits.
    pub(super) rate_limiter: Option<&'s mut RateLimiter>,
}

impl Dispatcher<'_> {
    /// Returns the most that encoding adds to a frame of this client.
    #[inline]
    pub(super) fn around(&self) -> usize {
        self.connection.name().len() + AROUND_BYTES
    }

    /// Dispatches a run in parts of at most [`RUN_BYTES`] once encoded.
    #[inline]
    pub(super) fn dispatch_parts(
        &mut self,
        head: &RunHead<'_>,
        run: &RunBuffer<Payload<'_>>,
        around: usize,
    ) -> Result<(), DispatchStop> {
        if self.rate_limiter.is_some() {
            return self.dispatch_paced(head, run, around);
        }
        self.dispatch_whole(head, run, around)
    }

    /// Dispatches no more frames than the rate allows.
    #[cold]
    fn dispatch_paced(
        &mut self,
        head: &RunHead<'_>,
        run: &RunBuffer<Payload<'_>>,
        around: usize,
    ) -> Result<(), DispatchStop> {
        let messages_left =
            self.rate_limiter.as_ref().map_or(u32::MAX, |rate_limiter| rate_limiter.messages_left);
        let part = RunHead { len: head.len.min(messages_left as usize), ..*head };
        if part.len == 0 {
            return Err(DispatchStop::Blocked { dispatched: 0 });
        }
        let before = self.batch.frames;
        let result = self.dispatch_whole(&part, run, around);
        if let Some(rate_limiter) = &mut self.rate_limiter {
            rate_limiter.messages_left =
                rate_limiter.messages_left.saturating_sub(self.batch.frames.saturating_sub(before));
        }
        match result {
            Ok(()) | Err(DispatchStop::Full | DispatchStop::TurnOver) if part.len < head.len => {
                Err(DispatchStop::Blocked { dispatched: part.len })
            }
            result => result,
        }
    }

    #[inline]
    fn dispatch_whole(
        &mut self,
        head: &RunHead<'_>,
        run: &RunBuffer<Payload<'_>>,
        around: usize,
    ) -> Result<(), DispatchStop> {
        let too_long = head.body_bytes + head.len * around > RUN_BYTES
            || head.len > CALLS_PER_RUN && is_part_of_broker(head.target);
        if head.len > 1 && too_long {
            return self.dispatch_long(head, run, around);
        }
        self.dispatch(head, run, 0..head.len, None)
    }

    #[cold]
    fn dispatch_long(
        &mut self,
        head: &RunHead<'_>,
        run: &RunBuffer<Payload<'_>>,
        around: usize,
    ) -> Result<(), DispatchStop> {
        let around = around + head.target.len();
        let most = if is_part_of_broker(head.target) { CALLS_PER_RUN } else { head.len };
        let mut first = 0;
        while first < head.len {
            let mut bytes = 0;
            let left = run.payloads.get(first..head.len).unwrap_or_default().iter().take(most);
            let fitting = left.take_while(|payload| {
                bytes += around + payload.len();
                bytes <= RUN_BYTES
            });
            let behind = first + fitting.count().max(1);
            match self.dispatch(head, run, first..behind, None) {
                Ok(()) => {}
                Err(DispatchStop::Ended(reason)) => return Err(DispatchStop::Ended(reason)),
                Err(DispatchStop::Blocked { .. }) => return Err(DispatchStop::Blocked { dispatched: first }),
                Err(DispatchStop::Full | DispatchStop::TurnOver) => {
                    return Err(DispatchStop::Blocked { dispatched: behind });
                }
            }
            first = behind;
        }
        Ok(())
    }

    /// Takes the result of a request if it is supplied later.
    #[inline]
    fn take_pending(&mut self, result: Dispatch) -> Option<PendingResult> {
        if result.is_pending() { self.client.take_pending() } else { None }
    }

    /// Dispatches frames as one run, and acknowledges them if requested.
    #[inline]
    pub(super) fn dispatch(
        &mut self,
        head: &RunHead<'_>,
        run: &RunBuffer<Payload<'_>>,
        frames: Range<usize>,
        shared: Option<&SharedBytes>,
    ) -> Result<(), DispatchStop> {
        let (op_ids, count) = (run.op_ids.get(frames.clone()).unwrap_or_default(), frames.len());
        // of a topic operation the whole body is the target
        let frames = if head.op.is_topic_op() { 0..0 } else { frames };
        let payloads = run.payloads.get(frames).unwrap_or_default();
        let request = Request::new(head.op, head.qos, head.target, payloads).with_receiver(head.receiver);
        let mut request = request.blocking();
        if head.qos.wants_ack() {
            request = request.deferrable();
        }
        if let Some(shared) = shared {
            request = request.with_shared(shared);
        }
        let result = self.client.dispatch(&request);
        if result.is_gone() {
            return Err(DispatchStop::Ended(CloseReason::Gone));
        }
        if result.is_blocked() {
            return Err(DispatchStop::Blocked { dispatched: 0 });
        }
        let work = match head.op {
            Op::Message if is_part_of_broker(head.target) => time_slice::CALL.saturating_mul(count as u32),
            Op::Message => count as u32,
            Op::Broadcast | Op::Publish | Op::PublishFor => {
                time_slice::LOOKING.saturating_add(result.reached())
            }
            Op::Subscribe | Op::Unsubscribe | Op::Exclude | Op::Unexclude => time_slice::FILTERS,
        };
        self.batch.frames = self.batch.frames.saturating_add(count as u32);
        if head.qos.wants_ack() {
            let delivery = if result.has_frame_codes() {
                let codes = self.client.take_frame_codes();
                // one for each frame, whatever the broker returned
                let codes = codes.into_iter().chain(std::iter::repeat(result.wire_code()));
                self.connection.acknowledge_each(op_ids.iter().copied().zip(codes))
            } else if let Some(pending) = self.take_pending(result) {
                let acks = op_ids.iter().copied().zip(0..).collect();
                self.connection.acknowledge_later(acks, pending)
            } else {
                self.connection.acknowledge(op_ids, result.code() as u8)
            };
            self.batch.dirty |= delivery.has(DeliveryStatus::DIRTY);
            if delivery.has(DeliveryStatus::FULL) {
                self.batch.full = true;
                return Err(DispatchStop::Full);
            }
        }
        if self.batch.turn.spend(work) { Err(DispatchStop::TurnOver) } else { Ok(()) }
    }
}

/// Returns whether messages to this name go to a part of the broker.
#[inline]
fn is_part_of_broker(name: &str) -> bool {
    name.starts_with('.')
}
