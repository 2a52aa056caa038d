//! When wakes are called: never while this thread holds the client of a peer, and never one inside another.
//!
//! A wake must not block, but one that runs its task at once is easily written, and its task may send. Called from
//! within a dispatch it would want the very client that this thread holds, or go down the stack without end where
//! two tasks answer each other. So wakes wait until the thread has let go, then they are called in turn.

use elbus_plugin_api::Wake;
use std::{cell::RefCell, collections::VecDeque};

#[derive(Default)]
struct Owed {
    /// How many times [`holding`] has been entered, counting the one that calls wakes.
    depth: u32,
    wakes: VecDeque<Wake>,
}

thread_local! {
    static OWED: RefCell<Owed> = RefCell::default();
}

/// Runs `f`, which may take the client of a peer and has released it when it returns. Wakes that fall due inside
/// are called afterwards.
pub(crate) fn holding<R>(f: impl FnOnce() -> R) -> R {
    let _holding = Holding::enter();
    f()
}

/// Calls the wakes, now or as soon as this thread holds nothing. To be called without any lock of this plugin but
/// that of a client.
pub(crate) fn wake(wakes: impl IntoIterator<Item = Wake>) {
    let mut wakes = wakes.into_iter().peekable();
    if wakes.peek().is_none() {
        return;
    }
    let _holding = Holding::enter();
    for wake in wakes {
        let mut wake = Some(wake);
        let _ = OWED.try_with(|owed| owed.borrow_mut().wakes.extend(wake.take()));
        // a thread that is ending has no list any more
        if let Some(wake) = wake {
            wake.wake();
        }
    }
}

struct Holding;

impl Holding {
    fn enter() -> Self {
        let _ = OWED.try_with(|owed| owed.borrow_mut().depth += 1);
        Holding
    }

    /// The next wake if this is the outermost, which else is left.
    fn leave() -> Option<Wake> {
        let next = OWED.try_with(|owed| {
            let mut owed = owed.borrow_mut();
            let next = if owed.depth == 1 { owed.wakes.pop_front() } else { None };
            if next.is_none() {
                owed.depth = owed.depth.saturating_sub(1);
            }
            next
        });
        next.ok().flatten()
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        while let Some(wake) = Holding::leave() {
            wake.wake();
        }
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
            Wake::new(move || course.lock().push(text))
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
        fn link(chain: &Arc<Chain>, left: u32) -> Wake {
            let chain = chain.clone();
            Wake::new(move || {
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
        let wakes = [Wake::new(move || *counted.lock() += 1)];
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            holding(|| {
                wake(wakes);
                std::panic::resume_unwind(Box::new(()));
            });
        }));
        assert!(result.is_err());
        assert_eq!(*woken.lock(), 1);
        assert_eq!(OWED.with(|owed| owed.borrow().depth), 0);
    }
}
