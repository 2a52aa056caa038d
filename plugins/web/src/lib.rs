//! The page of ELBUS: one address serves a web page that shows the broker at work, and the WebSocket that the
//! page uses. The page is a client of the bus like any other.
//!
//! It owns the lifecycle of an instance, the files, and what is collected for the page: a history of the last
//! quarter of an hour, and samples of the traffic while somebody looks at them. Its control methods show each
//! caller what the access rules let it learn anyway. `elbus-http` has the HTTP requests, the WebSocket
//! frames, tokens, and who may connect.
//!
//! ```toml
//! [[plugin]]
//! name = "web"
//! library = "elbus_web"
//! [plugin.config]
//! bind = "127.0.0.1:7780"
//! # and the keys of `elbus_websocket`, except `path`
//! ```
#![deny(unsafe_code)]

mod busiest;
mod calls;
mod collector;
mod events;
mod figures;
mod flows;
mod history;
mod methods;
mod page;
mod rights;
mod traffic;

use elbus_http::HttpServer;
use elbus_plugin_api::{Config, Figure, Host, Locality, Plugin, PluginError, PluginThread, Status};
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use collector::Collector;

/// The path of the WebSocket.
const WEBSOCKET_PATH: &str = "/bus";

/// The plugin.
pub struct Web {
    host: Host,
    server: HttpServer,
    collector: Arc<Collector>,
    /// `Some` from `start` to `stop`.
    thread: Mutex<Option<PluginThread>>,
}

impl Plugin for Web {
    const ABOUT: &'static str = "a web page that shows the broker at work";
    const REQUIRES: &'static str = "elbus-rpc";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        // a user who reads the log of the broker on its machine: as with a UNIX socket, the page can
        // administer then
        let start = Locality::SameHost;
        let path = WEBSOCKET_PATH.to_owned();
        let server = HttpServer::create(host.clone(), config, path, page::files(), start)?;
        let collector = Collector::new(host.clone());
        Ok(Web { host, server, collector, thread: Mutex::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        self.server.start()?;
        methods::add(&self.host, &self.collector)?;
        *self.thread.lock() = Some(self.collector.start()?);
        Ok(())
    }

    fn serve(&self) {
        self.server.serve();
    }

    fn refresh(&self) -> Result<(), PluginError> {
        self.server.refresh()
    }

    fn stop(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        self.collector.stop();
        self.server.stop(deadline);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            thread.ended_within(end.saturating_duration_since(Instant::now()));
        }
    }

    fn figures(&self) -> Vec<Figure> {
        self.server.figures()
    }

    fn status(&self) -> Status {
        self.server.status()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.collector.stop();
    }
}

/// A separate module, since the macro's code contains unsafe attributes.
mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(crate::Web);
}
pub use export::plugin;
