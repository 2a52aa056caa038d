//! Shared implementation of ELBUS transports that carry byte streams. A transport binds its sockets and
//! identifies its peers; accepting, the handshake, requests, deliveries, acknowledgements, back-pressure,
//! time limits and closing are here. Sockets and queues are in `elbus-socket`. This crate never routes or
//! checks a name, and knows the broker through the plugin API only.
#![forbid(unsafe_code)]

mod connection;
#[cfg(all(test, elbus_model))]
#[allow(clippy::unwrap_used, reason = "a model that cannot go on has failed")]
mod models;
mod server;
mod session;
mod settings;
mod sync;
#[cfg(test)]
mod testing;

pub use connection::{mixed_wire::MixedWire, wire::Wire};
pub use elbus_plugin_api::config::Overflow;
pub use server::{
    Server,
    fair_slots::{FairSlots, Slot},
    listener::Listener,
    log_throttle::LogCategory,
    peer_info::{PeerInfo, Verified},
    ring_quota::RingLimits,
    source::Source,
    transport::{Closer, Preparation, Prepared, SessionEnd, SessionGuard, SessionPermit, Transport},
};
pub use session::reader::mixed::MixedMode;
pub use settings::StreamSettings;
