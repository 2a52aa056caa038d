//! The bus monitor of ELBUS: clients that may administer the broker get copies of what passes it, with
//! results, numbers of recipients, and calls matched with their replies (section 7 of the protocol).
//!
//! While nobody monitors, it has no hook and no thread. Each monitoring client has an observer, a thread and
//! a sender of its own. It holds nobody: what its queue, its thread or its client cannot take is dropped and
//! counted, and the count is part of the stream.
#![deny(unsafe_code)]

mod batch;
mod decoder;
mod filter;
mod outbox;
mod record;
mod rpc_calls;
mod session;
mod sessions;
mod settings;
mod stream;
#[cfg(test)]
mod tests;

use elbus_plugin_api::{Call, Config, Figure, Host, Method, Plugin, PluginError, Status};
use std::{sync::Arc, time::Duration};

use sessions::Sessions;
use settings::Settings;

/// The monitor plugin.
pub struct Monitor {
    host: Host,
    sessions: Arc<Sessions>,
}

impl Plugin for Monitor {
    const ABOUT: &'static str = "shows administrators what passes the bus";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let settings = Settings::read(config)?;
        let sessions = Sessions::new(host.clone(), settings);
        Ok(Monitor { host, sessions })
    }

    fn start(&self) -> Result<(), PluginError> {
        let method = Method::new("monitor.start")
            .params("{topics: [text], clients: [text], rpc: bool, payload_bytes: integer}, all optional")
            .about("sends the caller a record of each message that passes the bus")
            .admin()
            .slow();
        let sessions = self.sessions.clone();
        self.host.add_method(&method, move |call: &Call<'_>| sessions.start(call))?;

        let method = Method::new(decoder::RENEW)
            .params("{session: integer, batch: integer}")
            .about("keeps monitoring; batches up to this number have arrived")
            .admin();
        let sessions = self.sessions.clone();
        self.host.add_method(&method, move |call: &Call<'_>| sessions.renew(call))?;

        let method =
            Method::new("monitor.stop").params("{session: integer}").about("stops monitoring").admin().slow();
        let sessions = self.sessions.clone();
        self.host.add_method(&method, move |call: &Call<'_>| sessions.stop(call))?;

        let method = Method::new("monitor.list").about("lists the clients that monitor").admin().query();
        let sessions = self.sessions.clone();
        self.host.add_method(&method, move |_: &Call<'_>| sessions.list())?;
        self.sessions.open();
        Ok(())
    }

    fn stop(&self, deadline: Duration) {
        self.sessions.close(deadline);
    }

    fn figures(&self) -> Vec<Figure> {
        vec![Figure::gauge("sessions", self.sessions.count() as f64)]
    }

    fn status(&self) -> Status {
        match self.sessions.count() {
            0 => Status::with_detail("nobody monitors"),
            1 => Status::with_detail("1 client monitors"),
            count => Status::with_detail(format!("{count} clients monitor")),
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.sessions.close(Duration::ZERO);
    }
}

elbus_plugin_api::export_plugin!(Monitor);
