//! Dispatching the runs of a read, and acknowledging them. Owns how long a run may be once it is encoded, and what is left
//! of it when a receiver is full; keeps no bytes.

use elbus_plugin_api::{Client, DeliveryStatus, Payload, Request, SharedBytes};
use elbus_protocol::{
    Op,
    request::{REQUEST_HEADER_BYTES, RunBuffer, RunHead},
};
use std::{ops::Range, sync::Arc};

use crate::{
    connection::Connection,
    pace::Pace,
    reason::Reason,
    turn::{self, Turn},
};

/// The most that a run of several frames may come to once it is encoded, in bytes: a queue passes its limit by no more.
pub(crate) const RUN_BYTES: usize = 256 * 1024;
/// Frames to a part of the broker in one run: each can be a call, which is carried out while the run is delivered.
const CALLS_PER_RUN: usize = 32;
/// What is around the name of the sender, topic and payload of an encoded frame, at most.
const AROUND_BYTES: usize = 8;

/// What the acknowledgements of a batch ask for, and what was read in it.
#[derive(Default)]
pub(super) struct Own {
    pub(super) dirty: bool,
    pub(super) full: bool,
    /// Frames and bytes read since its pace was last looked at.
    pub(super) frames: u32,
    pub(super) bytes: u32,
    pub(super) turn: Turn,
}

/// Why nothing more of a read is dispatched for now.
pub(super) enum Stop {
    /// The connection is to end.
    Ended(Reason),
    /// A receiver is full, or the client has sent as much as it may for now. So many frames of the run were dispatched before, the others were not.
    Blocked { dispatched: usize },
    /// The whole run was dispatched, and the client itself is full.
    Full,
    /// The whole run was dispatched, and it is the turn of others.
    TurnOver,
}

impl Stop {
    /// Where the bytes begin that were not dispatched: `behind` is where the run ends.
    #[cold]
    pub(super) fn position(
        self,
        head: &RunHead<'_>,
        run: &RunBuffer<Payload<'_>>,
        behind: usize,
    ) -> Result<usize, Reason> {
        let dispatched = match self {
            Stop::Ended(reason) => return Err(reason),
            Stop::Full | Stop::TurnOver => return Ok(behind),
            Stop::Blocked { dispatched } => dispatched,
        };
        let receiver = if head.op == Op::PublishFor { head.receiver.len() + 1 } else { 0 };
        let around = REQUEST_HEADER_BYTES + head.target.len() + 1 + receiver;
        let left = run.payloads.get(dispatched..head.len).unwrap_or_default();
        Ok(behind - left.iter().map(|payload| around + payload.len()).sum::<usize>())
    }
}

/// What runs are dispatched with.
pub(super) struct Sending<'s> {
    pub(super) client: &'s mut Client,
    pub(super) connection: &'s Arc<Connection>,
    pub(super) own: &'s mut Own,
    /// Where the client may send only so much.
    pub(super) pace: Option<&'s mut Pace>,
}

impl Sending<'_> {
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
    ) -> Result<(), Stop> {
        if self.pace.is_some() {
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
    ) -> Result<(), Stop> {
        let may_send = self.pace.as_ref().map_or(u32::MAX, |pace| pace.may_send);
        let part = RunHead { len: head.len.min(may_send as usize), ..*head };
        if part.len == 0 {
            return Err(Stop::Blocked { dispatched: 0 });
        }
        let before = self.own.frames;
        let result = self.dispatch_whole(&part, run, around);
        if let Some(pace) = &mut self.pace {
            pace.may_send = pace.may_send.saturating_sub(self.own.frames.saturating_sub(before));
        }
        match result {
            Ok(()) | Err(Stop::Full | Stop::TurnOver) if part.len < head.len => {
                Err(Stop::Blocked { dispatched: part.len })
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
    ) -> Result<(), Stop> {
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
    ) -> Result<(), Stop> {
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
                Err(Stop::Ended(reason)) => return Err(Stop::Ended(reason)),
                Err(Stop::Blocked { .. }) => return Err(Stop::Blocked { dispatched: first }),
                Err(Stop::Full | Stop::TurnOver) => return Err(Stop::Blocked { dispatched: behind }),
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
    ) -> Result<(), Stop> {
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
            return Err(Stop::Ended(Reason::Gone));
        }
        if result.is_blocked() {
            return Err(Stop::Blocked { dispatched: 0 });
        }
        let work = match head.op {
            Op::Message if is_part_of_broker(head.target) => turn::CALL.saturating_mul(count as u32),
            Op::Message => count as u32,
            Op::Broadcast | Op::Publish | Op::PublishFor => turn::LOOKING.saturating_add(result.reached()),
            Op::Subscribe | Op::Unsubscribe | Op::Exclude | Op::Unexclude => turn::FILTERS,
        };
        let own = &mut *self.own;
        own.frames = own.frames.saturating_add(count as u32);
        if head.qos.wants_ack() {
            let owed = self.connection.acknowledge(op_ids, result.code() as u8);
            own.dirty |= owed.has(DeliveryStatus::DIRTY);
            if owed.has(DeliveryStatus::FULL) {
                own.full = true;
                return Err(Stop::Full);
            }
        }
        if own.turn.spend(work) { Err(Stop::TurnOver) } else { Ok(()) }
    }
}

/// Whether messages to this name go to a part of the broker.
#[inline]
fn is_part_of_broker(name: &str) -> bool {
    name.starts_with('.')
}
