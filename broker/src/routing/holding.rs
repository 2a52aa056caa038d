//! Receivers whose queue is over its limit, and the senders that wait for them to drain. Owns who waits for whom; never a
//! queue, a limit or a clock.
//!
//! A receiver is full from the delivery that its sink answers with `FULL` until the sink says that it has drained, or it
//! has left. The core asks the sink for that once, and wakes all senders itself.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::abi::{RawWake, RawWake_TO, WakeObject};
use std::sync::{Arc, Weak};

use super::member::Member;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// [`Member::state`]: more is queued for it than may be, and it has not drained since.
const FULL: u8 = 2;

/// What the router knows of all receivers that are full.
#[derive(Default)]
pub(super) struct Holds {
    /// How many there are: while there are none, nobody looks for them.
    full: AtomicUsize,
}

/// Who waits for a receiver. Nothing is allocated while it is not full.
#[derive(Default)]
pub(super) struct Waiting(Option<Box<Full>>);

struct Full {
    senders: Vec<WakeObject>,
    _counted: Counted,
}

/// A full receiver, counted for as long as this lives.
struct Counted(Arc<Holds>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.full.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Holds {
    /// Whether any receiver is full.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.full.load(Ordering::Relaxed) > 0
    }
}

impl Member {
    /// Whether it is full.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.state.load(Ordering::Relaxed) & FULL != 0
    }

    /// Its sink has answered that it is full.
    #[cold]
    pub(super) fn fill(self: &Arc<Self>, holds: &Arc<Holds>) {
        {
            let mut waiting = self.waiting.lock();
            if self.state.fetch_or(FULL, Ordering::Relaxed) & FULL != 0 {
                return;
            }
            holds.full.fetch_add(1, Ordering::Relaxed);
            let _counted = Counted(holds.clone());
            waiting.0 = Some(Box::new(Full { senders: Vec::new(), _counted }));
        }
        let drained = Drained(Arc::downgrade(self));
        self.sink.when_drained(RawWake_TO::from_ptr(RArc::new(drained), TD_Opaque));
    }

    /// It has drained, or left: whoever waits for it goes on.
    pub(super) fn drained(&self) {
        let full = {
            let mut waiting = self.waiting.lock();
            self.state.fetch_and(!FULL, Ordering::Relaxed);
            waiting.0.take()
        };
        if let Some(full) = full {
            full.senders.into_iter().for_each(|sender| sender.wake());
        }
    }

    /// Wakes a sender once it has drained, at once if it is not full.
    pub(super) fn hold(&self, sender: WakeObject) {
        {
            let mut waiting = self.waiting.lock();
            if let Some(full) = &mut waiting.0 {
                return full.senders.push(sender);
            }
        }
        sender.wake();
    }
}

impl Drop for Waiting {
    /// A sink that never said that it has drained holds nobody once its client is forgotten.
    fn drop(&mut self) {
        if let Some(full) = self.0.take() {
            full.senders.into_iter().for_each(|sender| sender.wake());
        }
    }
}

/// What the sink of a full receiver calls.
#[derive(Clone)]
struct Drained(Weak<Member>);

impl RawWake for Drained {
    fn wake(&self) {
        if let Some(member) = self.0.upgrade() {
            member.drained();
        }
    }
}
