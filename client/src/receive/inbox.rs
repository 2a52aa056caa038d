//! A queue of received frames between the connection and one consumer. Owns its bound, what is dropped where the user
//! has chosen dropping, and the count of that; never knows where frames come from.

use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    Frame,
    receive::read_limit::{Gate, PATIENCE},
};

/// The most frames that a consumer takes over at once.
const TAKE_FRAMES: usize = 256;
/// Places for frames that an empty queue keeps.
const KEPT_PLACES: usize = 4096;

/// What happens to received frames when more than `queue_bytes` of them wait for their consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Nothing more is read from the connection until the consumer has caught up; the broker then holds the senders
    /// back. Nothing is lost while the consumer takes something every
    /// [`hold_limit`](crate::ClientBuilder::hold_limit), 3 s by default; if it takes nothing for that long, what arrives is
    /// dropped and counted until it goes on, so that the client stays connected. While an operation waits for its outcome, which arrives behind the frames, up to four times
    /// as much is read. A consumer that awaits an operation for every frame of a flood without end is slower than that
    /// still: its operations end with [`Error::Timeout`](crate::Error::Timeout). Await them in another task, or send without
    /// acknowledgement.
    #[default]
    Block,
    /// What arrives is dropped; the next frame that is kept says how many ([`Frame::missed`]).
    DropNewest,
    /// What has waited longest is dropped; the frame behind it says how many.
    DropOldest,
}

pub(crate) struct Inbox {
    limit: usize,
    overflow: Overflow,
    gate: Arc<Gate>,
    /// A leaf: nothing else is locked while it is held.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Dropped behind the last frame of the queue.
    gap: u64,
    missed: u64,
    waker: Option<Waker>,
    /// Nothing will follow.
    ended: bool,
    /// The consumer is gone.
    abandoned: bool,
    /// Frames taken out so far.
    taken: u64,
    /// The consumer has taken nothing for too long: what exceeds the limit is dropped until it goes on.
    standing: bool,
}

impl Inbox {
    pub(crate) fn new(limit: usize, overflow: Overflow, gate: Arc<Gate>) -> Arc<Self> {
        Arc::new(Inbox { limit, overflow, gate, state: Mutex::default() })
    }

    /// Appends frames and empties `frames`. How many found no consumer comes back.
    pub(crate) fn push(&self, frames: &mut Vec<Frame>) -> u64 {
        let mut state = self.state.lock();
        if state.abandoned || state.ended {
            drop(state);
            let count = frames.len() as u64;
            frames.clear();
            return count;
        }
        for frame in frames.drain(..) {
            state.push(frame, self.limit, self.overflow);
        }
        let waker = if state.frames.is_empty() { None } else { state.waker.take() };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        0
    }

    /// Whether the connection should not be read now; `patience` is by how much the limit may be passed.
    pub(crate) fn is_over(&self, patience: usize) -> bool {
        self.overflow == Overflow::Block && {
            let state = self.state.lock();
            !state.standing && state.bytes > self.limit.saturating_mul(patience)
        }
    }

    /// How many frames the consumer has taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.state.lock().taken
    }

    /// From now on what exceeds the limit is dropped, until the consumer goes on; unless it has taken more than this
    /// meanwhile. Whether it is dropped.
    pub(crate) fn stop_holding(&self, taken: u64) -> bool {
        let mut state = self.state.lock();
        state.standing = state.taken == taken;
        state.standing
    }

    /// Says that nothing will follow.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn abandon(&self) {
        let mut state = self.state.lock();
        state.abandoned = true;
        state.bytes = 0;
        let frames = std::mem::take(&mut state.frames);
        drop(state);
        drop(frames);
        self.gate.open();
    }

    fn take(&self, into: &mut VecDeque<Frame>, context: Option<&Context<'_>>) -> Taken {
        let mut state = self.state.lock();
        if state.frames.is_empty() {
            if state.ended {
                return Taken::Ended;
            }
            state.waker = context.map(|context| context.waker().clone());
            return Taken::Nothing;
        }
        let count = state.frames.len().min(TAKE_FRAMES);
        let before = state.bytes;
        for frame in state.frames.drain(..count) {
            into.push_back(frame);
        }
        state.taken += count as u64;
        state.standing = false;
        state.bytes -= into.iter().map(Frame::cost).sum::<usize>();
        let after = state.bytes;
        if state.frames.is_empty() && state.frames.capacity() > KEPT_PLACES {
            state.frames = VecDeque::new();
        }
        drop(state);
        // the reader goes on when half of it is taken, not with each frame
        let limits = [self.limit / 2, self.limit.saturating_mul(PATIENCE)];
        if limits.iter().any(|limit| before > *limit && after <= *limit) {
            self.gate.open();
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
        let drops_newest = overflow == Overflow::DropNewest || self.standing;
        match overflow {
            _ if drops_newest && self.bytes + cost > limit && !self.frames.is_empty() => {
                self.gap += 1;
                self.missed += 1;
                return;
            }
            Overflow::DropOldest => {
                let mut dropped = 0;
                while self.bytes + cost > limit
                    && let Some(oldest) = self.frames.pop_front()
                {
                    self.bytes -= oldest.cost();
                    self.missed += 1;
                    dropped += 1 + oldest.missed();
                }
                match self.frames.front_mut() {
                    Some(front) => front.add_missed(dropped),
                    None => frame.add_missed(dropped),
                }
            }
            _ => {}
        }
        frame.add_missed(std::mem::take(&mut self.gap));
        self.bytes += cost;
        self.frames.push_back(frame);
    }
}

/// The consumer's end. Dropping it lets the connection go on without.
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

    /// Frames dropped so far, reported by a frame or not yet.
    pub(crate) fn missed(&self) -> u64 {
        self.inbox.state.lock().missed
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.inbox.abandon();
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

    fn numbers(receiver: &mut Receiver) -> Vec<(u8, u64)> {
        std::iter::from_fn(|| receiver.try_next()).map(|f| (f.payload()[0], f.missed())).collect()
    }

    #[test]
    fn blocking_keeps_everything_and_says_when_it_is_over() {
        let (inbox, mut receiver) = inbox(2, Overflow::Block);
        inbox.push(&mut vec![frame(1), frame(2)]);
        assert!(!inbox.is_over(1));
        inbox.push(&mut vec![frame(3)]);
        assert!(inbox.is_over(1) && !inbox.is_over(4));
        assert_eq!(numbers(&mut receiver), [(1, 0), (2, 0), (3, 0)]);
        assert!(!inbox.is_over(1));
    }

    #[test]
    fn the_newest_are_dropped_and_counted() {
        let (inbox, mut receiver) = inbox(2, Overflow::DropNewest);
        inbox.push(&mut (1..=5).map(frame).collect());
        assert_eq!(receiver.missed(), 3);
        assert_eq!(numbers(&mut receiver), [(1, 0), (2, 0)]);
        inbox.push(&mut vec![frame(6), frame(7)]);
        assert_eq!(numbers(&mut receiver), [(6, 3), (7, 0)]);
        assert_eq!(receiver.missed(), 3);
    }

    #[test]
    fn one_that_goes_on_at_the_last_moment_loses_nothing() {
        let (inbox, mut receiver) = inbox(1, Overflow::Block);
        inbox.push(&mut vec![frame(1), frame(2)]);
        let taken = inbox.taken();
        assert_eq!(numbers(&mut receiver), [(1, 0), (2, 0)]);
        assert!(!inbox.stop_holding(taken));
        inbox.push(&mut vec![frame(3), frame(4)]);
        assert_eq!(numbers(&mut receiver), [(3, 0), (4, 0)]);
        assert!(inbox.stop_holding(inbox.taken()));
        inbox.push(&mut vec![frame(5), frame(6)]);
        assert_eq!(numbers(&mut receiver), [(5, 0)]);
    }

    #[test]
    fn the_oldest_are_dropped_and_counted() {
        let (inbox, mut receiver) = inbox(2, Overflow::DropOldest);
        inbox.push(&mut (1..=5).map(frame).collect());
        assert_eq!(receiver.missed(), 3);
        assert_eq!(numbers(&mut receiver), [(4, 3), (5, 0)]);
    }

    #[test]
    fn a_frame_larger_than_the_limit_is_kept_alone() {
        for overflow in [Overflow::Block, Overflow::DropNewest, Overflow::DropOldest] {
            let (inbox, mut receiver) = inbox(1, overflow);
            let body = Bytes::from([&b"a\0"[..], &[9; 1000]].concat());
            inbox.push(&mut vec![Frame::from_wire(FrameKind::Message, false, body, 1, 2)]);
            assert_eq!(numbers(&mut receiver), [(9, 0)]);
        }
    }

    #[test]
    fn what_waits_is_still_received_after_the_end() {
        let (inbox, mut receiver) = inbox(9, Overflow::Block);
        inbox.push(&mut vec![frame(1)]);
        inbox.end();
        assert_eq!(inbox.push(&mut vec![frame(2)]), 1);
        let context = Context::from_waker(Waker::noop());
        assert!(matches!(receiver.poll_next(&context), Poll::Ready(Some(_))));
        assert!(matches!(receiver.poll_next(&context), Poll::Ready(None)));
    }

    #[test]
    fn without_a_consumer_nothing_waits() {
        let (inbox, receiver) = inbox(1, Overflow::Block);
        inbox.push(&mut (1..=5).map(frame).collect());
        drop(receiver);
        assert!(!inbox.is_over(1));
        assert_eq!(inbox.push(&mut vec![frame(6)]), 1);
    }
}
