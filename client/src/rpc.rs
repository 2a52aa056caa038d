//! Remote calls (protocol section 7): calling, serving, cursors. Owns the RPC payloads of messages; routing
//! and acknowledgements are the bus's.

pub(crate) mod call;
pub(crate) mod cursor;
mod msgpack;
pub(crate) mod router;
pub(crate) mod serve;
mod server_cursors;
