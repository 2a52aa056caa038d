//! How fast one client may send: whether a receiver of it is over its limit, and who waits for that to end. Has no
//! lock of its own, and calls no wake: it hands them out.

use elbus_plugin_api::Wake;

#[derive(Default)]
pub(crate) struct Pace {
    /// The broker has been asked to say when the receivers have drained.
    congested: bool,
    /// What was sent since to receivers over their limit. Tasks of one client do not know of each other, hence
    /// some of it is in order.
    overdraft: usize,
    waiting: Vec<Wake>,
    closed: bool,
}

impl Pace {
    /// Whether the client may send: not one that goes on and on without waiting.
    pub(crate) fn may_send(&self, allowance: usize) -> bool {
        self.overdraft <= allowance
    }

    /// So much went to a receiver over its limit. `true`: the broker should be asked to say when it has drained.
    pub(crate) fn slow_down(&mut self, bytes: usize) -> bool {
        self.overdraft = self.overdraft.saturating_add(bytes);
        !std::mem::replace(&mut self.congested, true)
    }

    /// The receivers have drained: everybody goes on.
    pub(crate) fn go_on(&mut self) -> Vec<Wake> {
        self.congested = false;
        self.overdraft = 0;
        std::mem::take(&mut self.waiting)
    }

    /// The client is closed: nobody waits any more.
    pub(crate) fn close(&mut self) -> Vec<Wake> {
        self.closed = true;
        self.go_on()
    }

    /// Lets a sender wait; `Some`: it need not.
    pub(crate) fn wait(&mut self, wake: Wake) -> Option<Wake> {
        if self.closed || !self.congested {
            return Some(wake);
        }
        self.waiting.push(wake);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_is_asked_once_and_an_overdraft_ends() {
        let mut pace = Pace::default();
        assert!(pace.wait(Wake::new(|| ())).is_some(), "nothing to wait for");
        assert!(pace.slow_down(60));
        assert!(!pace.slow_down(40));
        assert!(pace.may_send(100) && !pace.may_send(99));
        assert!(pace.wait(Wake::new(|| ())).is_none());
        assert!(pace.wait(Wake::new(|| ())).is_none());
        assert_eq!(pace.go_on().len(), 2);
        assert!(pace.may_send(0));
        assert!(pace.slow_down(1), "asked anew");
        pace.wait(Wake::new(|| ()));
        assert_eq!(pace.close().len(), 1);
        pace.slow_down(1);
        assert!(pace.wait(Wake::new(|| ())).is_some());
    }
}
