//! Counts what the tasks of a stage have completed, and holds senders back while too many messages are in
//! flight. Does no I/O.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::Notify;

/// The count of one task. Each has its own cache line, as it is written with every message.
#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// How many iterations each task has completed. Tasks write, the progress bar reads.
pub(super) struct Progress(Box<[Counter]>);

impl Progress {
    pub(super) fn new(tasks: usize) -> Self {
        Progress((0..tasks).map(|_| Counter::default()).collect())
    }

    /// Records that task `index` has completed `count` iterations.
    pub(super) fn set(&self, index: usize, count: u64) {
        self.0[index].0.store(count, Ordering::Release);
    }

    /// Returns the sum over all tasks.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|count| count.0.load(Ordering::Relaxed)).sum()
    }

    fn slowest(&self) -> u64 {
        self.0.iter().map(|count| count.0.load(Ordering::Acquire)).min().unwrap_or(0)
    }
}

/// Limits how far a sender is ahead of its slowest receiver. At the limit the sender waits until half of it
/// has arrived, so that it continues with many messages instead of one at a time.
pub(super) struct Window {
    limit: u64,
    received: Arc<Progress>,
    advanced: Notify,
}

impl Window {
    /// Creates a window of at least two messages.
    pub(super) fn new(limit: u64, receivers: usize) -> Self {
        Window { limit: limit.max(2), received: Arc::new(Progress::new(receivers)), advanced: Notify::new() }
    }

    /// Returns how many messages each receiver has received.
    pub(super) fn progress(&self) -> Arc<Progress> {
        self.received.clone()
    }

    /// Waits until a sender that has sent `sent` messages can send the next one.
    pub(super) async fn wait_for_room(&self, sent: u64) {
        if sent < self.received.slowest() + self.limit {
            return;
        }
        while sent > self.received.slowest() + self.limit / 2 {
            // a notification between the check and the wait leaves a permit
            self.advanced.notified().await;
        }
    }

    /// Records that receiver `index` has received `count` messages.
    pub(super) fn received(&self, index: usize, count: u64) {
        self.received.set(index, count);
        // of the messages in flight while a sender waits, one in the second half has such a number
        if count.is_multiple_of(self.limit / 2) {
            self.advanced.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::Future, pin::pin, task::Context, task::Poll, task::Waker};

    fn ready(window: &Window, sent: u64) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(window.wait_for_room(sent)).poll(&mut cx) == Poll::Ready(())
    }

    #[test]
    fn a_sender_waits_at_the_limit_until_half_is_received_by_the_slowest() {
        let window = Window::new(8, 2);
        assert!(ready(&window, 7));
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiting = pin!(window.wait_for_room(8));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        (1..=8).for_each(|count| window.received(0, count));
        assert!(waiting.as_mut().poll(&mut cx).is_pending(), "the second receiver has nothing yet");
        (1..=3).for_each(|count| window.received(1, count));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        window.received(1, 4);
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_waiting_sender_is_woken_at_any_limit() {
        for limit in 0..=9 {
            let window = Window::new(limit, 1);
            let (mut sent, mut received) = (0, 0);
            for _ in 0..50 {
                while ready(&window, sent) {
                    sent += 1;
                }
                let mut cx = Context::from_waker(Waker::noop());
                let mut waiting = pin!(window.wait_for_room(sent));
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
    fn the_total_is_the_sum_over_all_tasks() {
        let progress = Progress::new(3);
        progress.set(0, 5);
        progress.set(2, 7);
        assert_eq!(progress.total(), 12);
    }
}
