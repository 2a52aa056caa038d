//! A frame to be sent, and the words that name its operation in errors. Never encodes or sends.

use bytes::Bytes;
use elbus_protocol::{Op, Qos};

/// A filter that no client excludes: removing it changes nothing and is acknowledged.
pub(super) const PROBE_FILTER: &str = ".client/probe";

/// A frame with target and payload.
pub(crate) struct Request<'a> {
    pub(crate) op: Op,
    pub(crate) qos: Qos,
    pub(crate) target: &'a str,
    /// The primary name that a publication is limited to; else empty.
    pub(crate) receiver: &'a str,
    /// Sent before the payload: the header of the RPC layer.
    pub(crate) head: &'a [u8],
    pub(crate) payload: Bytes,
}

impl<'a> Request<'a> {
    /// Returns the request of a message whose payload starts with an RPC header.
    pub(crate) fn message(target: &'a str, head: &'a [u8], payload: Bytes, qos: Qos) -> Self {
        Request { op: Op::Message, qos, target, receiver: "", head, payload }
    }
}

/// Returns the words that precede the target of an operation in errors and logs.
pub(super) fn operation_text(op: Op) -> &'static str {
    match op {
        Op::Message => "send to",
        Op::Broadcast => "broadcast to",
        Op::Publish | Op::PublishFor => "publish to",
        Op::Subscribe => "subscribe to",
        Op::Unsubscribe => "unsubscribe from",
        Op::Exclude => "exclude",
        Op::Unexclude => "unexclude",
    }
}
