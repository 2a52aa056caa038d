//! Records: what a monitoring client gets of a message, as msgpack maps.

use elbus_plugin_api::{Op, hooks::Observation};
use serde::{Serialize, Serializer};
use std::time::Duration;

use crate::rpc_calls::Call;

/// A record. Keys without a value are absent.
#[derive(Serialize)]
pub(crate) struct Record<'a> {
    /// When it was routed, in nanoseconds since 1970.
    time: u64,
    op: &'static str,
    realtime: bool,
    sender: &'a str,
    target: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    receiver: &'a str,
    /// The result code; absent for an unanswered call.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
    recipients: u32,
    /// Length of the whole payload.
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    rpc: Option<Rpc<'a>>,
    /// The payload; for an RPC message what follows its head: parameters, result, or data of an error.
    payload: Binary<'a>,
    /// Bytes of it that were cut off.
    #[serde(skip_serializing_if = "is_zero")]
    omitted: usize,
    /// Messages missed right before.
    #[serde(skip_serializing_if = "is_zero_u64")]
    missed: u64,
}

/// What a message is in the RPC layer.
#[derive(Serialize, Clone, Copy, Default)]
pub(crate) struct Rpc<'a> {
    /// `call`, `reply`, `error`, `notification`, or `unanswered`.
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<u32>,
    /// Absent in a reply whose call was not observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<&'a str>,
    /// The code of an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<i16>,
    /// Time since the call, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) micros: Option<u64>,
}

/// Bytes, serialized as msgpack binary.
struct Binary<'a>(&'a [u8]);

impl Serialize for Binary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

/// Returns a duration in microseconds.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl<'a> Record<'a> {
    /// Creates the record of a message. `body` is the part of its payload to show, of which at most
    /// `payload_bytes` are.
    pub(crate) fn new(
        seen: &'a Observation,
        body: &'a [u8],
        rpc: Option<Rpc<'a>>,
        payload_bytes: usize,
    ) -> Self {
        let op = match seen.op() {
            Op::Broadcast => "broadcast",
            Op::Publish => "publish",
            Op::PublishFor => "publish_for",
            _ => "message",
        };
        let shown = body.get(..payload_bytes).unwrap_or(body);
        Record {
            time: seen.unix_nanos(),
            op,
            realtime: seen.is_realtime(),
            sender: seen.sender(),
            target: seen.target(),
            receiver: seen.receiver(),
            code: Some(seen.code() as u8),
            recipients: seen.recipients(),
            bytes: seen.payload().len(),
            rpc,
            payload: Binary(shown),
            omitted: body.len() - shown.len(),
            missed: 0,
        }
    }

    /// Creates the record of a call that was not answered for `waited`.
    pub(crate) fn unanswered(call: &'a Call, waited: Duration) -> Self {
        let waited = micros(waited);
        let (id, method) = (Some(call.id), Some(&*call.method));
        Record {
            time: call.unix_nanos.saturating_add(waited.saturating_mul(1000)),
            op: "message",
            realtime: false,
            sender: &call.caller,
            target: &call.callee,
            receiver: "",
            code: None,
            recipients: 0,
            bytes: 0,
            rpc: Some(Rpc { kind: "unanswered", id, method, error: None, micros: Some(waited) }),
            payload: Binary(&[]),
            omitted: 0,
            missed: 0,
        }
    }

    /// Sets the number of messages missed right before.
    pub(crate) fn after_missing(mut self, missed: u64) -> Self {
        self.missed = missed;
        self
    }
}
