//! Metrics of an ELBUS broker over HTTP, in the OpenMetrics format, for Prometheus and programs like it.
//!
//! `/metrics` has everything that `docs/metrics.md` lists, `/healthz` and `/readyz` answer whether the broker
//! works and whether all its plugins have started. The figures are those of the control method `metrics`,
//! which the plugin calls as a part of the broker; events, and with `topics` or `rpc` an observer, add to
//! them.
//!
//! ```toml
//! [[plugin]]
//! name = "metrics"
//! library = "elbus_metrics"
//! [plugin.config]
//! bind = "127.0.0.1:9464"       # or the path of a UNIX socket
//! mode = "0660"                 # of a UNIX socket; the default
//! allow_remote = false          # addresses that are not loopback; the default
//! allowed_hosts = []            # names by which clients may address a loopback port, besides localhost
//! max_connections = 32          # the default
//! timeout_seconds = 5.0         # the default
//! cache_seconds = 1.0           # the default
//! worst_receivers = 10          # those that hold senders longest; the default
//! clients = ["plant.*"]         # masks of clients that get series of their own; the default: none
//! max_clients = 100             # the default
//! topics = ["sensors/#"]        # filters of topics that get series of their own; the default: none
//! max_topics = 100              # the default
//! rpc = true                    # durations of calls; the default: false
//! methods = ["get_"]            # prefixes of methods that get series of their own; the default: none
//! max_methods = 100             # the default
//! call_seconds = 60.0           # after which a call counts as unanswered; the default
//! queue_bytes = 8388608         # of the observer; the default
//! ```
//!
//! It is not linked into `elbusd`. A thread serves HTTP and another one collects the figures, one scrape at a
//! time; neither holds a lock of the broker while it works.
#![deny(unsafe_code)]

mod address;
mod answer;
mod broker_figures;
mod call_durations;
mod connections;
mod events;
mod exposition;
mod families;
mod observation;
mod open_calls;
mod process;
mod scrape;
mod server;
mod settings;
mod topic_counts;

use elbus_plugin_api::{Config, Event, Host, Plugin, PluginError, Status};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

use events::EventCounts;
use observation::Observing;
use scrape::Scraper;
use server::Server;
use settings::Settings;

/// The plugin.
pub struct Metrics {
    host: Host,
    settings: Settings,
    events: Arc<EventCounts>,
    /// From start to stop. Taken, never held while something of the broker is called.
    running: Mutex<Option<Running>>,
}

struct Running {
    server: Server,
    scraper: Arc<Scraper>,
    observing: Option<Observing>,
}

impl Plugin for Metrics {
    const ABOUT: &'static str = "serves metrics over HTTP in the OpenMetrics format";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let settings = Settings::read(config)?;
        Ok(Metrics { host, settings, events: Arc::default(), running: Mutex::default() })
    }

    fn start(&self) -> Result<(), PluginError> {
        let events = self.events.clone();
        self.host.add_listener(move |event: &Event<'_>| events.count(event));
        let observing = Observing::start(&self.host, &self.settings)?;
        let observed = observing.as_ref().map(Observing::counts);
        let scraper = Scraper::start(&self.host, &self.settings, self.events.clone(), observed)?;
        let server = Server::bind(&self.host, &self.settings, scraper.clone())?;
        *self.running.lock() = Some(Running { server, scraper, observing });
        Ok(())
    }

    fn serve(&self) {
        if let Some(running) = &*self.running.lock() {
            running.server.serve();
        }
    }

    fn stop(&self, deadline: Duration) {
        let running = self.running.lock().take();
        if let Some(Running { server, scraper, observing }) = running {
            server.stop(deadline);
            scraper.end(deadline);
            drop(observing);
        }
    }

    fn status(&self) -> Status {
        self.running.lock().as_ref().map(|running| running.server.status()).unwrap_or_default()
    }
}

impl Drop for Metrics {
    /// Without a stop, the threads would run on.
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// A separate module, since the macro's code contains unsafe attributes.
mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(crate::Metrics);
}
pub use export::plugin;
