//! Dispatching the runs of a read, and acknowledging them. Owns how long a run may be once it is encoded, and what is left
//! of it when a receiver is full; keeps no bytes.

use elbus_plugin_api::{Client, DeliveryStatus, Payload, Request, SharedBytes};
use elbus_protocol::{
    Op,
    request::{REQUEST_HEADER_BYTES, RunBuffer, RunHead},
};
use std::{ops::Range, sync::Arc};

use crate::{
    connection::{Connection, close_reason::CloseReason},
    session::{
        rate_limiter::RateLimiter,
        time_slice::{self, TimeSlice},
    },
};

/// The most that a run of several frames may come to once it is encoded, in bytes: a queue passes its limit by no more.
pub(crate) const RUN_BYTES: usize = 256 * 1024;
/// Frames to a part of the broker in one run: each can be a call, which is carried out while the run is delivered.
const CALLS_PER_RUN: usize = 32;
/// What is around the name of the sender, topic and payload of an encoded frame, at most.
const AROUND_BYTES: usize = 8;

/// What the acknowledgements of a batch ask for, and what was read in it.
#[derive(Default)]
pub(super) struct ReadBatch {
    pub(super) dirty: bool,
    pub(super) full: bool,
    /// Frames and bytes read since its pace was last looked at.
    pub(super) frames: u32,
    pub(super) bytes: u32,
    pub(super) turn: TimeSlice,
}

/// Why nothing more of a read is dispatched for now.
pub(super) enum DispatchStop {
    /// The connection is to end.
    Ended(CloseReason),
    /// A receiver is full, or the client has sent as much as it may for now. So many frames of the run were dispatched before, the others were not.
    Blocked { dispatched: usize },
    /// The whole run was dispatched, and the client itself is full.
    Full,
    /// The whole run was dispatched, and it is the turn of others.
    TurnOver,
}

impl DispatchStop {
    /// Where the bytes begin that were not dispatched: `behind` is where the run ends.
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
    /// Where the client may send only so much.
    pub(super) rate_limiter: Option<&'s mut RateLimiter>,
}

impl Dispatcher<'_> {
    /// What encoding adds to a frame of this client, at most.
    #[inline]
    pub(super) fn around(&self) -> usize {
        self.connection.name().len() + AROUND_BYTES
    }

    /// Dispatches a run in parts that are no longer than [`RUN_BYTES`] once they are encoded.
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

    /// No more frames than the pace of the client allows.
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

    /// Dispatches frames of a run as one, and acknowledges them where that is wanted.
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
        let batch = &mut *self.batch;
        batch.frames = batch.frames.saturating_add(count as u32);
        if head.qos.wants_ack() {
            let delivery = self.connection.acknowledge(op_ids, result.code() as u8);
            batch.dirty |= delivery.has(DeliveryStatus::DIRTY);
            if delivery.has(DeliveryStatus::FULL) {
                batch.full = true;
                return Err(DispatchStop::Full);
            }
        }
        if batch.turn.spend(work) { Err(DispatchStop::TurnOver) } else { Ok(()) }
    }
}

/// Whether messages to this name go to a part of the broker.
#[inline]
fn is_part_of_broker(name: &str) -> bool {
    name.starts_with('.')
}
