//! A plugin that dispatches messages from one client of its own to another, as often as it is told: what a message costs on
//! both sides of the boundary, without any transport. The same code runs loaded, linked in, and called directly.

use elbus_plugin_api::{
    Call, CallError, Client, ClientInfo, Code, Config, DeliveryStatus, Host, Locality, Method, Notifier, Op,
    Payload, Plugin, PluginError, Qos, Queued, Request, Run, Sink,
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What an instance is told to do: parameters are two numbers, how many dispatches and messages of each; the result is the
/// nanoseconds they took. All are u64, little-endian.
pub const METHOD: &str = "bench.dispatch";

/// Where messages arrive: they are counted.
#[derive(Default)]
pub struct Counter(AtomicU64);

struct CountingSink(Arc<Counter>);

impl Sink for CountingSink {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        self.0.0.fetch_add(run.payloads().len() as u64, Ordering::Relaxed);
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

/// Two clients, one of which sends to the other.
pub struct Dispatching {
    sender: Client,
    _receiver: Client,
    target: String,
    arrived: Arc<Counter>,
}

impl Dispatching {
    /// Registers both, with names that begin like this.
    ///
    /// # Errors
    /// As [`Host::register`].
    pub fn new(host: &Host, prefix: &str) -> Result<Self, Code> {
        let arrived = Arc::new(Counter::default());
        let (kind, locality) = ("internal".into(), Locality::InProcess);
        let info = ClientInfo { kind, locality, ..Default::default() };
        let register =
            |side: &str| host.register(&format!("{prefix}.{side}"), &info, CountingSink(arrived.clone()));
        let (sender, receiver) = (register("sender")?, register("receiver")?);
        Ok(Dispatching { sender, _receiver: receiver, target: format!("{prefix}.receiver"), arrived })
    }

    /// So many dispatches, of so many messages of 100 bytes each; how long they took.
    ///
    /// # Errors
    /// A message that did not arrive.
    pub fn run(&mut self, dispatches: u64, messages: usize) -> Result<Duration, String> {
        let bytes = [0u8; 100];
        let payloads = vec![Payload::from(&bytes[..]); messages];
        let before = self.arrived.0.load(Ordering::Relaxed);
        let begin = Instant::now();
        for _ in 0..dispatches {
            self.sender.dispatch(&Request::new(Op::Message, Qos::NO, &self.target, &payloads));
            self.sender.end_batch();
        }
        let elapsed = begin.elapsed();
        let arrived = self.arrived.0.load(Ordering::Relaxed) - before;
        if arrived == dispatches * messages as u64 { Ok(elapsed) } else { Err(format!("{arrived} arrived")) }
    }
}

/// The plugin.
pub struct BenchPlugin(Host);

impl Plugin for BenchPlugin {
    const ABOUT: &'static str = "dispatches messages to itself, to measure the boundary";

    fn create(host: Host, _: &Config) -> Result<Self, PluginError> {
        Ok(BenchPlugin(host))
    }

    fn start(&self) -> Result<(), PluginError> {
        let dispatching = Dispatching::new(&self.0, self.0.instance())
            .map_err(|code| PluginError::new(format!("its clients: {code}")))?;
        let dispatching = Mutex::new(dispatching);
        let method =
            Method { name: METHOD, params: "two u64", about: "nanoseconds, a u64", ..Default::default() };
        self.0.add_method(&method, move |call: &Call<'_>| {
            let number =
                |place: usize| call.params.get(place..)?.first_chunk().map(|n| u64::from_le_bytes(*n));
            let (Some(dispatches), Some(messages)) = (number(0), number(8)) else {
                return Err(CallError::new(-32602, "not two numbers"));
            };
            let mut dispatching = dispatching.lock().unwrap_or_else(PoisonError::into_inner);
            let elapsed = dispatching.run(dispatches, messages as usize);
            let elapsed = elapsed.map_err(|error| CallError::new(-32603, error))?;
            Ok((elapsed.as_nanos() as u64).to_le_bytes().to_vec())
        })
    }

    fn stop(&self, _: Duration) {}
}

elbus_plugin_api::export_plugin!(BenchPlugin);
