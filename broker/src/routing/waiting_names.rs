//! Messages that wait for a name to register: which names are awaited, the runs that wait for each, and the
//! limits of both. Plain data behind one lock; [`name_waits`](super::router::name_waits) decides what to do.
//!
//! Each name is in one of three phases:
//! - *asked:* a sender asks the resolvers; runs that others send meanwhile wait for the answer.
//! - *awaited:* the resolver has answered; the wait ends at its deadline.
//! - *delivered:* the name has registered; runs that come before the last one was delivered queue behind.

mod held_run;

use elbus_plugin_api::QueueBudget;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock},
    time::Instant,
};

use super::Hashing;
use crate::sync::Mutex;
pub(super) use held_run::HeldRun;

/// Names that can be awaited at once.
const MAX_NAMES: usize = 1024;
/// Bytes and runs that can wait for a name, and bytes that can wait for all names.
const MAX_NAME_BYTES: usize = 1 << 20;
const MAX_NAME_RUNS: usize = 10_000;
const MAX_BYTES: usize = 16 << 20;
/// Rounds of delivery to a client that has registered. What senders that cannot wait send after that is
/// refused until it has everything.
const MAX_ROUNDS: u32 = 16;

/// The names that are awaited.
#[derive(Default)]
pub(super) struct WaitingNames {
    /// Lock order: the registry, this, then the list of resolvers. Nothing of a plugin is called while it is
    /// held.
    state: Mutex<State>,
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
    budget: OnceLock<QueueBudget>,
}

#[derive(Default)]
struct State {
    names: HashMap<Arc<str>, Wait, Hashing>,
    bytes: usize,
    /// What is counted in the broker's budget.
    charged: usize,
    last_question: u64,
}

/// A name that is not awaited any more, and what waited for it.
pub(super) type EndedWait = (Arc<str>, VecDeque<HeldRun>);

struct Wait {
    phase: Phase,
    runs: VecDeque<HeldRun>,
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asked {
        question: u64,
    },
    Awaited {
        until: Instant,
        resolver: u64,
    },
    /// To the client with this registration id.
    Delivered {
        id: u64,
        rounds: u32,
    },
}

/// How a message to a name that is not registered goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NextStep {
    /// Ask the resolvers, and report the answer.
    Ask { question: u64 },
    /// Have it wait.
    Wait,
    /// There are too many names.
    Refuse,
}

/// What became of a run for a client that has just registered.
pub(super) enum Behind {
    Waits,
    Refused,
    /// The client has got everything that waited. Also the run if it was copied, with its result.
    Ended(Option<HeldRun>),
}

impl Wait {
    fn new(phase: Phase) -> Self {
        Wait { phase, runs: VecDeque::new(), bytes: 0 }
    }
}

impl State {
    fn remove(&mut self, name: &str) -> VecDeque<HeldRun> {
        let Some(wait) = self.names.remove(name) else { return VecDeque::new() };
        self.bytes -= wait.bytes;
        wait.runs
    }

    fn charge(&mut self, budget: Option<&QueueBudget>) {
        if let Some(budget) = budget {
            budget.charge(&mut self.charged, self.bytes);
        }
    }
}

/// What became of a run that was to wait for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    Waits,
    /// There is no room for it.
    Full,
    /// The wait has ended meanwhile.
    NotAwaited,
}

impl WaitingNames {
    /// Sets what wakes the thread that [ends](Self::take_due) waits, if none is set.
    pub(super) fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        _ = self.waker.set(Box::new(waker));
    }

    /// Sets the budget in which the runs count.
    pub(super) fn set_budget(&self, budget: QueueBudget) {
        _ = self.budget.set(budget);
    }

    fn change<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        let result = f(&mut state);
        state.charge(self.budget.get());
        result
    }

    /// Returns how a message to a name that is not registered goes on.
    pub(super) fn next_step(&self, name: &str) -> NextStep {
        self.change(|state| {
            if state.names.contains_key(name) {
                return NextStep::Wait;
            }
            if state.names.len() >= MAX_NAMES {
                return NextStep::Refuse;
            }
            state.last_question += 1;
            let question = state.last_question;
            state.names.insert(name.into(), Wait::new(Phase::Asked { question }));
            NextStep::Ask { question }
        })
    }

    /// Has the messages for a name wait, as a resolver has answered. Returns `false` if the resolver is not
    /// registered any more.
    pub(super) fn await_name(
        &self,
        name: &str,
        question: u64,
        resolver: u64,
        until: Instant,
        is_registered: impl FnOnce() -> bool,
    ) -> bool {
        let awaits = self.change(|state| {
            if !is_registered() {
                return false;
            }
            let phase = Phase::Awaited { until, resolver };
            match state.names.get_mut(name) {
                Some(wait) if wait.phase == (Phase::Asked { question }) => wait.phase = phase,
                // the name has registered in the meantime, or was asked about again after it has left
                Some(_) => {}
                None => _ = state.names.insert(name.into(), Wait::new(phase)),
            }
            true
        });
        if awaits {
            self.wake();
        }
        awaits
    }

    /// Ends a question whose answer is that the name is unknown. Returns the runs that waited for it.
    pub(super) fn refuse_name(&self, name: &str, question: u64) -> VecDeque<HeldRun> {
        self.change(|state| match state.names.get(name) {
            Some(wait) if wait.phase == (Phase::Asked { question }) => state.remove(name),
            _ => VecDeque::new(),
        })
    }

    /// Has a run wait behind the others for a name. Called with the registry locked, so that the name cannot
    /// register meanwhile.
    pub(super) fn push(&self, name: &str, run: HeldRun) -> Pushed {
        let mut run = Some(run);
        // a run that does not wait is dropped without the lock
        self.change(|state| {
            if !state.names.contains_key(name) {
                Pushed::NotAwaited
            } else if self.push_locked(state, name, &mut run) {
                Pushed::Waits
            } else {
                Pushed::Full
            }
        })
    }

    /// Has a run wait behind those that are being delivered to a client. `copy` copies the run.
    pub(super) fn push_behind(&self, name: &str, id: u64, copy: impl FnOnce() -> HeldRun) -> Behind {
        let delivered = |state: &State| match state.names.get(name).map(|wait| wait.phase) {
            Some(Phase::Delivered { id: other, rounds }) if other == id => Some(rounds),
            _ => None,
        };
        if delivered(&self.state.lock()).is_none() {
            return Behind::Ended(None);
        }
        // without the lock
        let mut run = Some(copy());
        let waits = self.change(|state| {
            let rounds = delivered(state)?;
            Some(rounds < MAX_ROUNDS && self.push_locked(state, name, &mut run))
        });
        match waits {
            Some(true) => Behind::Waits,
            Some(false) => Behind::Refused,
            None => Behind::Ended(run),
        }
    }

    /// Takes the run if there is room for it.
    fn push_locked(&self, state: &mut State, name: &str, run: &mut Option<HeldRun>) -> bool {
        let Some(cost) = run.as_ref().map(HeldRun::cost) else { return false };
        let has_room =
            state.bytes + cost <= MAX_BYTES && self.budget.get().is_none_or(|budget| budget.has_room(cost));
        let Some(wait) = state.names.get_mut(name).filter(|_| has_room) else { return false };
        if wait.bytes + cost > MAX_NAME_BYTES || wait.runs.len() >= MAX_NAME_RUNS {
            return false;
        }
        wait.bytes += cost;
        state.bytes += cost;
        wait.runs.extend(run.take());
        true
    }

    /// Begins the delivery to a client that registers. Returns whether anything waits for it. Called with the
    /// registry locked.
    pub(super) fn begin_delivery(&self, name: &str, id: u64) -> bool {
        self.change(|state| {
            let Some(wait) = state.names.get_mut(name) else { return false };
            if wait.runs.is_empty() {
                state.names.remove(name);
                return false;
            }
            wait.phase = Phase::Delivered { id, rounds: 0 };
            true
        })
    }

    /// Takes the runs for a client that has registered. If there are none left, ends the delivery and calls
    /// `end` before anything else can be sent to it.
    pub(super) fn take_delivery(&self, name: &str, id: u64, end: impl FnOnce()) -> Option<VecDeque<HeldRun>> {
        self.change(|state| {
            let wait = state.names.get_mut(name);
            let wait =
                wait.filter(|wait| matches!(wait.phase, Phase::Delivered { id: other, .. } if other == id));
            let Some(wait) = wait else {
                // another client has the name
                end();
                return None;
            };
            if wait.runs.is_empty() {
                state.names.remove(name);
                end();
                return None;
            }
            if let Phase::Delivered { rounds, .. } = &mut wait.phase {
                *rounds += 1;
            }
            state.bytes -= std::mem::take(&mut wait.bytes);
            Some(std::mem::take(&mut wait.runs))
        })
    }

    /// Ends the wait for a name that a resolver has begun.
    pub(super) fn end_wait(&self, resolver: u64, name: &str) -> VecDeque<HeldRun> {
        self.change(|state| match state.names.get(name) {
            Some(Wait { phase: Phase::Awaited { resolver: other, .. }, .. }) if *other == resolver => {
                state.remove(name)
            }
            _ => VecDeque::new(),
        })
    }

    /// Ends the waits that a resolver has begun.
    pub(super) fn end_waits_of(&self, resolver: u64) -> Vec<EndedWait> {
        self.take_if(|phase| matches!(phase, Phase::Awaited { resolver: other, .. } if other == resolver))
    }

    /// Ends the waits whose time is over. Also returns when the next one is due.
    pub(super) fn take_due(&self, now: Instant) -> (Vec<EndedWait>, Option<Instant>) {
        let due = self.take_if(|phase| matches!(phase, Phase::Awaited { until, .. } if until <= now));
        let deadlines = |wait: &Wait| match wait.phase {
            Phase::Awaited { until, .. } => Some(until),
            Phase::Asked { .. } | Phase::Delivered { .. } => None,
        };
        (due, self.state.lock().names.values().filter_map(deadlines).min())
    }

    fn take_if(&self, ends: impl Fn(Phase) -> bool) -> Vec<EndedWait> {
        self.change(|state| {
            let ending = state.names.iter().filter(|(_, wait)| ends(wait.phase));
            let ending: Vec<_> = ending.map(|(name, _)| name.clone()).collect();
            let take = |name: Arc<str>| {
                let runs = state.remove(&name);
                (name, runs)
            };
            ending.into_iter().map(take).collect()
        })
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker();
        }
    }
}

impl Drop for WaitingNames {
    fn drop(&mut self) {
        let names = self.change(|state| {
            state.bytes = 0;
            std::mem::take(&mut state.names)
        });
        drop(names); // without the lock: their results call notifiers
        self.wake(); // the thread ends
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests;
