//! The declarations of what crosses the boundary, as the loader and the broker see it. Plugin authors never
//! need them.
//!
//! Every trait is an `abi_stable` trait object that can grow at its end within a major version of the API: a
//! method added later stands after the one marked `last_prefix_field` and has a default body. Structs carry
//! `flags` for additions. No std `Box`, `Vec` or `Arc` crosses.
#![allow(missing_docs, non_local_definitions, clippy::undocumented_unsafe_blocks, unused_qualifications)]

pub(crate) mod catch;
pub(crate) mod convert;
pub mod export;
pub(crate) mod guard;
#[cfg(test)]
mod layout;
mod passed_fd;

use abi_stable::{
    StableAbi, declare_root_module_statics,
    library::RootModule,
    package_version_strings, sabi_trait,
    sabi_types::VersionStrings,
    std_types::{RArc, RBox, ROption, RResult, RSlice, RSliceMut, RStr, RString, RVec},
};
use elbus_protocol::Code;

pub use self::{
    convert::{FromRaw, IntoRaw},
    passed_fd::PassedFd,
};
pub use crate::{
    budget::{RawQueueBudget, set_queue_limit},
    buffer::{RawBuffer, RawBuffer_TO},
    hooks::{
        interceptor::{RunFrame, RunHeader},
        observer_queue::{ObservedRun, ObservedRuns, ObserverQueue, RoutedRun},
        scope::RawHookScope,
    },
    notifier::{NotifierObject, RawNotifier, RawNotifier_TO},
    pending::{PendingObject, RawPending, RawPending_TO},
    run::Deferral,
};
use crate::{
    config::Limit,
    delivery_status::DeliveryStatus,
    hooks::{
        interceptor::InterceptedRun,
        resolver::UnresolvedMessage,
        subscription_listener::{EarlierPublication, SubscriptionChange, SubscriptionEvent},
    },
    inproc::owned_run::RunBatch,
    locality::Locality,
    mixed_run::{Frame, MixedDispatch, MixedRun},
    request::{Dispatch, Request},
    run::Run,
    sink::{Overdraft, Queued, SinkLimits},
};

/// See [`Sink`](crate::Sink). Implemented by plugins.
#[sabi_trait]
pub trait RawSink: Send + Sync + 'static {
    fn deliver(&self, run: &mut Run<'_>) -> u8;
    fn flush(&self);
    fn when_drained(&self, notifier: NotifierObject);
    fn close(&self, reason: RStr<'_>);
    fn queued(&self) -> Queued;
    #[sabi(last_prefix_field)]
    fn limit(&self, limits: &SinkLimits);
    fn overdraw(&self, overdraft: &Overdraft<'_>) -> bool {
        let _ = overdraft;
        false
    }
    fn overdrawn(&self) -> u64 {
        0
    }
    fn deliver_mixed(&self, run: &mut MixedRun<'_>) -> u8 {
        let _ = run;
        DeliveryStatus::UNSUPPORTED.bits()
    }
    fn resume_sending(&self) {}
    fn when_empty(&self, notifier: NotifierObject) {
        notifier.notify();
    }
    fn take_unsent(&self, reason: RStr<'_>, unsent: &mut RunBatch) {
        let _ = (reason, unsent);
    }
}
pub type SinkObject = RawSink_TO<RBox<()>>;

/// See [`Client`](crate::Client). Implemented by the broker; dropping it ends the registration.
#[sabi_trait]
pub trait RawClient: Send + 'static {
    fn dispatch(&mut self, request: &Request<'_>) -> Dispatch;
    fn end_batch(&mut self) -> bool;
    fn when_ready(&mut self, notifier: NotifierObject);
    #[sabi(last_prefix_field)]
    fn set_close_reason(&mut self, reason: RStr<'_>);
    fn id(&self) -> u64 {
        0
    }
    fn drain(&mut self) {}
    fn wait_for_itself(&mut self, waits: bool) {
        let _ = waits;
    }
    /// Writes a code for each frame that it dispatches.
    fn dispatch_mixed(&mut self, frames: RSlice<'_, Frame<'_>>, codes: RSliceMut<'_, u8>) -> MixedDispatch {
        let _ = (frames, codes);
        MixedDispatch::alone()
    }
    fn take_frame_codes(&mut self) -> RVec<u8> {
        RVec::new()
    }
    fn take_pending(&mut self) -> ROption<PendingObject> {
        ROption::RNone
    }
    /// A [`Departure`](crate::Departure) as a number.
    fn set_departure(&mut self, departure: u32) {
        let _ = departure;
    }
}
pub type ClientObject = RawClient_TO<RBox<()>>;

/// See [`ClientInfo`](crate::ClientInfo).
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawClientInfo<'a> {
    pub flags: u32,
    pub kind: RStr<'a>,
    pub locality: Locality,
    pub source: ROption<RStr<'a>>,
    pub port: ROption<RStr<'a>>,
    pub credentials: ROption<RawCredentials>,
    pub unit: ROption<RStr<'a>>,
    pub certificate_names: RSlice<'a, RStr<'a>>,
    pub max_filters: Limit,
    pub max_filter_depth: Limit,
    /// Brokers ignore those of kinds that they do not know.
    pub identities: RSlice<'a, RawIdentity<'a>>,
}

/// One of the identities of a client: what it is, such as a user or a token, and its value.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawIdentity<'a> {
    pub kind: u32,
    pub flags: u32,
    pub value: RStr<'a>,
}

/// The process at the other end of a UNIX socket.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawCredentials {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

/// [`RawIdentity::kind`]: the value is the name of a token that the client has authenticated itself with.
pub const IDENTITY_TOKEN: u32 = 5;
/// [`RawIdentity::kind`]: the value is the name of the node of a bridged bus at which the client is.
pub const IDENTITY_NODE: u32 = 6;

/// [`RawClientInfo::flags`]: a part of the broker rather than a client of the bus. Its name can have a
/// leading dot; it has no subscriptions and is not announced.
pub const CLIENT_INTERNAL: u32 = 1;
/// [`RawClientInfo::flags`]: its bytes are in rings of shared memory. For display only.
pub const CLIENT_RINGS: u32 = 2;
/// [`RawClientInfo::flags`]: the bits from here on, 3 of them, are the number of the overflow policy; 0 is
/// [`Overflow::Block`](crate::config::Overflow::Block).
pub const CLIENT_OVERFLOW_SHIFT: u32 = 8;

#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawEvent<'a> {
    pub kind: u32,
    pub flags: u32,
    pub subject: RStr<'a>,
    pub detail: RStr<'a>,
    pub unix_nanos: u64,
}

/// See [`EventListener`](crate::EventListener). Implemented by plugins.
#[sabi_trait]
pub trait RawListener: Send + Sync + 'static {
    #[sabi(last_prefix_field)]
    fn on_event(&self, event: &RawEvent<'_>);
}
pub type ListenerObject = RawListener_TO<RBox<()>>;

#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawCall<'a> {
    pub flags: u32,
    pub caller: RStr<'a>,
    pub caller_id: u64,
    pub method: RStr<'a>,
    pub params: RSlice<'a, u8>,
}

#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct RawCallError {
    pub code: i16,
    pub flags: u32,
    pub data: RVec<u8>,
}

#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawMethod<'a> {
    pub flags: u32,
    pub name: RStr<'a>,
    pub params: RStr<'a>,
    pub about: RStr<'a>,
}

/// [`RawHost::system_sender`]: can call administrative methods without an access rule that allows it.
pub const SENDER_ADMIN: u32 = 1;

/// [`RawMethod::flags`]: the method exists.
pub const METHOD_KNOWN: u32 = 1;
/// [`RawMethod::flags`]: the method can block, so no thread of a transport calls it.
pub const METHOD_SLOW: u32 = 2;
/// [`RawMethod::flags`]: the method changes the broker; not for clients on other machines.
pub const METHOD_ADMIN: u32 = 4;
/// [`RawMethod::flags`]: it changes nothing, so that it need not be called if nobody waits for its answer.
pub const METHOD_QUERY: u32 = 8;

/// See [`ControlHandler`](crate::ControlHandler). Implemented by plugins.
#[sabi_trait]
pub trait RawHandler: Send + Sync + 'static {
    #[sabi(last_prefix_field)]
    fn call(&self, call: &RawCall<'_>) -> RResult<RVec<u8>, RawCallError>;
}
pub type HandlerObject = RawHandler_TO<RBox<()>>;

/// See [`Interceptor`](crate::hooks::Interceptor). Implemented by plugins.
#[sabi_trait]
pub trait RawInterceptor: Send + Sync + 'static {
    /// Returns `false` if the instance has failed; the verdicts then mean nothing.
    #[sabi(last_prefix_field)]
    fn intercept(&self, run: &mut InterceptedRun<'_>) -> bool;
}
pub type InterceptorObject = RawInterceptor_TO<RBox<()>>;

/// See [`NameResolver`](crate::hooks::NameResolver). Implemented by plugins.
#[sabi_trait]
pub trait RawResolver: Send + Sync + 'static {
    /// Returns for how many milliseconds messages wait; 0 if the name is unknown.
    #[sabi(last_prefix_field)]
    fn resolve(&self, message: &UnresolvedMessage<'_>) -> u64;
}
pub type ResolverObject = RawResolver_TO<RBox<()>>;

/// See [`Observer`](crate::hooks::Observer). Implemented by the broker; dropping it ends the observation.
#[sabi_trait]
pub trait RawObserver: Send + Sync + 'static {
    /// Moves all that is queued into `into`, which is cleared before. If there is nothing and there will be,
    /// keeps the notifier and calls it once when there is something, or when nothing will follow. Returns
    /// `false` once nothing will follow.
    fn receive(&self, into: &mut ObservedRuns, notifier: ROption<NotifierObject>) -> bool;
    fn missed(&self) -> u64;
    /// Returns the id of the hook, for `remove_hook`.
    #[sabi(last_prefix_field)]
    fn id(&self) -> u64;
}
pub type ObserverObject = RawObserver_TO<RBox<()>>;

/// See [`SubscriptionListener`](crate::hooks::SubscriptionListener). Implemented by plugins.
#[sabi_trait]
pub trait RawSubscriptionListener: Send + Sync + 'static {
    #[sabi(last_prefix_field)]
    fn on_change(&self, change: &SubscriptionChange<'_>, replay: ROption<ReplayObject>);
}
pub type SubscriptionListenerObject = RawSubscriptionListener_TO<RBox<()>>;

/// See [`Replay`](crate::hooks::Replay). Implemented by the broker; dropping it ends the replay.
#[sabi_trait]
pub trait RawReplay: Send + Sync + 'static {
    /// Returns a [`Replayed`](crate::hooks::Replayed).
    fn send(&self, publication: &EarlierPublication<'_>) -> u8;
    fn flush(&self);
    #[sabi(last_prefix_field)]
    fn when_ready(&self, notifier: NotifierObject);
}
pub type ReplayObject = RawReplay_TO<RBox<()>>;

/// Creates the description of a change of filters, which are without their options.
pub fn subscription_change<'a>(
    event: SubscriptionEvent,
    client: &'a str,
    client_id: u64,
    filters: &'a [RStr<'a>],
) -> SubscriptionChange<'a> {
    SubscriptionChange::new(event, client, client_id, filters)
}

/// [`RawHost::add_interceptor`]: messages in its scope are rejected while the interceptor cannot be called.
pub const HOOK_FAILS_CLOSED: u32 = 1;

/// A worker of a plugin that answers liveness checks. Implemented by plugins.
#[sabi_trait]
pub trait RawWorker: Send + Sync + 'static {
    #[sabi(last_prefix_field)]
    fn ask(&self, answer: NotifierObject);
}
pub type WorkerObject = RawWorker_TO<RBox<()>>;

/// See [`InprocConnector`](crate::inproc::InprocConnector). Implemented by the plugin that offers in-process
/// clients.
#[sabi_trait]
pub trait RawConnector: Send + Sync + Clone + 'static {
    #[sabi(last_prefix_field)]
    fn connect(&self, name: RStr<'_>) -> RResult<EndpointObject, u8>;
}
pub type ConnectorObject = RawConnector_TO<RArc<()>>;

/// See [`InprocEndpoint`](crate::inproc::InprocEndpoint).
#[sabi_trait]
pub trait RawEndpoint: Send + Sync + 'static {
    fn dispatch(&self, request: &Request<'_>) -> Dispatch;
    fn when_ready(&self, notifier: NotifierObject);
    fn receive(&self, into: &mut RunBatch, waits: bool) -> bool;
    fn set_notifier(&self, notifier: NotifierObject);
    #[sabi(last_prefix_field)]
    fn close(&self);
    fn drain(&self) {}
}
pub type EndpointObject = RawEndpoint_TO<RBox<()>>;

/// See [`Host`](crate::Host). Implemented by the broker, once per instance of a plugin.
#[sabi_trait]
pub trait RawHost: Send + Sync + Clone + 'static {
    fn register(
        &self,
        name: RStr<'_>,
        info: &RawClientInfo<'_>,
        sink: SinkObject,
    ) -> RResult<ClientObject, u8>;
    fn system_client(&self) -> ClientObject;
    fn call(&self, call: &RawCall<'_>) -> RResult<RVec<u8>, RawCallError>;
    fn method_flags(&self, method: RStr<'_>) -> u32;
    fn add_method(&self, method: &RawMethod<'_>, handler: HandlerObject) -> RResult<(), RString>;
    fn add_listener(&self, listener: ListenerObject);
    fn emit(&self, event: &RawEvent<'_>);
    fn offer_connector(&self, connector: ConnectorObject) -> RResult<(), RString>;
    fn connector(&self) -> ROption<ConnectorObject>;
    /// Rules as TOML text.
    fn set_access_rules(&self, rules: RStr<'_>) -> RResult<(), RString>;
    fn broker_name(&self) -> RString;
    fn queue_budget(&self) -> RArc<RawQueueBudget>;
    fn max_log_level(&self) -> u8;
    fn log_enabled(&self, level: u8, target: RStr<'_>) -> bool;
    fn log(&self, level: u8, target: RStr<'_>, message: RStr<'_>, fields: RStr<'_>);
    /// Reports a panic in a callback of the instance, which must not be called again.
    #[sabi(last_prefix_field)]
    fn failed(&self, reason: RStr<'_>);
    fn inherited_listener(&self, address: RStr<'_>) -> ROption<PassedFd> {
        let _ = address;
        ROption::RNone
    }
    /// Checks whether a call would be carried out now. Denied unless a host implements it.
    fn authorize(&self, call: &RawCall<'_>) -> RResult<(), RawCallError> {
        let _ = call;
        let data = b"the host cannot authorise calls".to_vec().into();
        RResult::RErr(RawCallError { code: Code::AccessDenied.rpc_code(), flags: 0, data })
    }
    fn system_sender(&self, kind: RStr<'_>, flags: u32) -> RResult<ClientObject, u8> {
        let _ = (kind, flags);
        RResult::RErr(Code::NotSupported as u8)
    }
    /// Adds a worker that the broker checks periodically.
    fn watch_worker(&self, name: RStr<'_>, worker: WorkerObject) {
        let _ = (name, worker);
    }
    /// Returns a number that stands for the identity behind a registration; zero if it is unknown.
    fn identity(&self, name: RStr<'_>, id: u64) -> u64 {
        let _ = (name, id);
        0
    }
    /// Returns the id of the hook, for `remove_hook`.
    fn add_interceptor(
        &self,
        scope: &RawHookScope<'_>,
        flags: u32,
        interceptor: InterceptorObject,
    ) -> RResult<u64, RString> {
        let _ = (scope, flags, interceptor);
        RResult::RErr("the host has no hooks".into())
    }
    fn remove_hook(&self, id: u64) {
        let _ = id;
    }
    fn add_observer(&self, scope: &RawHookScope<'_>, queue_bytes: usize) -> RResult<ObserverObject, RString> {
        let _ = (scope, queue_bytes);
        RResult::RErr("the host has no hooks".into())
    }
    /// Returns a mark greater than all before.
    fn next_mark(&self) -> u64 {
        0
    }
    /// Returns the id of the hook, for `remove_hook`.
    fn add_subscription_listener(&self, listener: SubscriptionListenerObject) -> RResult<u64, RString> {
        let _ = listener;
        RResult::RErr("the host has no hooks".into())
    }
    /// Returns the id of the hook, for `remove_hook`.
    fn add_resolver(&self, scope: &RawHookScope<'_>, resolver: ResolverObject) -> RResult<u64, RString> {
        let _ = (scope, resolver);
        RResult::RErr("the host has no name resolvers".into())
    }
    fn end_wait(&self, hook: u64, name: RStr<'_>) {
        let _ = (hook, name);
    }
    fn has_access_rules(&self) -> bool {
        false
    }
    /// Returns the id of the hook, for `remove_hook`.
    fn add_subscription_watcher(&self, listener: SubscriptionListenerObject) -> RResult<u64, RString> {
        let _ = listener;
        RResult::RErr("the host has no subscription watchers".into())
    }
}
pub type HostObject = RawHost_TO<RArc<()>>;

#[repr(C)]
#[derive(StableAbi, Clone, Default)]
pub struct RawStatus {
    pub flags: u32,
    pub addresses: RVec<RString>,
    pub detail: RString,
}

/// See [`Figure`](crate::Figure).
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawFigure {
    pub flags: u32,
    pub name: RString,
    pub of: RString,
    pub value: f64,
}

/// [`RawFigure::flags`]: it never decreases.
pub const FIGURE_COUNTER: u32 = 1;

/// The error of a plugin that could not be configured or started.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawPluginError {
    pub flags: u32,
    /// Key of the configuration that it is about, dotted, or empty.
    pub key: RString,
    pub message: RString,
}

/// A running instance. Implemented by the panic barrier around every plugin.
#[sabi_trait]
pub trait RawInstance: Send + Sync + 'static {
    fn start(&self) -> RResult<(), RawPluginError>;
    fn serve(&self);
    fn stop(&self, deadline_millis: u64);
    #[sabi(last_prefix_field)]
    fn status(&self) -> RawStatus;
    fn refresh(&self) -> RResult<(), RawPluginError> {
        RResult::ROk(())
    }
    fn figures(&self) -> RVec<RawFigure> {
        RVec::new()
    }
}
pub type InstanceObject = RawInstance_TO<RBox<()>>;

#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawContext<'a> {
    pub flags: u32,
    pub instance: RStr<'a>,
    /// The instance's own table, as TOML text.
    pub config: RStr<'a>,
}

/// [`RawContext::flags`]: linked into the program, hence with its tracing, its runtime and its panic hook.
pub const CONTEXT_LINKED: u32 = 1;

/// The root module of a plugin.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRef)))]
pub struct PluginModule {
    #[sabi(last_prefix_field)]
    pub create: extern "C" fn(HostObject, &RawContext<'_>) -> RResult<InstanceObject, RawPluginError>,
}

impl RootModule for PluginRef {
    declare_root_module_statics! {PluginRef}
    const BASE_NAME: &'static str = "elbus";
    const NAME: &'static str = "elbus plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

impl RawPluginError {
    pub(crate) fn new(key: &str, message: &str) -> Self {
        RawPluginError { flags: 0, key: key.into(), message: message.into() }
    }
}
