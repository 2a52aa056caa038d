//! A bus for tests: routes by exact name, `*` and topic between the clients of one plugin, with the broker's
//! rules of batches and flow control. It has no masks, no filters except equal topics, and no permissions.

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, ROption, RResult, RStr, RString, RVec},
};
use elbus_inproc::Inproc;
use elbus_plugin_api::{
    CallError, Code, Config, DeliveryStatus, Dispatch, Encoding, Event, EventKind, FrameKind, Host, Locality,
    Notifier, Op, Plugin, QueueBudget, Request, Run, abi::*,
};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
pub(crate) struct Bus(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    clients: BTreeMap<String, Arc<RegisteredClient>>,
    left: Vec<(String, String)>,
    events: Vec<(EventKind, String, String)>,
    connector: Option<ConnectorObject>,
    /// Number of flushes requested of the plugin's sinks.
    flushes: usize,
}

struct RegisteredClient {
    sink: SinkObject,
    topics: Mutex<BTreeSet<String>>,
}

impl Bus {
    /// Returns a bus with a started plugin.
    pub(crate) fn with_plugin(config: &str) -> (Bus, Inproc, Host) {
        let bus = Bus::default();
        let host = Host::from_raw((RawHost_TO::from_ptr(RArc::new(bus.clone()), TD_Opaque), "local"));
        let plugin = Inproc::create(host.clone(), &Config::parse(config).unwrap()).unwrap();
        plugin.start().unwrap();
        plugin.serve();
        (bus, plugin, host)
    }

    pub(crate) fn clients(&self) -> Vec<String> {
        self.0.state.lock().clients.keys().cloned().collect()
    }

    pub(crate) fn events(&self) -> Vec<(EventKind, String, String)> {
        self.0.state.lock().events.clone()
    }

    pub(crate) fn flushes(&self) -> usize {
        self.0.state.lock().flushes
    }

    /// Closes a client as a kick does.
    pub(crate) fn kick(&self, name: &str, reason: &str) {
        let client = self.0.state.lock().clients.get(name).cloned().unwrap();
        client.sink.close(RStr::from_str(reason));
    }

    pub(crate) fn queued_bytes(&self, name: &str) -> u64 {
        let client = self.0.state.lock().clients.get(name).cloned().unwrap();
        client.sink.queued().bytes
    }

    /// Waits until a client has left, and returns the reason.
    pub(crate) fn wait_until_left(&self, name: &str) -> String {
        let until = Instant::now() + LONG;
        let mut state = self.0.state.lock();
        loop {
            if let Some((_, why)) = state.left.iter().find(|(left, _)| left == name) {
                return why.clone();
            }
            assert!(!self.0.changed.wait_until(&mut state, until).timed_out(), "{name} stays");
        }
    }

    fn recipients(&self, op: Op, target: &str) -> Vec<Arc<RegisteredClient>> {
        let state = self.0.state.lock();
        let clients = state.clients.iter().filter(|(name, client)| match op {
            Op::Message => *name == target,
            Op::Broadcast => target == "*",
            _ => client.topics.lock().contains(target),
        });
        clients.map(|(_, client)| client.clone()).collect()
    }
}

struct Sender {
    bus: Bus,
    name: String,
    /// `None` for a system client.
    client: Option<Arc<RegisteredClient>>,
    dirty: Vec<Arc<RegisteredClient>>,
    full: Vec<Arc<RegisteredClient>>,
    why: String,
}

impl Sender {
    fn route(&mut self, request: &Request<'_>) -> Dispatch {
        let op = request.op().unwrap();
        let client = self.client.as_ref().unwrap();
        match op {
            Op::Subscribe => return Dispatch::new(insert(client, request.target()), 0),
            Op::Unsubscribe => {
                client.topics.lock().remove(request.target());
                return Dispatch::new(Code::Ok, 0);
            }
            _ => {}
        }
        let kind = match op {
            Op::Message => FrameKind::Message,
            Op::Broadcast => FrameKind::Broadcast,
            _ => FrameKind::Publish,
        };
        let topic = if kind == FrameKind::Publish { request.target() } else { "" };
        let mut reached = 0;
        let mut code = if op == Op::Message { Code::NotRegistered } else { Code::Ok };
        for client in self.bus.recipients(op, request.target()) {
            let mut encoding = Encoding::new();
            let (payloads, shared) = (request.payloads(), request.shared());
            let mut run = Run::new(kind, request.qos(), &self.name, topic, payloads, shared, &mut encoding);
            let delivery = DeliveryStatus::from_bits(client.sink.deliver(&mut run));
            if delivery.is_taken() {
                reached += 1;
                code = Code::Ok;
            } else if delivery.has(DeliveryStatus::REFUSED) {
                code = Code::NotDelivered;
            }
            if delivery.has(DeliveryStatus::FULL) {
                self.full.push(client.clone());
            }
            if delivery.has(DeliveryStatus::DIRTY) {
                self.dirty.push(client);
            }
        }
        Dispatch::new(code, reached)
    }
}

impl RawClient for Sender {
    fn dispatch(&mut self, request: &Request<'_>) -> Dispatch {
        let result = self.route(request);
        if request.ends_batch() { result.congested(self.end_batch()) } else { result }
    }

    fn end_batch(&mut self) -> bool {
        for client in self.dirty.drain(..) {
            client.sink.flush();
            self.bus.0.state.lock().flushes += 1;
        }
        !self.full.is_empty()
    }

    fn when_ready(&mut self, notifier: NotifierObject) {
        let full = std::mem::take(&mut self.full);
        let left = Arc::new(AtomicUsize::new(full.len()));
        for client in full {
            let (left, notifier) = (left.clone(), notifier.clone());
            let counted = Notifier::new(move || {
                if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                    notifier.notify();
                }
            });
            client.sink.when_drained(counted.into_raw());
        }
    }

    fn set_close_reason(&mut self, why: RStr<'_>) {
        self.why = why.as_str().to_owned();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.client.is_some() {
            let gone = {
                let mut state = self.bus.0.state.lock();
                state.left.push((self.name.clone(), self.why.clone()));
                state.clients.remove(&self.name)
            };
            self.bus.0.changed.notify_all();
            drop(gone); // outside the lock: it runs code of the plugin
        }
    }
}

fn insert(client: &RegisteredClient, topic: &str) -> Code {
    client.topics.lock().insert(topic.to_owned());
    Code::Ok
}

impl RawHost for Bus {
    fn register(
        &self,
        name: RStr<'_>,
        info: &RawClientInfo<'_>,
        sink: SinkObject,
    ) -> RResult<ClientObject, u8> {
        let flags = info.flags & ((1 << CLIENT_OVERFLOW_SHIFT) - 1);
        assert_eq!((info.kind.as_str(), info.locality, flags), ("internal", Locality::InProcess, 0));
        let name = name.as_str().to_owned();
        let client = Arc::new(RegisteredClient { sink, topics: Mutex::default() });
        let mut state = self.0.state.lock();
        if state.clients.contains_key(&name) {
            drop(state);
            return RResult::RErr(Code::Busy as u8);
        }
        state.clients.insert(name.clone(), client.clone());
        drop(state);
        let (bus, why) = (self.clone(), String::new());
        let sender = Sender { bus, name, client: Some(client), dirty: vec![], full: vec![], why };
        RResult::ROk(RawClient_TO::from_value(sender, TD_Opaque))
    }

    fn emit(&self, event: &RawEvent<'_>) {
        let event = Option::<Event<'_>>::from_raw(event).unwrap();
        let event = (event.kind, event.subject.to_owned(), event.detail.to_owned());
        self.0.state.lock().events.push(event);
    }

    fn offer_connector(&self, connector: ConnectorObject) -> RResult<(), RString> {
        self.0.state.lock().connector = Some(connector);
        RResult::ROk(())
    }

    fn connector(&self) -> ROption<ConnectorObject> {
        self.0.state.lock().connector.clone().into()
    }

    fn system_client(&self) -> ClientObject {
        unreachable!("the plugin sends as no system client")
    }
    fn call(&self, _: &RawCall<'_>) -> RResult<RVec<u8>, RawCallError> {
        RResult::RErr(CallError::new(0, "").into_raw())
    }
    fn method_flags(&self, _: RStr<'_>) -> u32 {
        0
    }
    fn add_method(&self, _: &RawMethod<'_>, _: HandlerObject) -> RResult<(), RString> {
        RResult::ROk(())
    }
    fn add_listener(&self, _: ListenerObject) {}
    fn set_access_rules(&self, _: RStr<'_>) -> RResult<(), RString> {
        RResult::ROk(())
    }

    fn broker_name(&self) -> RString {
        "bus".into()
    }
    fn queue_budget(&self) -> RArc<RawQueueBudget> {
        QueueBudget::new(usize::MAX).into_raw()
    }
    fn max_log_level(&self) -> u8 {
        0
    }
    fn log_enabled(&self, _: u8, _: RStr<'_>) -> bool {
        false
    }
    fn log(&self, _: u8, _: RStr<'_>, _: RStr<'_>, _: RStr<'_>) {}
    fn failed(&self, why: RStr<'_>) {
        panic!("{why}");
    }
}

/// Runs a future on this thread, for at most a minute.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    let until = Instant::now() + LONG;
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        let left = until.checked_duration_since(Instant::now()).expect("ends within a minute");
        std::thread::park_timeout(left);
    }
}
