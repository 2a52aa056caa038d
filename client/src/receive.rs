//! From a received frame to its consumer. Owns queues and the tables of who gets what; never reads a socket.

pub(crate) mod demux;
pub(crate) mod inbox;
pub(crate) mod pending_calls;
pub(crate) mod read_limit;
pub(crate) mod topic_cache;
