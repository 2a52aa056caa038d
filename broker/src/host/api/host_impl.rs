//! The host API: the functions that plugins can call, one object per instance.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, ROption, RResult, RStr, RString, RVec},
};
use elbus_plugin_api::{
    Call, ClientInfo, Code, Event, EventKind, Method,
    abi::{
        ClientObject, ConnectorObject, FromRaw, HOOK_FAILS_CLOSED, HandlerObject, InterceptorObject, IntoRaw,
        ListenerObject, METHOD_ADMIN, METHOD_KNOWN, METHOD_QUERY, METHOD_SLOW, ObserverObject, PassedFd,
        RawCall, RawCallError, RawClient_TO, RawClientInfo, RawEvent, RawHookScope, RawHost, RawMethod,
        RawQueueBudget, ResolverObject, SENDER_ADMIN, SinkObject, SubscriptionListenerObject, WorkerObject,
    },
    hooks::{HookScope, OnFailure},
};
use std::sync::{Arc, Weak};

use super::{
    context::{BrokerContext, EMBEDDER, HostedInstance},
    log,
};
use crate::{
    callbacks::owner_name,
    control::Handler,
    hooks::HookOwner,
    routing::{RegisteredClient, Sender},
};

const NOT_RUNNING: &str = "the instance has stopped or failed";

/// The host API of one instance, or of the embedding program.
#[derive(Clone)]
pub(crate) struct HostImpl {
    context: Arc<BrokerContext>,
    owner: u32,
    /// `None` for the embedding program.
    instance: Option<Weak<dyn HostedInstance>>,
}

impl HostImpl {
    /// Creates the host of an instance.
    pub(crate) fn new(context: Arc<BrokerContext>, owner: u32, instance: Weak<dyn HostedInstance>) -> Self {
        HostImpl { context, owner, instance: Some(instance) }
    }

    /// Creates the host of the embedding program.
    pub(crate) fn for_embedder(context: Arc<BrokerContext>) -> Self {
        HostImpl { context, owner: EMBEDDER, instance: None }
    }

    fn sender(&self, client: Option<Arc<RegisteredClient>>) -> ClientObject {
        RawClient_TO::from_value(Sender::new(self.context.router.clone(), client), TD_Opaque)
    }

    fn instance(&self) -> Option<Arc<dyn HostedInstance>> {
        self.instance.as_ref()?.upgrade()
    }

    fn hook_owner(&self) -> Result<HookOwner, String> {
        match &self.instance {
            None => {
                let statistics = self.context.router.instances.of(self.owner, || owner_name(self.owner));
                Ok(HookOwner { owner: self.owner, statistics, ..HookOwner::default() })
            }
            Some(instance) => match instance.upgrade() {
                Some(instance) => instance.hook_owner(self.owner).map_err(str::to_owned),
                None => Err(NOT_RUNNING.to_owned()),
            },
        }
    }

    /// Returns whether the instance may register something; it is removed when the instance stops.
    fn may_add(&self) -> bool {
        match &self.instance {
            None => true,
            Some(instance) => instance.upgrade().is_some_and(|instance| instance.may_add(self.owner)),
        }
    }
}

fn checked_scope(scope: &RawHookScope<'_>) -> Result<HookScope, String> {
    let scope = HookScope::from_raw(scope);
    scope.check().map(|()| scope).map_err(|error| error.to_string())
}

impl RawHost for HostImpl {
    fn register(
        &self,
        name: RStr<'_>,
        info: &RawClientInfo<'_>,
        sink: SinkObject,
    ) -> RResult<ClientObject, u8> {
        if !self.may_add() {
            return RResult::RErr(Code::Other as u8);
        }
        let registered =
            self.context.router.register(name.as_str(), ClientInfo::from_raw(info), self.owner, sink);
        registered
            .map(|client| self.sender(Some(client)))
            .map_err(|code| {
                tracing::debug!(client = name.as_str(), %code, "registration refused");
                code as u8
            })
            .into()
    }

    fn system_client(&self) -> ClientObject {
        self.sender(None)
    }

    fn call(&self, call: &RawCall<'_>) -> RResult<RVec<u8>, RawCallError> {
        let result = self.context.control.call(&Call::from_raw(call));
        result.map(RVec::from).map_err(|error| error.into_raw()).into()
    }

    fn authorize(&self, call: &RawCall<'_>) -> RResult<(), RawCallError> {
        self.context.control.authorize(&Call::from_raw(call)).map_err(|error| error.into_raw()).into()
    }

    fn identity(&self, name: RStr<'_>, id: u64) -> u64 {
        self.context.router.identity_number(name.as_str(), id)
    }

    fn system_sender(&self, kind: RStr<'_>, flags: u32) -> RResult<ClientObject, u8> {
        if !self.may_add() {
            return RResult::RErr(Code::Other as u8);
        }
        let instance = self.instance();
        let name = instance.as_ref().map_or("", |instance| instance.name());
        let admin = flags & SENDER_ADMIN != 0;
        let sender = self.context.router.system_sender(kind.as_str(), name, self.owner, admin);
        sender.map(|sender| self.sender(Some(sender))).map_err(|code| code as u8).into()
    }

    fn method_flags(&self, method: RStr<'_>) -> u32 {
        let flag = |is: bool, flag: u32| if is { flag } else { 0 };
        self.context.control.traits(method.as_str()).map_or(0, |traits| {
            METHOD_KNOWN
                | flag(traits.slow, METHOD_SLOW)
                | flag(traits.admin, METHOD_ADMIN)
                | flag(traits.query, METHOD_QUERY)
        })
    }

    fn add_method(&self, method: &RawMethod<'_>, handler: HandlerObject) -> RResult<(), RString> {
        if !self.may_add() {
            return RResult::RErr(NOT_RUNNING.into());
        }
        let handler = Handler::Plugin(Arc::new(handler));
        self.context.control.add(self.owner, &Method::from_raw(method), handler).map_err(RString::from).into()
    }

    fn add_listener(&self, listener: ListenerObject) {
        if self.may_add() {
            self.context.router.events.add_listener(self.owner, listener);
        }
    }

    fn emit(&self, event: &RawEvent<'_>) {
        // only the broker emits the other kinds
        let allowed = [EventKind::SlowConsumer, EventKind::ConnectionRefused];
        if let Some(event) =
            Option::<Event<'_>>::from_raw(event).filter(|event| allowed.contains(&event.kind))
        {
            self.context.router.events.enqueue(event.kind, event.subject, event.detail);
            self.context.router.events.dispatch();
        }
    }

    fn offer_connector(&self, connector: ConnectorObject) -> RResult<(), RString> {
        if !self.may_add() {
            return RResult::RErr(NOT_RUNNING.into());
        }
        self.context.offer_connector(self.owner, connector).map_err(RString::from).into()
    }

    fn connector(&self) -> ROption<ConnectorObject> {
        match &self.instance {
            Some(instance) => self.context.connector_for(self.owner, instance).into(),
            None => self.context.connector().into(),
        }
    }

    fn set_access_rules(&self, rules: RStr<'_>) -> RResult<(), RString> {
        let set = || {
            if !self.may_add() {
                return Err(NOT_RUNNING.to_owned());
            }
            let rules = toml::from_str(rules.as_str()).map_err(|error: toml::de::Error| error.to_string())?;
            let setter = self.instance().map(|instance| instance.rule_setter()).unwrap_or_default();
            self.context.router.set_access_rules(setter, rules)
        };
        set().map_err(RString::from).into()
    }

    fn has_access_rules(&self) -> bool {
        self.context.router.access.current().is_some()
    }

    fn broker_name(&self) -> RString {
        self.context.name.read().as_str().into()
    }

    fn queue_budget(&self) -> RArc<RawQueueBudget> {
        self.context.budget.clone().into_raw()
    }

    fn max_log_level(&self) -> u8 {
        log::max_level()
    }

    fn log_enabled(&self, level: u8, target: RStr<'_>) -> bool {
        log::enabled(level, target.as_str())
    }

    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields: RStr<'_>) {
        log::write(level, target.as_str(), message.as_str(), fields.as_str());
    }

    fn inherited_listener(&self, address: RStr<'_>) -> ROption<PassedFd> {
        self.context.listeners.duplicate(address.as_str()).map(PassedFd::from).into()
    }

    fn add_interceptor(
        &self,
        scope: &RawHookScope<'_>,
        flags: u32,
        interceptor: InterceptorObject,
    ) -> RResult<u64, RString> {
        let closed = flags & HOOK_FAILS_CLOSED != 0;
        let declared = if closed { OnFailure::Closed } else { OnFailure::Open };
        let add = || {
            let (of, scope) = (self.hook_owner()?, checked_scope(scope)?);
            self.context.router.add_interceptor(of, scope, declared, interceptor)
        };
        add().map_err(RString::from).into()
    }

    fn remove_hook(&self, id: u64) {
        // an interceptor that an instance drops while it stops, or after it has failed, stays until it has
        // stopped: nothing passes it unchecked. An observer ends, so that its thread can end
        if self.may_add() {
            self.context.router.remove_hook(id);
        } else {
            self.context.router.remove_observer(id);
        }
    }

    fn add_observer(&self, scope: &RawHookScope<'_>, queue_bytes: usize) -> RResult<ObserverObject, RString> {
        let add = || {
            let (of, scope) = (self.hook_owner()?, checked_scope(scope)?);
            self.context.router.add_observer(of, scope, queue_bytes)
        };
        add().map_err(RString::from).into()
    }

    fn next_mark(&self) -> u64 {
        self.context.router.next_mark()
    }

    fn add_subscription_listener(&self, listener: SubscriptionListenerObject) -> RResult<u64, RString> {
        let add = || {
            let of = self.hook_owner()?;
            self.context.router.add_subscription_listener(of, listener)
        };
        add().map_err(RString::from).into()
    }

    fn add_subscription_watcher(&self, watcher: SubscriptionListenerObject) -> RResult<u64, RString> {
        let add = || {
            let of = self.hook_owner()?;
            self.context.router.add_subscription_watcher(of, watcher)
        };
        add().map_err(RString::from).into()
    }

    fn add_resolver(&self, scope: &RawHookScope<'_>, resolver: ResolverObject) -> RResult<u64, RString> {
        let add = || {
            let (of, scope) = (self.hook_owner()?, checked_scope(scope)?);
            self.context.name_waits.start(&self.context.router, &self.context.budget);
            self.context.router.add_resolver(of, scope, resolver)
        };
        add().map_err(RString::from).into()
    }

    fn end_wait(&self, hook: u64, name: RStr<'_>) {
        self.context.router.end_wait(hook, name.as_str());
    }

    fn watch_worker(&self, what: RStr<'_>, worker: WorkerObject) {
        if self.may_add() {
            self.context.workers.add(self.owner, what.as_str(), worker);
        }
    }

    fn failed(&self, why: RStr<'_>) {
        if let Some(instance) = self.instance() {
            instance.fail(self.owner, why.as_str());
        }
    }
}
