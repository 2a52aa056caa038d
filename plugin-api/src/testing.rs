//! A fake broker to test a plugin alone: it records what the plugin does and answers as the test says.
//!
//! It routes nothing. A test creates an instance with [`FakeHost::create`], checks what was registered and
//! dispatched, delivers runs into the plugin's sinks, emits events, and waits for what it expects.

mod deferral;
mod fake_client;
mod fake_hooks;

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RStr},
};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

pub use fake_hooks::FakeReplay;

use crate::{
    abi::{
        ConnectorObject, FromRaw, HandlerObject, HostObject, InstanceObject, IntoRaw, ListenerObject,
        NotifierObject, RawHost_TO, SinkObject, catch, convert::sealed::Sealed, export, guard::PanicScope,
    },
    access::AccessRules,
    budget::QueueBudget,
    buffer::Payload,
    client_info::ClientInfo,
    delivery_status::DeliveryStatus,
    event::Event,
    figure::Figure,
    host::Host,
    pending::Completion,
    plugin::{Plugin, Status},
    plugin_error::PluginError,
    run::{Deferral, Encoding, Run},
};
use elbus_protocol::{Code, FrameKind, Op, Qos};

/// A request that the plugin dispatched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Name of the sender; `.broker` for a system client.
    pub sender: String,
    /// Operation.
    pub op: Op,
    /// Quality of service.
    pub qos: Qos,
    /// Name, mask, topic, or filters separated by NUL.
    pub target: String,
    /// Receiver of a limited publication.
    pub receiver: String,
    /// Registration that a message is limited to; 0 is any.
    pub receiver_id: u64,
    /// Whether recipients over their limit are skipped.
    pub best_effort: bool,
    /// Payloads.
    pub payloads: Vec<Vec<u8>>,
}

#[derive(Default)]
struct State {
    clients: BTreeMap<String, (ClientInfo, Arc<SinkObject>)>,
    requests: Vec<Recorded>,
    logged: Vec<String>,
    failures: Vec<String>,
    methods: BTreeMap<String, (u32, Arc<HandlerObject>)>,
    listeners: Vec<Arc<ListenerObject>>,
    connector: Option<ConnectorObject>,
    access_rules: Option<AccessRules>,
    refuse_names_with: Option<Code>,
    /// The id of the registration, by sender.
    ids: BTreeMap<String, u64>,
    last_id: u64,
    /// The identity, by sender; zero unless the test has set it.
    identities: BTreeMap<String, u64>,
    deny_calls_with: Option<Code>,
    system_senders: Vec<(String, bool)>,
    answer: Option<Code>,
    defers_answers: bool,
    /// Of requests whose answers were deferred, until the test takes them.
    deferred: Vec<Completion>,
    receivers_full: bool,
    /// Targets whose receiver alone is full.
    congested: BTreeSet<String>,
    /// Notifiers that are pending, and the targets that each still waits for.
    waiting: Vec<(BTreeSet<String>, NotifierObject)>,
    hooks: fake_hooks::FakeHooks,
}

/// The fake broker. Cheap to clone; all clones share its state.
///
/// # Examples
/// ```
/// use elbus_plugin_api::{Config, DeliveryStatus, FrameKind, Host, Plugin, PluginError, testing::FakeHost};
/// use elbus_plugin_api::{Client, ClientInfo, NullSink};
/// use std::sync::Mutex;
///
/// struct Idle(Mutex<Client>);
///
/// impl Plugin for Idle {
///     const ABOUT: &'static str = "registers a client";
///
///     fn create(host: Host, _: &Config) -> Result<Self, PluginError> {
///         let client = host.register("idle", &ClientInfo::in_process(), NullSink);
///         client.map(|client| Idle(Mutex::new(client))).map_err(|code| PluginError::new(code.text()))
///     }
/// }
///
/// let fake = FakeHost::new();
/// let instance = fake.create::<Idle>("demo", "")?;
/// instance.start()?;
/// assert_eq!(fake.clients(), ["idle"]);
/// let status = fake.deliver("idle", FrameKind::Message, "sender", "", &[b"hello"]);
/// assert_eq!(status, Some(DeliveryStatus::TAKEN));
/// # Ok::<(), PluginError>(())
/// ```
#[derive(Clone, Default)]
pub struct FakeHost(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    budget: QueueBudget,
}

impl Default for Shared {
    fn default() -> Self {
        Shared { state: Mutex::default(), changed: Condvar::new(), budget: QueueBudget::new(1 << 30) }
    }
}

impl FakeHost {
    /// Creates a broker without clients.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a broker without clients, with a queue budget of `bytes`.
    pub fn with_queue_budget(bytes: usize) -> Self {
        FakeHost(Arc::new(Shared { budget: QueueBudget::new(bytes), ..Shared::default() }))
    }

    /// Returns the queue budget.
    pub fn queue_budget(&self) -> &QueueBudget {
        &self.0.budget
    }

    /// Returns a host for the named instance.
    pub fn host(&self, instance: &str) -> Host {
        Host::from_raw((self.into_raw(), instance))
    }

    /// Creates an instance of a plugin from TOML text, behind the panic barrier as in a real broker.
    ///
    /// # Errors
    /// The error of the plugin, or its panic.
    pub fn create<P: Plugin>(&self, instance: &str, config: &str) -> Result<FakeInstance, PluginError> {
        catch::install_hook(true);
        export::create::<P>(PanicScope::new(self.into_raw(), instance), config)
            .map(FakeInstance)
            .map_err(PluginError::from_raw)
    }

    /// Returns the registered names.
    pub fn clients(&self) -> Vec<String> {
        self.0.state.lock().clients.keys().cloned().collect()
    }

    /// Returns the description of a client when it registered.
    pub fn client_info(&self, name: &str) -> Option<ClientInfo> {
        self.0.state.lock().clients.get(name).map(|(info, _)| info.clone())
    }

    /// Returns all requests so far, in order.
    pub fn requests(&self) -> Vec<Recorded> {
        self.0.state.lock().requests.clone()
    }

    /// Returns the events logged through the host: `level target message fields`.
    pub fn logged(&self) -> Vec<String> {
        self.0.state.lock().logged.clone()
    }

    /// Returns the access rules that were set last.
    pub fn access_rules(&self) -> Option<AccessRules> {
        self.0.state.lock().access_rules.clone()
    }

    /// Returns the panics that were caught.
    pub fn failures(&self) -> Vec<String> {
        self.0.state.lock().failures.clone()
    }

    /// Refuses registrations with a code, or accepts them again.
    pub fn refuse_names(&self, code: Option<Code>) {
        self.0.state.lock().refuse_names_with = code;
    }

    /// Answers every request with a code; `None` means `Ok`.
    pub fn answer_with(&self, code: Option<Code>) {
        self.0.state.lock().answer = code;
    }

    /// Returns the system senders that were created: `.KIND`, and whether they can administer.
    pub fn system_senders(&self) -> Vec<(String, bool)> {
        self.0.state.lock().system_senders.clone()
    }

    /// Denies calls with a code when they are authorised, or allows them again.
    pub fn deny_calls(&self, code: Option<Code>) {
        self.0.state.lock().deny_calls_with = code;
    }

    /// Returns the id of a sender's registration, assigned at its first registration or delivery.
    pub fn id_of(&self, sender: &str) -> u64 {
        self.0.state.lock().id_of(sender)
    }

    /// Sets the identity of a sender, see [`Host::identity`].
    pub fn set_identity(&self, sender: &str, identity: u64) {
        self.0.state.lock().identities.insert(sender.to_owned(), identity);
    }

    /// Gives the name of a sender to another client.
    pub fn replace_sender(&self, sender: &str) {
        let mut state = self.0.state.lock();
        state.ids.remove(sender);
        state.id_of(sender);
    }

    /// Makes the receivers of all requests full, or drains them, also those that
    /// [`congest`](Self::congest) has filled.
    pub fn fill_receivers(&self, full: bool) {
        let waiting = self.change(|state| {
            state.receivers_full = full;
            if full {
                return Vec::new();
            }
            state.congested.clear();
            std::mem::take(&mut state.waiting)
        });
        waiting.iter().for_each(|(_, notifier)| notifier.notify());
    }

    /// Makes the receiver of requests to `target` full: their results are congested, and the sender's
    /// [`when_ready`](crate::Client::when_ready) waits for it.
    ///
    /// # Examples
    /// ```
    /// use elbus_plugin_api::{ClientInfo, Code, Notifier, NullSink, testing::FakeHost};
    /// use std::sync::mpsc;
    ///
    /// let fake = FakeHost::new();
    /// let mut client = fake.host("demo").register("demo", &ClientInfo::in_process(), NullSink)?;
    /// fake.congest("slow");
    /// assert!(!client.send("other", b"x").is_congested() && client.send("slow", b"x").is_congested());
    /// let (sender, receiver) = mpsc::channel();
    /// client.when_ready(Notifier::new(move || _ = sender.send("ready")));
    /// assert_eq!((fake.pending_notifiers(), receiver.try_recv().ok()), (1, None));
    /// fake.drain("slow");
    /// assert_eq!(receiver.try_recv(), Ok("ready"));
    /// # Ok::<(), Code>(())
    /// ```
    pub fn congest(&self, target: &str) {
        self.0.state.lock().congested.insert(target.to_owned());
    }

    /// Drains the receiver that [`congest`](Self::congest) has filled. Notifies the senders that waited for
    /// this receiver only, or for it as the last one.
    pub fn drain(&self, target: &str) {
        let ready: Vec<_> = self.change(|state| {
            state.congested.remove(target);
            state.waiting.iter_mut().for_each(|(targets, _)| _ = targets.remove(target));
            let all_full = state.receivers_full;
            state.waiting.extract_if(.., |(targets, _)| targets.is_empty() && !all_full).collect()
        });
        ready.iter().for_each(|(_, notifier)| notifier.notify());
    }

    /// Returns the number of notifiers that senders have passed to
    /// [`when_ready`](crate::Client::when_ready) and that are still pending.
    pub fn pending_notifiers(&self) -> usize {
        self.0.state.lock().waiting.len()
    }

    /// Delivers messages into the sink of a registered client and flushes it. `None` if there is no such
    /// client.
    pub fn deliver(
        &self,
        to: &str,
        kind: FrameKind,
        sender: &str,
        topic: &str,
        payloads: &[&[u8]],
    ) -> Option<DeliveryStatus> {
        self.deliver_as(Qos::NO, to, kind, sender, topic, payloads)
    }

    /// Delivers a real-time message, as [`deliver`](Self::deliver) does others.
    pub fn deliver_realtime(&self, to: &str, sender: &str, payload: &[u8]) -> Option<DeliveryStatus> {
        self.deliver_as(Qos::REALTIME, to, FrameKind::Message, sender, "", &[payload])
    }

    fn deliver_as(
        &self,
        qos: Qos,
        to: &str,
        kind: FrameKind,
        sender: &str,
        topic: &str,
        payloads: &[&[u8]],
    ) -> Option<DeliveryStatus> {
        self.deliver_run(qos, to, kind, sender, topic, payloads, None)
    }

    #[expect(clippy::too_many_arguments, reason = "what a run consists of")]
    fn deliver_run(
        &self,
        qos: Qos,
        to: &str,
        kind: FrameKind,
        sender: &str,
        topic: &str,
        payloads: &[&[u8]],
        deferral: Option<&mut Deferral>,
    ) -> Option<DeliveryStatus> {
        let (sink, id) = {
            let mut state = self.0.state.lock();
            (state.clients.get(to).map(|(_, sink)| sink.clone())?, state.id_of(sender))
        };
        let payloads: Vec<_> = payloads.iter().map(|p| Payload::from(*p)).collect();
        let mut encoding = Encoding::new();
        let mut run = Run::new(kind, qos, sender, topic, &payloads, None, &mut encoding).with_sender_id(id);
        if let Some(deferral) = deferral {
            run = run.with_deferral(deferral);
        }
        let delivery = DeliveryStatus::from_bits(sink.deliver(&mut run));
        if delivery.has(DeliveryStatus::DIRTY) {
            sink.flush();
        }
        Some(delivery)
    }

    /// Closes the sink of a client, as `client.kick` does.
    pub fn close(&self, name: &str, reason: &str) {
        let sink = self.0.state.lock().clients.get(name).map(|(_, sink)| sink.clone());
        if let Some(sink) = sink {
            sink.close(RStr::from_str(reason));
        }
    }

    /// Emits an event to all listeners.
    pub fn emit(&self, event: &Event<'_>) {
        let listeners = self.0.state.lock().listeners.clone();
        listeners.iter().for_each(|listener| listener.on_event(&event.into_raw()));
    }

    /// Waits until `ready` returns `true`. Returns `false` if `limit` has passed first.
    pub fn wait_until(&self, limit: Duration, mut ready: impl FnMut(&Self) -> bool) -> bool {
        let until = Instant::now() + limit;
        loop {
            if ready(self) {
                return true;
            }
            let mut state = self.0.state.lock();
            // `ready` can depend on more than this fake, bytes on a socket for example, hence the short
            // steps
            let step = (Instant::now() + Duration::from_millis(5)).min(until);
            self.0.changed.wait_until(&mut state, step);
            if Instant::now() >= until {
                drop(state);
                return ready(self);
            }
        }
    }

    fn change<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let result = f(&mut self.0.state.lock());
        self.0.changed.notify_all();
        result
    }
}

impl Sealed for &FakeHost {}

impl IntoRaw for &FakeHost {
    type Raw = HostObject;

    fn into_raw(self) -> HostObject {
        RawHost_TO::from_ptr(RArc::new(self.clone()), TD_Opaque)
    }
}

/// An instance that a [`FakeHost`] has created, with the callbacks of [`Plugin`].
pub struct FakeInstance(InstanceObject);

impl FakeInstance {
    /// Calls [`Plugin::start`].
    ///
    /// # Errors
    /// The error of the plugin.
    pub fn start(&self) -> Result<(), PluginError> {
        self.0.start().into_result().map_err(PluginError::from_raw)
    }

    /// Calls [`Plugin::serve`].
    pub fn serve(&self) {
        self.0.serve();
    }

    /// Calls [`Plugin::refresh`].
    ///
    /// # Errors
    /// The error of the plugin.
    pub fn refresh(&self) -> Result<(), PluginError> {
        self.0.refresh().into_result().map_err(PluginError::from_raw)
    }

    /// Calls [`Plugin::stop`].
    pub fn stop(&self, deadline: Duration) {
        self.0.stop(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
    }

    /// Returns [`Plugin::figures`].
    pub fn figures(&self) -> Vec<Figure> {
        self.0.figures().into_iter().map(Figure::from_raw).collect()
    }

    /// Returns [`Plugin::status`].
    pub fn status(&self) -> Status {
        Status::from_raw(self.0.status())
    }
}

#[cfg(test)]
mod tests;
