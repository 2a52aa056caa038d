//! Flow control of one sending client: how much it can still send to receivers over their limit, and the
//! notifiers of its waiting tasks. Returns notifiers and never calls them.

use elbus_plugin_api::Notifier;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[derive(Default)]
pub(crate) struct SendCredit {
    /// Bytes sent to receivers over their limit since the broker was asked for a notification. The tasks of a
    /// client do not know of each other, so some overdraft is normal. Read without the lock: a task that
    /// reads an old value sends one more message.
    overdraft: AtomicUsize,
    /// A leaf lock.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The broker has been asked for a notification when the receivers have drained.
    congested: bool,
    waiting: Vec<Notifier>,
    closed: bool,
}

impl SendCredit {
    /// Returns whether the client can send: `false` once it has overdrawn more than `limit` bytes without
    /// waiting.
    #[inline]
    pub(crate) fn may_send(&self, limit: usize) -> bool {
        self.overdraft.load(Relaxed) <= limit
    }

    /// Adds bytes sent to a receiver over its limit. `true`: the caller must ask the broker for a
    /// notification.
    pub(crate) fn add_overdraft(&self, bytes: usize) -> bool {
        let mut state = self.state.lock();
        self.overdraft.store(self.overdraft.load(Relaxed).saturating_add(bytes), Relaxed);
        !std::mem::replace(&mut state.congested, true)
    }

    /// Ends the overdraft after the receivers have drained; returns the notifiers of the waiting tasks.
    pub(crate) fn reset(&self) -> Vec<Notifier> {
        self.clear(false)
    }

    /// Closes the client's side; returns the notifiers of the waiting tasks. No task waits afterwards.
    pub(crate) fn close(&self) -> Vec<Notifier> {
        self.clear(true)
    }

    fn clear(&self, closed: bool) -> Vec<Notifier> {
        let mut state = self.state.lock();
        state.closed |= closed;
        state.congested = false;
        self.overdraft.store(0, Relaxed);
        std::mem::take(&mut state.waiting)
    }

    /// Stores the notifier of a waiting task; returns it if the task can send now.
    pub(crate) fn when_ready(&self, notifier: Notifier) -> Option<Notifier> {
        let mut state = self.state.lock();
        if state.closed || !state.congested {
            return Some(notifier);
        }
        state.waiting.push(notifier);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_is_requested_once_until_the_overdraft_is_reset() {
        let credit = SendCredit::default();
        assert!(credit.when_ready(Notifier::new(|| ())).is_some(), "nothing to wait for");
        assert!(credit.add_overdraft(60));
        assert!(!credit.add_overdraft(40));
        assert!(credit.may_send(100) && !credit.may_send(99));
        assert!(credit.when_ready(Notifier::new(|| ())).is_none());
        assert!(credit.when_ready(Notifier::new(|| ())).is_none());
        assert_eq!(credit.reset().len(), 2);
        assert!(credit.may_send(0));
        assert!(credit.add_overdraft(1), "asked again");
        credit.when_ready(Notifier::new(|| ()));
        assert_eq!(credit.close().len(), 1);
        credit.add_overdraft(1);
        assert!(credit.when_ready(Notifier::new(|| ())).is_some());
    }
}
