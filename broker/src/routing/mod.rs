//! Routing: who is registered, who gets what. Synchronous, without I/O, without a runtime.
//!
//! The walk of a message: [`sender`] takes it in, [`reach`] resolves the recipients (from its memo, or through [`router`], which asks the
//! [`registry`]) and hands the run to their sinks.

mod filter_changes;
mod filter_limits;
mod filter_tree;
mod hash_index;
mod hold_budget;
mod hold_cycles;
mod holding;
mod id_set;
mod judging;
mod label;
mod mask;
#[cfg(all(test, elbus_model))]
#[allow(clippy::unwrap_used, reason = "a model that cannot go on has failed")]
mod models;
mod overdraft;
mod peers;
mod places;
mod reach;
mod recipients;
mod registered_client;
mod registry;
mod router;
mod routes;
mod sender;
mod shapes;
mod system;

pub(crate) use hold_budget::HoldSettings;
pub(crate) use holding::Holds;
pub(crate) use registered_client::RegisteredClient;
pub(crate) use router::{Router, RouterSettings};

/// Fast hashing of keys that may come from strangers: seeded at random for each map.
type Hashing = foldhash::fast::RandomState;
