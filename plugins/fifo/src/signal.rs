//! What notifiers the thread of a FIFO from `poll`: the end of the instance, or a receiver that has drained. Never
//! blocks whoever signals.

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

/// A stop flag, and a descriptor that becomes readable when something happened.
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

    /// The instance ends.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.poke();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A notifier, and whether it was called.
    pub(crate) fn ready(self: &Arc<Self>) -> (Notifier, Arc<AtomicBool>) {
        let ready = Arc::new(AtomicBool::new(false));
        let (signal, called) = (self.clone(), ready.clone());
        let notifier = Notifier::new(move || {
            called.store(true, Ordering::Release);
            signal.poke();
        });
        (notifier, ready)
    }

    /// Waits for `ready`, `limit` at most, less where the instance ends. `false` where the limit ran out.
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

    /// Forgets earlier signals, but not that the instance ends.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }

    fn poke(&self) {
        // refused only where the counter is full, which notifiers as well
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
    fn waits_end_with_the_wake_the_stop_or_the_limit() {
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
