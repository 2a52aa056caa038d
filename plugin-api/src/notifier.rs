//! A callback that somebody else calls later: how back-pressure crosses the boundary without a future.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    abi::{NotifierObject, RawNotifier, RawNotifier_TO},
    guard,
};
use parking_lot::Mutex;

/// A callback without arguments, to be called once, from any thread. It must not block.
#[derive(Clone)]
pub struct Notifier(pub(crate) NotifierObject);

impl Notifier {
    /// A notifier that runs `f`. A panic in it is caught and logged.
    pub fn new(f: impl Fn() + Send + Sync + 'static) -> Self {
        Notifier(RawNotifier_TO::from_ptr(RArc::new(Callback(Arc::new(f))), TD_Opaque))
    }

    /// Calls it.
    #[inline]
    pub fn notify(&self) {
        self.0.notify();
    }

    /// The object that crosses the boundary.
    #[doc(hidden)]
    pub fn into_object(self) -> NotifierObject {
        self.0
    }

    /// From the object that crossed the boundary.
    #[doc(hidden)]
    pub fn from_object(object: NotifierObject) -> Self {
        Notifier(object)
    }
}

struct Callback<F>(Arc<F>);

impl<F> Clone for Callback<F> {
    fn clone(&self) -> Self {
        Callback(self.0.clone())
    }
}

impl<F: Fn() + Send + Sync + 'static> RawNotifier for Callback<F> {
    fn notify(&self) {
        if let Err(panic) = guard::catch_notify(&*self.0) {
            tracing::error!(%panic, "panic in a notifier callback");
        }
    }
}

/// A future that ends when the [`Notifier`] made with it is called. Needs no runtime.
pub struct Notified {
    shared: Arc<Mutex<Signal>>,
}

#[derive(Default)]
struct Signal {
    called: bool,
    waker: Option<Waker>,
}

impl Notified {
    /// The notifier, and the future that waits for it.
    pub fn pair() -> (Notifier, Notified) {
        let shared = Arc::new(Mutex::new(Signal::default()));
        let theirs = shared.clone();
        let notifier = Notifier::new(move || {
            let mut signal = theirs.lock();
            signal.called = true;
            let waker = signal.waker.take();
            drop(signal);
            if let Some(waker) = waker {
                waker.wake();
            }
        });
        (notifier, Notified { shared })
    }
}

impl Future for Notified {
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
        let (notifier, mut woken) = Notified::pair();
        assert!(Pin::new(&mut woken).poll(&mut context).is_pending());
        notifier.notify();
        assert!(flag.0.load(std::sync::atomic::Ordering::SeqCst));
        assert!(Pin::new(&mut woken).poll(&mut context).is_ready());
        flag.wake();
    }

    #[test]
    fn a_panic_in_a_wake_stays_there() {
        Notifier::new(|| panic!("no")).notify();
    }
}
