//! The hooks as senders use them: which of them apply to a target, and calls of interceptors.

use elbus_plugin_api::{
    Op,
    abi::{InterceptorObject, ObserverQueue, RoutedRun},
    hooks::{HookScope, InterceptedRun, Verdict},
};
use std::sync::{Arc, Weak};

use crate::{
    callbacks::{self, Callback},
    statistics::InstanceStatistics,
};

/// Hooks that apply to a target: one bit for each entry of the [`HookTable`] they were found in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct AppliedHooks {
    pub(crate) interceptors: u64,
    pub(crate) observers: u64,
}

impl AppliedHooks {
    /// Returns whether no hook applies.
    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.interceptors | self.observers == 0
    }
}

/// All hooks of a broker at one time, interceptors in the order in which they apply.
pub(crate) struct HookTable {
    interceptors: Vec<InterceptorEntry>,
    observers: Vec<ObserverEntry>,
}

pub(crate) struct InterceptorEntry {
    pub(crate) owner: u32,
    pub(crate) instance: Arc<str>,
    pub(super) statistics: Arc<InstanceStatistics>,
    pub(super) scope: Arc<HookScope>,
    pub(crate) closed: bool,
    /// Weak: a sender that falls silent keeps nothing of a plugin that has stopped.
    pub(super) object: Weak<InterceptorObject>,
}

pub(super) struct ObserverEntry {
    pub(super) scope: Arc<HookScope>,
    pub(super) queue: ObserverQueue,
}

/// What an interceptor has decided about a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InterceptorResult {
    /// About each message that does not continue, in order.
    Verdicts(Vec<(usize, Verdict)>),
    /// It cannot be called, and its messages pass.
    Open,
    /// It cannot be called, and its messages are rejected.
    Closed,
}

impl HookTable {
    /// Returns `None` if there are no hooks.
    pub(super) fn new(interceptors: Vec<InterceptorEntry>, observers: Vec<ObserverEntry>) -> Option<Self> {
        let any = !interceptors.is_empty() || !observers.is_empty();
        any.then_some(HookTable { interceptors, observers })
    }

    /// Finds the hooks that apply to an operation on a target.
    pub(crate) fn applied(&self, op: Op, target: &str) -> AppliedHooks {
        // parts of the broker, and its topics
        let exempt = target.starts_with('.');
        let interceptors = self.interceptors.iter().map(|hook| !exempt && hook.scope.applies_to(op, target));
        let observers = self.observers.iter().map(|hook| hook.scope.applies_to(op, target));
        AppliedHooks { interceptors: bits(interceptors), observers: bits(observers) }
    }

    /// Returns the interceptors that apply to an operation on a target, in their order.
    pub(crate) fn interceptors_of(&self, op: Op, target: &str) -> impl Iterator<Item = &InterceptorEntry> {
        let applied = self.applied(op, target).interceptors;
        let entries = self.interceptors.iter().enumerate();
        entries.filter(move |(index, _)| *index < 64 && applied >> index & 1 != 0).map(|(_, entry)| entry)
    }

    /// Returns an interceptor.
    pub(crate) fn interceptor(&self, index: u32) -> Option<&InterceptorEntry> {
        self.interceptors.get(index as usize)
    }

    /// Returns whether there are interceptors.
    #[inline]
    pub(crate) fn has_interceptors(&self) -> bool {
        !self.interceptors.is_empty()
    }

    /// Returns whether there are observers.
    pub(crate) fn has_observers(&self) -> bool {
        !self.observers.is_empty()
    }

    /// Shows several runs to observers: each to those whose bits are set beside it.
    pub(crate) fn observe_all(&self, runs: &[(u64, RoutedRun<'_>)]) {
        let any = runs.iter().fold(0, |any, (observers, _)| any | observers);
        for (index, observer) in self.observers.iter().enumerate().filter(|(index, _)| any >> index & 1 != 0)
        {
            let observed = runs.iter().filter(|(observers, _)| observers >> index & 1 != 0);
            observer.queue.push_all(observed.map(|(_, run)| run));
        }
    }

    /// Shows messages that have been routed to observers.
    pub(crate) fn observe(&self, applied: AppliedHooks, routed: &RoutedRun<'_>) {
        for (index, observer) in self.observers.iter().enumerate() {
            if applied.observers >> index & 1 != 0 {
                observer.queue.push(routed);
            }
        }
    }
}

/// Packs at most 64 flags, the first into the lowest bit.
fn bits(flags: impl Iterator<Item = bool>) -> u64 {
    flags.take(64).enumerate().fold(0, |bits, (index, flag)| bits | u64::from(flag) << index)
}

impl InterceptorEntry {
    /// Returns whether it can be called.
    pub(crate) fn serves(&self) -> bool {
        self.object.strong_count() > 0
    }

    /// Passes a run to the interceptor.
    pub(crate) fn intercept(&self, run: &mut InterceptedRun<'_>) -> InterceptorResult {
        if let Some(interceptor) = self.object.upgrade() {
            let call =
                || callbacks::for_client(self.owner, Callback::Intercept, || interceptor.intercept(run));
            let answered = self.statistics.intercept.time(call);
            if answered {
                return InterceptorResult::Verdicts(run.take_verdicts());
            }
        }
        if self.closed { InterceptorResult::Closed } else { InterceptorResult::Open }
    }
}
