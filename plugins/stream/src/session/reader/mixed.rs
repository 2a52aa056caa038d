//! Dispatches mixed runs: frames of a read whose targets differ. Decides when runs are too short to be
//! dispatched one by one.

use elbus_plugin_api::{DeliveryStatus, Frame};
use elbus_protocol::{
    Limits,
    request::{MAX_RUN, MixedEnd, REQUEST_HEADER_BYTES, next_mixed_run},
};

use super::dispatch::{DispatchStop, Dispatcher, RUN_BYTES};
use crate::connection::close_reason::CloseReason;

/// Runs of at most this many frames are short.
const SHORT_RUN: usize = 5;
/// After this many short runs, frames are dispatched in mixed runs.
const SHORT_RUNS: u16 = 2;
/// Frames that can be parsed in vain for each frame that is dispatched.
const PARSED_PER_DISPATCHED: usize = 16;
/// Bytes that must follow a run so that a mixed run is worth its cost.
const BYTES_BEHIND: usize = 64;

/// Whether the frames of a client are dispatched in mixed runs.
#[derive(Default)]
pub struct MixedMode {
    /// Short runs in succession, at most [`SHORT_RUNS`].
    short_runs: u16,
    /// Frames that have to be dispatched in runs before the next mixed run: parsed for one in vain.
    pause: u16,
}

/// Vectors of a mixed run.
#[derive(Default)]
pub(crate) struct MixedBuffer<'a> {
    pub(crate) op_ids: Vec<u32>,
    pub(crate) frames: Vec<Frame<'a>>,
    pub(crate) codes: Vec<u8>,
}

impl MixedMode {
    /// Returns whether a mixed run should follow a run of `frames`, with `behind` bytes behind it.
    #[inline]
    pub fn begins(&mut self, frames: usize, behind: usize) -> bool {
        if frames > SHORT_RUN {
            self.short_runs = 0;
            return false;
        }
        if self.pause > 0 {
            self.pause = self.pause.saturating_sub(frames as u16);
            return false;
        }
        self.short_runs = SHORT_RUNS.min(self.short_runs + 1);
        self.short_runs == SHORT_RUNS && behind > BYTES_BEHIND
    }

    /// Notes why a mixed run ended.
    #[inline]
    pub fn end(&mut self, end: MixedEnd) {
        if end == MixedEnd::Alike {
            self.short_runs = 0;
        }
    }
}

impl Dispatcher<'_> {
    /// Dispatches mixed runs from `pos` on, and moves `pos` behind them, as long as there are any.
    pub(super) fn dispatch_mixed<'a>(
        &mut self,
        input: &'a [u8],
        pos: &mut usize,
        limits: &Limits,
        around: usize,
        buffer: &mut MixedBuffer<'a>,
    ) -> Result<(), DispatchStop> {
        // so that no mixed run exceeds the length of a run once encoded
        let max_body = (RUN_BYTES / MAX_RUN).saturating_sub(around);
        loop {
            let MixedBuffer { op_ids, frames, codes } = buffer;
            op_ids.clear();
            frames.clear();
            let mut any_acks = false;
            let end = next_mixed_run(input, pos, limits, max_body, |frame| {
                any_acks |= frame.qos.wants_ack();
                op_ids.push(frame.op_id);
                frames.push(
                    Frame::new(frame.op, frame.qos, frame.body, frame.target_len).repeating(frame.repeats),
                );
            });
            if frames.is_empty() {
                return Ok(());
            }
            if codes.len() < frames.len() {
                codes.resize(MAX_RUN, 0);
            }
            if !self.dispatch_parsed(input, pos, buffer, any_acks)? {
                return Ok(());
            }
            self.batch.mixed.end(end);
            if end != MixedEnd::Limit {
                return Ok(());
            }
        }
    }

    /// Dispatches the frames of a mixed run, and moves `pos` to the first that was not dispatched if there is
    /// one. Returns `false` if that frame must be dispatched alone.
    fn dispatch_parsed(
        &mut self,
        input: &[u8],
        pos: &mut usize,
        buffer: &mut MixedBuffer<'_>,
        any_acks: bool,
    ) -> Result<bool, DispatchStop> {
        let MixedBuffer { op_ids, frames, codes } = buffer;
        let (mut frames, mut op_ids) = (&frames[..], &op_ids[..]);
        let (behind, parsed) = (*pos, op_ids.len());
        while !frames.is_empty() {
            let result = self.client.dispatch_mixed(frames, codes);
            if result.is_gone() {
                return Err(DispatchStop::Ended(CloseReason::Gone));
            }
            let dispatched = result.dispatched().min(frames.len());
            let (done, left) = frames.split_at(dispatched);
            self.batch.frames = self.batch.frames.saturating_add(dispatched as u32);
            *pos = left.first().map_or(behind, |frame| position_in(input, frame));
            if any_acks && done.iter().any(|frame| frame.qos().wants_ack()) {
                let acks =
                    done.iter().zip(op_ids).zip(&*codes).filter(|((frame, _), _)| frame.qos().wants_ack());
                let acks = acks.map(|((_, id), code)| (*id, *code));
                let delivery = match result.is_pending() {
                    true => self.acknowledge_pending(done, op_ids, codes),
                    false => self.connection.acknowledge_each(acks),
                };
                self.batch.dirty |= delivery.has(DeliveryStatus::DIRTY);
                if delivery.has(DeliveryStatus::FULL) {
                    self.batch.full = true;
                    return Err(DispatchStop::Full);
                }
            }
            if self.batch.turn.spend(result.work()) {
                return Err(DispatchStop::TurnOver);
            }
            if result.is_next_alone() || dispatched == 0 {
                // a parsed frame that was dispatched pays for some that were not
                let paid = (parsed - left.len()).saturating_mul(PARSED_PER_DISPATCHED);
                self.batch.mixed.pause = left.len().saturating_sub(paid) as u16;
                return Ok(false);
            }
            op_ids = op_ids.get(dispatched..).unwrap_or_default();
            frames = left;
        }
        Ok(true)
    }
}

impl Dispatcher<'_> {
    /// Acknowledges the frames of a mixed run some of whose codes are supplied later: those before the first
    /// of them at once.
    #[cold]
    fn acknowledge_pending(&mut self, frames: &[Frame<'_>], op_ids: &[u32], codes: &[u8]) -> DeliveryStatus {
        let Some(pending) = self.client.take_pending() else { return DeliveryStatus::TAKEN };
        let acks = (0..).zip(frames).zip(op_ids).filter(|((_, frame), _)| frame.qos().wants_ack());
        let acks: Vec<_> = acks.map(|((index, _), id)| (*id, index)).collect();
        let is_known = |(_, index): &&(u32, usize)| codes.get(*index).is_some_and(|code| *code != 0);
        let (known, later) = acks.split_at(acks.iter().take_while(is_known).count());
        let known = known.iter().filter_map(|(id, index)| Some((*id, *codes.get(*index)?)));
        let first = self.connection.acknowledge_each(known);
        let later = later.iter().map(|(id, index)| (*id, *index as u32)).collect();
        first | self.connection.acknowledge_later(later, pending)
    }
}

/// Returns where a frame begins in the input that its body borrows from.
fn position_in(input: &[u8], frame: &Frame<'_>) -> usize {
    let body = frame.body().as_ptr().addr().saturating_sub(input.as_ptr().addr());
    body.saturating_sub(REQUEST_HEADER_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::{Op, Qos};

    #[test]
    fn mixed_runs_begin_after_short_runs_only() {
        let mut mode = MixedMode::default();
        assert!(!mode.begins(1, 1000), "the first run");
        assert!(mode.begins(SHORT_RUN, 1000) && mode.begins(1, 1000));
        assert!(!mode.begins(1, BYTES_BEHIND), "a frame alone");
        assert!(!mode.begins(SHORT_RUN + 1, 1000) && !mode.begins(1, 1000) && mode.begins(1, 1000));
        mode.pause = 7;
        assert!(!mode.begins(4, 1000) && !mode.begins(3, 1000) && mode.begins(1, 1000));
    }

    #[test]
    fn the_position_of_a_frame_is_that_of_its_header() {
        let input = [0; 100];
        let frame = Frame::new(Op::Message, Qos::NO, &input[30..50], 3);
        assert_eq!(position_in(&input, &frame), 30 - REQUEST_HEADER_BYTES);
    }
}
