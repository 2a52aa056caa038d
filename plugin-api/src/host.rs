//! The broker, as an instance of a plugin sees it.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RStr},
};
use elbus_protocol::Code;
use std::{os::fd::OwnedFd, sync::Arc};

use crate::{
    abi::{
        FromRaw, HOOK_FAILS_CLOSED, HostObject, IntoRaw, METHOD_ADMIN, METHOD_KNOWN, METHOD_QUERY,
        METHOD_SLOW, RawConnector_TO, RawHandler_TO, RawInterceptor_TO, RawListener_TO, RawResolver_TO,
        RawSink_TO, RawSubscriptionListener_TO, RawWorker_TO, SENDER_ADMIN, catch,
        convert::sealed::Sealed,
        guard::{Guarded, PanicScope},
    },
    access::AccessRules,
    budget::QueueBudget,
    client::Client,
    client_info::ClientInfo,
    control::{Call, CallError, ControlHandler, Method, MethodTraits},
    event::{Event, EventListener},
    hooks::{Hook, HookScope, Interceptor, NameResolver, Observer, OnFailure, SubscriptionListener},
    inproc::{InprocClient, InprocConnector, guarded::GuardedConnector},
    notifier::Notifier,
    plugin_error::PluginError,
    sink::Sink,
    thread::PluginThread,
};

/// The broker, as one instance of a plugin sees it. Cheap to clone; every method can be called from any
/// thread. What an instance registers, adds and offers ends with it.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{ClientInfo, Code, NullSink, testing::FakeHost};
///
/// let fake = FakeHost::new();
/// let host = fake.host("demo");
/// let client = host.register("plugin.demo", &ClientInfo::in_process(), NullSink)?;
/// assert_eq!((host.instance(), fake.clients()), ("demo", vec!["plugin.demo".to_owned()]));
/// drop(client);
/// assert!(fake.clients().is_empty());
/// # Ok::<(), Code>(())
/// ```
#[derive(Clone)]
pub struct Host(Arc<PanicScope>);

impl Host {
    pub(crate) fn new(scope: Arc<PanicScope>) -> Self {
        Host(scope)
    }

    pub(crate) fn object(&self) -> &HostObject {
        self.0.object()
    }

    /// Returns the name of this instance in `broker.toml`.
    pub fn instance(&self) -> &str {
        self.0.name()
    }

    /// Returns the name of the broker.
    pub fn broker_name(&self) -> String {
        self.object().broker_name().into_string()
    }

    /// Returns the budget that the queues of all transports share. Ask once and keep it.
    pub fn queue_budget(&self) -> QueueBudget {
        QueueBudget::from_raw(self.object().queue_budget())
    }

    /// Registers a client under a name: from now on messages for it are delivered into `sink`. Does not
    /// block.
    ///
    /// # Errors
    /// [`Code::BadData`] for an illegal name, [`Code::Busy`] for a name that is taken,
    /// [`Code::NotRegistered`] for a secondary without its primary, [`Code::AccessDenied`] if access rules
    /// deny it (section 2 of the protocol).
    pub fn register(&self, name: &str, info: &ClientInfo, sink: impl Sink) -> Result<Client, Code> {
        let sink = RawSink_TO::from_value(Guarded::new(sink, self.0.clone()), TD_Opaque);
        info.with_raw(|info| self.object().register(RStr::from_str(name), info, sink))
            .into_result()
            .map(Client)
            .map_err(|code| Code::from_wire(code).unwrap_or(Code::Other))
    }

    /// Returns a sender named `.broker`, which is not registered and receives nothing.
    pub fn system_client(&self) -> Client {
        Client(self.object().system_client())
    }

    /// Returns a sender for commands that reach the broker from outside the bus. It sends as `.broker` and
    /// receives nothing. Access rules apply to it as to a client named `.KIND.INSTANCE`, a name that nobody
    /// can register. Without rules that allow a method explicitly, administrative methods are denied to it
    /// unless `admin` is set.
    ///
    /// # Errors
    /// [`Code::BadData`] if `kind` is not a single segment of a name.
    pub fn system_sender(&self, kind: &str, admin: bool) -> Result<Client, Code> {
        let flags = if admin { SENDER_ADMIN } else { 0 };
        self.object()
            .system_sender(RStr::from_str(kind), flags)
            .into_result()
            .map(Client)
            .map_err(|code| Code::from_wire(code).unwrap_or(Code::Other))
    }

    /// Checks whether a call would be carried out: by a registered client that the access rules, and for an
    /// administrative method `remote_admin`, allow it now. [`call`](Host::call) checks the same again; this
    /// is for calls that wait before they are made.
    ///
    /// # Errors
    /// The reason for denying it.
    pub fn authorize(&self, call: &Call<'_>) -> Result<(), CallError> {
        self.object().authorize(&call.into_raw()).into_result().map_err(CallError::from_raw)
    }

    /// Returns a number for the identity behind a registration, by which a plugin shares its resources
    /// fairly among clients. It is the same for all clients with the same certificate, else of the same
    /// user, else from the same address (of IPv6 its first 64 bits), and for all within this process. It has
    /// no other meaning, and none in another process. Zero if the registration has ended.
    pub fn identity(&self, client: &str, id: u64) -> u64 {
        self.object().identity(RStr::from_str(client), id)
    }

    /// Calls a control method. The caller is authorised first. Blocks only if the method is slow, see
    /// [`is_slow`](Host::is_slow).
    ///
    /// # Errors
    /// No such method, access denied, invalid parameters, or an error of the method.
    pub fn call(&self, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
        self.object().call(&call.into_raw()).into_result().map(Into::into).map_err(CallError::from_raw)
    }

    /// Returns whether a control method can block; `None` if there is no such method.
    pub fn is_slow(&self, method: &str) -> Option<bool> {
        self.method_traits(method).map(|traits| traits.slow)
    }

    /// Returns whether a control method can block and whether it is administrative; `None` if there is no
    /// such method.
    pub fn method_traits(&self, method: &str) -> Option<MethodTraits> {
        let flags = self.object().method_flags(RStr::from_str(method));
        let traits = MethodTraits {
            slow: flags & METHOD_SLOW != 0,
            admin: flags & METHOD_ADMIN != 0,
            query: flags & METHOD_QUERY != 0,
        };
        (flags & METHOD_KNOWN != 0).then_some(traits)
    }

    /// Adds a control method.
    ///
    /// # Errors
    /// The name is taken.
    pub fn add_method(&self, method: &Method<'_>, handler: impl ControlHandler) -> Result<(), PluginError> {
        let handler = RawHandler_TO::from_value(Guarded::new(handler, self.0.clone()), TD_Opaque);
        let added = self.object().add_method(&method.to_raw(), handler);
        added.into_result().map_err(|text| PluginError::new(text.into_string()))
    }

    /// Adds a listener, which receives all events from now on.
    pub fn add_listener(&self, listener: impl EventListener) {
        self.object()
            .add_listener(RawListener_TO::from_value(Guarded::new(listener, self.0.clone()), TD_Opaque));
    }

    /// Emits an event to all listeners. Does not block.
    pub fn emit(&self, event: &Event<'_>) {
        self.object().emit(&event.into_raw());
    }

    /// Adds an interceptor, which decides about the messages in a scope before they are routed, until the
    /// [`Hook`] is dropped or the instance ends. See [the rules for hooks](crate::hooks). Add it before the
    /// plugin serves, so that no message passes without it.
    ///
    /// # Errors
    /// An invalid scope; the broker has [`MAX_HOOKS`](crate::hooks::MAX_HOOKS) interceptors already.
    pub fn add_interceptor(
        &self,
        scope: &HookScope,
        on_failure: OnFailure,
        interceptor: impl Interceptor,
    ) -> Result<Hook, PluginError> {
        scope.check()?;
        let flags = if on_failure == OnFailure::Closed { HOOK_FAILS_CLOSED } else { 0 };
        let interceptor = RawInterceptor_TO::from_value(Guarded::new(interceptor, self.0.clone()), TD_Opaque);
        let added = scope.with_raw(|scope| self.object().add_interceptor(scope, flags, interceptor));
        let id = added.into_result().map_err(|text| PluginError::new(text.into_string()))?;
        Ok(Hook::new(self.clone(), id))
    }

    /// Adds an observer, which receives copies of the messages in a scope after they have been routed. It
    /// ends when the [`Hook`] or the observer is dropped, and with the instance. Its queue holds at most
    /// `queue_bytes`; what does not fit is dropped and counted. See [the rules for hooks](crate::hooks).
    ///
    /// # Errors
    /// An invalid scope; the broker has [`MAX_HOOKS`](crate::hooks::MAX_HOOKS) observers already.
    pub fn add_observer(
        &self,
        scope: &HookScope,
        queue_bytes: usize,
    ) -> Result<(Hook, Observer), PluginError> {
        scope.check()?;
        let added = scope.with_raw(|scope| self.object().add_observer(scope, queue_bytes));
        let observer = added.into_result().map_err(|text| PluginError::new(text.into_string()))?;
        Ok((Hook::new(self.clone(), observer.id()), Observer::new(observer)))
    }

    /// Adds a subscription listener, which learns from now on what clients subscribe to, until the [`Hook`]
    /// is dropped or the instance ends. See [the rules for hooks](crate::hooks).
    ///
    /// # Errors
    /// Another instance has a subscription listener: the marks of two could not be told apart.
    pub fn add_subscription_listener(
        &self,
        listener: impl SubscriptionListener,
    ) -> Result<Hook, PluginError> {
        let listener =
            RawSubscriptionListener_TO::from_value(Guarded::new(listener, self.0.clone()), TD_Opaque);
        let added = self.object().add_subscription_listener(listener);
        let id = added.into_result().map_err(|text| PluginError::new(text.into_string()))?;
        Ok(Hook::new(self.clone(), id))
    }

    /// Adds a subscription watcher, which learns what clients subscribe to without taking part in it: it gets
    /// no [`Replay`](crate::hooks::Replay), a broker can have several, and filters have their options. It
    /// ends when the [`Hook`] is dropped, and with the instance.
    ///
    /// Before this method returns, it has the watcher learn the subscriptions that there are, by
    /// [`SubscriptionEvent::Existing`](crate::hooks::SubscriptionEvent::Existing). Changes of that time can
    /// arrive before or after it: for a client and filter with such a change, the last change counts.
    ///
    /// # Errors
    /// The broker has [`MAX_HOOKS`](crate::hooks::MAX_HOOKS) watchers already.
    pub fn add_subscription_watcher(&self, watcher: impl SubscriptionListener) -> Result<Hook, PluginError> {
        let watcher =
            RawSubscriptionListener_TO::from_value(Guarded::new(watcher, self.0.clone()), TD_Opaque);
        let added = self.object().add_subscription_watcher(watcher);
        let id = added.into_result().map_err(|text| PluginError::new(text.into_string()))?;
        Ok(Hook::new(self.clone(), id))
    }

    /// Adds a name resolver, which decides about messages for clients whose names match one of the masks and
    /// that are not registered, until the [`Hook`] is dropped or the instance ends. See [the rules for
    /// hooks](crate::hooks#name-resolvers).
    ///
    /// # Errors
    /// No mask, or more than [`MAX_HOOK_FILTERS`](crate::hooks::MAX_HOOK_FILTERS); the broker has
    /// [`MAX_HOOKS`](crate::hooks::MAX_HOOKS) resolvers already.
    pub fn add_resolver<M: AsRef<str>>(
        &self,
        masks: impl IntoIterator<Item = M>,
        resolver: impl NameResolver,
    ) -> Result<Hook, PluginError> {
        let scope = HookScope::new().messages(masks);
        scope.check()?;
        let resolver = RawResolver_TO::from_value(Guarded::new(resolver, self.0.clone()), TD_Opaque);
        let added = scope.with_raw(|scope| self.object().add_resolver(scope, resolver));
        let id = added.into_result().map_err(|text| PluginError::new(text.into_string()))?;
        Ok(Hook::new(self.clone(), id))
    }

    /// Returns a mark for a publication that is kept, greater than all before, see
    /// [`Replay`](crate::hooks::Replay). Take it while nobody else can keep a publication of the same topic.
    pub fn next_mark(&self) -> u64 {
        self.object().next_mark()
    }

    /// Replaces the access rules. Connected clients are re-checked immediately: a subscription that is no
    /// longer allowed ends, a client that is no longer allowed is disconnected. The rules stay in force
    /// until they are replaced or the instance is removed from the configuration, even if the instance stops
    /// or fails. Blocks only briefly.
    ///
    /// # Errors
    /// Another instance has set access rules.
    pub fn set_access_rules(&self, rules: &AccessRules) -> Result<(), PluginError> {
        let text = toml::to_string(rules).map_err(|error| PluginError::new(error.to_string()))?;
        let set = self.object().set_access_rules(RStr::from_str(&text));
        set.into_result().map_err(|text| PluginError::new(text.into_string()))
    }

    /// Returns whether access rules are in force: without them every client can register under every name.
    /// They can be set and dropped at any time. Blocks only briefly.
    pub fn has_access_rules(&self) -> bool {
        self.object().has_access_rules()
    }

    /// Attributes a task to this instance, for any runtime: what it logs names the instance.
    pub fn attribute<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        let (scope, mut task) = (self.0.clone(), Box::pin(task));
        std::future::poll_fn(move |context| catch::in_task(scope.instance(), || task.as_mut().poll(context)))
    }

    /// Runs `work` in a thread named after the instance. A panic in it fails the instance, as a panic in a
    /// callback does.
    ///
    /// # Errors
    /// The thread could not be created.
    pub fn spawn(&self, work: impl FnOnce() + Send + 'static) -> Result<PluginThread, PluginError> {
        PluginThread::spawn(self.0.clone(), work)
    }

    /// Adds a worker, a thread or a runtime of the plugin, that the broker checks periodically: `ask` makes
    /// the worker [notify](Notifier::notify) the answer, and must not block. While a worker does not answer,
    /// the service manager is not notified that the broker is alive.
    pub fn watch_worker(&self, name: &str, ask: impl Fn(Notifier) + Send + Sync + 'static) {
        let worker = RawWorker_TO::from_value(Guarded::new(ask, self.0.clone()), TD_Opaque);
        self.object().watch_worker(RStr::from_str(name), worker);
    }

    /// Returns the socket that listens at `address` (`unix:/run/elbus.sock`, `tcp:127.0.0.1:7777`) and was
    /// passed to the broker by its parent, a service manager for example. Each call returns another
    /// duplicate. The socket belongs to the parent: it must not be shut down, nor its file be removed or
    /// changed.
    pub fn inherited_listener(&self, address: &str) -> Option<OwnedFd> {
        self.object().inherited_listener(RStr::from_str(address)).into_option().map(Into::into)
    }

    /// Offers in-process clients to the embedding program and to other plugins.
    ///
    /// # Errors
    /// Another instance offers them already.
    pub fn offer_connector(&self, connector: impl InprocConnector) -> Result<(), PluginError> {
        let connector = GuardedConnector::new(connector, self.0.clone());
        let connector = RawConnector_TO::from_ptr(RArc::new(connector), TD_Opaque);
        let offered = self.object().offer_connector(connector);
        offered.into_result().map_err(|text| PluginError::new(text.into_string()))
    }

    /// Connects an in-process client under a name. Does not block.
    ///
    /// # Errors
    /// [`Code::NotSupported`] if no plugin offers in-process clients (`inproc` does), else as
    /// [`register`](Host::register).
    pub fn connect(&self, name: &str) -> Result<InprocClient, Code> {
        let connector = self.object().connector().into_option().ok_or(Code::NotSupported)?;
        InprocClient::connect(&connector, name)
    }
}

impl Sealed for Host {}

/// With the name of an instance; empty for the program that embeds the broker.
impl FromRaw<(HostObject, &str)> for Host {
    fn from_raw((object, name): (HostObject, &str)) -> Self {
        Host(PanicScope::new(object, name))
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host of {:?}", self.instance())
    }
}
