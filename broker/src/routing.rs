//! Routing: registration of clients and resolution of recipients. Synchronous, without I/O, without a
//! runtime.
//!
//! The walk of a message: [`sender`] takes it in, [`fan_out`] resolves the recipients (from its caches, or
//! through [`router`], which asks the [`registry`]) and hands the run to their sinks.

mod cache_memory;
mod client_keys;
mod closed_sink;
mod fan_out;
mod filter_changes;
mod filter_limits;
mod hold_budget;
mod hold_cycles;
mod holds;
mod hook_changes;
mod index;
mod interception;
mod marked;
mod missed;
mod mixed_targets;
#[cfg(all(test, elbus_model))]
#[allow(clippy::unwrap_used, reason = "a model that cannot go on has failed")]
mod models;
mod optioned;
mod reauthorize;
mod recipients;
mod registered_client;
mod registry;
mod replay;
mod replays;
mod route_cache;
mod router;
mod router_settings;
mod run_results;
mod sender;
mod sender_quotas;
mod shapes;
mod target_cache;
mod totals_cache;
mod waiting_names;

pub(crate) use hold_budget::HoldSettings;
pub(crate) use holds::Holds;
pub(crate) use optioned::SubscriptionReport;
pub(crate) use registered_client::RegisteredClient;
pub(crate) use router::{
    Router,
    client_figures::{ClientFigures, InstanceFigures},
};
pub(crate) use router_settings::RouterSettings;
pub(crate) use sender::Sender;

/// Fast hashing of keys that may come from strangers: seeded at random for each map.
type Hashing = foldhash::fast::RandomState;
