//! In-process clients of ELBUS: the program that embeds the broker, and other plugins, as clients of the bus
//! without a socket.
//!
//! It owns the life of an instance, and with it of all its clients. What users hold in their hands is
//! `InprocClient` of the plugin API; this is what is behind it.
#![deny(unsafe_code)]

mod inbox;
mod office;
mod owed;
mod pace;
mod peer;
mod settings;
mod watch;

use elbus_plugin_api::{Config, Host, Plugin, PluginError, PluginThread, Status};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

use office::{Connector, Office};
use settings::Settings;

/// The offer of in-process clients, and the thread that ends those that take nothing.
pub struct Inproc {
    host: Host,
    office: Arc<Office>,
    running: Mutex<Option<PluginThread>>,
}

impl Plugin for Inproc {
    const ABOUT: &'static str = "offers clients inside the process";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let limits = config.read::<Settings>()?.check()?;
        let office = Arc::new(Office::new(host.clone(), limits));
        Ok(Inproc { host, office, running: Mutex::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        let office = self.office.clone();
        *self.running.lock() = Some(self.host.spawn(move || office.watch())?);
        self.host.offer_connector(Connector::new(self.office.clone()))
    }

    /// Nothing needs the time until the deadline: what a client has received stays readable after it is closed.
    fn stop(&self, deadline: Duration) {
        self.office.end();
        let running = self.running.lock().take();
        if running.is_some_and(|running| !running.ended_within(deadline)) {
            tracing::warn!(?deadline, "the thread that watches in-process clients is late to end");
        }
    }

    fn status(&self) -> Status {
        Status::with_detail(format!("{} clients", self.office.clients()))
    }
}

impl Drop for Inproc {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

elbus_plugin_api::export_plugin!(Inproc);
