//! What a bridge is configured with, and its limits.

use crate::{
    names::{Exports, Imports, check_node_name},
    settings_error::{MAX_KEY_BYTES, MIN_KEY_BYTES, SettingsError},
    wire::{HEADER_BYTES, MAC_BYTES, MAX_NODE_NAME_BYTES},
};
use std::{fmt, time::Duration};

/// What acknowledgements add to a batch at most, in bytes.
const MAX_CONTROL_BYTES: usize = 64 << 10;

/// What a [`Bridge`](crate::Bridge) is configured with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The bus: prefix of the engine's subjects. See [`check_node_name`].
    pub bus: String,
    /// The name of this node on the bus. See [`check_node_name`].
    pub node: String,
    /// The key that all nodes of the bus share.
    pub key: Key,
    /// What leaves this node.
    pub exports: Exports,
    /// What this node takes of others.
    pub imports: Imports,
    /// Limits in bytes, counts and time.
    pub limits: Limits,
}

impl Settings {
    /// Creates settings with default limits that export and import nothing.
    ///
    /// # Errors
    /// The name of the bus or of the node is invalid.
    pub fn new(bus: &str, node: &str, key: Key) -> Result<Self, SettingsError> {
        check_node_name(bus)?;
        check_node_name(node)?;
        Ok(Settings {
            bus: bus.to_owned(),
            node: node.to_owned(),
            key,
            exports: Exports::default(),
            imports: Imports::default(),
            limits: Limits::default(),
        })
    }

    /// Returns the subject that all nodes subscribe to.
    pub fn subject_of_all(&self) -> String {
        format!("{}.all", self.bus)
    }

    /// Returns the subject that one node subscribes to.
    pub fn subject_of(&self, node: &str) -> String {
        format!("{}.to.{node}", self.bus)
    }
}

/// The secret that all nodes of a bus share.
#[derive(Clone)]
pub struct Key(Vec<u8>);

impl Key {
    /// The shortest key, in bytes.
    pub const MIN_BYTES: usize = MIN_KEY_BYTES;
    /// The longest key, in bytes.
    pub const MAX_BYTES: usize = MAX_KEY_BYTES;

    /// Creates a key from the bytes of a file. Every byte counts, line ends included.
    ///
    /// # Errors
    /// The key is shorter than [`MIN_BYTES`](Self::MIN_BYTES) or longer than [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn new(bytes: &[u8]) -> Result<Self, SettingsError> {
        if (Self::MIN_BYTES..=Self::MAX_BYTES).contains(&bytes.len()) {
            Ok(Key(bytes.to_vec()))
        } else {
            Err(SettingsError::KeyLength { len: bytes.len() })
        }
    }

    /// Returns the bytes of the key.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// Limits of a bridge. Those of both ends of a pair of nodes should be equal; each end enforces its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Length of a batch from which no further record is appended, in bytes.
    pub batch_bytes: usize,
    /// Longest payload that travels in one record, in bytes; longer ones are split into pieces of this
    /// length.
    pub piece_bytes: usize,
    /// Longest payload of a message, in bytes; longer ones are refused.
    pub max_message_bytes: usize,
    /// Bytes in flight to a node that its bridge has not yet taken off the link.
    pub pair_credit: usize,
    /// Bytes sent to one remote client that its broker has not yet taken.
    pub receiver_window: usize,
    /// Bytes of publications sent to one node that its broker has not yet taken.
    pub publication_window: usize,
    /// Bytes sent to all clients of one node that its broker has not yet taken. The window of each receiver
    /// is at most half of what is left of it.
    pub node_window: usize,
    /// Other nodes that are known at the same time.
    pub max_nodes: usize,
    /// Names that a node can announce.
    pub max_names: usize,
    /// Bytes of all names that a node can announce.
    pub max_names_bytes: usize,
    /// Longest name of a client, in bytes.
    pub max_name_bytes: usize,
    /// Filters that a node can announce interest in.
    pub max_filters: usize,
    /// Bytes of all filters that a node can announce interest in.
    pub max_filters_bytes: usize,
    /// Senders of one node that are not listed and have a proxy.
    pub max_unlisted: usize,
    /// Calls to clients of one node for which an error reply can be produced.
    pub max_calls: usize,
    /// Time after which an acknowledgement that has no result yet is [`Code::Timeout`](elbus_protocol::Code).
    pub result_timeout: Duration,
    /// Interval of heartbeats.
    pub beat: Duration,
    /// Time without a sign of life after which a node is lost.
    pub lost_after: Duration,
    /// Time for which a node listens before it claims its name.
    pub listen: Duration,
}

impl Limits {
    /// Returns the bytes of runs of one node from which on further ones are refused: twice the window of the
    /// node, and one message. The same holds for messages in pieces that are not complete.
    pub(crate) fn most_untaken(&self) -> usize {
        self.node_window.saturating_mul(2).saturating_add(self.max_message_bytes)
    }

    /// Returns the length that no batch of these limits exceeds, in bytes: what the engine must carry.
    pub fn longest_batch(&self) -> usize {
        // a header, the longest record, acknowledgements, and a MAC
        let record = self.piece_bytes + self.max_name_bytes + usize::from(u16::MAX) + 64;
        HEADER_BYTES + MAX_NODE_NAME_BYTES + self.batch_bytes.max(record) + MAX_CONTROL_BYTES + MAC_BYTES
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            batch_bytes: 16 << 10,
            piece_bytes: 64 << 10,
            max_message_bytes: 64 << 20,
            pair_credit: 8 << 20,
            receiver_window: 1 << 20,
            publication_window: 4 << 20,
            node_window: 64 << 20,
            max_nodes: 64,
            max_names: 20_000,
            max_names_bytes: 2 << 20,
            max_name_bytes: 1024,
            max_filters: 4096,
            max_filters_bytes: 256 << 10,
            max_unlisted: 1024,
            max_calls: 65_536,
            result_timeout: Duration::from_secs(60),
            beat: Duration::from_secs(1),
            lost_after: Duration::from_secs(3),
            listen: Duration::from_millis(2500),
        }
    }
}
