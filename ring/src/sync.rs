//! The atomics of the rings: those of std, and in the models of this crate those of loom, which tries the
//! orders and the values that the memory model of the language allows. Owns how a flag of the peer is taken,
//! and the fences between the words of the two sides.

use std::sync::atomic::Ordering::{AcqRel, Relaxed, SeqCst};

#[cfg(all(test, elbus_model))]
pub(crate) use loom::sync::atomic::AtomicU32;
#[cfg(not(all(test, elbus_model)))]
pub(crate) use std::sync::atomic::AtomicU32;

#[cfg(all(test, elbus_model))]
use loom::sync::atomic::fence;
#[cfg(not(all(test, elbus_model)))]
use std::sync::atomic::fence;

/// The fences, by what is stored before one and loaded after it. Each has its counterpart on the other side;
/// without either a wake-up is lost, which the models show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fence {
    /// A producer that has written; its counterpart is [`SleepsThenTail`](Self::SleepsThenTail).
    TailThenSleeps,
    /// A consumer before it sleeps.
    SleepsThenTail,
    /// A consumer that has read; its counterpart is [`WantsRoomThenHead`](Self::WantsRoomThenHead).
    HeadThenWantsRoom,
    /// A producer before it sleeps.
    WantsRoomThenHead,
}

impl Fence {
    /// Executes the fence.
    #[inline]
    pub(crate) fn execute(self) {
        #[cfg(all(test, elbus_model))]
        if REMOVED.get() == Some(self) {
            return;
        }
        fence(SeqCst);
    }
}

#[cfg(all(test, elbus_model))]
thread_local! {
    /// The fence that a model does without. loom runs all threads of a model on one.
    pub(crate) static REMOVED: std::cell::Cell<Option<Fence>> = const { std::cell::Cell::new(None) };
}

/// Clears a flag that the peer has set; returns whether it was set, so that the peer is woken once. A flag
/// that is not set costs no write.
#[inline]
pub(crate) fn take_flag(flag: &AtomicU32) -> bool {
    let value = flag.load(Relaxed);
    value != 0 && flag.compare_exchange(value, 0, AcqRel, Relaxed).is_ok()
}
