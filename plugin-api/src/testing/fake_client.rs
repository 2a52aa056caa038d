//! The fake broker's side of the boundary: records what a plugin requests, and answers as the test says.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, ROption, RResult, RStr, RString, RVec},
};
use std::{collections::BTreeSet, sync::Arc};

use super::{FakeHost, Recorded, State};
use crate::{
    abi::{
        ClientObject, ConnectorObject, FromRaw, HandlerObject, InterceptorObject, IntoRaw, ListenerObject,
        METHOD_KNOWN, NotifierObject, ObserverObject, ObserverQueue, PendingObject, RawCall, RawCallError,
        RawClient, RawClient_TO, RawClientInfo, RawEvent, RawHost, RawMethod, RawQueueBudget, ResolverObject,
        SENDER_ADMIN, SinkObject, SubscriptionListenerObject,
    },
    client_info::ClientInfo,
    control::CallError,
    event::Event,
    hooks::scope::RawHookScope,
    pending::Completion,
    request::{Dispatch, Request},
};
use elbus_protocol::{Code, Op};

impl State {
    pub(super) fn id_of(&mut self, sender: &str) -> u64 {
        if sender == elbus_protocol::BROKER_NAME {
            return 0;
        }
        if let Some(id) = self.ids.get(sender) {
            return *id;
        }
        self.last_id += 1;
        self.ids.insert(sender.to_owned(), self.last_id);
        self.last_id
    }

    /// Returns the code that denies a call: the one set by the test, or because the caller's registration
    /// has ended.
    fn denies(&self, call: &RawCall<'_>) -> Option<Code> {
        let ended = self.ids.get(call.caller.as_str()).is_some_and(|id| *id != call.caller_id);
        self.deny_calls_with.or(ended.then_some(Code::AccessDenied))
    }
}

struct FakeClient {
    host: FakeHost,
    name: String,
    id: u64,
    registered: bool,
    /// The result of the last request, if its answer was deferred.
    pending: Option<PendingObject>,
    /// Targets that were full when it sent to them, since the last `when_ready`.
    congested: BTreeSet<String>,
}

impl FakeClient {
    fn object(host: &FakeHost, name: String, id: u64, registered: bool) -> ClientObject {
        let client = FakeClient {
            host: host.clone(),
            name,
            id,
            registered,
            pending: None,
            congested: BTreeSet::new(),
        };
        RawClient_TO::from_value(client, TD_Opaque)
    }
}

impl RawClient for FakeClient {
    fn dispatch(&mut self, request: &Request<'_>) -> Dispatch {
        let recorded = Recorded {
            sender: self.name.clone(),
            op: request.op().unwrap_or(Op::Message),
            qos: request.qos(),
            target: request.target().to_owned(),
            receiver: request.receiver().to_owned(),
            receiver_id: request.receiver_id(),
            best_effort: request.is_best_effort(),
            payloads: request.payloads().iter().map(|p| p.to_vec()).collect(),
        };
        let target = request.target();
        let (code, is_full) = self.host.change(|state| {
            state.requests.push(recorded);
            let is_full = state.congested.contains(target);
            (state.answer.unwrap_or(Code::Ok), is_full || state.receivers_full)
        });
        if is_full {
            self.congested.insert(target.to_owned());
        }
        let result = Dispatch::new(code, 1).congested(is_full || (request.ends_batch() && self.end_batch()));
        let pending = self.host.change(|state| {
            if !state.defers_answers || !request.is_deferrable() {
                return None;
            }
            let (completion, pending) = Completion::pair();
            state.deferred.push(completion);
            Some(pending.into_raw())
        });
        self.pending = pending;
        if self.pending.is_some() { result.pending() } else { result }
    }

    fn end_batch(&mut self) -> bool {
        !self.congested.is_empty() || self.host.0.state.lock().receivers_full
    }

    fn when_ready(&mut self, notifier: NotifierObject) {
        let mut targets = std::mem::take(&mut self.congested);
        let waits = self.host.change(|state| {
            targets.retain(|target| state.congested.contains(target));
            let waits = state.receivers_full || !targets.is_empty();
            if waits {
                state.waiting.push((targets, notifier.clone()));
            }
            waits
        });
        // outside the lock: it runs code of the plugin
        if !waits {
            notifier.notify();
        }
    }

    fn take_pending(&mut self) -> ROption<PendingObject> {
        self.pending.take().into()
    }

    fn set_close_reason(&mut self, _: RStr<'_>) {}

    fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for FakeClient {
    fn drop(&mut self) {
        if self.registered {
            let gone = self.host.change(|state| state.clients.remove(&self.name));
            drop(gone); // outside the lock: it runs code of the plugin
        }
    }
}

impl RawHost for FakeHost {
    fn register(
        &self,
        name: RStr<'_>,
        info: &RawClientInfo<'_>,
        sink: SinkObject,
    ) -> RResult<ClientObject, u8> {
        let name = name.as_str().to_owned();
        let info = ClientInfo::from_raw(info);
        let registered = self.change(|state| {
            if let Some(code) = state.refuse_names_with {
                return Err(code);
            }
            if state.clients.contains_key(&name) {
                return Err(Code::Busy);
            }
            state.clients.insert(name.clone(), (info, Arc::new(sink)));
            Ok(state.id_of(&name))
        });
        match registered {
            Err(code) => RResult::RErr(code as u8),
            Ok(id) => RResult::ROk(FakeClient::object(self, name, id, true)),
        }
    }

    fn system_client(&self) -> ClientObject {
        let name = elbus_protocol::BROKER_NAME.to_owned();
        FakeClient::object(self, name, 0, false)
    }

    fn system_sender(&self, kind: RStr<'_>, flags: u32) -> RResult<ClientObject, u8> {
        let (name, policy_name) = (elbus_protocol::BROKER_NAME.to_owned(), format!(".{kind}"));
        let id = self.change(|state| {
            state.system_senders.push((policy_name.clone(), flags & SENDER_ADMIN != 0));
            state.id_of(&policy_name)
        });
        RResult::ROk(FakeClient::object(self, name, id, false))
    }

    fn authorize(&self, call: &RawCall<'_>) -> RResult<(), RawCallError> {
        match self.0.state.lock().denies(call) {
            Some(code) => RResult::RErr(CallError::of_code(code, "denied").into_raw()),
            None => RResult::ROk(()),
        }
    }

    fn identity(&self, name: RStr<'_>, _: u64) -> u64 {
        self.0.state.lock().identities.get(name.as_str()).copied().unwrap_or(0)
    }

    fn call(&self, call: &RawCall<'_>) -> RResult<RVec<u8>, RawCallError> {
        if let RResult::RErr(error) = self.authorize(call) {
            return RResult::RErr(error);
        }
        let handler =
            self.0.state.lock().methods.get(call.method.as_str()).map(|(_, handler)| handler.clone());
        match handler {
            Some(handler) => handler.call(call),
            None => RResult::RErr(CallError::method_not_found("").into_raw()),
        }
    }

    fn method_flags(&self, method: RStr<'_>) -> u32 {
        self.0.state.lock().methods.get(method.as_str()).map_or(0, |(flags, _)| flags | METHOD_KNOWN)
    }

    fn add_method(&self, method: &RawMethod<'_>, handler: HandlerObject) -> RResult<(), RString> {
        let name = method.name.as_str().to_owned();
        self.change(|state| state.methods.insert(name, (method.flags, Arc::new(handler))));
        RResult::ROk(())
    }

    fn add_listener(&self, listener: ListenerObject) {
        self.change(|state| state.listeners.push(Arc::new(listener)));
    }

    fn emit(&self, event: &RawEvent<'_>) {
        if let Some(event) = Option::<Event<'_>>::from_raw(event) {
            FakeHost::emit(self, &event);
        }
    }

    fn offer_connector(&self, connector: ConnectorObject) -> RResult<(), RString> {
        self.change(|state| state.connector = Some(connector));
        RResult::ROk(())
    }

    fn connector(&self) -> ROption<ConnectorObject> {
        self.0.state.lock().connector.clone().into()
    }

    fn set_access_rules(&self, rules: RStr<'_>) -> RResult<(), RString> {
        match toml::from_str(rules.as_str()) {
            Ok(rules) => self.0.state.lock().access_rules = Some(rules),
            Err(error) => return RResult::RErr(error.to_string().into()),
        }
        RResult::ROk(())
    }

    fn has_access_rules(&self) -> bool {
        self.0.state.lock().access_rules.is_some()
    }

    fn add_interceptor(
        &self,
        scope: &RawHookScope<'_>,
        _: u32,
        interceptor: InterceptorObject,
    ) -> RResult<u64, RString> {
        self.change(|state| state.add_interceptor(scope, interceptor))
    }

    fn remove_hook(&self, id: u64) {
        let (removed, ended) = self.change(|state| state.remove_hook(id));
        // outside the lock: both run code of the plugin
        ended.iter().for_each(ObserverQueue::end);
        drop(removed);
    }

    fn next_mark(&self) -> u64 {
        self.change(State::next_mark)
    }

    fn add_subscription_watcher(&self, listener: SubscriptionListenerObject) -> RResult<u64, RString> {
        self.change(|state| state.add_subscription_listener(listener))
    }

    fn add_subscription_listener(&self, listener: SubscriptionListenerObject) -> RResult<u64, RString> {
        self.change(|state| state.add_subscription_listener(listener))
    }

    fn add_observer(&self, scope: &RawHookScope<'_>, queue_bytes: usize) -> RResult<ObserverObject, RString> {
        self.change(|state| state.add_observer(scope, queue_bytes))
    }

    fn add_resolver(&self, scope: &RawHookScope<'_>, resolver: ResolverObject) -> RResult<u64, RString> {
        self.change(|state| state.add_resolver(scope, resolver))
    }

    fn end_wait(&self, _: u64, name: RStr<'_>) {
        self.change(|state| state.end_wait(name.as_str()));
    }

    fn broker_name(&self) -> RString {
        "fake".into()
    }

    fn queue_budget(&self) -> RArc<RawQueueBudget> {
        self.0.budget.clone().into_raw()
    }

    fn max_log_level(&self) -> u8 {
        5
    }

    fn log_enabled(&self, _: u8, _: RStr<'_>) -> bool {
        true
    }

    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields: RStr<'_>) {
        self.change(|state| state.logged.push(format!("{level} {target} {message} {fields}")));
    }

    fn failed(&self, reason: RStr<'_>) {
        self.change(|state| state.failures.push(reason.as_str().to_owned()));
    }
}
