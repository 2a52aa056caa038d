//! The sinks of the models of mixed runs: queues that send when they are flushed and not paused, and that
//! know what the others have. They note what is wrong, since a panic in a sink would end the process.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RStr};
use elbus_plugin_api::{
    ClientInfo, DeliveryStatus, MixedRun, Op, Queued, Run, SinkLimits,
    abi::{NotifierObject, RawSink, RawSink_TO},
};
use shuttle::thread;
use std::sync::{Arc, Mutex as Plain};

use crate::routing::{Router, sender::Sender};

/// Operation, target, and the recipients that are registered and subscribed all the time.
pub(super) type Destination = (Op, &'static str, &'static [&'static str]);

/// A frame: its sender and its number, which says where it goes.
type Sent = (u8, u8);

/// All queues of a model, and where frames go.
pub(super) struct World {
    pub(super) destinations: &'static [Destination],
    queues: Plain<Vec<Arc<SendQueue>>>,
    /// What sinks have found to be wrong.
    faults: Plain<Vec<String>>,
}

/// A sink. Plain locks: no thread is switched while one is held.
pub(super) struct SendQueue {
    pub(super) name: &'static str,
    pub(super) world: Arc<World>,
    pub(super) takes_mixed_runs: bool,
    /// Pauses that can overlap.
    pub(super) most_pauses: u32,
    pub(super) state: Plain<QueueState>,
}

#[derive(Default)]
pub(super) struct QueueState {
    queued: Vec<Sent>,
    /// How many of them a client has seen.
    sent: usize,
    is_dirty: bool,
    pauses: u32,
    joined_pauses: u32,
    is_write_due: bool,
    pub(super) is_closed: bool,
    /// Full once this many frames are queued.
    pub(super) full_at: Option<usize>,
    has_reported_full: bool,
    /// Mixed runs that came after that, and before it has drained.
    pub(super) mixed_runs_while_full: usize,
    waiting: Vec<NotifierObject>,
}

impl World {
    pub(super) fn new(destinations: &'static [Destination]) -> Arc<Self> {
        Arc::new(World { destinations, queues: Plain::default(), faults: Plain::default() })
    }

    pub(super) fn destination(&self, number: u8) -> Destination {
        self.destinations[number as usize % self.destinations.len()]
    }

    pub(super) fn queue(self: &Arc<Self>, name: &'static str) -> SendQueue {
        SendQueue {
            name,
            world: self.clone(),
            takes_mixed_runs: true,
            most_pauses: u32::MAX,
            state: Plain::default(),
        }
    }

    /// Registers a client with this queue.
    pub(super) fn register(&self, router: &Arc<Router>, queue: SendQueue) -> (Sender, Arc<SendQueue>) {
        let (name, queue) = (queue.name, Arc::new(queue));
        self.queues.lock().unwrap().push(queue.clone());
        let sink = RawSink_TO::from_value(Sink(queue.clone()), TD_Opaque);
        let client = router.register(name, ClientInfo::default(), 1, sink).unwrap();
        (Sender::new(router.clone(), Some(client)), queue)
    }

    /// What a client sees at this moment was sent after everything that its sender had sent before.
    fn check_causality(&self, seen: &[Sent]) {
        let queues = self.queues.lock().unwrap().clone();
        for (sender, number) in seen {
            for earlier in 0..*number {
                let (_, _, recipients) = self.destination(earlier);
                for queue in queues.iter().filter(|queue| recipients.contains(&queue.name)) {
                    let has = queue.state.lock().unwrap().queued.contains(&(*sender, earlier));
                    if !has {
                        let fault =
                            format!("{} of {sender} seen before {} has {earlier}", number, queue.name);
                        self.faults.lock().unwrap().push(fault);
                    }
                }
            }
        }
    }

    /// Everything was sent, no pause is left, and what each queue has of a sender is in order.
    pub(super) fn check_end(&self) {
        assert_eq!(*self.faults.lock().unwrap(), <[String; 0]>::default());
        for queue in &*self.queues.lock().unwrap() {
            let state = queue.state.lock().unwrap();
            assert_eq!(state.pauses, 0, "{}: all pauses end", queue.name);
            assert!(state.is_closed || state.sent == state.queued.len(), "{}: all is flushed", queue.name);
            for sender in [1, 2] {
                let of_sender = state.queued.iter().filter(|(from, _)| *from == sender);
                assert!(of_sender.is_sorted_by(|a, b| a < b), "{}: {:?}", queue.name, state.queued);
            }
        }
    }

    /// Returns what all clients of a name have got of a sender.
    pub(super) fn got(&self, name: &str, sender: u8) -> Vec<u8> {
        let queues = self.queues.lock().unwrap();
        let of_name = queues.iter().filter(|queue| queue.name == name);
        let got = of_name.flat_map(|queue| queue.state.lock().unwrap().queued.clone());
        got.filter(|(from, _)| *from == sender).map(|(_, number)| number).collect()
    }
}

impl SendQueue {
    fn take(&self, frames: impl Iterator<Item = Sent>, mixed_run_pauses: Option<bool>) -> DeliveryStatus {
        thread::yield_now();
        let mut state = self.state.lock().unwrap();
        if state.is_closed {
            return DeliveryStatus::CLOSED;
        }
        if mixed_run_pauses == Some(true) {
            if state.pauses > 0 && state.joined_pauses >= self.most_pauses {
                return DeliveryStatus::REFUSED;
            }
            state.joined_pauses = if state.pauses == 0 { 1 } else { state.joined_pauses + 1 };
            state.pauses += 1;
        }
        state.queued.extend(frames);
        let mut status = DeliveryStatus::TAKEN;
        if state.full_at.is_some_and(|frames| state.queued.len() >= frames) {
            status = status | DeliveryStatus::FULL;
            state.mixed_runs_while_full += usize::from(state.has_reported_full && mixed_run_pauses.is_some());
            state.has_reported_full = true;
        }
        if !std::mem::replace(&mut state.is_dirty, true) {
            status = status | DeliveryStatus::DIRTY;
        }
        status
    }

    pub(super) fn has_reported_full(&self) -> bool {
        self.state.lock().unwrap().has_reported_full
    }

    /// Takes everything from now on, and notifies those who wait for that.
    pub(super) fn drain(&self) {
        self.state.lock().unwrap().full_at = None;
        thread::yield_now();
        let waiting = std::mem::take(&mut self.state.lock().unwrap().waiting);
        waiting.into_iter().for_each(|notifier| notifier.notify());
    }

    /// Sends unless there is a pause.
    fn write(&self, state: &mut QueueState) -> Vec<Sent> {
        state.is_write_due = state.pauses > 0;
        if state.is_write_due {
            return vec![];
        }
        let seen = state.queued.split_off(state.sent);
        state.queued.extend(&seen);
        state.sent = state.queued.len();
        seen
    }
}

struct Sink(Arc<SendQueue>);

impl RawSink for Sink {
    fn deliver(&self, run: &mut Run<'_>) -> u8 {
        let frames: Vec<Sent> = run.payloads().iter().map(|payload| (payload[0], payload[1])).collect();
        self.0.take(frames.into_iter(), None).bits()
    }

    fn deliver_mixed(&self, run: &mut MixedRun<'_>) -> u8 {
        if !self.0.takes_mixed_runs {
            return DeliveryStatus::UNSUPPORTED.bits();
        }
        let frames = run.frames().map(|frame| (frame.payload()[0], frame.payload()[1]));
        self.0.take(frames, Some(run.pauses())).bits()
    }

    fn resume_sending(&self) {
        thread::yield_now();
        let mut state = self.0.state.lock().unwrap();
        if state.pauses == 0 {
            self.0.world.faults.lock().unwrap().push("a pause ends that has not begun".to_owned());
        }
        state.pauses = state.pauses.saturating_sub(1);
        let seen = if state.is_write_due { self.0.write(&mut state) } else { vec![] };
        drop(state);
        self.0.world.check_causality(&seen);
    }

    fn flush(&self) {
        thread::yield_now();
        let mut state = self.0.state.lock().unwrap();
        state.is_dirty = false;
        let seen = self.0.write(&mut state);
        drop(state);
        self.0.world.check_causality(&seen);
    }

    fn when_drained(&self, notifier: NotifierObject) {
        thread::yield_now();
        let mut state = self.0.state.lock().unwrap();
        if state.full_at.is_some() {
            return state.waiting.push(notifier);
        }
        drop(state);
        notifier.notify();
    }

    fn close(&self, _: RStr<'_>) {
        self.0.state.lock().unwrap().is_closed = true;
    }

    fn queued(&self) -> Queued {
        Queued::default()
    }

    fn limit(&self, _: &SinkLimits) {}
}
