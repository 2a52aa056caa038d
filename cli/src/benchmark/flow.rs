//! Counts what the workers of a stage have done and holds senders back while too much is under way. Knows no bus.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::Notify;

/// One worker's count. Each has a cache line of its own, as it is written with every message.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

/// What the workers of a stage have done so far; they write, the progress bar reads.
pub(super) struct Progress(Box<[Count]>);

impl Progress {
    pub(super) fn of(workers: usize) -> Self {
        Progress((0..workers).map(|_| Count::default()).collect())
    }

    /// Worker `index` has done `count` so far.
    pub(super) fn set(&self, index: usize, count: u64) {
        self.0[index].0.store(count, Ordering::Release);
    }

    /// All workers together.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|count| count.0.load(Ordering::Relaxed)).sum()
    }

    fn slowest(&self) -> u64 {
        self.0.iter().map(|count| count.0.load(Ordering::Acquire)).min().unwrap_or(0)
    }
}

/// How far a sender may be ahead of its slowest receiver. Once it is too far ahead it waits until half of that is
/// done, so that it goes on with many messages instead of one at a time.
pub(super) struct Window {
    limit: u64,
    received: Arc<Progress>,
    moved: Notify,
}

impl Window {
    /// For this many receivers, and at least two messages.
    pub(super) fn new(limit: u64, receivers: usize) -> Self {
        Window { limit: limit.max(2), received: Arc::new(Progress::of(receivers)), moved: Notify::new() }
    }

    /// What the receivers have.
    pub(super) fn progress(&self) -> Arc<Progress> {
        self.received.clone()
    }

    /// Returns once `sent` messages are not too far ahead.
    pub(super) async fn room(&self, sent: u64) {
        if sent < self.received.slowest() + self.limit {
            return;
        }
        while sent > self.received.slowest() + self.limit / 2 {
            // Leaves a permit if it comes between the look and the wait.
            self.moved.notified().await;
        }
    }

    /// Receiver `index` has `count` messages.
    pub(super) fn received(&self, index: usize, count: u64) {
        self.received.set(index, count);
        // Of all the messages that are under way when a sender waits, one of the second half has such a number.
        if count.is_multiple_of(self.limit / 2) {
            self.moved.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::Future, pin::pin, task::Context, task::Poll, task::Waker};

    fn ready(window: &Window, sent: u64) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(window.room(sent)).poll(&mut cx) == Poll::Ready(())
    }

    #[test]
    fn a_sender_waits_at_the_limit_until_half_is_received_by_the_slowest() {
        let window = Window::new(8, 2);
        assert!(ready(&window, 7));
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiting = pin!(window.room(8));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        (1..=8).for_each(|count| window.received(0, count));
        assert!(waiting.as_mut().poll(&mut cx).is_pending(), "the second receiver has nothing yet");
        (1..=3).for_each(|count| window.received(1, count));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        window.received(1, 4);
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn whatever_the_limit_a_sender_that_waits_is_woken() {
        for limit in 0..=9 {
            let window = Window::new(limit, 1);
            let (mut sent, mut received) = (0, 0);
            for _ in 0..50 {
                while ready(&window, sent) {
                    sent += 1;
                }
                let mut cx = Context::from_waker(Waker::noop());
                let mut waiting = pin!(window.room(sent));
                assert!(waiting.as_mut().poll(&mut cx).is_pending());
                while received < sent {
                    received += 1;
                    window.received(0, received);
                }
                assert!(waiting.as_mut().poll(&mut cx).is_ready(), "limit {limit}, sent {sent}");
            }
        }
    }

    #[test]
    fn progress_is_the_sum_of_all_workers() {
        let progress = Progress::of(3);
        progress.set(0, 5);
        progress.set(2, 7);
        assert_eq!(progress.total(), 12);
    }
}
