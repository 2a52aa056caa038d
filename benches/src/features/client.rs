//! A client of a run: what it sends is encoded once, and what it receives is counted.

use elbus_protocol::{Op, Qos, request::encode_request};

use crate::{
    BoxError,
    driver::{Client, ConnectOptions, Subscription, elbus::Elbus},
};

/// Bytes of each payload.
pub(super) const PAYLOAD_BYTES: usize = 100;
/// Frames of a write.
pub(super) const BATCH: usize = 128;

pub(super) type Elbused = Client<Elbus>;

/// Connects a client that is subscribed to a filter, unless that is empty.
pub(super) fn connect(address: &str, name: &str, filter: &str) -> Result<Elbused, BoxError> {
    let subscription = match filter {
        "" => None,
        filter => Some(Subscription::to_topics(vec![filter.to_owned()])?),
    };
    let subscription = subscription.as_ref();
    Client::connect(&ConnectOptions { address, name, subscription, payload_bytes: PAYLOAD_BYTES })
}

/// Frames to one target, with places for a number in each payload.
pub(super) struct Frames {
    bytes: Vec<u8>,
    frame_bytes: usize,
}

impl Frames {
    pub(super) fn new(op: Op, target: &str) -> Result<Self, BoxError> {
        let mut bytes = Vec::new();
        for _ in 0..BATCH {
            encode_request(&mut bytes, 0, op, Qos::NO, target, "", &[b'x'; PAYLOAD_BYTES])?;
        }
        Ok(Frames { frame_bytes: bytes.len() / BATCH, bytes })
    }

    /// Returns the first frames, with this number in each of them.
    pub(super) fn numbered(&mut self, frames: usize, number: u64) -> &[u8] {
        let bytes = self.bytes.get_mut(..frames * self.frame_bytes).unwrap_or_default();
        for frame in bytes.chunks_exact_mut(self.frame_bytes) {
            let payload = frame.len() - PAYLOAD_BYTES;
            if let Some(place) = frame.get_mut(payload..payload + 8) {
                place.copy_from_slice(&number.to_le_bytes());
            }
        }
        bytes
    }
}

/// Returns the number in a payload.
pub(super) fn number_of(payload: &[u8]) -> u64 {
    payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
