//! Results that are supplied later: the completing side, which a sink keeps, and the waiting side, which the
//! transport of the sender keeps. Owns no time limit: the transport does.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{
        RArc,
        ROption::{self, RNone, RSome},
    },
};
use elbus_protocol::Code;
use parking_lot::Mutex;
use std::sync::Arc;

use crate::{
    abi::{FromRaw, IntoRaw, NotifierObject, convert::sealed::Sealed},
    notifier::Notifier,
};

mod raw {
    //! The trait object behind [`PendingResult`](super::PendingResult).
    #![allow(missing_docs, non_local_definitions, clippy::undocumented_unsafe_blocks, unused_qualifications)]

    use abi_stable::{
        sabi_trait,
        std_types::{RArc, ROption},
    };

    use crate::notifier::NotifierObject;

    /// See [`PendingResult`](crate::PendingResult).
    #[sabi_trait]
    pub trait RawPending: Send + Sync + Clone + 'static {
        /// Returns whether all codes are known. If not, keeps the notifier, instead of the previous one, and
        /// calls it once when it is worth asking again.
        fn when_complete(&self, notifier: ROption<NotifierObject>) -> bool;
        /// Returns the code of a message of the run as on the wire; 0 if it is not known yet.
        #[sabi(last_prefix_field)]
        fn code(&self, frame: u32) -> u8;
    }
    pub type PendingObject = RawPending_TO<RArc<()>>;
}
pub use raw::{PendingObject, RawPending, RawPending_TO};

/// The result of a request that is supplied later: its recipient has [deferred](crate::Run::defer) it, or
/// waits to be registered. [`Client::take_pending`](crate::Client::take_pending) returns it.
///
/// Any thread may use it. No method blocks.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{Code, Completion, Notifier};
/// use std::sync::mpsc;
///
/// let (completion, pending) = Completion::pair();
/// let (sender, receiver) = mpsc::channel();
/// let notifier = Notifier::new(move || _ = sender.send("complete"));
/// assert!(!pending.when_complete(notifier) && pending.code(0).is_none());
/// completion.complete(Code::Busy);
/// assert_eq!((receiver.try_recv(), pending.code(0)), (Ok("complete"), Some(Code::Busy)));
/// ```
#[derive(Clone)]
pub struct PendingResult(PendingObject);

impl PendingResult {
    /// Returns whether the codes of all messages of the run are known.
    pub fn is_complete(&self) -> bool {
        self.0.when_complete(RNone)
    }

    /// Returns whether the codes of all messages of the run are known. If not, keeps the notifier, instead of
    /// a previous one, and calls it once, from any thread, when it is worth asking again.
    pub fn when_complete(&self, notifier: Notifier) -> bool {
        self.0.when_complete(RSome(notifier.into_raw()))
    }

    /// Returns the code of a message of the run, by its position; `None` if it is not known yet.
    pub fn code(&self, frame: usize) -> Option<Code> {
        match self.0.code(u32::try_from(frame).unwrap_or(u32::MAX)) {
            0 => None,
            code => Some(Code::from_wire(code).unwrap_or(Code::Other)),
        }
    }
}

impl Sealed for PendingResult {}

impl FromRaw<PendingObject> for PendingResult {
    fn from_raw(raw: PendingObject) -> Self {
        PendingResult(raw)
    }
}

impl IntoRaw for PendingResult {
    type Raw = PendingObject;

    fn into_raw(self) -> PendingObject {
        self.0
    }
}

impl std::fmt::Debug for PendingResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingResult({:?})", self.code(0))
    }
}

/// The obligation to supply the result of a run. Dropping it supplies [`Code::Other`].
///
/// Any thread may complete it, also one that is within a callback of the plugin: it calls a notifier of the
/// sender's transport, so no lock should be held.
#[must_use = "dropping it completes the run with an error"]
pub struct Completion(Option<Arc<Outcome>>);

/// What the two sides share. A leaf lock; nothing is called while it is held.
#[derive(Default)]
struct Outcome(Mutex<OutcomeState>);

#[derive(Default)]
struct OutcomeState {
    /// As on the wire; 0 until it is known.
    code: u8,
    notifier: Option<NotifierObject>,
}

#[derive(Clone)]
struct SharedOutcome(Arc<Outcome>);

impl RawPending for SharedOutcome {
    fn when_complete(&self, notifier: ROption<NotifierObject>) -> bool {
        let mut state = self.0.0.lock();
        let is_complete = state.code != 0;
        let mut previous = None;
        if let RSome(notifier) = notifier
            && !is_complete
        {
            previous = state.notifier.replace(notifier);
        }
        drop(state);
        drop(previous); // outside the lock: it can run code of another plugin
        is_complete
    }

    fn code(&self, _: u32) -> u8 {
        self.0.0.lock().code
    }
}

impl Completion {
    /// Creates both sides of a result.
    pub fn pair() -> (Completion, PendingResult) {
        let outcome = Arc::<Outcome>::default();
        let pending = RawPending_TO::from_ptr(RArc::new(SharedOutcome(outcome.clone())), TD_Opaque);
        (Completion(Some(outcome)), PendingResult(pending))
    }

    /// Supplies the result: one code for all messages of the run.
    pub fn complete(mut self, code: Code) {
        self.supply(code);
    }

    fn supply(&mut self, code: Code) {
        let Some(outcome) = self.0.take() else { return };
        let notifier = {
            let mut state = outcome.0.lock();
            state.code = code as u8;
            state.notifier.take()
        };
        if let Some(notifier) = notifier {
            notifier.notify();
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.supply(Code::Other);
    }
}

impl std::fmt::Debug for Completion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Completion")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    fn counter() -> (Arc<AtomicUsize>, Notifier) {
        let count = Arc::<AtomicUsize>::default();
        let counted = count.clone();
        (count, Notifier::new(move || _ = counted.fetch_add(1, SeqCst)))
    }

    #[test]
    fn a_result_notifies_once_and_only_the_last_notifier() {
        let (completion, pending) = Completion::pair();
        let ((first, notifier), (last, other)) = (counter(), counter());
        assert!(!pending.when_complete(notifier) && !pending.clone().when_complete(other));
        completion.complete(Code::Ok);
        assert_eq!((first.load(SeqCst), last.load(SeqCst)), (0, 1));
        let (late, notifier) = counter();
        assert!(pending.when_complete(notifier) && pending.is_complete());
        assert_eq!((late.load(SeqCst), pending.code(7)), (0, Some(Code::Ok)));
    }

    #[test]
    fn a_completion_that_is_dropped_is_an_error() {
        let (completion, pending) = Completion::pair();
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _kept = completion;
            std::panic::resume_unwind(Box::new("with the completion"));
        }));
        assert!(unwound.is_err());
        assert_eq!(pending.code(0), Some(Code::Other));
    }

    #[test]
    fn a_result_whose_waiting_side_is_gone_can_be_completed() {
        let (completion, pending) = Completion::pair();
        drop(pending);
        completion.complete(Code::Ok);
    }
}
