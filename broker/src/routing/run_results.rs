//! The results of a run whose messages went different ways, some of which are still pending. Owns no lock:
//! the parts have their own.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, ROption},
};
use elbus_plugin_api::{
    Code,
    abi::{NotifierObject, PendingObject, RawPending, RawPending_TO},
};
use std::{ops::Range, sync::Arc};

/// The codes that are known, and the parts whose codes are supplied later.
pub(super) struct RunResults {
    pub(super) codes: Vec<u8>,
    pub(super) pending: Vec<(Range<usize>, PendingObject)>,
}

impl RunResults {
    /// Returns the results as one.
    pub(super) fn into_object(self) -> PendingObject {
        RawPending_TO::from_ptr(RArc::new(SharedResults(Arc::new(self))), TD_Opaque)
    }
}

#[derive(Clone)]
struct SharedResults(Arc<RunResults>);

impl RawPending for SharedResults {
    fn when_complete(&self, notifier: ROption<NotifierObject>) -> bool {
        // notified by one part at a time: the waiting thread asks again
        self.0.pending.iter().all(|(_, part)| part.when_complete(notifier.clone()))
    }

    fn code(&self, frame: u32) -> u8 {
        let frame = frame as usize;
        match self.0.pending.iter().find(|(frames, _)| frames.contains(&frame)) {
            Some((frames, part)) => part.code((frame - frames.start) as u32),
            None => self.0.codes.get(frame).copied().unwrap_or(Code::Other as u8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elbus_plugin_api::{Completion, Notifier, PendingResult, abi::FromRaw, abi::IntoRaw};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn the_results_are_complete_once_all_parts_are_and_each_message_has_its_own_code() {
        let ((one, first), (other, last)) = (Completion::pair(), Completion::pair());
        let codes = vec![Code::Ok as u8, Code::Ok as u8, Code::BadData as u8, Code::Ok as u8];
        let pending = vec![(0..2, first.into_raw()), (3..4, last.into_raw())];
        let results = PendingResult::from_raw(RunResults { codes, pending }.into_object());
        let count = Arc::<AtomicUsize>::default();
        let notifier = || {
            let count = count.clone();
            Notifier::new(move || _ = count.fetch_add(1, SeqCst))
        };
        assert!(!results.when_complete(notifier()));
        other.complete(Code::Busy);
        assert!(!results.when_complete(notifier()));
        one.complete(Code::NotRegistered);
        assert!(results.when_complete(notifier()) && count.load(SeqCst) > 0);
        let codes: Vec<_> = (0..5).map(|frame| results.code(frame).unwrap()).collect();
        let expected = [Code::NotRegistered, Code::NotRegistered, Code::BadData, Code::Busy, Code::Other];
        assert_eq!(codes, expected);
    }
}
