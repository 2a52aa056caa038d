//! The queue of received frames between a connection and one consumer. Owns its limit, the choice of frames
//! to drop, and the count of dropped frames; does not know the source of frames.

use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::read_limit::{OVERCOMMIT_FACTOR, ReadLimit};
use crate::{frame::Frame, settings::Overflow};

/// Limit of frames that a consumer takes at once.
const TAKE_FRAMES: usize = 1024;
/// Capacity that an empty queue keeps, in frames.
const RETAINED_CAPACITY: usize = 2048;

pub(crate) struct Inbox {
    limit: usize,
    overflow: Overflow,
    read_limit: Arc<ReadLimit>,
    /// A leaf lock: no other lock is taken while it is held.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Frames dropped after the last queued frame; the next one will report them.
    unreported: u64,
    missed: u64,
    waker: Option<Waker>,
    /// No frame will follow.
    ended: bool,
    receiver_dropped: bool,
    /// Frames taken by the consumer so far.
    taken: u64,
    /// The consumer has taken nothing for too long: frames over the limit are dropped until it continues.
    stalled: bool,
}

impl Inbox {
    pub(crate) fn new(limit: usize, overflow: Overflow, read_limit: Arc<ReadLimit>) -> Arc<Self> {
        Arc::new(Inbox { limit, overflow, read_limit, state: Mutex::default() })
    }

    /// Appends frames and empties `frames`. Returns how many were discarded for lack of a consumer.
    pub(crate) fn push(&self, frames: &mut Vec<Frame>) -> u64 {
        let mut state = self.state.lock();
        if state.receiver_dropped || state.ended {
            drop(state);
            let count = frames.len() as u64;
            frames.clear();
            return count;
        }
        if self.overflow == Overflow::Block && !state.stalled && state.unreported == 0 {
            state.bytes += frames.iter().map(Frame::cost).sum::<usize>();
            state.frames.extend(frames.drain(..));
        } else {
            for frame in frames.drain(..) {
                state.push(frame, self.limit, self.overflow);
            }
        }
        let waker = if state.frames.is_empty() { None } else { state.waker.take() };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        0
    }

    /// Counts frames that were dropped before they arrived here. The next frame reports them.
    pub(crate) fn add_missed(&self, count: u64) {
        let mut state = self.state.lock();
        state.unreported = state.unreported.saturating_add(count);
        state.missed = state.missed.saturating_add(count);
    }

    /// Returns whether the connection should not be read now. The limit can be exceeded by `factor`.
    pub(crate) fn is_over_limit(&self, factor: usize) -> bool {
        self.overflow == Overflow::Block && {
            let state = self.state.lock();
            !state.stalled && state.bytes > self.limit.saturating_mul(factor)
        }
    }

    /// Returns how many frames the consumer has taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.state.lock().taken
    }

    /// Marks the consumer as stalled, unless it has taken more than `taken` frames meanwhile: frames over the
    /// limit are dropped until it continues. Returns whether it is stalled.
    pub(crate) fn mark_stalled(&self, taken: u64) -> bool {
        let mut state = self.state.lock();
        state.stalled = state.taken == taken;
        state.stalled
    }

    /// Ends the queue: the consumer gets the queued frames, then `None`.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn drop_receiver(&self) {
        let mut state = self.state.lock();
        state.receiver_dropped = true;
        state.bytes = 0;
        let frames = std::mem::take(&mut state.frames);
        drop(state);
        drop(frames);
        self.read_limit.wake_reader();
    }

    /// Moves frames to an empty `into`. If there are none, registers the waker of `context`.
    fn take(&self, into: &mut VecDeque<Frame>, context: Option<&Context<'_>>) -> Taken {
        let mut state = self.state.lock();
        if state.frames.is_empty() {
            if state.ended {
                return Taken::Ended;
            }
            state.waker = context.map(|context| context.waker().clone());
            return Taken::Nothing;
        }
        let (queued, before) = (state.frames.len(), state.bytes);
        if queued <= TAKE_FRAMES && state.frames.capacity() <= RETAINED_CAPACITY {
            std::mem::swap(&mut state.frames, into);
            state.bytes = 0;
        } else {
            into.extend(state.frames.drain(..queued.min(TAKE_FRAMES)));
            state.bytes -= into.iter().map(Frame::cost).sum::<usize>();
        }
        state.taken += into.len() as u64;
        state.stalled = false;
        let after = state.bytes;
        if state.frames.is_empty() && state.frames.capacity() > RETAINED_CAPACITY {
            state.frames = VecDeque::new();
        }
        drop(state);
        // the reader continues when half of the limit is free, not with each frame
        let limits = [self.limit / 2, self.limit.saturating_mul(OVERCOMMIT_FACTOR)];
        if limits.iter().any(|limit| before > *limit && after <= *limit) {
            self.read_limit.wake_reader();
        }
        Taken::Some
    }
}

enum Taken {
    Some,
    Nothing,
    Ended,
}

impl State {
    fn push(&mut self, mut frame: Frame, limit: usize, overflow: Overflow) {
        let cost = frame.cost();
        let drops_newest = overflow == Overflow::DropNewest || self.stalled;
        match overflow {
            _ if drops_newest && self.bytes + cost > limit && !self.frames.is_empty() => {
                self.unreported = self.unreported.saturating_add(1);
                self.missed = self.missed.saturating_add(1);
                return;
            }
            Overflow::DropOldest => {
                let mut dropped = 0;
                while self.bytes + cost > limit
                    && let Some(oldest) = self.frames.pop_front()
                {
                    self.bytes -= oldest.cost();
                    self.missed = self.missed.saturating_add(1);
                    dropped = oldest.missed().saturating_add(1).saturating_add(dropped);
                }
                match self.frames.front_mut() {
                    Some(front) => front.add_missed(dropped),
                    None => frame.add_missed(dropped),
                }
            }
            _ => {}
        }
        frame.add_missed(std::mem::take(&mut self.unreported));
        self.bytes += cost;
        self.frames.push_back(frame);
    }
}

/// The consumer's end of an inbox. Dropping it discards queued and later frames.
pub(crate) struct Receiver {
    inbox: Arc<Inbox>,
    taken: VecDeque<Frame>,
}

impl Receiver {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Receiver { inbox, taken: VecDeque::new() }
    }

    pub(crate) fn poll_next(&mut self, context: &Context<'_>) -> Poll<Option<Frame>> {
        if self.taken.is_empty() {
            match self.inbox.take(&mut self.taken, Some(context)) {
                Taken::Some => {}
                Taken::Nothing => return Poll::Pending,
                Taken::Ended => return Poll::Ready(None),
            }
        }
        Poll::Ready(self.taken.pop_front())
    }

    pub(crate) fn try_next(&mut self) -> Option<Frame> {
        if self.taken.is_empty() {
            self.inbox.take(&mut self.taken, None);
        }
        self.taken.pop_front()
    }

    /// Returns how many frames have been dropped so far, whether reported by a frame or not yet.
    pub(crate) fn missed(&self) -> u64 {
        self.inbox.state.lock().missed
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.inbox.drop_receiver();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use elbus_protocol::FrameKind;

    fn frame(number: u8) -> Frame {
        Frame::from_wire(FrameKind::Message, false, vec![b'a', 0, number].into(), 1, 2)
    }

    fn inbox(frames: usize, overflow: Overflow) -> (Arc<Inbox>, Receiver) {
        let inbox = Inbox::new(frames * frame(0).cost(), overflow, Arc::default());
        (inbox.clone(), Receiver::new(inbox))
    }

    /// Takes all frames. Returns the number and the reported losses of each.
    fn numbers(receiver: &mut Receiver) -> Vec<(u8, u64)> {
        std::iter::from_fn(|| receiver.try_next()).map(|f| (f.payload()[0], f.missed())).collect()
    }

    #[test]
    fn blocking_drops_nothing_and_reports_the_limit() {
        let (inbox, mut receiver) = inbox(2, Overflow::Block);
        inbox.push(&mut vec![frame(1), frame(2)]);
        assert!(!inbox.is_over_limit(1));
        inbox.push(&mut vec![frame(3)]);
        assert!(inbox.is_over_limit(1) && !inbox.is_over_limit(4));
        assert_eq!(numbers(&mut receiver), [(1, 0), (2, 0), (3, 0)]);
        assert!(!inbox.is_over_limit(1));
    }

    #[test]
    fn the_newest_frames_are_dropped_and_counted() {
        let (inbox, mut receiver) = inbox(2, Overflow::DropNewest);
        inbox.push(&mut (1..=5).map(frame).collect());
        assert_eq!(receiver.missed(), 3);
        assert_eq!(numbers(&mut receiver), [(1, 0), (2, 0)]);
        inbox.push(&mut vec![frame(6), frame(7)]);
        assert_eq!(numbers(&mut receiver), [(6, 3), (7, 0)]);
        assert_eq!(receiver.missed(), 3);
    }

    #[test]
    fn a_consumer_that_continues_at_the_last_moment_loses_nothing() {
        let (inbox, mut receiver) = inbox(1, Overflow::Block);
        inbox.push(&mut vec![frame(1), frame(2)]);
        let taken = inbox.taken();
        assert_eq!(numbers(&mut receiver), [(1, 0), (2, 0)]);
        assert!(!inbox.mark_stalled(taken));
        inbox.push(&mut vec![frame(3), frame(4)]);
        assert_eq!(numbers(&mut receiver), [(3, 0), (4, 0)]);
        assert!(inbox.mark_stalled(inbox.taken()));
        inbox.push(&mut vec![frame(5), frame(6)]);
        assert_eq!(numbers(&mut receiver), [(5, 0)]);
    }

    #[test]
    fn the_oldest_frames_are_dropped_and_counted() {
        let (inbox, mut receiver) = inbox(2, Overflow::DropOldest);
        inbox.push(&mut (1..=5).map(frame).collect());
        assert_eq!(receiver.missed(), 3);
        assert_eq!(numbers(&mut receiver), [(4, 3), (5, 0)]);
    }

    #[test]
    fn what_was_dropped_earlier_is_reported_by_the_next_frame() {
        for overflow in [Overflow::Block, Overflow::DropNewest, Overflow::DropOldest] {
            let (inbox, mut receiver) = inbox(9, overflow);
            inbox.push(&mut vec![frame(1)]);
            inbox.add_missed(5);
            inbox.add_missed(2);
            assert_eq!(receiver.missed(), 7);
            inbox.push(&mut vec![frame(2), frame(3)]);
            assert_eq!(numbers(&mut receiver), [(1, 0), (2, 7), (3, 0)]);
            inbox.add_missed(u64::MAX);
            inbox.add_missed(1);
            inbox.push(&mut vec![frame(4)]);
            assert_eq!((numbers(&mut receiver), receiver.missed()), (vec![(4, u64::MAX)], u64::MAX));
        }
    }

    #[test]
    fn a_frame_larger_than_the_limit_is_queued_alone() {
        for overflow in [Overflow::Block, Overflow::DropNewest, Overflow::DropOldest] {
            let (inbox, mut receiver) = inbox(1, overflow);
            let body = Bytes::from([&b"a\0"[..], &[9; 1000]].concat());
            inbox.push(&mut vec![Frame::from_wire(FrameKind::Message, false, body, 1, 2)]);
            assert_eq!(numbers(&mut receiver), [(9, 0)]);
        }
    }

    #[test]
    fn queued_frames_are_received_after_the_end() {
        let (inbox, mut receiver) = inbox(9, Overflow::Block);
        inbox.push(&mut vec![frame(1)]);
        inbox.end();
        assert_eq!(inbox.push(&mut vec![frame(2)]), 1);
        let context = Context::from_waker(Waker::noop());
        assert!(matches!(receiver.poll_next(&context), Poll::Ready(Some(_))));
        assert!(matches!(receiver.poll_next(&context), Poll::Ready(None)));
    }

    #[test]
    fn nothing_is_queued_without_a_receiver() {
        let (inbox, receiver) = inbox(1, Overflow::Block);
        inbox.push(&mut (1..=5).map(frame).collect());
        drop(receiver);
        assert!(!inbox.is_over_limit(1));
        assert_eq!(inbox.push(&mut vec![frame(6)]), 1);
    }
}
