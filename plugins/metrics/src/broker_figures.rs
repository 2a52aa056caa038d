//! The result of the control method `metrics`, as far as the plugin uses it. Owns the call, not the figures.

use elbus_plugin_api::{Call, Host};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::settings::Settings;

/// The parameters of the method.
#[derive(Serialize)]
struct Parameters<'a> {
    holding: usize,
    clients: &'a [String],
    max_clients: usize,
}

/// Counts by the names of their kinds.
pub(crate) type Counts = BTreeMap<String, u64>;

/// What the broker has counted.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BrokerFigures {
    pub(crate) uptime_seconds: f64,
    pub(crate) r_frames: u64,
    pub(crate) r_bytes: u64,
    pub(crate) w_frames: u64,
    pub(crate) w_bytes: u64,
    pub(crate) queued_bytes: u64,
    pub(crate) max_queued_bytes: u64,
    pub(crate) refused: Counts,
    pub(crate) missed: u64,
    pub(crate) denied: Counts,
    pub(crate) refused_registrations: Counts,
    pub(crate) full_receivers: u64,
    pub(crate) held_senders: u64,
    pub(crate) held_seconds: f64,
    pub(crate) spent_hold_budgets: u64,
    pub(crate) instances: Vec<InstanceFigures>,
    pub(crate) holding: Vec<Holding>,
    pub(crate) clients: Vec<ClientFigures>,
    pub(crate) omitted_clients: u64,
}

/// What it has counted for one instance of a plugin.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct InstanceFigures {
    pub(crate) name: String,
    pub(crate) plugin: String,
    pub(crate) state: String,
    pub(crate) restarts: u64,
    pub(crate) slow_callbacks: u64,
    pub(crate) primaries: u64,
    pub(crate) secondaries: u64,
    pub(crate) registered: u64,
    pub(crate) departures: Counts,
    pub(crate) r_frames: u64,
    pub(crate) r_bytes: u64,
    pub(crate) w_frames: u64,
    pub(crate) w_bytes: u64,
    pub(crate) queued_frames: u64,
    pub(crate) queued_bytes: u64,
    pub(crate) missed: u64,
    pub(crate) hooks: BTreeMap<String, HookFigures>,
    pub(crate) figures: Vec<PluginFigure>,
}

/// What the plugin itself counts or measures.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PluginFigure {
    pub(crate) name: String,
    pub(crate) of: String,
    pub(crate) counter: bool,
    pub(crate) value: f64,
}

/// How long the calls of a hook took.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HookFigures {
    pub(crate) seconds: f64,
    /// Upper bounds in seconds, with the calls that took longer than the previous one.
    pub(crate) buckets: Vec<(f64, u64)>,
}

/// A receiver that has held senders.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Holding {
    pub(crate) name: String,
    pub(crate) held_seconds: f64,
}

/// A client that gets series of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ClientFigures {
    pub(crate) name: String,
    pub(crate) r_frames: u64,
    pub(crate) r_bytes: u64,
    pub(crate) w_frames: u64,
    pub(crate) w_bytes: u64,
    pub(crate) queued_frames: u64,
    pub(crate) queued_bytes: u64,
    pub(crate) dropped_frames: u64,
    pub(crate) held_seconds: f64,
}

impl BrokerFigures {
    /// Asks the broker. Blocks briefly.
    ///
    /// # Errors
    /// A text for the log.
    pub(crate) fn ask(host: &Host, settings: &Settings) -> Result<Self, String> {
        let parameters = Parameters {
            holding: settings.worst_receivers,
            clients: &settings.clients,
            max_clients: settings.max_clients,
        };
        let params = rmp_serde::to_vec_named(&parameters).map_err(|error| error.to_string())?;
        let answer =
            host.call(&Call::by_broker("metrics", &params)).map_err(|error| format!("metrics: {error}"))?;
        rmp_serde::from_slice(&answer).map_err(|error| format!("metrics: {error}"))
    }

    /// Returns whether all plugins serve, or why not. A plugin that an administrator has stopped is no
    /// reason.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        let declared = self.instances.iter().filter(|instance| !instance.state.is_empty());
        let waits = |instance: &&InstanceFigures| !["started", "stopped"].contains(&instance.state.as_str());
        match declared.clone().find(waits) {
            Some(InstanceFigures { name, state, .. }) => Err(format!("plugin {name:?} is {state}")),
            None => Ok(()),
        }
    }
}
