//! In-process clients of ELBUS: the program that embeds the broker, and other plugins, as clients of the bus
//! without a socket.
//!
//! It owns an instance and all its clients. Users hold an `InprocClient` of the plugin API; this crate
//! implements it.
#![deny(unsafe_code)]

mod clients;
mod connector;
mod deferred_wakes;
mod inbox;
mod peer;
mod send_credit;
mod settings;
mod watch;

use elbus_plugin_api::{Config, Departure, Host, Plugin, PluginError, PluginThread, Status};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

use clients::Clients;
use connector::Connector;
use peer::Peer;
use settings::Settings;

/// The connector for in-process clients, and the thread that disconnects those that receive nothing.
pub struct Inproc {
    host: Host,
    clients: Arc<Clients<Peer>>,
    watch_thread: Mutex<Option<PluginThread>>,
}

impl Plugin for Inproc {
    const ABOUT: &'static str = "provides clients within the broker's process";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let limits = config.read::<Settings>()?.check()?;
        let clients = Arc::new(Clients::new(host.clone(), limits));
        Ok(Inproc { host, clients, watch_thread: Mutex::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        let clients = self.clients.clone();
        *self.watch_thread.lock() = Some(self.host.spawn(move || clients.watch())?);
        self.host.offer_connector(Connector::new(self.clients.clone()))
    }

    /// Waits only for the watch thread: messages received by a closed client stay readable.
    fn stop(&self, deadline: Duration) {
        for peer in self.clients.stop() {
            peer.unregister(Departure::Stopped, "the plugin has stopped");
        }
        let thread = self.watch_thread.lock().take();
        if thread.is_some_and(|thread| !thread.ended_within(deadline)) {
            tracing::warn!(?deadline, "thread that watches in-process clients does not end");
        }
    }

    fn status(&self) -> Status {
        Status::with_detail(format!("{} clients", self.clients.count()))
    }
}

impl Drop for Inproc {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

elbus_plugin_api::export_plugin!(Inproc);
