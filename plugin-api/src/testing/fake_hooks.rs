//! Hooks of a plugin under test: the fake broker registers them, and the test has them decide or observe
//! messages.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{ROption, RResult, RString},
};
use elbus_protocol::{Code, Op, Qos};
use std::sync::Arc;

use super::{FakeHost, State};
use crate::{
    abi::{
        FromRaw, InterceptorObject, NotifierObject, ObservedRuns, ObserverObject, RawObserver, RawObserver_TO,
    },
    buffer::Payload,
    hooks::{
        HookScope, InterceptedRun, Verdict,
        interceptor::{RunFrame, RunHeader},
        observer_queue::{ObserverQueue, RoutedRun},
        scope::RawHookScope,
    },
};

/// The hooks that the plugin has registered.
#[derive(Default)]
pub(super) struct FakeHooks {
    interceptors: Vec<(u64, HookScope, Arc<InterceptorObject>)>,
    observers: Vec<(u64, HookScope, ObserverQueue)>,
    last_id: u64,
}

impl State {
    pub(super) fn add_interceptor(
        &mut self,
        scope: &RawHookScope<'_>,
        interceptor: InterceptorObject,
    ) -> RResult<u64, RString> {
        self.hooks.last_id += 1;
        let id = self.hooks.last_id;
        self.hooks.interceptors.push((id, HookScope::from_raw(scope), Arc::new(interceptor)));
        RResult::ROk(id)
    }

    /// Returns what has to be dropped outside the lock.
    pub(super) fn remove_hook(&mut self, id: u64) -> (impl Sized + use<>, Vec<ObserverQueue>) {
        let removed: Vec<_> = self.hooks.interceptors.extract_if(.., |(other, ..)| *other == id).collect();
        let ended = self.hooks.observers.extract_if(.., |(other, ..)| *other == id);
        (removed, ended.map(|(.., queue)| queue).collect::<Vec<_>>())
    }

    pub(super) fn add_observer(
        &mut self,
        scope: &RawHookScope<'_>,
        queue_bytes: usize,
    ) -> RResult<ObserverObject, RString> {
        self.hooks.last_id += 1;
        let (id, queue) = (self.hooks.last_id, ObserverQueue::new(queue_bytes));
        self.hooks.observers.push((id, HookScope::from_raw(scope), queue.clone()));
        RResult::ROk(RawObserver_TO::from_value(FakeObserver { id, queue }, TD_Opaque))
    }
}

struct FakeObserver {
    id: u64,
    queue: ObserverQueue,
}

impl RawObserver for FakeObserver {
    fn receive(&self, into: &mut ObservedRuns, notifier: ROption<NotifierObject>) -> bool {
        self.queue.receive(into, notifier)
    }

    fn missed(&self) -> u64 {
        self.queue.missed_in_total()
    }

    fn id(&self) -> u64 {
        self.id
    }
}

impl FakeHost {
    /// Passes a run of messages to the interceptors whose scope it is in, in the order in which they were
    /// added, and returns the verdict about each message: the first that is not [`Verdict::Continue`].
    pub fn intercept(&self, sender: &str, op: Op, target: &str, payloads: &[&[u8]]) -> Vec<Verdict> {
        let (id, interceptors) = {
            let mut state = self.0.state.lock();
            let applying =
                state.hooks.interceptors.iter().filter(|(_, scope, _)| scope.applies_to(op, target));
            let applying: Vec<_> = applying.map(|(.., interceptor)| interceptor.clone()).collect();
            (state.id_of(sender), applying)
        };
        let mut verdicts = vec![Verdict::Continue; payloads.len()];
        for interceptor in interceptors {
            let passed: Vec<_> =
                (0..payloads.len()).filter(|index| verdicts[*index] == Verdict::Continue).collect();
            let frames: Vec<_> =
                passed.iter().map(|index| RunFrame::new(target, Payload::from(payloads[*index]))).collect();
            if frames.is_empty() {
                break;
            }
            let mut run = InterceptedRun::new(RunHeader::new(op, Qos::NO, sender, id, ""), &frames);
            if !interceptor.intercept(&mut run) {
                passed.iter().for_each(|index| verdicts[*index] = Verdict::Reject(Code::Other));
            }
            for (index, verdict) in run.take_verdicts() {
                verdicts[passed[index]] = verdict;
            }
        }
        verdicts
    }

    /// Shows routed messages to the observers whose scope they are in.
    pub fn observe(
        &self,
        sender: &str,
        op: Op,
        target: &str,
        payloads: &[&[u8]],
        code: Code,
        recipients: u32,
    ) {
        let (sender_id, queues) = {
            let mut state = self.0.state.lock();
            let observing = state.hooks.observers.iter().filter(|(_, scope, _)| scope.applies_to(op, target));
            let queues: Vec<_> = observing.map(|(.., queue)| queue.clone()).collect();
            (state.id_of(sender), queues)
        };
        let payloads: Vec<_> = payloads.iter().map(|payload| Payload::from(*payload)).collect();
        let routed = RoutedRun {
            op,
            qos: Qos::NO,
            sender,
            sender_id,
            target,
            receiver: "",
            payloads: &payloads,
            shared: None,
            code,
            recipients,
        };
        queues.iter().for_each(|queue| queue.push(&routed));
    }
}
