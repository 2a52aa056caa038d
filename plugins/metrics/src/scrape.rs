//! Collects all figures, one scrape at a time, in a thread of its own: a plugin or a broker that is slow to
//! answer delays no other HTTP request. Keeps the last answer for a moment, so that a flood of requests costs
//! no more than one.

use bytes::Bytes;
use elbus_plugin_api::{Host, PluginError, PluginThread};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::{
    broker_figures::{BrokerFigures, ClientFigures, HookFigures, InstanceFigures, PluginFigure},
    connections::HttpCounts,
    events::EventCounts,
    exposition::{Samples, Value},
    families,
    observation::ObservedCounts,
    process::Process,
    settings::Settings,
};

/// Scrapes that wait for the thread: those of requests that were given up.
const WAITING: usize = 4;
/// All states of an instance.
const STATES: [&str; 6] = ["declared", "loaded", "configured", "started", "stopped", "failed"];
/// Reasons to disconnect a client that took nothing or too little.
const SLOW_REASONS: [&str; 2] = ["stalled", "overflow"];

/// The result of a scrape.
#[derive(Debug, Clone)]
pub(crate) struct Scrape {
    pub(crate) text: Bytes,
    /// Why the broker is not ready.
    pub(crate) readiness: Result<(), String>,
}

/// What has asked for a scrape.
type Asker = oneshot::Sender<Option<Scrape>>;

/// The collecting thread, and the last result.
pub(crate) struct Scraper {
    /// `None` once it has ended.
    askers: Mutex<Option<SyncSender<Asker>>>,
    cache: Duration,
    /// Held while a scrape is waited for: others get its result.
    last: AsyncMutex<Option<(Instant, Scrape)>>,
    pub(crate) http: Arc<HttpCounts>,
    /// Kept until the end. Not shared between threads.
    thread: Mutex<Option<PluginThread>>,
}

/// What the thread collects from.
struct Sources {
    host: Host,
    settings: Settings,
    events: Arc<EventCounts>,
    observed: Option<Arc<ObservedCounts>>,
    http: Arc<HttpCounts>,
    process: Process,
}

impl Scraper {
    /// Starts the thread.
    ///
    /// # Errors
    /// It cannot be created.
    pub(crate) fn start(
        host: &Host,
        settings: &Settings,
        events: Arc<EventCounts>,
        observed: Option<Arc<ObservedCounts>>,
    ) -> Result<Arc<Self>, PluginError> {
        let http = Arc::<HttpCounts>::default();
        let (askers, asked) = sync_channel(WAITING);
        let sources = Sources {
            host: host.clone(),
            settings: settings.clone(),
            events,
            observed,
            http: http.clone(),
            process: Process::new(),
        };
        let thread = host.spawn(move || sources.answer(&asked))?;
        let askers = Mutex::new(Some(askers));
        let last = AsyncMutex::default();
        let thread = Mutex::new(Some(thread));
        Ok(Arc::new(Scraper { askers, cache: settings.cache, last, http, thread }))
    }

    /// Returns the figures, at most `cache_seconds` old. `None` if they cannot be collected, or the thread is
    /// busy with scrapes that nobody waits for any more.
    pub(crate) async fn scrape(&self) -> Option<Scrape> {
        let mut last = self.last.lock().await;
        if let Some((at, scrape)) = &*last
            && at.elapsed() < self.cache
        {
            return Some(scrape.clone());
        }
        let (asker, answer) = oneshot::channel();
        let askers = self.askers.lock().clone()?;
        askers.try_send(asker).ok()?;
        let scrape = answer.await.ok()??;
        *last = Some((Instant::now(), scrape.clone()));
        Some(scrape)
    }

    /// Ends the thread after the scrape in progress, and waits for it until `deadline`.
    pub(crate) fn end(&self, deadline: Duration) {
        self.askers.lock().take();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| !thread.ended_within(deadline)) {
            tracing::warn!(?deadline, "collecting thread has not ended within the deadline");
        }
    }
}

impl Sources {
    fn answer(&self, asked: &Receiver<Asker>) {
        while let Ok(asker) = asked.recv() {
            if asker.is_closed() {
                continue; // nobody waits any more
            }
            let scrape = self.collect().inspect_err(|error| tracing::warn!(error, "figures not collected"));
            _ = asker.send(scrape.ok());
        }
    }

    fn collect(&self) -> Result<Scrape, String> {
        let begun = Instant::now();
        let figures = BrokerFigures::ask(&self.host, &self.settings)?;
        let mut samples = Samples::default();
        let name = self.host.broker_name();
        samples.add(&families::BROKER, &[&name, env!("CARGO_PKG_VERSION")], Value::Present);
        sample_broker(&figures, &mut samples);
        figures.instances.iter().for_each(|instance| sample_instance(instance, &mut samples));
        figures.clients.iter().for_each(|client| sample_client(client, &mut samples));
        samples.count(&families::SERIES_LIMIT, &["client"], self.settings.max_clients as u64);
        samples.count(&families::OMITTED_SERIES, &["client"], figures.omitted_clients);
        self.events.sample(&mut samples);
        if let Some(observed) = &self.observed {
            observed.sample(&mut samples);
        }
        self.process.sample(&mut samples);
        self.http.sample(&mut samples);
        samples.number(&families::COLLECTION, &[], begun.elapsed().as_secs_f64());
        let readiness = match self.events.is_ending() {
            true => Err("the broker is shutting down".to_owned()),
            false => figures.readiness(),
        };
        let text = samples.encode().map_err(|error| error.to_string())?;
        Ok(Scrape { text: text.into(), readiness })
    }
}

fn sample_broker(figures: &BrokerFigures, samples: &mut Samples) {
    samples.number(&families::UPTIME, &[], figures.uptime_seconds);
    for (family, count) in [
        (&families::RECEIVED_FRAMES, figures.r_frames),
        (&families::RECEIVED, figures.r_bytes),
        (&families::SENT_FRAMES, figures.w_frames),
        (&families::SENT, figures.w_bytes),
        (&families::QUEUED, figures.queued_bytes),
        (&families::MAX_QUEUED, figures.max_queued_bytes),
        (&families::MISSED_PUBLICATIONS, figures.missed),
        (&families::FULL_RECEIVERS, figures.full_receivers),
        (&families::HELD_SENDERS, figures.held_senders),
        (&families::SPENT_HOLD_BUDGETS, figures.spent_hold_budgets),
    ] {
        samples.count(family, &[], count);
    }
    samples.number(&families::HELD, &[], figures.held_seconds);
    for (family, counts) in [
        (&families::REFUSED_MESSAGES, &figures.refused),
        (&families::DENIALS, &figures.denied),
        (&families::REFUSED_REGISTRATIONS, &figures.refused_registrations),
    ] {
        counts.iter().for_each(|(kind, count)| samples.count(family, &[kind], *count));
    }
    for receiver in &figures.holding {
        samples.number(&families::RECEIVER_HELD, &[&receiver.name], receiver.held_seconds);
    }
}

fn sample_instance(figures: &InstanceFigures, samples: &mut Samples) {
    let plugin = figures.name.as_str();
    samples.add(&families::PLUGIN, &[plugin, &figures.plugin], Value::Present);
    if !figures.state.is_empty() {
        for state in STATES {
            samples.count(&families::PLUGIN_STATE, &[plugin, state], u64::from(figures.state == state));
        }
    }
    samples.count(&families::CLIENTS, &[plugin, "primary"], figures.primaries);
    samples.count(&families::CLIENTS, &[plugin, "secondary"], figures.secondaries);
    let slow = SLOW_REASONS.iter().filter_map(|reason| figures.departures.get(*reason)).sum();
    for (family, count) in [
        (&families::PLUGIN_RESTARTS, figures.restarts),
        (&families::PLUGIN_SLOW_CALLBACKS, figures.slow_callbacks),
        (&families::REGISTRATIONS, figures.registered),
        (&families::SLOW_CONSUMERS, slow),
        (&families::PLUGIN_RECEIVED_FRAMES, figures.r_frames),
        (&families::PLUGIN_RECEIVED, figures.r_bytes),
        (&families::PLUGIN_SENT_FRAMES, figures.w_frames),
        (&families::PLUGIN_SENT, figures.w_bytes),
        (&families::PLUGIN_QUEUED_FRAMES, figures.queued_frames),
        (&families::PLUGIN_QUEUED, figures.queued_bytes),
        (&families::OBSERVER_MISSED, figures.missed),
    ] {
        samples.count(family, &[plugin], count);
    }
    // of plugins without clients they say nothing
    for (reason, count) in figures.departures.iter().filter(|_| figures.registered > 0) {
        samples.count(&families::DISCONNECTIONS, &[plugin, reason], *count);
    }
    for (hook, HookFigures { seconds, buckets }) in &figures.hooks {
        let value = Value::Histogram { sum: *seconds, buckets: buckets.clone() };
        samples.add(&families::HOOK_DURATION, &[plugin, hook], value);
    }
    figures.figures.iter().for_each(|figure| sample_own(plugin, figure, samples));
}

/// Adds what a plugin counts or measures itself. What every transport has, has families of its own.
fn sample_own(plugin: &str, figure: &PluginFigure, samples: &mut Samples) {
    let PluginFigure { name, of, counter, value } = figure;
    match (name.as_str(), counter) {
        ("connections", false) => samples.number(&families::CONNECTIONS, &[plugin], *value),
        ("pending_connections", false) => samples.number(&families::PENDING_CONNECTIONS, &[plugin], *value),
        ("rejected_connections", true) => {
            samples.number(&families::REJECTED_CONNECTIONS, &[plugin, of], *value);
        }
        (name, true) => samples.number(&families::PLUGIN_COUNTER, &[plugin, name, of], *value),
        (name, false) => samples.number(&families::PLUGIN_GAUGE, &[plugin, name, of], *value),
    }
}

fn sample_client(figures: &ClientFigures, samples: &mut Samples) {
    let client = figures.name.as_str();
    for (family, count) in [
        (&families::CLIENT_RECEIVED_FRAMES, figures.r_frames),
        (&families::CLIENT_RECEIVED, figures.r_bytes),
        (&families::CLIENT_SENT_FRAMES, figures.w_frames),
        (&families::CLIENT_SENT, figures.w_bytes),
        (&families::CLIENT_QUEUED_FRAMES, figures.queued_frames),
        (&families::CLIENT_QUEUED, figures.queued_bytes),
        (&families::CLIENT_DROPPED_FRAMES, figures.dropped_frames),
    ] {
        samples.count(family, &[client], count);
    }
    samples.number(&families::CLIENT_HELD, &[client], figures.held_seconds);
}
