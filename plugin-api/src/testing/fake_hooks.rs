//! Hooks of a plugin under test: the fake broker registers them, and the test has them decide or observe
//! messages.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{ROption, RResult, RStr, RString},
};
use elbus_protocol::{Code, Op, Qos};
use parking_lot::Mutex;
use std::sync::Arc;

use super::{FakeHost, State};
use crate::{
    abi::{
        FromRaw, InterceptorObject, NotifierObject, ObservedRuns, ObserverObject, RawObserver,
        RawObserver_TO, RawReplay, RawReplay_TO, ResolverObject, SubscriptionListenerObject,
    },
    buffer::Payload,
    hooks::{
        EarlierPublication, HookScope, InterceptedRun, Replayed, Resolution, SubscriptionChange,
        SubscriptionEvent, UnresolvedMessage, Verdict,
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
    listeners: Vec<(u64, Arc<SubscriptionListenerObject>)>,
    last_mark: u64,
    resolvers: Vec<(u64, HookScope, Arc<ResolverObject>)>,
    /// The waits that were ended, until the test takes them.
    ended_waits: Vec<String>,
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

    pub(super) fn add_resolver(
        &mut self,
        scope: &RawHookScope<'_>,
        resolver: ResolverObject,
    ) -> RResult<u64, RString> {
        self.hooks.last_id += 1;
        let id = self.hooks.last_id;
        self.hooks.resolvers.push((id, HookScope::from_raw(scope), Arc::new(resolver)));
        RResult::ROk(id)
    }

    pub(super) fn end_wait(&mut self, name: &str) {
        self.hooks.ended_waits.push(name.to_owned());
    }

    /// Returns what has to be dropped outside the lock.
    pub(super) fn remove_hook(&mut self, id: u64) -> (impl Sized + use<>, Vec<ObserverQueue>) {
        let removed: Vec<_> = self.hooks.interceptors.extract_if(.., |(other, ..)| *other == id).collect();
        let listeners = self.hooks.listeners.extract_if(.., |(other, _)| *other == id);
        let removed = (removed, listeners.collect::<Vec<_>>());
        let resolvers: Vec<_> = self.hooks.resolvers.extract_if(.., |(other, ..)| *other == id).collect();
        let ended = self.hooks.observers.extract_if(.., |(other, ..)| *other == id);
        ((removed, resolvers), ended.map(|(.., queue)| queue).collect::<Vec<_>>())
    }

    pub(super) fn next_mark(&mut self) -> u64 {
        self.hooks.last_mark += 1;
        self.hooks.last_mark
    }

    pub(super) fn add_subscription_listener(
        &mut self,
        listener: SubscriptionListenerObject,
    ) -> RResult<u64, RString> {
        self.hooks.last_id += 1;
        self.hooks.listeners.push((self.hooks.last_id, Arc::new(listener)));
        RResult::ROk(self.hooks.last_id)
    }

    pub(super) fn add_observer(
        &mut self,
        scope: &RawHookScope<'_>,
        queue_bytes: usize,
    ) -> RResult<ObserverObject, RString> {
        self.hooks.last_id += 1;
        let scope = HookScope::from_raw(scope);
        let (id, queue) = (self.hooks.last_id, ObserverQueue::for_scope(queue_bytes, &scope));
        self.hooks.observers.push((id, scope, queue.clone()));
        RResult::ROk(RawObserver_TO::from_value(FakeObserver { id, queue }, TD_Opaque))
    }
}

/// What a plugin has replayed to a client of a [`FakeHost`]. Clones share it.
#[derive(Clone, Default)]
pub struct FakeReplay(Arc<Mutex<FakeReplayState>>);

#[derive(Default)]
struct FakeReplayState {
    /// Topic, payload and mark.
    sent: Vec<(String, Vec<u8>, u64)>,
    /// How many of them were sent since the last flush.
    unflushed: usize,
    /// How many are taken before the queue has to be emptied.
    room: Option<usize>,
    ended: bool,
    waiting: Vec<NotifierObject>,
}

impl FakeReplay {
    /// Returns topic, payload and mark of each publication that was sent.
    pub fn sent(&self) -> Vec<(String, Vec<u8>, u64)> {
        self.0.lock().sent.clone()
    }

    /// Returns the number of publications that were sent and not [flushed](crate::hooks::Replay::flush) yet.
    /// A client gets them, and what is delivered to it later, with the next flush.
    pub fn unflushed(&self) -> usize {
        self.0.lock().unflushed
    }

    /// Lets the client take `count` more publications before it has to wait. Continues a replay that waits.
    pub fn set_room(&self, count: usize) {
        let mut state = self.0.lock();
        state.room = Some(count);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.iter().for_each(|notifier| notifier.notify());
    }

    /// Has the client leave.
    pub fn end(&self) {
        let mut state = self.0.lock();
        state.ended = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.iter().for_each(|notifier| notifier.notify());
    }
}

impl RawReplay for FakeReplay {
    fn send(&self, publication: &EarlierPublication<'_>) -> u8 {
        let mut state = self.0.lock();
        if state.ended {
            return Replayed::Ended as u8;
        }
        match &mut state.room {
            Some(0) => return Replayed::Wait as u8,
            Some(room) => *room -= 1,
            None => {}
        }
        let (topic, payload) = (publication.topic().to_owned(), publication.payload().to_vec());
        state.sent.push((topic, payload, publication.mark()));
        state.unflushed += 1;
        Replayed::Sent as u8
    }

    fn flush(&self) {
        self.0.lock().unflushed = 0;
    }

    fn when_ready(&self, notifier: NotifierObject) {
        let mut state = self.0.lock();
        state.unflushed = 0;
        if !state.ended && state.room == Some(0) {
            return state.waiting.push(notifier);
        }
        drop(state);
        notifier.notify();
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
        let frames: Vec<_> = payloads.iter().map(|payload| (target, *payload)).collect();
        self.intercept_mixed(sender, op, &frames)
    }

    /// As [`intercept`](Self::intercept), with a target and a payload for each message.
    pub fn intercept_mixed(&self, sender: &str, op: Op, messages: &[(&str, &[u8])]) -> Vec<Verdict> {
        let (id, interceptors) = {
            let mut state = self.0.state.lock();
            let all = state.hooks.interceptors.iter();
            let all: Vec<_> =
                all.map(|(_, scope, interceptor)| (scope.clone(), interceptor.clone())).collect();
            (state.id_of(sender), all)
        };
        let mut verdicts = vec![Verdict::Continue; messages.len()];
        for (scope, interceptor) in interceptors {
            let mut passed: Vec<_> =
                (0..messages.len()).filter(|index| verdicts[*index] == Verdict::Continue).collect();
            passed.retain(|index| scope.applies_to(op, messages[*index].0));
            let frames = passed.iter().filter_map(|index| messages.get(*index));
            let frames: Vec<_> =
                frames.map(|(target, payload)| RunFrame::new(target, Payload::from(*payload))).collect();
            if frames.is_empty() {
                continue;
            }
            let mut marks = vec![0; frames.len()];
            let header = RunHeader::new(op, Qos::NO, sender, id, "");
            let mut run = InterceptedRun::new(header, &frames, &mut marks);
            if !interceptor.intercept(&mut run) {
                passed.iter().for_each(|index| verdicts[*index] = Verdict::Reject(Code::Other));
            }
            for (index, verdict) in run.take_verdicts() {
                verdicts[passed[index]] = verdict;
            }
        }
        verdicts
    }

    /// Has a client subscribe to filters: subscription listeners get a [`Replay`](crate::hooks::Replay), and
    /// what they send with it is in the returned replay.
    pub fn subscribe(&self, client: &str, filters: &[&str]) -> FakeReplay {
        self.subscribe_with(client, filters, &FakeReplay::default())
    }

    /// As [`subscribe`](Self::subscribe), with a replay that the test has prepared: with little
    /// [room](FakeReplay::set_room), for example.
    pub fn subscribe_with(&self, client: &str, filters: &[&str], replay: &FakeReplay) -> FakeReplay {
        self.change_subscriptions(SubscriptionEvent::Subscribed, client, filters, Some(replay));
        replay.clone()
    }

    /// Has subscription listeners learn another change, without a replay.
    pub fn change_filters(&self, event: SubscriptionEvent, client: &str, filters: &[&str]) {
        self.change_subscriptions(event, client, filters, None);
    }

    fn change_subscriptions(
        &self,
        event: SubscriptionEvent,
        client: &str,
        filters: &[&str],
        replay: Option<&FakeReplay>,
    ) {
        let (id, listeners) = {
            let mut state = self.0.state.lock();
            let listeners: Vec<_> = state.hooks.listeners.iter().map(|(_, one)| one.clone()).collect();
            (state.id_of(client), listeners)
        };
        let filters: Vec<RStr<'_>> = filters.iter().map(|filter| RStr::from_str(filter)).collect();
        let change = SubscriptionChange::new(event, client, id, &filters);
        for listener in listeners {
            let object = replay.map(|replay| RawReplay_TO::from_value(replay.clone(), TD_Opaque));
            listener.on_change(&change, object.into());
        }
    }

    /// Asks the name resolvers about a message to a name that is not registered, in the order in which they
    /// were added; returns the first answer that is not [`Resolution::Unknown`].
    pub fn resolve(&self, sender: &str, target: &str) -> Resolution {
        let (id, resolvers) = {
            let mut state = self.0.state.lock();
            let applying = state.hooks.resolvers.iter();
            let applying = applying.filter(|(_, scope, _)| scope.applies_to(Op::Message, target));
            let applying: Vec<_> = applying.map(|(.., resolver)| resolver.clone()).collect();
            (state.id_of(sender), applying)
        };
        let message = UnresolvedMessage::new(target, Qos::NO, sender, id);
        let answers = resolvers.iter().map(|resolver| Resolution::of_millis(resolver.resolve(&message)));
        answers.into_iter().find(|answer| *answer != Resolution::Unknown).unwrap_or_default()
    }

    /// Takes the names for which resolvers have [ended the wait](crate::hooks::Hook::end_wait).
    pub fn take_ended_waits(&self) -> Vec<String> {
        std::mem::take(&mut self.0.state.lock().hooks.ended_waits)
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
