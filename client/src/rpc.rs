//! Remote calls (protocol section 7): calling, serving, cursors. Owns the RPC payloads of messages; routing and
//! acknowledgements are the bus's.

mod call;
mod cursor;
mod router;
mod serve;

pub use call::CallOptions;
pub use cursor::{Cursor, CursorItem};
pub use router::Router;
pub use serve::{Call, Notification, RpcHandler, Serving};
