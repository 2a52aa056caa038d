//! Routes received frames to their consumers. Owns the queues of received frames and the tables that route to
//! them; never reads a socket.

pub(crate) mod demux;
mod gaps;
pub(crate) mod inbox;
pub(crate) mod pending_calls;
pub(crate) mod read_limit;
mod topic_cache;
