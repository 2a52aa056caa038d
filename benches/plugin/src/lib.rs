//! A plugin that dispatches messages from one of its clients to another when its method is called. Measures
//! what a message costs on both sides of the plugin boundary, without a transport. The same code runs loaded,
//! linked in, and called directly.

use elbus_plugin_api::{
    Call, CallError, Client, ClientInfo, Code, Config, DeliveryStatus, Host, Method, Op, Payload, Plugin,
    PluginError, Qos, Request, Run, Sink,
    hooks::{Hook, HookScope, InterceptedFrame, OnFailure, Verdict},
};
use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The control method of an instance. Parameters: the number of dispatches and the messages per dispatch.
/// Result: the time they took, in nanoseconds. All numbers are little-endian `u64`.
pub const METHOD: &str = "bench.dispatch";

/// Counts the messages that arrive.
struct CountingSink(Arc<AtomicU64>);

impl Sink for CountingSink {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        self.0.fetch_add(run.payloads().len() as u64, Ordering::Relaxed);
        DeliveryStatus::TAKEN
    }
}

/// A client that sends to another.
pub struct Dispatcher {
    sender: Client,
    _receiver: Client,
    target: String,
    arrived: Arc<AtomicU64>,
}

impl Dispatcher {
    /// Registers both clients under names with this prefix.
    ///
    /// # Errors
    /// As [`Host::register`].
    pub fn new(host: &Host, prefix: &str) -> Result<Self, Code> {
        let arrived = Arc::new(AtomicU64::default());
        let info = ClientInfo::in_process();
        let register =
            |side: &str| host.register(&format!("{prefix}.{side}"), &info, CountingSink(arrived.clone()));
        let (sender, receiver) = (register("sender")?, register("receiver")?);
        Ok(Dispatcher { sender, _receiver: receiver, target: format!("{prefix}.receiver"), arrived })
    }

    /// Dispatches messages of 100 bytes and returns the time that took.
    ///
    /// # Errors
    /// A message that did not arrive.
    pub fn run(&mut self, dispatches: u64, messages: usize) -> Result<Duration, String> {
        let bytes = [0u8; 100];
        let payloads = vec![Payload::from(&bytes[..]); messages];
        let before = self.arrived.load(Ordering::Relaxed);
        let begin = Instant::now();
        for _ in 0..dispatches {
            self.sender.dispatch(&Request::new(Op::Message, Qos::NO, &self.target, &payloads));
            self.sender.end_batch();
        }
        let elapsed = begin.elapsed();
        let arrived = self.arrived.load(Ordering::Relaxed) - before;
        let expected = dispatches * messages as u64;
        if arrived != expected {
            return Err(format!("{arrived} messages arrived, expected {expected}"));
        }
        Ok(elapsed)
    }
}

/// The plugin.
pub struct BenchPlugin {
    host: Host,
    /// Whether it intercepts everything, and lets it pass.
    intercepts: bool,
    hook: OnceLock<Hook>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    intercept: bool,
}

impl Plugin for BenchPlugin {
    const ABOUT: &'static str = "dispatches messages to itself, to measure the plugin boundary";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let Settings { intercept } = config.read()?;
        Ok(BenchPlugin { host, intercepts: intercept, hook: OnceLock::new() })
    }

    fn start(&self) -> Result<(), PluginError> {
        if self.intercepts {
            let pass = |_: &InterceptedFrame<'_>| Verdict::Continue;
            let hook = self.host.add_interceptor(&HookScope::everything(), OnFailure::Open, pass)?;
            _ = self.hook.set(hook);
        }
        let dispatcher = Dispatcher::new(&self.host, self.host.instance())
            .map_err(|code| PluginError::new(format!("cannot register the clients: {code}")))?;
        let dispatcher = Mutex::new(dispatcher);
        let method = Method::new(METHOD).params("two u64").about("nanoseconds, a u64");
        self.host.add_method(&method, move |call: &Call<'_>| {
            let number =
                |offset: usize| call.params.get(offset..)?.first_chunk().map(|n| u64::from_le_bytes(*n));
            let (Some(dispatches), Some(messages)) = (number(0), number(8)) else {
                return Err(CallError::invalid_params("expected two u64 numbers"));
            };
            let mut dispatcher = dispatcher.lock().unwrap_or_else(PoisonError::into_inner);
            let elapsed = dispatcher.run(dispatches, messages as usize);
            let elapsed = elapsed.map_err(CallError::internal)?;
            Ok((elapsed.as_nanos() as u64).to_le_bytes().to_vec())
        })
    }

    fn stop(&self, _: Duration) {}
}

elbus_plugin_api::export_plugin!(BenchPlugin);
