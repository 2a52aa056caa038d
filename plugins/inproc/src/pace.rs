//! How fast one client may send: whether a receiver of it is over its limit, and who waits for that to end. Calls no
//! notifier: it hands them out.

use elbus_plugin_api::Notifier;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[derive(Default)]
pub(crate) struct Pace {
    /// What was sent to receivers over their limit since the broker was asked. Tasks of one client do not know of
    /// each other, hence some of it is in order. Read without the lock: whoever reads an old value sends one more.
    overdraft: AtomicUsize,
    /// A leaf.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The broker has been asked to say when the receivers have drained.
    congested: bool,
    waiting: Vec<Notifier>,
    closed: bool,
}

impl Pace {
    /// Whether the client may send: not one that goes on and on without waiting.
    #[inline]
    pub(crate) fn may_send(&self, allowance: usize) -> bool {
        self.overdraft.load(Relaxed) <= allowance
    }

    /// So much went to a receiver over its limit. `true`: the broker should be asked to say when it has drained.
    pub(crate) fn slow_down(&self, bytes: usize) -> bool {
        let mut state = self.state.lock();
        self.overdraft.store(self.overdraft.load(Relaxed).saturating_add(bytes), Relaxed);
        !std::mem::replace(&mut state.congested, true)
    }

    /// The receivers have drained: everybody goes on.
    pub(crate) fn go_on(&self) -> Vec<Notifier> {
        self.end(false)
    }

    /// The client is closed: nobody waits any more.
    pub(crate) fn close(&self) -> Vec<Notifier> {
        self.end(true)
    }

    fn end(&self, closed: bool) -> Vec<Notifier> {
        let mut state = self.state.lock();
        state.closed |= closed;
        state.congested = false;
        self.overdraft.store(0, Relaxed);
        std::mem::take(&mut state.waiting)
    }

    /// Lets a sender wait; `Some`: it need not.
    pub(crate) fn wait(&self, notifier: Notifier) -> Option<Notifier> {
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
    fn the_broker_is_asked_once_and_an_overdraft_ends() {
        let pace = Pace::default();
        assert!(pace.wait(Notifier::new(|| ())).is_some(), "nothing to wait for");
        assert!(pace.slow_down(60));
        assert!(!pace.slow_down(40));
        assert!(pace.may_send(100) && !pace.may_send(99));
        assert!(pace.wait(Notifier::new(|| ())).is_none());
        assert!(pace.wait(Notifier::new(|| ())).is_none());
        assert_eq!(pace.go_on().len(), 2);
        assert!(pace.may_send(0));
        assert!(pace.slow_down(1), "asked anew");
        pace.wait(Notifier::new(|| ()));
        assert_eq!(pace.close().len(), 1);
        pace.slow_down(1);
        assert!(pace.wait(Notifier::new(|| ())).is_some());
    }
}
