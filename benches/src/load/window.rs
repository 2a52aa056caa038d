//! The limit of messages in flight. A sender at its limit sleeps until half of its window is free: it takes
//! no CPU time from what is measured, and wakes once for thousands of messages.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::Thread,
    time::{Duration, Instant},
};

use crate::{BoxError, driver};

/// A counter on a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct PaddedCounter(AtomicU64);

/// The progress of one group.
pub(super) struct Window {
    size: u64,
    /// Messages that each receiver has received from each sender: by receiver, then by sender.
    progress: Vec<PaddedCounter>,
    senders: Vec<SenderState>,
    failed: AtomicBool,
}

struct SenderState {
    thread: OnceLock<Thread>,
    /// The progress of the slowest receiver that wakes the sender; `u64::MAX` while it is awake.
    wake_at: PaddedCounter,
}

impl Window {
    pub(super) fn new(size: usize, receivers: usize, senders: usize) -> Self {
        let awake =
            || SenderState { thread: OnceLock::new(), wake_at: PaddedCounter(AtomicU64::new(u64::MAX)) };
        Window {
            size: size as u64,
            progress: (0..receivers * senders).map(|_| PaddedCounter::default()).collect(),
            senders: (0..senders).map(|_| awake()).collect(),
            failed: AtomicBool::new(false),
        }
    }

    /// Sets the number of messages that a receiver has received from a sender, and wakes the sender if it can
    /// continue.
    #[inline]
    pub(super) fn advance(&self, receiver: usize, sender: usize, received: u64) {
        let Some(progress) = self.progress.get(receiver * self.senders.len() + sender) else { return };
        if received == progress.0.load(Ordering::Relaxed) {
            return;
        }
        progress.0.store(received, Ordering::SeqCst);
        let Some(state) = self.senders.get(sender) else { return };
        let wake_at = state.wake_at.0.load(Ordering::SeqCst);
        if received >= wake_at
            && self.slowest(sender) >= wake_at
            && let Some(thread) = state.thread.get()
        {
            thread.unpark();
        }
    }

    /// The progress of the sender's slowest receiver.
    fn slowest(&self, sender: usize) -> u64 {
        let of_sender = self.progress.iter().skip(sender).step_by(self.senders.len().max(1));
        of_sender.map(|progress| progress.0.load(Ordering::SeqCst)).min().unwrap_or(0)
    }

    /// A client of the group has failed: no sender waits any longer.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        for thread in self.senders.iter().filter_map(|sender| sender.thread.get()) {
            thread.unpark();
        }
    }

    /// Waits until `count` messages fit into the window behind the `sent` ones. `slowest` caches the progress
    /// of the slowest receiver for the sender.
    #[inline]
    pub(super) fn wait(
        &self,
        sender: usize,
        sent: u64,
        count: u64,
        slowest: &mut u64,
    ) -> Result<(), BoxError> {
        if sent + count <= *slowest + self.size {
            return Ok(());
        }
        *slowest = self.slowest(sender);
        if sent + count <= *slowest + self.size {
            return Ok(());
        }
        self.sleep(sender, sent.saturating_sub(self.size / 2), slowest)
    }

    #[cold]
    fn sleep(&self, sender: usize, wake_at: u64, slowest: &mut u64) -> Result<(), BoxError> {
        let Some(state) = self.senders.get(sender) else { return Ok(()) };
        state.thread.get_or_init(std::thread::current);
        state.wake_at.0.store(wake_at, Ordering::SeqCst);
        let begin = Instant::now();
        let result = loop {
            *slowest = self.slowest(sender);
            if *slowest >= wake_at {
                break Ok(());
            }
            if self.failed.load(Ordering::SeqCst) {
                break Err("stopped because another client failed".into());
            }
            if begin.elapsed() > driver::TIMEOUT {
                let missing = wake_at - *slowest;
                break Err(format!("{missing} messages did not arrive within {:?}", driver::TIMEOUT).into());
            }
            std::thread::park_timeout(Duration::from_secs(1));
        };
        state.wake_at.0.store(u64::MAX, Ordering::SeqCst);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_sender_is_never_more_than_a_window_ahead_of_the_slowest_receiver() {
        let (window, sent) = (Arc::new(Window::new(10, 2, 1)), Arc::new(AtomicU64::new(0)));
        let sender = std::thread::spawn({
            let (window, sent) = (window.clone(), sent.clone());
            move || {
                let mut slowest = 0;
                for number in 0..1000 {
                    if window.wait(0, number, 1, &mut slowest).is_err() {
                        return false;
                    }
                    sent.store(number + 1, Ordering::SeqCst);
                }
                true
            }
        });
        let mut received = 0;
        while received < 1000 {
            let sent = sent.load(Ordering::SeqCst);
            assert!(sent <= received + 10);
            if sent > received {
                window.advance(0, 0, sent);
                received += 1;
                window.advance(1, 0, received);
            }
        }
        assert_eq!(sender.join().ok(), Some(true));
    }

    #[test]
    fn a_failure_wakes_senders() {
        let window = Arc::new(Window::new(4, 1, 1));
        let sender = std::thread::spawn({
            let window = window.clone();
            move || window.wait(0, 4, 1, &mut 0).is_err()
        });
        window.fail();
        assert_eq!(sender.join().ok(), Some(true));
    }
}
