//! The broker as an instance of a plugin sees it: implements the API's host for each instance.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, ROption, RResult, RStr, RString, RVec},
};
use elbus_plugin_api::{
    Call, ClientInfo, Code, Event, EventKind, Method,
    abi::{
        ClientObject, ConnectorObject, HandlerObject, ListenerObject, METHOD_ADMIN, METHOD_KNOWN,
        METHOD_QUERY, METHOD_SLOW, PassedFd, RawCall, RawCallError, RawClient_TO, RawClientInfo, RawEvent,
        RawHost, RawMethod, RawQueueBudget, SENDER_ADMIN, SinkObject, WorkerObject,
    },
};
use std::sync::{Arc, Weak};

use super::{core::Core, instance::Instance, log};
use crate::{
    control::Handler,
    routing::{RegisteredClient, Sender},
};

/// The owner of what the embedding program registers.
pub(crate) const EMBEDDER: u32 = 1;

const GONE: &str = "the instance has stopped or failed";

/// The host of one instance.
#[derive(Clone)]
pub(crate) struct Bridge {
    core: Arc<Core>,
    owner: u32,
    /// Nobody for the embedding program.
    instance: Weak<Instance>,
}

impl Bridge {
    pub(crate) fn new(core: Arc<Core>, owner: u32, instance: Weak<Instance>) -> Self {
        Bridge { core, owner, instance }
    }

    fn sender(&self, client: Option<Arc<RegisteredClient>>) -> ClientObject {
        RawClient_TO::from_value(Sender::new(self.core.router.clone(), client), TD_Opaque)
    }

    /// Whether the instance may add something to the broker, which is taken back when it stops.
    fn may_add(&self) -> bool {
        // the embedding program has no instance
        self.owner == EMBEDDER || self.instance.upgrade().is_some_and(|instance| instance.may_add(self.owner))
    }
}

impl RawHost for Bridge {
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
            self.core.router.register(name.as_str(), ClientInfo::from_raw(info), self.owner, sink);
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
        let result = self.core.control.call(&Call::from_raw(call));
        result.map(RVec::from).map_err(|error| error.into_raw()).into()
    }

    fn authorize(&self, call: &RawCall<'_>) -> RResult<(), RawCallError> {
        self.core.control.authorize(&Call::from_raw(call)).map_err(|error| error.into_raw()).into()
    }

    fn identity(&self, name: RStr<'_>, id: u64) -> u64 {
        self.core.router.identity_number(name.as_str(), id)
    }

    fn system_sender(&self, kind: RStr<'_>, flags: u32) -> RResult<ClientObject, u8> {
        if !self.may_add() {
            return RResult::RErr(Code::Other as u8);
        }
        let instance = self.instance.upgrade();
        let name = instance.as_ref().map_or("", |instance| &*instance.name);
        let admin = flags & SENDER_ADMIN != 0;
        let sender = self.core.router.system_sender(kind.as_str(), name, self.owner, admin);
        sender.map(|sender| self.sender(Some(sender))).map_err(|code| code as u8).into()
    }

    fn method_flags(&self, method: RStr<'_>) -> u32 {
        let flag = |is: bool, flag: u32| if is { flag } else { 0 };
        self.core.control.traits(method.as_str()).map_or(0, |traits| {
            METHOD_KNOWN
                | flag(traits.slow, METHOD_SLOW)
                | flag(traits.admin, METHOD_ADMIN)
                | flag(traits.query, METHOD_QUERY)
        })
    }

    fn add_method(&self, method: &RawMethod<'_>, handler: HandlerObject) -> RResult<(), RString> {
        if !self.may_add() {
            return RResult::RErr(GONE.into());
        }
        let handler = Handler::Plugin(Arc::new(handler));
        self.core.control.add(self.owner, &Method::from_raw(method), handler).map_err(RString::from).into()
    }

    fn add_listener(&self, listener: ListenerObject) {
        if self.may_add() {
            self.core.router.events.listen(self.owner, listener);
        }
    }

    fn emit(&self, event: &RawEvent<'_>) {
        // those the core itself tells are not for plugins to tell
        let foreign = [EventKind::SlowConsumer, EventKind::ConnectionRefused];
        if let Some(event) = Event::from_raw(event).filter(|event| foreign.contains(&event.kind)) {
            self.core.router.events.note(event.kind, event.subject, event.detail);
            self.core.router.events.tell();
        }
    }

    fn offer_connector(&self, connector: ConnectorObject) -> RResult<(), RString> {
        if !self.may_add() {
            return RResult::RErr(GONE.into());
        }
        self.core.offer_connector(self.owner, connector).map_err(RString::from).into()
    }

    fn connector(&self) -> ROption<ConnectorObject> {
        self.core.connector_for(self.owner, &self.instance).into()
    }

    fn set_access_rules(&self, rules: RStr<'_>) -> RResult<(), RString> {
        let set = || {
            if !self.may_add() {
                return Err(GONE.to_owned());
            }
            let rules = toml::from_str(rules.as_str()).map_err(|error: toml::de::Error| error.to_string())?;
            let instance = self.instance.upgrade();
            let setter = instance.map(|instance| instance.sets_rules()).unwrap_or_default();
            self.core.router.set_access_rules(setter, rules)
        };
        set().map_err(RString::from).into()
    }

    fn broker_name(&self) -> RString {
        self.core.name.read().as_str().into()
    }

    fn queue_budget(&self) -> RArc<RawQueueBudget> {
        self.core.budget.to_raw()
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
        self.core.listeners.duplicate(address.as_str()).map(PassedFd::from).into()
    }

    fn watch_worker(&self, what: RStr<'_>, worker: WorkerObject) {
        if self.may_add() {
            self.core.workers.add(self.owner, what.as_str(), worker);
        }
    }

    fn failed(&self, why: RStr<'_>) {
        if let Some(instance) = self.instance.upgrade() {
            instance.fail(self.owner, why.as_str());
        }
    }
}
