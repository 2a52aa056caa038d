//! The connection to a broker: connecting, sending, reading, reconnecting. Owns the tasks of a client; never
//! what a user's operation means.

mod ack_table;
mod dial;
mod driver;
pub(crate) mod endpoint;
mod feature_cache;
mod features;
mod frame_reader;
mod handshake;
#[cfg(feature = "in-process")]
mod in_process;
pub(crate) mod inner;
mod link;
mod operations;
pub(crate) mod request;
mod ring_refusals;
mod send_queue;
pub(crate) mod supervisor;
mod topic_operations;
