//! One bus over many machines, sans I/O: what bridges of several brokers say to each other over an engine
//! that publishes and subscribes.
//!
//! Owns names, presence, interest, credit, acknowledgements, order, losses, fragments and authentication. It
//! never opens a socket, reads a clock, starts a thread or calls a broker: a plugin feeds a [`Bridge`] with
//! what arrives and with what changes locally, and carries out its [outputs](Output). Threads of senders
//! reach it through an [`Outbox`] for each node.
//!
//! `docs/bridge-protocol.md` is the specification of what travels; the code cites its sections.
#![forbid(unsafe_code)]

mod bridge;
mod delivery;
mod filter;
pub mod mirror;
mod names;
mod outbox;
mod output;
mod payloads;
mod proxy_id;
mod report;
mod settings;
mod settings_error;
pub mod wire;

pub use bridge::Bridge;
pub use delivery::{Delivery, Ticket};
pub use names::{Exports, Imports, check_node_name, split_remote_name};
pub use outbox::{Outbox, OutgoingRun, Pushed, To};
pub use output::{Destination, LostReason, NodeStatus, Output, OwnName, RemoveReason};
pub use payloads::Payloads;
pub use proxy_id::ProxyId;
pub use report::{Counters, Report, ReportKind};
pub use settings::{Key, Limits, Settings};
pub use settings_error::SettingsError;
