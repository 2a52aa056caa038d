//! The control method `broker.nodes`: the other nodes of the bus, and the state of the bridge to each.

use elbus_bridge::ReportKind;
use elbus_plugin_api::{Call, CallError, Host, Method, PluginError};
use serde::Serialize;
use std::sync::Arc;

use crate::{settings::Settings, snapshot::Snapshot};

#[derive(Serialize)]
struct Nodes {
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    bus: String,
    /// `up` or `lost`.
    state: &'static str,
    /// Names that it has announced.
    clients: u64,
    /// Filters that it has announced.
    filters: u64,
    /// Bytes that are queued for it, in flight to it, and of it and waiting for local receivers.
    queued: u64,
    in_flight: u64,
    parked: u64,
    /// Messages to it that were lost on the way, and messages of it that could not be dispatched.
    lost_frames: u64,
    dropped_frames: u64,
    /// Seconds since its last sign of life.
    silent_seconds: f64,
}

/// Adds the method. The first instance adds `broker.nodes`, others `broker.nodes.BUS`.
///
/// # Errors
/// Both names are taken.
pub(crate) fn add_method(
    host: &Host,
    settings: &Arc<Settings>,
    snapshot: &Arc<Snapshot>,
) -> Result<(), PluginError> {
    let bus = settings.bridge.bus.clone();
    let add = |name: &str| {
        let (bus, snapshot) = (bus.clone(), snapshot.clone());
        let about = "lists the other nodes of a bridged bus";
        let method = Method::new(name).params("none").about(about).query();
        host.add_method(&method, move |_: &Call<'_>| encode(&bus, &snapshot))
    };
    add("broker.nodes").or_else(|_| add(&format!("broker.nodes.{bus}")))
}

fn encode(bus: &str, snapshot: &Snapshot) -> Result<Vec<u8>, CallError> {
    let nodes = snapshot.nodes().into_iter().map(|status| Node {
        name: status.node.to_string(),
        bus: bus.to_owned(),
        state: if status.is_up { "up" } else { "lost" },
        clients: status.names as u64,
        filters: status.filters as u64,
        queued: status.queued_bytes as u64,
        in_flight: status.in_flight_bytes as u64,
        parked: status.parked_bytes as u64,
        lost_frames: status.counters.get(ReportKind::MessagesLost)
            + status.counters.get(ReportKind::MessagesDropped),
        dropped_frames: status.counters.get(ReportKind::DeliveriesDropped),
        silent_seconds: status.silent_for.as_secs_f64(),
    });
    let nodes = Nodes { nodes: nodes.collect() };
    rmp_serde::to_vec_named(&nodes).map_err(|error| CallError::internal(error.to_string()))
}
