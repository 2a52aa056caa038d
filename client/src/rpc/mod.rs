//! Remote calls (protocol section 7): calling, serving, cursors. Owns the RPC payloads of messages; routing and
//! acknowledgements are the bus's.

mod call;
mod calls;
mod cursor;
mod error;
mod router;
mod serve;

pub use call::CallOptions;
pub(crate) use calls::Calls;
pub use cursor::{Cursor, CursorItem};
pub use error::RpcError;
pub use router::Router;
pub use serve::{Call, Notification, RpcHandler, Serving};
