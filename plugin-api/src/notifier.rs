//! Callbacks that cross the boundary: how back-pressure does without a future.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use parking_lot::Mutex;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::abi::{IntoRaw, catch, convert::sealed::Sealed};

mod raw {
    //! The trait object behind [`Notifier`](super::Notifier).
    #![allow(missing_docs, non_local_definitions, clippy::undocumented_unsafe_blocks, unused_qualifications)]

    use abi_stable::{sabi_trait, std_types::RArc};

    /// A callback without arguments.
    #[sabi_trait]
    pub trait RawNotifier: Send + Sync + Clone + 'static {
        #[sabi(last_prefix_field)]
        fn notify(&self);
    }
    pub type NotifierObject = RawNotifier_TO<RArc<()>>;
}

pub use raw::{NotifierObject, RawNotifier, RawNotifier_TO};

/// A callback without arguments, called from any thread. It must not block.
///
/// # Examples
/// ```
/// use elbus_plugin_api::Notifier;
/// use std::sync::mpsc;
///
/// let (sender, receiver) = mpsc::channel();
/// let notifier = Notifier::new(move || _ = sender.send(()));
/// notifier.notify();
/// assert!(receiver.try_recv().is_ok());
/// ```
#[derive(Clone)]
pub struct Notifier(pub(crate) NotifierObject);

impl Notifier {
    /// Creates a notifier that runs `f`. A panic in it is caught and logged.
    pub fn new(f: impl Fn() + Send + Sync + 'static) -> Self {
        Notifier(RawNotifier_TO::from_ptr(RArc::new(Callback(Arc::new(f))), TD_Opaque))
    }

    /// Runs the callback.
    #[inline]
    pub fn notify(&self) {
        self.0.notify();
    }
}

impl Sealed for Notifier {}

impl IntoRaw for Notifier {
    type Raw = NotifierObject;

    fn into_raw(self) -> NotifierObject {
        self.0
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
        if let Err(panic) = catch::catch_notify(&*self.0) {
            tracing::error!(%panic, "panic in a notifier callback");
        }
    }
}

/// A future that completes when the [`Notifier`] created with it is called. Needs no runtime.
///
/// # Examples
/// ```no_run
/// use elbus_plugin_api::{Client, Notified};
///
/// async fn wait_for_receivers(client: &mut Client) {
///     let (notifier, notified) = Notified::pair();
///     client.when_ready(notifier);
///     notified.await;
/// }
/// ```
pub struct Notified {
    shared: Arc<Mutex<Signal>>,
}

#[derive(Default)]
struct Signal {
    called: bool,
    waker: Option<Waker>,
}

impl Notified {
    /// Creates a notifier and the future that waits for it.
    pub fn pair() -> (Notifier, Notified) {
        let shared = Arc::new(Mutex::new(Signal::default()));
        let signalled = shared.clone();
        let notifier = Notifier::new(move || {
            let mut signal = signalled.lock();
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
            empty => *empty = Some(context.waker().clone()),
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
    fn a_future_completes_when_its_notifier_is_called() {
        let flag = Arc::new(Flag(false.into()));
        let waker = Waker::from(flag.clone());
        let mut context = Context::from_waker(&waker);
        let (notifier, mut notified) = Notified::pair();
        assert!(Pin::new(&mut notified).poll(&mut context).is_pending());
        notifier.notify();
        assert!(flag.0.load(std::sync::atomic::Ordering::SeqCst));
        assert!(Pin::new(&mut notified).poll(&mut context).is_ready());
        flag.wake();
    }

    #[test]
    fn a_panic_in_a_notifier_is_caught() {
        Notifier::new(|| panic!("no")).notify();
    }
}
