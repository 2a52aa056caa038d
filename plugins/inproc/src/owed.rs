//! When notifiers are called: never while this thread holds the client of a peer, and never one inside another.
//!
//! A notifier must not block, but one that runs its task at once is easily written, and its task may send. Called from
//! within a dispatch it would want the very client that this thread holds, or go down the stack without end where
//! two tasks answer each other. So notifiers wait until the thread has let go, then they are called in turn.

use elbus_plugin_api::Notifier;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

thread_local! {
    /// How many times [`holding`] has been entered, counting the one that calls notifiers; and how many notifiers are due.
    static HELD: Cell<Held> = const { Cell::new(Held { depth: 0, due: 0 }) };
    static DUE: RefCell<VecDeque<Notifier>> = const { RefCell::new(VecDeque::new()) };
}

/// Apart from the notifiers, so that looking at it costs nothing where there are none.
#[derive(Clone, Copy)]
struct Held {
    depth: u32,
    due: u32,
}

/// Runs `f`, which may take the client of a peer and has released it when it returns. Wakes that fall due inside
/// are called afterwards.
#[inline]
pub(crate) fn holding<R>(f: impl FnOnce() -> R) -> R {
    let _holding = Holding::enter();
    f()
}

/// Whether notifiers that fall due now wait until this thread has let go.
#[inline]
pub(crate) fn is_holding() -> bool {
    HELD.get().depth > 0
}

/// Calls the notifiers, now or as soon as this thread holds nothing. To be called without any lock of this plugin but
/// that of a client.
#[inline]
pub(crate) fn wake(notifiers: impl IntoIterator<Item = Notifier>) {
    for notifier in notifiers {
        let _holding = Holding::enter();
        owe(notifier);
    }
}

fn owe(notifier: Notifier) {
    let mut notifier = Some(notifier);
    let _ = DUE.try_with(|due| due.borrow_mut().extend(notifier.take()));
    match notifier {
        None => HELD.set(Held { due: HELD.get().due + 1, ..HELD.get() }),
        // a thread that is ending has no list any more
        Some(notifier) => notifier.notify(),
    }
}

struct Holding;

impl Holding {
    #[inline]
    fn enter() -> Self {
        let held = HELD.get();
        HELD.set(Held { depth: held.depth + 1, ..held });
        Holding
    }

    /// The outermost calls what is due; what is called meanwhile and falls due is called in turn.
    #[cold]
    fn call_due() {
        while let Some(notifier) = DUE.try_with(|due| due.borrow_mut().pop_front()).ok().flatten() {
            let held = HELD.get();
            HELD.set(Held { due: held.due.saturating_sub(1), ..held });
            notifier.notify();
        }
    }
}

impl Drop for Holding {
    #[inline]
    fn drop(&mut self) {
        let held = HELD.get();
        if held.depth == 1 && held.due > 0 {
            Holding::call_due();
        }
        HELD.set(Held { depth: held.depth - 1, due: HELD.get().due });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[test]
    fn wakes_wait_until_nothing_is_held() {
        let course = Arc::new(Mutex::new(Vec::new()));
        let note = |text: &'static str| {
            let course = course.clone();
            Notifier::new(move || course.lock().push(text))
        };
        holding(|| {
            wake([note("inner")]);
            holding(|| wake([note("innermost")]));
            course.lock().push("held");
        });
        wake([note("at once")]);
        assert_eq!(*course.lock(), ["held", "inner", "innermost", "at once"]);
    }

    #[test]
    fn wakes_that_wake_do_not_nest() {
        #[derive(Default)]
        struct Chain {
            depth: Mutex<(u32, u32)>,
        }
        fn link(chain: &Arc<Chain>, left: u32) -> Notifier {
            let chain = chain.clone();
            Notifier::new(move || {
                {
                    let mut depth = chain.depth.lock();
                    depth.0 += 1;
                    depth.1 = depth.1.max(depth.0);
                }
                if left > 0 {
                    holding(|| wake([link(&chain, left - 1)]));
                }
                chain.depth.lock().0 -= 1;
            })
        }
        let chain = Arc::new(Chain::default());
        wake([link(&chain, 100_000)]);
        assert_eq!(*chain.depth.lock(), (0, 1));
    }

    #[test]
    fn a_panic_while_holding_leaves_nothing_behind() {
        let woken = Arc::new(Mutex::new(0));
        let counted = woken.clone();
        let notifiers = [Notifier::new(move || *counted.lock() += 1)];
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            holding(|| {
                wake(notifiers);
                std::panic::resume_unwind(Box::new(()));
            });
        }));
        assert!(result.is_err());
        assert_eq!(*woken.lock(), 1);
        assert_eq!(HELD.get().depth, 0);
    }
}
