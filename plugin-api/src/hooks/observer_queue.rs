//! The queue between the senders whose messages are observed and the observer. Bounded in bytes; what does
//! not fit is dropped and counted, so that an observer holds no sender.

use abi_stable::{
    StableAbi,
    std_types::{ROption, RString, RVec},
};
use elbus_protocol::{Code, FrameKind, Op, Qos};
use parking_lot::Mutex;
use std::{
    mem::size_of,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use super::scope::HookScope;
use crate::{
    abi::NotifierObject,
    buffer::{Payload, SharedBytes},
    event::unix_nanos,
    inproc::OwnedRun,
};

/// Consecutive messages of one sender that had the same target and result.
#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct ObservedRun {
    pub(super) op: u8,
    pub(super) code: u8,
    flags: u16,
    pub(super) recipients: u32,
    pub(super) sender_id: u64,
    pub(super) unix_nanos: u64,
    /// Messages that were dropped right before this run.
    pub(super) missed: u64,
    pub(super) receiver: RString,
    /// With the target in place of the topic.
    pub(super) run: OwnedRun,
}

/// Messages that have been routed, borrowed from their sender.
#[derive(Clone, Copy)]
pub struct RoutedRun<'a> {
    /// Operation.
    pub op: Op,
    /// Quality of service.
    pub qos: Qos,
    /// Name of the sender.
    pub sender: &'a str,
    /// Registration of the sender; 0 is the broker.
    pub sender_id: u64,
    /// Name, mask or topic.
    pub target: &'a str,
    /// Receiver of a limited publication, else empty.
    pub receiver: &'a str,
    /// Payloads; at least one.
    pub payloads: &'a [Payload<'a>],
    /// The only payload in a form that can be kept.
    pub shared: Option<&'a SharedBytes>,
    /// Result.
    pub code: Code,
    /// Clients that it was queued for.
    pub recipients: u32,
}

impl RoutedRun<'_> {
    fn to_observed(self, missed: u64, unix_nanos: u64) -> ObservedRun {
        let kind = FrameKind::Publish;
        let run = OwnedRun::from_parts(kind, self.qos, self.sender, self.target, self.payloads, self.shared);
        ObservedRun {
            op: self.op as u8,
            code: self.code as u8,
            flags: 0,
            recipients: self.recipients,
            sender_id: self.sender_id,
            unix_nanos,
            missed,
            receiver: self.receiver.into(),
            run,
        }
    }

    /// Returns about how much memory it takes in a queue.
    fn bytes(&self) -> usize {
        let payloads: usize = self.payloads.iter().map(|payload| payload.len() + size_of::<u64>()).sum();
        size_of::<ObservedRun>() + self.sender.len() + self.target.len() + self.receiver.len() + payloads
    }
}

/// Runs on their way to an observer, in order.
pub type ObservedRuns = RVec<ObservedRun>;

/// The queue of an observer. Clones share it.
#[derive(Clone)]
pub struct ObserverQueue(Arc<Shared>);

struct Shared {
    /// Bytes that can be queued.
    limit: usize,
    /// Whether nothing is queued any more from the first run that does not fit until the reader has taken
    /// what is queued. Senders then do not even take the lock.
    is_sampled: bool,
    /// Whether nothing is queued at present. Only for samples.
    is_paused: AtomicBool,
    /// Messages dropped during pauses since the last run was queued.
    missed_in_pauses: AtomicU64,
    /// A leaf lock; notifiers are called after it is released.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    runs: ObservedRuns,
    bytes: usize,
    /// Messages dropped since the last run was queued.
    missed: u64,
    missed_in_total: u64,
    ended: bool,
    waiting: Option<NotifierObject>,
}

impl ObserverQueue {
    /// Creates a queue of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self::create(limit, false)
    }

    /// Creates a queue of at most `limit` bytes for an observer with this scope.
    pub fn for_scope(limit: usize, scope: &HookScope) -> Self {
        Self::create(limit, scope.is_sampled())
    }

    fn create(limit: usize, is_sampled: bool) -> Self {
        let (is_paused, missed_in_pauses) = (AtomicBool::new(false), AtomicU64::new(0));
        let state = Mutex::default();
        ObserverQueue(Arc::new(Shared { limit, is_sampled, is_paused, missed_in_pauses, state }))
    }

    /// Queues a copy of messages that have been routed, or drops and counts them if it is full. Does not
    /// block.
    pub fn push(&self, routed: &RoutedRun<'_>) {
        self.push_all(std::iter::once(routed));
    }

    /// Queues copies of several runs, as [`push`](Self::push) does with one.
    pub fn push_all<'r>(&self, runs: impl Iterator<Item = &'r RoutedRun<'r>>) {
        let Shared { limit, is_sampled, is_paused, missed_in_pauses, .. } = &*self.0;
        if is_paused.load(Relaxed) {
            let frames: u64 = runs.map(|routed| routed.payloads.len() as u64).sum();
            missed_in_pauses.fetch_add(frames, Relaxed);
            return;
        }
        let mut now = None;
        let mut state = self.0.state.lock();
        if state.ended {
            return;
        }
        if *is_sampled {
            state.miss(missed_in_pauses.swap(0, Relaxed));
        }
        for routed in runs {
            let bytes = routed.bytes();
            if state.bytes + bytes > *limit || is_paused.load(Relaxed) {
                state.miss(routed.payloads.len() as u64);
                is_paused.store(*is_sampled, Relaxed);
                continue;
            }
            state.bytes += bytes;
            let missed = std::mem::take(&mut state.missed);
            // copied under the lock: runs stay in the order in which they were routed for one sender, and the
            // copy of a run takes no longer than its delivery
            state.runs.push(routed.to_observed(missed, *now.get_or_insert_with(unix_nanos)));
        }
        let waiting = if state.runs.is_empty() { None } else { state.waiting.take() };
        drop(state);
        if let Some(waiting) = waiting {
            waiting.notify();
        }
    }

    /// Ends the queue: what is in it can still be received.
    pub fn end(&self) {
        let mut state = self.0.state.lock();
        state.ended = true;
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waiting) = waiting {
            waiting.notify();
        }
    }

    /// See [`RawObserver::receive`](crate::abi::RawObserver).
    pub fn receive(&self, into: &mut ObservedRuns, notifier: ROption<NotifierObject>) -> bool {
        into.clear();
        let mut state = self.0.state.lock();
        // also if nothing is queued: a single message may exceed the limit
        self.0.is_paused.store(false, Relaxed);
        if state.runs.is_empty() {
            let previous = match (state.ended, notifier) {
                (false, ROption::RSome(notifier)) => state.waiting.replace(notifier),
                _ => None,
            };
            let open = !state.ended;
            drop(state);
            drop(previous); // code of the plugin: outside the lock
            return open;
        }
        std::mem::swap(&mut state.runs, into);
        state.bytes = 0;
        true
    }

    /// Returns the number of messages that were dropped so far.
    pub fn missed_in_total(&self) -> u64 {
        let state = self.0.state.lock();
        state.missed_in_total + self.0.missed_in_pauses.load(Relaxed)
    }
}

impl State {
    fn miss(&mut self, messages: u64) {
        self.missed += messages;
        self.missed_in_total += messages;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed<'a>(payloads: &'a [Payload<'a>]) -> RoutedRun<'a> {
        RoutedRun {
            op: Op::Message,
            qos: Qos::NO,
            sender: "s",
            sender_id: 1,
            target: "t",
            receiver: "",
            payloads,
            shared: None,
            code: Code::Ok,
            recipients: 1,
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let payloads = [Payload::from(&b"x"[..]); 3];
        let queue = ObserverQueue::new(2 * routed(&payloads).bytes());
        (0..5).for_each(|_| queue.push(&routed(&payloads)));
        let mut runs = ObservedRuns::new();
        assert!(queue.receive(&mut runs, ROption::RNone));
        assert_eq!((runs.len(), queue.missed_in_total()), (2, 9));
        queue.push(&routed(&payloads));
        assert!(queue.receive(&mut runs, ROption::RNone));
        assert_eq!(runs.iter().map(|run| run.missed).collect::<Vec<_>>(), [9], "said once");
    }

    #[test]
    fn a_sample_ends_with_the_first_run_that_does_not_fit_and_begins_when_it_was_read() {
        let (small, large) = ([Payload::from(&b"x"[..])], [Payload::from(&[0_u8; 1000][..])]);
        let queue = ObserverQueue::create(3 * routed(&small).bytes(), true);
        let mut runs = ObservedRuns::new();
        for round in 1..=2 {
            queue.push(&routed(&small));
            queue.push(&routed(&large));
            // it would fit
            queue.push(&routed(&small));
            let (first, second) = (routed(&small), routed(&small));
            queue.push_all([&first, &second].into_iter());
            assert_eq!(queue.missed_in_total(), 4 * round);
            assert!(queue.receive(&mut runs, ROption::RNone));
            let missed: Vec<_> = runs.iter().map(|run| run.missed).collect();
            assert_eq!(missed, [if round == 1 { 0 } else { 4 }], "each is reported once");
        }
    }

    #[test]
    fn an_ended_queue_can_be_emptied_and_takes_no_more() {
        let payloads = [Payload::from(&b"x"[..])];
        let queue = ObserverQueue::new(1 << 20);
        queue.push(&routed(&payloads));
        queue.end();
        queue.push(&routed(&payloads));
        let mut runs = ObservedRuns::new();
        assert!(queue.receive(&mut runs, ROption::RNone) && runs.len() == 1);
        assert!(!queue.receive(&mut runs, ROption::RNone));
    }
}
