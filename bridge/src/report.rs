//! What a bridge counts and reports. Never logs.

use std::sync::Arc;

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(usize)]
pub enum ReportKind {
    /// Bytes that are not a batch, or whose MAC is wrong: published by a program that does not have the key.
    Stranger,
    /// Batches in another version of the format.
    Version,
    /// Batches of an earlier start or link of a node, and batches that had arrived before.
    Replay,
    /// Batches with a correct MAC whose contents are invalid.
    Malformed,
    /// Batches of the node that did not arrive.
    BatchesLost,
    /// Messages to the node that were published and did not arrive there.
    MessagesLost,
    /// Messages to the node that were in flight when it was lost: some may have arrived.
    MessagesUncertain,
    /// Messages to the node that were queued when it was lost, and were never published.
    MessagesDropped,
    /// Messages of the node that had arrived and could not be dispatched.
    DeliveriesDropped,
    /// Nodes beyond [`Limits::max_nodes`](crate::Limits::max_nodes).
    NodesOverLimit,
    /// Another node has the name of a node that is up, or of this one.
    DuplicateNode,
    /// Names that were not announced or not accepted because there are too many.
    NamesOverLimit,
    /// Names that cannot be announced or were not accepted because of their syntax.
    NamesInvalid,
    /// Filters that were not announced singly or not accepted because there are too many.
    FiltersOverLimit,
    /// Filters that were not accepted because of their syntax.
    FiltersInvalid,
    /// Proxies whose names are taken by local clients.
    NamesTaken,
    /// Publications that this node does not import.
    NotImported,
    /// Messages to clients that this node does not export.
    NotExported,
    /// Runs beyond the windows that this node grants.
    WindowExceeded,
    /// Messages in pieces of which not all arrived.
    Incomplete,
    /// Results without an acknowledgement that waits for them.
    UnknownResult,
    /// Returned bytes of a window that had not as many outstanding.
    UnknownWindow,
    /// Acknowledgements that ended with the time limit.
    ResultsTimedOut,
    /// Calls that get no error reply if the node is lost, because there are too many.
    CallsOverLimit,
}

/// How many kinds there are.
pub(crate) const KINDS: usize = ReportKind::CallsOverLimit as usize + 1;

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What has happened.
    pub kind: ReportKind,
    /// The node that it concerns, if it is known.
    pub node: Option<Arc<str>>,
    /// How often since the previous report of this kind.
    pub count: u64,
}

/// How often each kind has occurred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters([u64; KINDS]);

impl Default for Counters {
    fn default() -> Self {
        Counters([0; KINDS])
    }
}

impl Counters {
    /// Returns how often a kind has occurred.
    pub fn get(&self, kind: ReportKind) -> u64 {
        self.0.get(kind as usize).copied().unwrap_or_default()
    }

    /// Counts occurrences.
    pub(crate) fn add(&mut self, kind: ReportKind, count: u64) {
        if let Some(counter) = self.0.get_mut(kind as usize) {
            *counter = counter.saturating_add(count);
        }
    }
}
