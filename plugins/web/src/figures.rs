//! What the collector asks the broker: sums, and figures of each client. Owns the calls and what it needs of
//! their results; keeps nothing.

use elbus_plugin_api::{Call, CallError, Host};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::HashMap;

/// The most clients whose figures are asked for.
const MAX_CLIENTS: usize = 10_000;
/// Receivers that have held senders longest, in case there are more clients.
const MAX_HOLDING: usize = 16;

/// Sums of all clients. All but queued bytes and clients count from the start of the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) refused: u64,
    pub(crate) missed: u64,
    pub(crate) held_seconds: f64,
    pub(crate) queued_bytes: u64,
    pub(crate) clients: u64,
}

/// Figures of one client since it has registered, and what is queued for it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct ClientFigures {
    pub(crate) name: String,
    #[serde(rename = "r_frames")]
    pub(crate) messages_in: u64,
    #[serde(rename = "w_frames")]
    pub(crate) messages_out: u64,
    pub(crate) queued_frames: u64,
    pub(crate) queued_bytes: u64,
    #[serde(rename = "dropped_frames")]
    pub(crate) refused: u64,
    pub(crate) held_seconds: f64,
}

/// What is needed of the result of `health`.
#[derive(Deserialize)]
struct Health {
    clients: u64,
}

/// What is needed of the result of `metrics`.
#[derive(Deserialize)]
struct Metrics {
    r_frames: u64,
    r_bytes: u64,
    w_frames: u64,
    w_bytes: u64,
    queued_bytes: u64,
    /// By reason.
    refused: HashMap<String, u64>,
    missed: u64,
    held_seconds: f64,
    holding: Vec<Holding>,
    clients: Vec<ClientFigures>,
}

#[derive(Deserialize)]
struct Holding {
    name: String,
    held_seconds: f64,
}

/// The parameters of `metrics`.
#[derive(Serialize, Default)]
struct Wanted {
    holding: usize,
    clients: &'static [&'static str],
    max_clients: usize,
}

/// Returns the sums of all clients.
///
/// # Errors
/// The broker is ending.
pub(crate) fn totals(host: &Host) -> Result<Totals, CallError> {
    let metrics = metrics(host, &Wanted::default())?;
    // without parts of the broker
    let Health { clients } = ask(host, "health", &[])?;
    Ok(Totals {
        messages_in: metrics.r_frames,
        messages_out: metrics.w_frames,
        bytes_in: metrics.r_bytes,
        bytes_out: metrics.w_bytes,
        refused: metrics.refused.values().sum(),
        missed: metrics.missed,
        held_seconds: metrics.held_seconds,
        queued_bytes: metrics.queued_bytes,
        clients,
    })
}

fn metrics(host: &Host, wanted: &Wanted) -> Result<Metrics, CallError> {
    ask(host, "metrics", &encode(wanted)?)
}

/// Returns the figures of all clients, the first 10,000 by name, and of those that hold senders longest.
///
/// # Errors
/// As [`totals`].
pub(crate) fn clients(host: &Host) -> Result<Vec<ClientFigures>, CallError> {
    let wanted = Wanted { holding: MAX_HOLDING, clients: &["*"], max_clients: MAX_CLIENTS };
    let Metrics { mut clients, holding, .. } = metrics(host, &wanted)?;
    for Holding { name, held_seconds } in holding {
        if !clients.iter().any(|client| client.name == name) {
            clients.push(ClientFigures { name, held_seconds, ..ClientFigures::default() });
        }
    }
    Ok(clients)
}

/// Calls a method as the broker itself.
pub(crate) fn ask<T: DeserializeOwned>(host: &Host, method: &str, params: &[u8]) -> Result<T, CallError> {
    let result = host.call(&Call::by_broker(method, params))?;
    rmp_serde::from_slice(&result).map_err(|error| CallError::internal(format!("{method}: {error}")))
}

/// Encodes parameters or a result.
pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>, CallError> {
    rmp_serde::to_vec_named(value).map_err(|error| CallError::internal(error.to_string()))
}
