//! What other threads have for the thread of the instance: events of the broker, changed subscriptions,
//! results and receivers that have drained. Limited where clients could cause any number.

use elbus_bridge::ProxyId;
use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::Waker,
    time::Instant,
};

use crate::filter_changes::{Difference, FilterChange, FilterChanges};

/// Clients that registered or left and are not handled yet, from which on the list of clients is read again.
const MAX_CLIENT_EVENTS: usize = 65_536;

/// One input.
#[derive(Debug)]
pub(crate) enum Input {
    /// A primary client has registered.
    Registered { name: String, kind: String },
    /// A primary client has left.
    Left { name: String },
    /// Events about clients were missed.
    Missed,
    /// It is worth asking for a result again.
    Result { number: u64 },
    /// The receivers of a client have drained.
    Ready { proxy: ProxyId },
    /// The broker has ended the registration of a client.
    Closed { proxy: ProxyId, registration: u64 },
    /// The receivers of what NATS programs publish have drained.
    MirrorReady,
    /// Clients that the broker has not registered are tried again: its rules may have changed.
    Retry,
}

/// The inputs, and the phase of the instance.
#[derive(Default)]
pub(crate) struct Inputs {
    /// A leaf lock.
    queued: Mutex<Queued>,
    /// Whether the thread was woken since it last looked.
    is_woken: AtomicBool,
    /// A leaf lock.
    waker: Mutex<Option<Waker>>,
}

#[derive(Default)]
struct Queued {
    inputs: Vec<Input>,
    filters: FilterChanges,
    client_events: usize,
    phase: Phase,
}

/// The phase of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// It has started; nothing is connected yet.
    #[default]
    Started,
    /// It serves.
    Serving,
    /// It stops, and has until this time.
    Stopping(Instant),
}

impl Inputs {
    /// Adds an input and wakes the thread.
    pub(crate) fn push(&self, input: Input) {
        let mut queued = self.queued.lock();
        if matches!(input, Input::Registered { .. } | Input::Left { .. } | Input::Missed) {
            queued.client_events += 1;
            if queued.client_events > MAX_CLIENT_EVENTS {
                queued.forget_client_events();
                queued.inputs.push(Input::Missed);
                drop(queued);
                return self.wake();
            }
        }
        queued.inputs.push(input);
        drop(queued);
        self.wake();
    }

    /// The filters of a client have changed.
    pub(crate) fn filters_changed(&self, change: FilterChange) {
        self.queued.lock().filters.add(change);
        self.wake();
    }

    /// All subscriptions that there were are learnt.
    pub(crate) fn filters_learnt(&self) {
        self.queued.lock().filters.begin();
        self.wake();
    }

    /// Takes all inputs, and returns the phase.
    pub(crate) fn take(&self, into: &mut Vec<Input>) -> Phase {
        let mut queued = self.queued.lock();
        queued.client_events = 0;
        into.append(&mut queued.inputs);
        queued.phase
    }

    /// Takes the changes of filters.
    pub(crate) fn take_filters(&self) -> Difference {
        self.queued.lock().filters.take()
    }

    /// Returns the filters of local clients that were taken and have not ended.
    pub(crate) fn all_filters(&self) -> Vec<String> {
        self.queued.lock().filters.all()
    }

    /// Returns how many filters of local clients were taken and have not ended.
    pub(crate) fn known_filters(&self) -> usize {
        self.queued.lock().filters.known()
    }

    /// Begins to serve.
    pub(crate) fn serve(&self) {
        self.queued.lock().phase = Phase::Serving;
        self.wake();
    }

    /// Stops the instance until `end`.
    pub(crate) fn stop(&self, end: Instant) {
        self.queued.lock().phase = Phase::Stopping(end);
        self.wake();
    }

    /// Wakes the thread.
    pub(crate) fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            let waker = self.waker.lock().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Prepares the thread to look for inputs: later ones wake it.
    pub(crate) fn listen(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
        self.is_woken.store(false, Ordering::Release);
    }
}

impl Queued {
    fn forget_client_events(&mut self) {
        self.inputs
            .retain(|input| !matches!(input, Input::Registered { .. } | Input::Left { .. } | Input::Missed));
        self.client_events = 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::{
        sync::{Arc, atomic::AtomicUsize},
        task::Wake,
    };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_thread_is_woken_once_until_it_looks() {
        let (inputs, count) = (Inputs::default(), Arc::<Count>::default());
        inputs.listen(&count.clone().into());
        inputs.push(Input::MirrorReady);
        inputs.push(Input::MirrorReady);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        let mut taken = Vec::new();
        inputs.listen(&count.clone().into());
        assert_eq!((inputs.take(&mut taken), taken.len()), (Phase::Started, 2));
        inputs.serve();
        assert_eq!((count.0.load(Ordering::SeqCst), inputs.take(&mut taken)), (2, Phase::Serving));
    }

    #[test]
    fn too_many_events_become_one_that_says_so() {
        let inputs = Inputs::default();
        inputs.push(Input::MirrorReady);
        (0..MAX_CLIENT_EVENTS + 5).for_each(|_| inputs.push(Input::Left { name: String::new() }));
        let mut taken = Vec::new();
        inputs.take(&mut taken);
        assert!(matches!(taken[..], [Input::MirrorReady, Input::Missed, ..]), "{}", taken.len());
        assert_eq!(taken.len(), 2 + 4, "later ones are kept");
    }
}
