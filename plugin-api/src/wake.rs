//! A callback that somebody else calls later: how back-pressure crosses the boundary without a future.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    abi::{RawWake, RawWake_TO, WakeObject},
    guard,
};
use parking_lot::Mutex;

/// A callback without arguments, to be called once, from any thread. It must not block.
#[derive(Clone)]
pub struct Wake(pub(crate) WakeObject);

impl Wake {
    /// A wake that runs `f`. A panic in it is caught and logged.
    pub fn new(f: impl Fn() + Send + Sync + 'static) -> Self {
        Wake(RawWake_TO::from_ptr(RArc::new(Callback(Arc::new(f))), TD_Opaque))
    }

    /// Calls it.
    #[inline]
    pub fn wake(&self) {
        self.0.wake();
    }

    /// The object that crosses the boundary.
    #[doc(hidden)]
    pub fn into_object(self) -> WakeObject {
        self.0
    }

    /// From the object that crossed the boundary.
    #[doc(hidden)]
    pub fn from_object(object: WakeObject) -> Self {
        Wake(object)
    }
}

struct Callback<F>(Arc<F>);

impl<F> Clone for Callback<F> {
    fn clone(&self) -> Self {
        Callback(self.0.clone())
    }
}

impl<F: Fn() + Send + Sync + 'static> RawWake for Callback<F> {
    fn wake(&self) {
        if let Err(panic) = guard::catch_wake(&*self.0) {
            tracing::error!(%panic, "panic in a wake callback");
        }
    }
}

/// A future that ends when the [`Wake`] made with it is called. Needs no runtime.
pub struct Woken {
    shared: Arc<Mutex<Signal>>,
}

#[derive(Default)]
struct Signal {
    called: bool,
    waker: Option<Waker>,
}

impl Woken {
    /// The wake, and the future that waits for it.
    pub fn pair() -> (Wake, Woken) {
        let shared = Arc::new(Mutex::new(Signal::default()));
        let theirs = shared.clone();
        let wake = Wake::new(move || {
            let mut signal = theirs.lock();
            signal.called = true;
            let waker = signal.waker.take();
            drop(signal);
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        (wake, Woken { shared })
    }
}

impl Future for Woken {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut signal = self.shared.lock();
        if signal.called {
            return Poll::Ready(());
        }
        match &mut signal.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Wake as _;

    struct Flag(std::sync::atomic::AtomicBool);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[test]
    fn a_future_ends_with_its_wake() {
        let flag = Arc::new(Flag(false.into()));
        let waker = Waker::from(flag.clone());
        let mut context = Context::from_waker(&waker);
        let (wake, mut woken) = Woken::pair();
        assert!(Pin::new(&mut woken).poll(&mut context).is_pending());
        wake.wake();
        assert!(flag.0.load(std::sync::atomic::Ordering::SeqCst));
        assert!(Pin::new(&mut woken).poll(&mut context).is_ready());
        flag.wake();
    }

    #[test]
    fn a_panic_in_a_wake_stays_there() {
        Wake::new(|| panic!("no")).wake();
    }
}
