//! What the transports of ELBUS that carry byte streams share.
//!
//! A transport binds and describes its sockets; everything behind that is here: accepting, the handshake, reading
//! requests, writing deliveries and acknowledgements, back-pressure, time limits, ending. Socket and queue themselves
//! are `elbus-socket`'s. It never routes, never judges a name, and knows the broker through the plugin API only.
//!
//! The way of a message: `incoming` reads a chunk and dispatches its runs, the broker calls `delivery` of each
//! recipient, which appends to its queue, and what became dirty is flushed by `connection` at the end of the chunk.
//! `writer` goes on where a socket is full, `keeper` watches the time, `session` ends it all. What a transport has to
//! do with a socket before, and beside, its session is a task between `listener` and `session`.
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

pub use connection::wire::Wire;
pub use server::{
    Server,
    fair_slots::{FairSlots, Slot},
    listener::Listener,
    log_throttle::LogCategory,
    peer_info::{Certificate, PeerInfo},
    source::Source,
    transport::{Closer, Preparation, Prepared, SessionGuard, SessionPermit, Transport},
};
pub use settings::{Overflow, StreamSettings};
