//! The control method `metrics`: everything that the broker counts, for programs that monitor it. Owns its
//! parameters and its result only.

use elbus_plugin_api::{
    CallError, Figure, Method,
    hooks::{HookScope, MAX_HOOK_FILTERS},
};
use elbus_protocol::rpc::INVALID_PARAMS;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use super::{instance::InstanceSummary, plugins::Plugins};
use crate::{
    control::{
        params::{decode_params, encode_result},
        table::ControlTable,
    },
    routing::{ClientFigures, InstanceFigures, RegisteredClient, Router},
    statistics::{DurationSummary, InstanceStatistics},
};

/// The most receivers that hold senders, and the most clients, that a result has.
const MAX_HOLDING: usize = 1000;
const MAX_CLIENTS: usize = 10_000;
/// The longest mask, in bytes.
const MAX_MASK_BYTES: usize = 1024;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Parameters {
    /// How many of the receivers that have held senders longest the result has.
    holding: usize,
    /// Masks of the clients that the result has, and how many of them at most.
    clients: Vec<String>,
    max_clients: usize,
}

/// Counts by the names of their kinds.
type Counts = BTreeMap<&'static str, u64>;

#[derive(Serialize)]
struct Metrics {
    uptime_seconds: f64,
    r_frames: u64,
    r_bytes: u64,
    w_frames: u64,
    w_bytes: u64,
    queued_bytes: u64,
    max_queued_bytes: u64,
    /// Messages that were not queued for a recipient.
    refused: Counts,
    /// Publications that subscriptions with options have missed.
    missed: u64,
    /// Operations, calls and registrations.
    denied: Counts,
    refused_registrations: Counts,
    /// Receivers whose queue is over its limit, senders that wait for them, and for how long senders have
    /// waited since the start, all of them together.
    full_receivers: u64,
    held_senders: u64,
    held_seconds: f64,
    /// Names and identities of receivers whose hold budget is spent for a sender.
    spent_hold_budgets: u64,
    instances: Vec<Instance>,
    holding: Vec<Holding>,
    clients: Vec<Client>,
    omitted_clients: u64,
}

#[derive(Serialize)]
struct Instance {
    name: String,
    /// The plugin; empty before it is loaded, and for what the embedding program registers.
    plugin: String,
    state: &'static str,
    restarts: u64,
    slow_callbacks: u64,
    /// Registered clients.
    primaries: u64,
    secondaries: u64,
    registered: u64,
    departures: Counts,
    r_frames: u64,
    r_bytes: u64,
    w_frames: u64,
    w_bytes: u64,
    queued_frames: u64,
    queued_bytes: u64,
    /// Messages that its observers have missed.
    missed: u64,
    hooks: BTreeMap<&'static str, Hook>,
    /// What the plugin itself counts and measures.
    figures: Vec<PluginFigure>,
}

#[derive(Serialize)]
struct PluginFigure {
    name: String,
    of: String,
    counter: bool,
    value: f64,
}

#[derive(Serialize)]
struct Hook {
    seconds: f64,
    /// Upper bounds in seconds, the last one infinite, with the calls that took longer than the previous one.
    buckets: Vec<(f64, u64)>,
}

#[derive(Serialize)]
struct Holding {
    name: String,
    held_seconds: f64,
}

#[derive(Serialize)]
struct Client {
    name: String,
    r_frames: u64,
    r_bytes: u64,
    w_frames: u64,
    w_bytes: u64,
    queued_frames: u64,
    queued_bytes: u64,
    dropped_frames: u64,
    held_seconds: f64,
}

impl From<Figure> for PluginFigure {
    fn from(figure: Figure) -> Self {
        PluginFigure { name: figure.name, of: figure.of, counter: figure.is_counter, value: figure.value }
    }
}

/// Adds the method.
pub(crate) fn add_metrics_method(table: &ControlTable, plugins: &Arc<Plugins>) {
    let method = Method::new("metrics")
        .params("{holding: integer, clients: [mask], max_clients: integer}, all optional")
        .about("everything that the broker counts, for each plugin instance, and for clients if asked")
        .slow()
        .query();
    // weak: the plugins own the table
    let (this, started) = (Arc::downgrade(plugins), Instant::now());
    table.add_own(&method, move |call| {
        let parameters: Parameters = decode_params(call.params)?;
        let selected = parameters.check()?;
        let plugins = this.upgrade().ok_or_else(|| CallError::internal("the broker is ending"))?;
        encode_result(&collect(&plugins, &parameters, selected.as_ref(), started))
    });
}

impl Parameters {
    /// Returns the scope of the clients that the result has; `None` if it has none.
    fn check(&self) -> Result<Option<HookScope>, CallError> {
        let refuse = |text: String| Err(CallError::new(INVALID_PARAMS, text));
        for (key, value, limit) in [
            ("holding", self.holding, MAX_HOLDING),
            ("max_clients", self.max_clients, MAX_CLIENTS),
            ("clients: masks", self.clients.len(), MAX_HOOK_FILTERS),
        ] {
            if value > limit {
                return refuse(format!("{key}: {value} exceeds the limit of {limit}"));
            }
        }
        if let Some(bytes) = self.clients.iter().map(String::len).find(|bytes| *bytes > MAX_MASK_BYTES) {
            return refuse(format!("clients: a mask has {bytes} bytes; the limit is {MAX_MASK_BYTES}"));
        }
        Ok((!self.clients.is_empty()).then(|| HookScope::new().messages(&self.clients)))
    }
}

fn collect(
    plugins: &Plugins,
    parameters: &Parameters,
    selected: Option<&HookScope>,
    started: Instant,
) -> Metrics {
    let (router, budget) = (&plugins.context.router, &plugins.context.budget);
    let totals = router.totals();
    let ClientFigures { instances, holding, selected, omitted } =
        router.client_figures(parameters.holding, selected, parameters.max_clients);
    let (held_senders, held) = router.holds.held();
    Metrics {
        uptime_seconds: started.elapsed().as_secs_f64(),
        r_frames: totals.received_frames,
        r_bytes: totals.received_bytes,
        w_frames: totals.sent_frames,
        w_bytes: totals.sent_bytes,
        queued_bytes: budget.queued() as u64,
        max_queued_bytes: budget.limit() as u64,
        refused: router.refused().all().collect(),
        missed: router.missed(),
        denied: router.access.denied().all().collect(),
        refused_registrations: router.refused_registrations().all().collect(),
        full_receivers: router.holds.full() as u64,
        held_senders: held_senders as u64,
        held_seconds: held.as_secs_f64(),
        spent_hold_budgets: router.holds.spent_budgets() as u64,
        instances: instances_of(plugins, &instances),
        holding: holding
            .into_iter()
            .map(|(client, held)| Holding { name: client.name.to_string(), held_seconds: held.as_secs_f64() })
            .collect(),
        clients: selected.iter().map(|client| describe(router, client)).collect(),
        omitted_clients: omitted as u64,
    }
}

/// Returns the declared instances, then others that have counters: removed ones, and the embedding program.
fn instances_of(plugins: &Plugins, figures: &BTreeMap<Arc<str>, InstanceFigures>) -> Vec<Instance> {
    let router = &plugins.context.router;
    let missed = router.missed_by_observers();
    let mut counted: BTreeMap<Arc<str>, Arc<InstanceStatistics>> =
        router.instances.all().into_iter().map(|one| (one.name.clone(), one)).collect();
    let mut found = Vec::new();
    let mut add =
        |summary: InstanceSummary, own: Vec<Figure>, statistics: Option<Arc<InstanceStatistics>>| {
            let figures = figures.get(&*summary.name).copied().unwrap_or_default();
            let statistics = statistics.unwrap_or_default();
            let observing = missed.iter().filter(|(of, _)| Arc::ptr_eq(of, &statistics));
            let observing: u64 = observing.map(|(_, missed)| missed).sum();
            let mut totals = statistics.departed.totals();
            totals += figures.totals;
            let hooks = [
                ("interceptor", &statistics.intercept),
                ("resolver", &statistics.resolve),
                ("subscription_listener", &statistics.on_change),
            ];
            found.push(Instance {
                name: summary.name,
                plugin: summary.plugin,
                state: summary.state,
                restarts: summary.restarts,
                slow_callbacks: summary.slow_callbacks,
                primaries: figures.primaries,
                secondaries: figures.secondaries,
                registered: statistics.registered.load(Relaxed),
                departures: statistics.departures.all().collect(),
                r_frames: totals.received_frames,
                r_bytes: totals.received_bytes,
                w_frames: totals.sent_frames,
                w_bytes: totals.sent_bytes,
                queued_frames: figures.queued_frames,
                queued_bytes: figures.queued_bytes,
                missed: statistics.missed.load(Relaxed) + observing,
                hooks: hooks
                    .into_iter()
                    .filter_map(|(hook, durations)| {
                        let DurationSummary { buckets, total } = durations.summary()?;
                        Some((hook, Hook { seconds: total.as_secs_f64(), buckets }))
                    })
                    .collect(),
                figures: own.into_iter().map(PluginFigure::from).collect(),
            });
        };
    for (summary, own) in plugins.summaries() {
        let statistics = counted.remove(&*summary.name);
        add(summary, own, statistics);
    }
    for (name, statistics) in counted {
        let summary = InstanceSummary { name: name.to_string(), ..InstanceSummary::default() };
        add(summary, Vec::new(), Some(statistics));
    }
    found
}

fn describe(router: &Router, client: &RegisteredClient) -> Client {
    let (totals, queued) = (client.counts.totals(), client.queued());
    Client {
        name: client.name.to_string(),
        r_frames: totals.received_frames,
        r_bytes: totals.received_bytes,
        w_frames: totals.sent_frames,
        w_bytes: totals.sent_bytes,
        queued_frames: queued.frames,
        queued_bytes: queued.bytes,
        dropped_frames: client.dropped.load(Relaxed),
        held_seconds: router.held_senders(client).as_secs_f64(),
    }
}
