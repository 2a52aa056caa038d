//! A host for testing a plugin alone: it records what the plugin does and plays the broker's part.
//!
//! It routes nothing. A test makes an instance with [`FakeHost::create`], looks at what was registered and
//! dispatched, delivers runs into the plugin's sinks, tells events, and waits for what it expects.

mod fake_client;

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RStr},
};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    ClientInfo, Code, DeliveryStatus, Encoding, Event, FrameKind, Host, Notifier, Op, Payload, Plugin,
    PluginError, Qos, QueueBudget, Queued, Run, Sink,
    abi::*,
    access::AccessRules,
    guard::{self, PanicScope},
    plugin::Status,
};

/// A request that the plugin dispatched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The name it was sent under; `.broker` for a speaker.
    pub sender: String,
    /// The operation.
    pub op: Op,
    /// Its quality of service.
    pub qos: Qos,
    /// Name, mask, topic or filters.
    pub target: String,
    /// The receiver of a limited publication.
    pub receiver: String,
    /// The registration a message is limited to; 0 is any.
    pub receiver_id: u64,
    /// The payloads.
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
    /// By sender: the id of its registration.
    ids: BTreeMap<String, u64>,
    last_id: u64,
    /// By sender; zero unless the test has said otherwise.
    identities: BTreeMap<String, u64>,
    deny_calls_with: Option<Code>,
    system_senders: Vec<(String, bool)>,
    answer: Option<Code>,
    receivers_full: bool,
    waiting: Vec<NotifierObject>,
}

/// A sink that takes everything and keeps nothing: of a client that only sends.
#[derive(Debug, Clone, Copy, Default)]
pub struct NullSink;

impl Sink for NullSink {
    fn deliver(&self, _: &mut Run<'_>) -> DeliveryStatus {
        DeliveryStatus::TAKEN
    }

    fn flush(&self) {}

    fn when_drained(&self, notifier: Notifier) {
        notifier.notify();
    }

    fn close(&self, _: &str) {}

    fn queued(&self) -> Queued {
        Queued::default()
    }
}

/// The fake broker. Cheap to clone; all clones are the same one.
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
    /// A broker without clients.
    pub fn new() -> Self {
        Self::default()
    }

    /// A broker without clients, in whose queues so many bytes may wait.
    pub fn with_queue_budget(bytes: usize) -> Self {
        FakeHost(Arc::new(Shared { budget: QueueBudget::new(bytes), ..Shared::default() }))
    }

    /// What may wait in all queues.
    pub fn queue_budget(&self) -> &QueueBudget {
        &self.0.budget
    }

    /// A host for the named instance.
    pub fn host(&self, instance: &str) -> Host {
        Host::from_object(self.object(), instance)
    }

    /// Configures an instance of a plugin from TOML text, behind the panic barrier as in a real broker.
    ///
    /// # Errors
    /// What the plugin finds wrong, or its panic.
    pub fn create<P: Plugin>(&self, instance: &str, config: &str) -> Result<FakeInstance, PluginError> {
        guard::install_hook(true);
        guard::create::<P>(PanicScope::new(self.object(), instance), config)
            .map(FakeInstance)
            .map_err(PluginError::from_raw)
    }

    /// As it crosses the boundary.
    #[doc(hidden)]
    pub fn object(&self) -> HostObject {
        RawHost_TO::from_ptr(RArc::new(self.clone()), TD_Opaque)
    }

    /// The registered names.
    pub fn clients(&self) -> Vec<String> {
        self.0.state.lock().clients.keys().cloned().collect()
    }

    /// What was told of a client when it registered.
    pub fn client_info(&self, name: &str) -> Option<ClientInfo> {
        self.0.state.lock().clients.get(name).map(|(info, _)| info.clone())
    }

    /// Everything dispatched so far, in order.
    pub fn requests(&self) -> Vec<Recorded> {
        self.0.state.lock().requests.clone()
    }

    /// What was logged through the host: `level target message fields`.
    pub fn logged(&self) -> Vec<String> {
        self.0.state.lock().logged.clone()
    }

    /// The access rules that were set last.
    pub fn access_rules(&self) -> Option<AccessRules> {
        self.0.state.lock().access_rules.clone()
    }

    /// The panics that were caught.
    pub fn failures(&self) -> Vec<String> {
        self.0.state.lock().failures.clone()
    }

    /// Refuses registrations with a code, or accepts them again.
    pub fn refuse_names(&self, code: Option<Code>) {
        self.0.state.lock().refuse_names_with = code;
    }

    /// Answers every request with a code; normally `Ok`.
    pub fn answer_with(&self, code: Option<Code>) {
        self.0.state.lock().answer = code;
    }

    /// The system senders that were asked for: `.KIND`, and whether they may administer.
    pub fn system_senders(&self) -> Vec<(String, bool)> {
        self.0.state.lock().system_senders.clone()
    }

    /// Denies calls with a code when they are authorised, or allows them again.
    pub fn deny_calls(&self, code: Option<Code>) {
        self.0.state.lock().deny_calls_with = code;
    }

    /// The id of the registration that a sender has: given at its first registration or delivery.
    pub fn id_of(&self, sender: &str) -> u64 {
        self.0.state.lock().id_of(sender)
    }

    /// The identity of a sender from now on, see [`Host::identity`].
    pub fn set_identity(&self, sender: &str, identity: u64) {
        self.0.state.lock().identities.insert(sender.to_owned(), identity);
    }

    /// Another client has the name of a sender from now on.
    pub fn replace_sender(&self, sender: &str) {
        let mut state = self.0.state.lock();
        state.ids.remove(sender);
        state.id_of(sender);
    }

    /// From now on the receivers of all requests are over their limit, or have drained.
    pub fn fill_receivers(&self, full: bool) {
        let waiting = self.change(|state| {
            state.receivers_full = full;
            if full { Vec::new() } else { std::mem::take(&mut state.waiting) }
        });
        waiting.iter().for_each(|notifier| notifier.notify());
    }

    /// Delivers messages into the sink of a registered client and flushes it.
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

    /// Delivers a real-time message from a sender, as [`deliver`](Self::deliver) does others.
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
        let (sink, id) = {
            let mut state = self.0.state.lock();
            (state.clients.get(to).map(|(_, sink)| sink.clone())?, state.id_of(sender))
        };
        let payloads: Vec<_> = payloads.iter().map(|p| Payload::from(*p)).collect();
        let mut encoding = Encoding::new();
        let mut run = Run::new(kind, qos, sender, topic, &payloads, None, &mut encoding).with_sender_id(id);
        let delivery = DeliveryStatus::from_bits(sink.deliver(&mut run));
        if delivery.has(DeliveryStatus::DIRTY) {
            sink.flush();
        }
        Some(delivery)
    }

    /// Closes the sink of a client, as a kick does.
    pub fn close(&self, name: &str, reason: &str) {
        let sink = self.0.state.lock().clients.get(name).map(|(_, sink)| sink.clone());
        if let Some(sink) = sink {
            sink.close(RStr::from_str(reason));
        }
    }

    /// Tells an event to all listeners.
    pub fn tell(&self, event: &Event<'_>) {
        let listeners = self.0.state.lock().listeners.clone();
        listeners.iter().for_each(|listener| listener.on_event(&event.to_raw()));
    }

    /// Waits until `ready` says so; `false` after `limit`.
    pub fn wait_until(&self, limit: Duration, mut ready: impl FnMut(&Self) -> bool) -> bool {
        let until = Instant::now() + limit;
        loop {
            if ready(self) {
                return true;
            }
            let mut state = self.0.state.lock();
            // what is not a change of the fake itself, such as bytes on a socket, is looked at every so often
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

/// An instance that a [`FakeHost`] has created.
pub struct FakeInstance(InstanceObject);

impl FakeInstance {
    /// Starts it.
    ///
    /// # Errors
    /// What the plugin says.
    pub fn start(&self) -> Result<(), PluginError> {
        self.0.start().into_result().map_err(PluginError::from_raw)
    }

    /// Lets it serve.
    pub fn serve(&self) {
        self.0.serve();
    }

    /// Tells it that the file was reloaded.
    ///
    /// # Errors
    /// What the plugin says.
    pub fn refresh(&self) -> Result<(), PluginError> {
        self.0.refresh().into_result().map_err(PluginError::from_raw)
    }

    /// Stops it.
    pub fn stop(&self, deadline: Duration) {
        self.0.stop(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
    }

    /// How it is.
    pub fn status(&self) -> Status {
        Status::from_raw(self.0.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Notifier, Sink, sink::Queued};

    struct Faulty(Host, String);

    impl Plugin for Faulty {
        const ABOUT: &'static str = "fails where it is told to";

        fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
            #[derive(serde::Deserialize)]
            struct Settings {
                fail: String,
            }
            let settings: Settings = config.read()?;
            assert_ne!(settings.fail, "create", "as told");
            Ok(Faulty(host, settings.fail))
        }

        fn start(&self) -> Result<(), PluginError> {
            assert_ne!(self.1, "start", "as told");
            let info = ClientInfo { kind: "test".into(), ..Default::default() };
            let client = self.0.register("faulty", &info, FaultySink(self.1.clone()));
            std::mem::forget(client.map_err(|code| PluginError::new(code.text()))?);
            Ok(())
        }
    }

    struct FaultySink(String);

    impl Sink for FaultySink {
        fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
            assert_ne!(self.0, "deliver", "as told by {}", run.sender());
            DeliveryStatus::DIRTY
        }
        fn flush(&self) {}
        fn when_drained(&self, notifier: Notifier) {
            notifier.notify();
        }
        fn close(&self, _: &str) {}
        fn queued(&self) -> Queued {
            Queued::default()
        }
    }

    #[test]
    fn a_panic_in_create_is_an_error() {
        let error = FakeHost::new().create::<Faulty>("x", "fail = 'create'").err().unwrap();
        assert!(error.message.starts_with("panic in create: "), "{error}");
        assert!(error.message.contains("as told") && error.message.contains("testing.rs:"), "{error}");
    }

    #[test]
    fn wrong_configuration_names_its_key() {
        let error = FakeHost::new().create::<Faulty>("x", "fail = 1").err().unwrap();
        assert_eq!(error.key, "fail");
        let error = FakeHost::new().create::<Faulty>("x", "fail = ''\nother = 1").err().unwrap();
        assert_eq!(error.key, "other");
    }

    #[test]
    fn a_panic_in_a_callback_fails_the_instance_once() {
        let fake = FakeHost::new();
        let instance = fake.create::<Faulty>("x", "fail = 'deliver'").unwrap();
        instance.start().unwrap();
        let first = fake.deliver("faulty", FrameKind::Message, "a", "", &[b"x"]);
        let again = fake.deliver("faulty", FrameKind::Message, "a", "", &[b"x"]);
        assert_eq!((first, again), (Some(DeliveryStatus::CLOSED), Some(DeliveryStatus::CLOSED)));
        let failures = fake.failures();
        assert_eq!(failures.len(), 1, "refused after the first: {failures:?}");
        assert!(failures[0].starts_with("panic in deliver: ") && failures[0].contains("as told by a"));
        assert!(instance.start().unwrap_err().message.contains("has failed before"));
    }

    #[test]
    fn a_sound_instance_works() {
        let fake = FakeHost::new();
        let instance = fake.create::<Faulty>("x", "fail = ''").unwrap();
        instance.start().unwrap();
        assert_eq!(fake.clients(), ["faulty"]);
        assert_eq!(fake.deliver("faulty", FrameKind::Message, "a", "", &[b"x"]), Some(DeliveryStatus::DIRTY));
        assert!(fake.failures().is_empty());
    }
}
