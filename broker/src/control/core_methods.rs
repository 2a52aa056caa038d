//! The control methods of the broker's core (protocol section 7): test, info, stats, clients.

use elbus_plugin_api::{Call, CallError, Code, Method, QueueBudget, config::Overflow};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    bounded_regex::BoundedRegex,
    params::{decode_params, encode_result, name_param, no_params, truncated},
    table::ControlTable,
};
use crate::routing::{Router, SubscriptionReport};

/// The number of secondaries that `client.info` names; `client.list` counts all.
const MAX_NAMED_SECONDARIES: usize = 1000;
/// The number of subscriptions with options that `client.info` lists.
const MAX_NAMED_OPTIONS: usize = 1000;
/// What the result of `features` has: what a client cannot rely on in other brokers.
const FEATURES: [&str; 6] = ["share", "key", "latest", "every", "lossy", "missed"];

#[derive(Serialize)]
struct Info<'a> {
    author: &'a str,
    version: &'a str,
}

/// The result of `health`: values that `info` and `stats` do not have, whose keys the protocol fixes.
#[derive(Serialize)]
struct Health<'a> {
    name: &'a str,
    uptime_seconds: u64,
    clients: u64,
    /// Frames that were refused by full queues.
    refused_frames: u64,
    /// Operations and registrations that access rules have denied.
    denied: u64,
    /// Queued bytes, and their limit.
    queued_bytes: u64,
    max_queued_bytes: u64,
}

#[derive(Serialize)]
struct Stats {
    uptime: u64,
    r_frames: u64,
    r_bytes: u64,
    w_frames: u64,
    w_bytes: u64,
}

#[derive(Serialize)]
struct ClientList {
    clients: Vec<Client>,
}

#[derive(Serialize)]
struct Client {
    name: String,
    kind: String,
    source: Option<String>,
    port: Option<String>,
    r_frames: u64,
    r_bytes: u64,
    w_frames: u64,
    w_bytes: u64,
    queue: u64,
    instances: u64,
}

/// The result of `client.info`: values that `client.list` does not have, whose keys the protocol fixes.
#[derive(Serialize)]
struct ClientDetails {
    name: String,
    kind: String,
    /// Queued bytes.
    queue_bytes: u64,
    /// The process behind a UNIX socket.
    pid: Option<i32>,
    uid: Option<u32>,
    gid: Option<u32>,
    /// The systemd unit of that process.
    unit: Option<String>,
    /// The names of a verified client certificate, prefixed by their kinds.
    certificate_names: Vec<String>,
    /// The name of its token, if it has authenticated itself with one.
    token: Option<String>,
    /// The node of a bridged bus at which it is connected; nil for a client of this broker.
    node: Option<String>,
    /// The names of its secondaries, the first 1,000 of them.
    secondaries: Vec<String>,
    /// Operations that access rules have denied, by kind; kinds without any are left out.
    denied: BTreeMap<&'static str, u64>,
    /// Whether it can hold senders that have other receivers.
    may_hold: bool,
    /// How long it has held them, in seconds charged to its budget.
    held_seconds: f64,
    /// Frames that were dropped because its hold budget is spent.
    dropped_frames: u64,
    /// What happens if its queue is full.
    overflow: Overflow,
    /// Whether its bytes are in rings of shared memory instead of its socket.
    rings: bool,
    /// Its subscriptions with options, the first 1,000 of them.
    options: Vec<OptionedSubscription>,
    /// Its other subscriptions, at most 1,000 of them, and the number of all.
    subscriptions: Vec<String>,
    subscription_count: u64,
    /// Its exclusions, likewise.
    exclusions: Vec<String>,
    exclusion_count: u64,
}

/// A subscription with options, and what its client misses.
#[derive(Serialize)]
struct OptionedSubscription {
    filter: String,
    /// Publications that were dropped.
    missed: u64,
    /// Publications that a newer one of the same topic has replaced.
    replaced: u64,
    /// Publications that wait to be encoded.
    pending: u64,
}

#[derive(Deserialize, Default)]
struct ClientFilter {
    filter: Option<String>,
    /// Also the clients of other nodes.
    #[serde(default)]
    all: bool,
}

/// Adds the methods of the core to the table.
pub(crate) fn add_core_methods(
    table: &Arc<ControlTable>,
    router: &Arc<Router>,
    broker_name: &Arc<RwLock<String>>,
    budget: &QueueBudget,
) {
    let quick = |name, params, about| Method::new(name).params(params).about(about).query();
    table.add_own(&quick("test", "none", "returns {ok: true}"), |call| {
        no_params(call)?;
        encode_result(&BTreeMap::from([("ok", true)]))
    });

    table.add_own(&quick("info", "none", "author and version of the broker"), |call| {
        no_params(call)?;
        encode_result(&Info { author: "ELBUS", version: env!("CARGO_PKG_VERSION") })
    });

    let about = "options of subscriptions that the broker understands, and reports of what was missed";
    table.add_own(&quick("features", "none", about), |call| {
        no_params(call)?;
        encode_result(&FEATURES.into_iter().map(|feature| (feature, true)).collect::<BTreeMap<_, _>>())
    });

    let (name, started, asked) = (broker_name.clone(), Instant::now(), router.clone());
    let about = "name, uptime, clients, frames refused, operations denied, bytes queued";
    let health = quick("health", "none", about).slow();
    let budget = budget.clone();
    table.add_own(&health, move |call| {
        no_params(call)?;
        encode_result(&Health {
            name: &name.read().clone(),
            uptime_seconds: started.elapsed().as_secs(),
            clients: asked.client_count() as u64,
            refused_frames: asked.refused_frames(),
            denied: asked.access.denied().sum(),
            queued_bytes: budget.queued() as u64,
            max_queued_bytes: budget.limit() as u64,
        })
    });

    let (started, stats) = (Instant::now(), router.clone());
    table.add_own(
        &quick("stats", "none", "uptime in seconds, frames and bytes since the start"),
        move |call| {
            no_params(call)?;
            let totals = stats.totals();
            encode_result(&Stats {
                uptime: started.elapsed().as_secs(),
                r_frames: totals.received_frames,
                r_bytes: totals.received_bytes,
                w_frames: totals.sent_frames,
                w_bytes: totals.sent_bytes,
            })
        },
    );

    table.add_own(&quick("benchmark.test", "any bytes", "returns the same bytes"), |call| {
        Ok(call.params.to_vec())
    });

    let clients = router.clone();
    let list = quick("client.list", "{filter: regex, all: bool}", "lists primary clients by name").slow();
    table.add_own(&list, move |call| list_clients(&clients, call));

    let described = router.clone();
    let info = quick("client.info", "{name: str}", "queue, process and certificate of a client").slow();
    table.add_own(&info, move |call| describe_client(&described, call));

    let kicked = router.clone();
    let about = "disconnects a client and its secondaries";
    let kick = Method::new("client.kick").params("{name: str}").about(about).slow().admin();
    table.add_own(&kick, move |call| kick_client(&kicked, call));

    // weak: the table owns this method
    let this = Arc::downgrade(table);
    table.add_own(&quick("method.list", "none", "lists the control methods"), move |call| {
        no_params(call)?;
        this.upgrade()
            .ok_or_else(|| CallError::new(Code::Other.rpc_code(), "the broker is ending"))?
            .describe()
            .map(|description| description.to_vec())
    });
}

fn list_clients(router: &Router, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
    let ClientFilter { filter, all } = decode_params(call.params)?;
    let filter = filter.as_deref().map(BoundedRegex::new).transpose()?;
    let mut primaries = router.primaries();
    if !all {
        primaries.retain(|(client, _)| client.origin.node().is_none());
    }
    if let Some(filter) = &filter {
        // the registry's lock is released: these are copies
        let mut result = Ok(());
        primaries.retain(|(client, _)| {
            let matched = result.is_ok().then(|| filter.is_match(&client.name));
            matched.is_some_and(|matched| {
                matched.unwrap_or_else(|error| {
                    result = Err(error);
                    false
                })
            })
        });
        result?;
    }
    let clients = primaries
        .into_iter()
        .map(|(client, instances)| {
            let totals = client.counts.totals();
            Client {
                name: client.name.to_string(),
                kind: client.origin.kind.to_string(),
                source: client.origin.source.as_deref().map(str::to_owned),
                port: client.origin.port.as_deref().map(str::to_owned),
                r_frames: totals.received_frames,
                r_bytes: totals.received_bytes,
                w_frames: totals.sent_frames,
                w_bytes: totals.sent_bytes,
                queue: client.queued().frames,
                instances: instances as u64,
            }
        })
        .collect();
    encode_result(&ClientList { clients })
}

fn describe_client(router: &Router, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
    let name = name_param(call)?;
    let client = router.find(&name).ok_or_else(|| no_client(&name))?;
    let credentials = client.origin.credentials;
    let policy = client.policy();
    let denied = policy.iter().flat_map(|policy| policy.denied());
    let (subscriptions, exclusions) = router.filters_of(&client);
    encode_result(&ClientDetails {
        secondaries: router.secondaries(&name, MAX_NAMED_SECONDARIES),
        name,
        kind: client.origin.kind.to_string(),
        queue_bytes: client.queued().bytes,
        pid: credentials.map(|c| c.pid),
        uid: credentials.map(|c| c.uid),
        gid: credentials.map(|c| c.gid),
        unit: client.origin.unit.as_deref().cloned(),
        certificate_names: client.origin.certificate_names().to_vec(),
        token: client.origin.token().map(str::to_owned),
        node: client.origin.node().map(str::to_owned),
        denied: denied.filter(|(_, count)| *count > 0).map(|(action, count)| (action.key(), count)).collect(),
        may_hold: !router.holds.is_spent(&client),
        held_seconds: router.holds.used(&client).as_secs_f64(),
        dropped_frames: client.dropped.load(Ordering::Relaxed),
        overflow: client.overflow(),
        rings: client.origin.has_rings,
        options: router.optioned_of(&client, MAX_NAMED_OPTIONS).into_iter().map(optioned).collect(),
        subscription_count: subscriptions.count as u64,
        subscriptions: subscriptions.filters,
        exclusion_count: exclusions.count as u64,
        exclusions: exclusions.filters,
    })
}

fn optioned(report: SubscriptionReport) -> OptionedSubscription {
    OptionedSubscription {
        filter: report.filter.to_string(),
        missed: report.dropped,
        replaced: report.replaced,
        pending: report.pending as u64,
    }
}

fn no_client(name: &str) -> CallError {
    CallError::new(Code::NotRegistered.rpc_code(), format!("no client {:?} is registered", truncated(name)))
}

fn kick_client(router: &Router, call: &Call<'_>) -> Result<Vec<u8>, CallError> {
    let name = name_param(call)?;
    if router.find(&name).is_some_and(|client| client.origin.internal) {
        let text = format!("{name:?} is part of a plugin; use plugin.stop");
        return Err(CallError::new(Code::AccessDenied.rpc_code(), text));
    }
    if router.evict(&name, &format!("kicked by {}", call.caller)) {
        encode_result(&BTreeMap::from([("ok", true)]))
    } else {
        Err(no_client(&name))
    }
}
