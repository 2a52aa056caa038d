//! A run of a remote client on its way to the local broker.

use crate::{payloads::Payloads, proxy_id::ProxyId};
use bytes::Bytes;
use elbus_protocol::{Op, Qos};
use std::sync::Arc;

/// Consecutive messages of one remote client with the same operation, target and quality of service.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The node of the sender.
    pub node: Arc<str>,
    /// The sender.
    pub sender: ProxyId,
    /// [`Op::Message`], [`Op::Broadcast`] or [`Op::Publish`].
    pub op: Op,
    /// The quality of service.
    pub qos: Qos,
    /// The messages, at least one and at most 256.
    pub payloads: Payloads,
    /// By which the result of the run is returned.
    pub ticket: Ticket,
    /// Checked to be UTF-8.
    pub(crate) target: Bytes,
    /// Bytes of the batch, or of the message in pieces, that it is a part of.
    pub(crate) of_bytes: usize,
}

impl Delivery {
    /// Returns the local client, mask or topic.
    pub fn target(&self) -> &str {
        std::str::from_utf8(&self.target).unwrap_or_default()
    }

    /// Copies messages and target out of their batch, unless the messages are most of it: a run that waits
    /// does not keep a batch that is much longer.
    pub(crate) fn compact(&mut self) {
        if self.payloads.encoded_len() < self.of_bytes / 2 {
            self.payloads.copy();
            self.target = Bytes::copy_from_slice(&self.target);
            self.of_bytes = self.payloads.encoded_len();
        }
    }

    /// Returns whether the remote sender waits for the result.
    pub fn wants_result(&self) -> bool {
        self.ticket.reference != 0
    }
}

/// Identifies a run that was handed over for dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Number of the link, which a later link of the same node does not share.
    pub(crate) link: u64,
    /// What the sender's window is returned by.
    pub(crate) window: u64,
    /// Bytes that count for the window.
    pub(crate) bytes: usize,
    /// What the result is returned by; 0 if the sender does not wait for it.
    pub(crate) reference: u64,
}
