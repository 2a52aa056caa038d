//! Reports of the broker about publications that it has dropped for the client (protocol section 6). Owns
//! their form; the demux finds the queues that they concern.

use elbus_protocol::{BROKER_NAME, MISSED_TOPIC};
use serde::Deserialize;

use crate::frame::Frame;

/// How many publications a subscription with options has missed since the last report.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct GapReport {
    /// The filter with its options, as the broker knows it.
    pub(super) filter: String,
    pub(super) count: u64,
}

impl GapReport {
    /// Returns the report of a publication to the topic of reports; `None` if it is not one of the broker.
    pub(super) fn of(frame: &Frame) -> Option<Self> {
        if frame.sender() != BROKER_NAME {
            return None;
        }
        let report = rmp_serde::from_slice(frame.payload());
        report.inspect_err(|error| tracing::debug!(%error, topic = MISSED_TOPIC, "invalid report")).ok()
    }
}
