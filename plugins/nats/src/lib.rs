//! One bus over many machines: bridges this broker with others over NATS servers.
//!
//! `docs/bridging.md` describes what clients see and what is promised. The crate `elbus-bridge` decides what
//! nodes say to each other; this plugin connects it with NATS and with the broker.
//!
//! ```toml
//! [[plugin]]
//! name = "plant"
//! library = "elbus_nats"
//! [plugin.config]
//! servers = ["nats://10.0.0.1:4222"]    # addresses of NATS servers, tried in turn
//! bus = "plant"                         # the bus: the prefix of its subjects
//! node = "mill"                         # the name of this broker on the bus
//! key_file = "/etc/elbus/plant.key"     # the secret that all nodes share, 16 bytes or more
//! export = { names = ["plant.*"], topics = ["sensors/#"] }       # the default: nothing
//! import = { names = ["@press.*"], topics = ["sensors/#"] }      # the default: nothing
//! mirror = ["sensors/#"]                # topics shared with NATS programs; the default: none
//! mirror_subjects = "bare"              # the default; or "prefixed": with "plant.topic." in front
//! credentials = "/etc/elbus/nats.creds" # a file of `nsc`; or
//! user = "mill"                         # with password_file; or
//! password_file = "/etc/elbus/nats.password"
//! token_file = "/etc/elbus/nats.token"
//! max_nodes = 64                        # other nodes; the default
//! max_names = 20000                     # names that a node can announce; the default
//! max_filters = 4096                    # filters that a node can announce; the default
//! max_message_bytes = 67108864          # of one message; the default
//! node_bytes = 8388608                  # in flight to a node; the default
//! receiver_bytes = 1048576              # in flight to one client of another node; the default
//! [plugin.config.tls]                   # without it, TLS is used if the address or the server says so
//! ca = "/etc/elbus/nats-ca.pem"         # the default: the roots of the system
//! certificate = "/etc/elbus/mill.pem"
//! key = "/etc/elbus/mill.key"
//! ```
//!
//! It is not linked into `elbusd`. One thread of the instance owns the connection, the state of the bridge
//! and the clients of other nodes; threads of senders only append to queues.
#![deny(unsafe_code)]

mod engine;
mod filter_changes;
mod inputs;
mod interest;
mod local_names;
mod log_limit;
mod mirror;
mod mirror_drops;
mod mirror_queue;
mod node_clients;
mod nodes;
mod own_clients;
mod proxies;
mod quiet;
mod report;
mod secret;
mod settings;
mod sinks;
mod snapshot;
mod worker;

use elbus_plugin_api::{
    ClientInfo, Code, Config, Figure, Host, NullSink, Plugin, PluginError, PluginThread, Status,
};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{runtime::Builder, task::unconstrained};

use inputs::{Input, Inputs};
use own_clients::bridge_name;
use settings::Settings;
use snapshot::Snapshot;
use worker::Worker;

/// Turns of the client of NATS between two of the thread: it may read that much, with no other limit.
const CLIENT_TURNS: u32 = 4;

/// The plugin.
pub struct Nats {
    host: Host,
    settings: Arc<Settings>,
    inputs: Arc<Inputs>,
    snapshot: Arc<Snapshot>,
    /// From `start` to `stop`.
    thread: Mutex<Option<PluginThread>>,
}

impl Plugin for Nats {
    const ABOUT: &'static str = "bridges brokers over NATS: one bus over many machines";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let settings = Arc::new(Settings::read(config)?);
        Ok(Nats {
            host,
            settings,
            inputs: Arc::default(),
            snapshot: Arc::default(),
            thread: Mutex::default(),
        })
    }

    fn start(&self) -> Result<(), PluginError> {
        // first: it fails if another instance bridges the same bus
        let name = bridge_name(&self.settings.bridge.bus);
        let info = ClientInfo::in_process().as_internal();
        let own = self.host.register(&name, &info, NullSink).map_err(|code| {
            if code == Code::Busy {
                let bus = &self.settings.bridge.bus;
                let text = format!(
                    "another instance already bridges the bus {bus:?}: a broker is one node of a bus"
                );
                return PluginError::of_key("bus", text);
            }
            PluginError::new(format!("cannot register {name}: {code}"))
        })?;
        local_names::listen(&self.host, &self.inputs);
        let watch = interest::watch(&self.host, &self.settings, &self.inputs)?;
        nodes::add_method(&self.host, &self.settings, &self.snapshot)?;
        let worker = Worker::new(
            self.host.clone(),
            self.settings.clone(),
            self.inputs.clone(),
            self.snapshot.clone(),
        )?;
        let runtime = Builder::new_current_thread()
            // after a few turns of the client of NATS, the thread takes off what has arrived
            .event_interval(CLIENT_TURNS)
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| PluginError::new(format!("cannot create a runtime: {error}")))?;
        let handle = runtime.handle().clone();
        self.host.watch_worker("bridge", move |answer| drop(handle.spawn(async move { answer.notify() })));
        let host = self.host.clone();
        let thread = self.host.spawn(move || {
            let quiet = quiet::quieten();
            runtime.block_on(unconstrained(host.attribute(worker.run())));
            drop(quiet);
            drop((own, watch));
            runtime.shutdown_background();
        })?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    fn serve(&self) {
        self.inputs.serve();
    }

    fn refresh(&self) -> Result<(), PluginError> {
        // rules may admit clients that they did not admit before
        self.inputs.push(Input::Retry);
        // credentials and certificates are read for each connection
        self.settings.login.check()
    }

    fn stop(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        self.inputs.stop(end);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && !thread.ended_within(deadline)
        {
            tracing::warn!(?deadline, "bridge thread has not ended within the deadline");
        }
    }

    fn figures(&self) -> Vec<Figure> {
        self.snapshot.figures()
    }

    fn status(&self) -> Status {
        Status::with_detail(self.snapshot.detail())
    }
}

impl Drop for Nats {
    /// Without a stop, the thread would run on.
    fn drop(&mut self) {
        self.inputs.stop(Instant::now());
    }
}

/// A separate module, since the macro's code contains unsafe attributes.
mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(crate::Nats);
}
pub use export::plugin;
