//! The queue of received frames between a connection and one consumer. Owns its limit, the choice of frames
//! to drop, and the count of dropped frames; does not know the source of frames.

use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::read_limit::{OVERCOMMIT_FACTOR, ReadLimit};
use crate::{frame::Frame, settings::Overflow};

/// Limit of frames that a consumer takes at once.
const TAKE_FRAMES: usize = 1024;
/// A consumer takes about as many frames at once as it consumes in this time. To a reader that waits for it,
/// it has made no progress in between.
const TAKE_TIME: Duration = Duration::from_millis(10);
/// Batches of fewer frames are not measured, unless the consumer takes no more at once.
const MEASURED_FRAMES: usize = 16;
/// Capacity that an empty queue keeps, in frames.
const RETAINED_CAPACITY: usize = 2048;

/// Memory of reads that can be kept beyond what is counted, before frames are copied out of it, in bytes.
const SHARED_SLACK: usize = 256 * 1024;

/// A read of the connection. Its frames share one allocation, which the last of them frees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedRead {
    /// Differs from that of the previous read; not 0.
    pub(crate) id: u64,
    /// Size of the allocation; 0 if there is none.
    pub(crate) bytes: usize,
}

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
    /// The consumer has taken too little for too long: the same, for the next frames that arrive together.
    lagging: bool,
    /// Memory of the reads that queued frames share, estimated: it shrinks as `bytes` do.
    shared_bytes: usize,
    /// The read that was counted last; 0 if none is.
    last_read: u64,
}

impl Inbox {
    pub(crate) fn new(limit: usize, overflow: Overflow, read_limit: Arc<ReadLimit>) -> Arc<Self> {
        Arc::new(Inbox { limit, overflow, read_limit, state: Mutex::default() })
    }

    /// Appends frames of a read and empties `frames`. Returns how many were discarded for lack of a consumer.
    pub(crate) fn push(&self, frames: &mut Vec<Frame>, read: SharedRead) -> u64 {
        let mut state = self.state.lock();
        if state.receiver_dropped || state.ended {
            drop(state);
            let count = frames.len() as u64;
            frames.clear();
            return count;
        }
        let mut queued = frames.len();
        if self.overflow == Overflow::Block && !state.drops_excess() && state.unreported == 0 {
            state.bytes += frames.iter().map(Frame::cost).sum::<usize>();
            state.frames.extend(frames.drain(..));
        } else {
            queued = 0;
            for frame in frames.drain(..) {
                queued += usize::from(state.push(frame, self.limit, self.overflow));
            }
            state.lagging = false;
        }
        if queued > 0 {
            state.count_shared(read, queued, self.limit);
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
            !state.drops_excess() && state.bytes > self.limit.saturating_mul(factor)
        }
    }

    /// Returns how many frames the consumer has taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.state.lock().taken
    }

    /// Drops frames over the limit from now on, if the queue exceeds it by `factor`: until the consumer
    /// continues if it has not taken more than `taken` frames, else once. Returns whether it does.
    pub(crate) fn drop_excess(&self, taken: u64, factor: usize) -> bool {
        let mut state = self.state.lock();
        if state.bytes <= self.limit.saturating_mul(factor) {
            return false;
        }
        if state.taken == taken {
            state.stalled = true;
        } else {
            state.lagging = true;
        }
        true
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
        state.shared_bytes = 0;
        let frames = std::mem::take(&mut state.frames);
        drop(state);
        drop(frames);
        self.read_limit.wake_reader();
    }

    /// Moves at most `limit` frames to an empty `into`. If there are none, registers the waker of `context`.
    fn take(&self, into: &mut VecDeque<Frame>, limit: usize, context: Option<&Context<'_>>) -> Taken {
        let mut state = self.state.lock();
        if state.frames.is_empty() {
            if state.ended {
                return Taken::Ended;
            }
            state.waker = context.map(|context| context.waker().clone());
            return Taken::Nothing;
        }
        let (queued, before) = (state.frames.len(), state.bytes);
        if queued <= limit && state.frames.capacity() <= RETAINED_CAPACITY {
            std::mem::swap(&mut state.frames, into);
            state.bytes = 0;
        } else {
            into.extend(state.frames.drain(..queued.min(limit)));
            state.bytes -= into.iter().map(Frame::cost).sum::<usize>();
        }
        state.taken += into.len() as u64;
        state.stalled = false;
        let after = state.bytes;
        state.shared_bytes = part(state.shared_bytes, after, before);
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
    /// Returns whether frames over the limit are dropped although the overflow policy does not.
    fn drops_excess(&self) -> bool {
        self.stalled || self.lagging
    }

    /// Counts the memory of a read whose frames are the last `count` that were queued. If reads of which
    /// little is queued take much more memory than is counted, copies these frames: the read is freed.
    fn count_shared(&mut self, read: SharedRead, count: usize, limit: usize) {
        if self.last_read != read.id {
            self.last_read = read.id;
            self.shared_bytes = self.shared_bytes.saturating_add(read.bytes);
        }
        if self.shared_bytes > limit.max(self.bytes).saturating_add(SHARED_SLACK) {
            self.frames.iter_mut().rev().take(count).for_each(Frame::copy_body);
            self.shared_bytes = self.shared_bytes.saturating_sub(read.bytes);
            self.last_read = 0;
        }
    }

    /// Returns whether the frame was queued.
    fn push(&mut self, mut frame: Frame, limit: usize, overflow: Overflow) -> bool {
        let cost = frame.cost();
        let drops_newest = overflow == Overflow::DropNewest || self.drops_excess();
        match overflow {
            _ if drops_newest && self.bytes + cost > limit && !self.frames.is_empty() => {
                self.unreported = self.unreported.saturating_add(1);
                self.missed = self.missed.saturating_add(1);
                return false;
            }
            Overflow::DropOldest => {
                let mut dropped = 0;
                while self.bytes + cost > limit
                    && let Some(oldest) = self.frames.pop_front()
                {
                    let before = self.bytes;
                    self.bytes -= oldest.cost();
                    self.shared_bytes = part(self.shared_bytes, self.bytes, before);
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
        true
    }
}

/// Returns `left` of `all` parts of a number of bytes.
fn part(bytes: usize, left: usize, all: usize) -> usize {
    let part = bytes as u128 * left as u128 / all.max(1) as u128;
    usize::try_from(part).unwrap_or(bytes)
}

/// The consumer's end of an inbox. Dropping it discards queued and later frames.
pub(crate) struct Receiver {
    inbox: Arc<Inbox>,
    taken: VecDeque<Frame>,
    /// How many frames are taken at once.
    take_limit: usize,
    /// The number of frames of a batch that is measured, and when it was taken.
    measured: Option<(usize, Instant)>,
}

impl Receiver {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Receiver { inbox, taken: VecDeque::new(), take_limit: 1, measured: None }
    }

    /// Takes the next batch, of a size that follows from how long the last one has taken.
    fn take(&mut self, context: Option<&Context<'_>>) -> Taken {
        if let Some((frames, since)) = self.measured.take() {
            self.take_limit = frames_in_take_time(frames, since.elapsed());
        }
        let taken = self.inbox.take(&mut self.taken, self.take_limit, context);
        let frames = self.taken.len();
        if frames >= MEASURED_FRAMES.min(self.take_limit) && frames > 0 {
            self.measured = Some((frames, Instant::now()));
        }
        taken
    }

    pub(crate) fn poll_next(&mut self, context: &Context<'_>) -> Poll<Option<Frame>> {
        if self.taken.is_empty() {
            match self.take(Some(context)) {
                Taken::Some => {}
                Taken::Nothing => return Poll::Pending,
                Taken::Ended => return Poll::Ready(None),
            }
        }
        Poll::Ready(self.taken.pop_front())
    }

    pub(crate) fn try_next(&mut self) -> Option<Frame> {
        if self.taken.is_empty() {
            self.take(None);
        }
        self.taken.pop_front()
    }

    /// Returns how many frames have been dropped so far, whether reported by a frame or not yet.
    pub(crate) fn missed(&self) -> u64 {
        self.inbox.state.lock().missed
    }
}

/// Returns how many frames a consumer can take at once that has consumed `frames` in a time.
fn frames_in_take_time(frames: usize, elapsed: Duration) -> usize {
    let nanos = elapsed.as_nanos().max(1);
    let limit = frames as u128 * TAKE_TIME.as_nanos() / nanos;
    usize::try_from(limit).unwrap_or(TAKE_FRAMES).clamp(1, TAKE_FRAMES)
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.inbox.drop_receiver();
    }
}

#[cfg(test)]
mod tests;
