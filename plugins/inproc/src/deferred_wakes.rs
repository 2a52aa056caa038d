//! Defers notifiers, so that they are never called while this thread locks the client of a peer, and never
//! within each other.
//!
//! A notifier must not block, but one that runs its task immediately is easily written, and its task can
//! send. Called within a dispatch, it would need the client that this thread has locked, or would recurse
//! indefinitely if two tasks answer each other. Notifiers are therefore queued until the thread has released
//! the client, then called one after the other.

use elbus_plugin_api::Notifier;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

thread_local! {
    /// The nesting depth of [`deferring`], including the level that calls notifiers, and the number of queued
    /// notifiers.
    static DEFERRAL: Cell<Deferral> = const { Cell::new(Deferral { depth: 0, queued: 0 }) };
    static QUEUE: RefCell<VecDeque<Notifier>> = const { RefCell::new(VecDeque::new()) };
}

/// Separate from the queue, so that reading it is cheap if the queue is empty.
#[derive(Clone, Copy)]
struct Deferral {
    depth: u32,
    queued: u32,
}

/// Runs `f`, which can lock the client of a peer and must release it before it returns. Notifiers passed to
/// [`wake`] inside are called afterwards.
#[inline]
pub(crate) fn deferring<R>(f: impl FnOnce() -> R) -> R {
    let _guard = DeferGuard::enter();
    f()
}

/// Returns whether [`wake`] defers notifiers now.
#[inline]
pub(crate) fn is_deferring() -> bool {
    DEFERRAL.get().depth > 0
}

/// Calls the notifiers, now or at the end of this thread's outermost [`deferring`]. The caller must not hold
/// a lock of this plugin other than that of a client.
#[inline]
pub(crate) fn wake(notifiers: impl IntoIterator<Item = Notifier>) {
    for notifier in notifiers {
        let _guard = DeferGuard::enter();
        enqueue(notifier);
    }
}

fn enqueue(notifier: Notifier) {
    let mut notifier = Some(notifier);
    let _ = QUEUE.try_with(|queue| queue.borrow_mut().extend(notifier.take()));
    match notifier {
        None => DEFERRAL.set(Deferral { queued: DEFERRAL.get().queued + 1, ..DEFERRAL.get() }),
        // the queue of an ending thread is already destroyed
        Some(notifier) => notifier.notify(),
    }
}

struct DeferGuard;

impl DeferGuard {
    #[inline]
    fn enter() -> Self {
        let deferral = DEFERRAL.get();
        DEFERRAL.set(Deferral { depth: deferral.depth + 1, ..deferral });
        DeferGuard
    }

    /// Calls the queued notifiers and those that they queue. Used only at the outermost level.
    #[cold]
    fn call_queued() {
        while let Some(notifier) = QUEUE.try_with(|queue| queue.borrow_mut().pop_front()).ok().flatten() {
            let deferral = DEFERRAL.get();
            DEFERRAL.set(Deferral { queued: deferral.queued.saturating_sub(1), ..deferral });
            notifier.notify();
        }
    }
}

impl Drop for DeferGuard {
    #[inline]
    fn drop(&mut self) {
        let deferral = DEFERRAL.get();
        if deferral.depth == 1 && deferral.queued > 0 {
            DeferGuard::call_queued();
        }
        DEFERRAL.set(Deferral { depth: deferral.depth - 1, queued: DEFERRAL.get().queued });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[test]
    fn notifiers_are_called_when_the_outermost_deferral_ends() {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let record = |text: &'static str| {
            let calls = calls.clone();
            Notifier::new(move || calls.lock().push(text))
        };
        deferring(|| {
            wake([record("inner")]);
            deferring(|| wake([record("innermost")]));
            calls.lock().push("deferring");
        });
        wake([record("at once")]);
        assert_eq!(*calls.lock(), ["deferring", "inner", "innermost", "at once"]);
    }

    #[test]
    fn notifiers_that_notify_do_not_nest() {
        #[derive(Default)]
        struct Nesting {
            depth: Mutex<(u32, u32)>,
        }
        fn counted(nesting: &Arc<Nesting>, left: u32) -> Notifier {
            let nesting = nesting.clone();
            Notifier::new(move || {
                {
                    let mut depth = nesting.depth.lock();
                    depth.0 += 1;
                    depth.1 = depth.1.max(depth.0);
                }
                if left > 0 {
                    deferring(|| wake([counted(&nesting, left - 1)]));
                }
                nesting.depth.lock().0 -= 1;
            })
        }
        let nesting = Arc::new(Nesting::default());
        wake([counted(&nesting, 100_000)]);
        assert_eq!(*nesting.depth.lock(), (0, 1));
    }

    #[test]
    fn a_panic_while_deferring_drops_no_state() {
        let woken = Arc::new(Mutex::new(0));
        let counted = woken.clone();
        let notifiers = [Notifier::new(move || *counted.lock() += 1)];
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            deferring(|| {
                wake(notifiers);
                std::panic::resume_unwind(Box::new(()));
            });
        }));
        assert!(result.is_err());
        assert_eq!(*woken.lock(), 1);
        assert_eq!(DEFERRAL.get().depth, 0);
    }
}
