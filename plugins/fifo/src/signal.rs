//! Wakes the thread of a FIFO from `poll`, for a stop or when receivers have drained. Never blocks the
//! caller.

use elbus_plugin_api::Notifier;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A stop flag, and an eventfd that becomes readable with each signal.
#[derive(Debug)]
pub(crate) struct Signal {
    event: OwnedFd,
    stopping: AtomicBool,
}

impl Signal {
    pub(crate) fn new() -> Result<Self, Errno> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Signal { event, stopping: AtomicBool::new(false) })
    }

    /// Ends the instance's thread.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.signal();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Returns a notifier and a flag that it sets.
    pub(crate) fn ready(self: &Arc<Self>) -> (Notifier, Arc<AtomicBool>) {
        let ready = Arc::new(AtomicBool::new(false));
        let (signal, called) = (self.clone(), ready.clone());
        let notifier = Notifier::new(move || {
            called.store(true, Ordering::Release);
            signal.signal();
        });
        (notifier, ready)
    }

    /// Waits for `ready` or a stop, for `limit` at most; `false` if the limit expired.
    pub(crate) fn wait_for(&self, ready: &AtomicBool, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while !self.is_stopping() && !ready.load(Ordering::Acquire) {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return false };
            let left = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let _ = poll(&mut [PollFd::new(&self.event, PollFlags::IN)], Some(&left));
            self.clear();
        }
        true
    }

    /// Clears earlier signals, but not the stop flag.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }

    fn signal(&self) {
        // fails only if the counter is full, and then the eventfd is readable already
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_notifier_the_stop_or_the_limit() {
        let signal = Arc::new(Signal::new().unwrap());
        let (notifier, ready) = signal.ready();
        assert!(!signal.wait_for(&ready, Duration::from_millis(1)));
        let waking = std::thread::spawn(move || notifier.notify());
        assert!(signal.wait_for(&ready, Duration::from_secs(60)));
        waking.join().unwrap();
        let (_, ready) = signal.ready();
        let stopping = std::thread::spawn({
            let signal = signal.clone();
            move || signal.stop()
        });
        assert!(signal.wait_for(&ready, Duration::from_secs(60)));
        assert!(signal.is_stopping());
        stopping.join().unwrap();
    }
}
