//! What a bridge has its plugin do.

use crate::{
    delivery::Delivery,
    outbox::Outbox,
    proxy_id::ProxyId,
    report::{Counters, Report},
};
use bytes::Bytes;
use elbus_protocol::Code;
use std::{sync::Arc, time::Duration};

/// One action for the plugin. The plugin carries out outputs in their order. `C` is what completes a pending
/// acknowledgement.
#[derive(Debug)]
pub enum Output<C> {
    /// Publish these bytes through the engine.
    Publish {
        /// Who gets them.
        to: Destination,
        /// The batch.
        bytes: Bytes,
    },
    /// The name of this node was claimed, or is taken by another node.
    OwnName(OwnName),
    /// A node can be reached. Runs for it go to its outbox.
    NodeUp {
        /// Its name.
        node: Arc<str>,
        /// The way to it, valid until the node is lost.
        outbox: Arc<Outbox<C>>,
    },
    /// A node cannot be reached any more. Its proxies were removed before, and its interest ends.
    NodeLost {
        /// Its name.
        node: Arc<str>,
        /// Why.
        reason: LostReason,
    },
    /// Register a remote client with the broker.
    RegisterProxy {
        /// The id by which its sink pushes and by which the bridge refers to it.
        proxy: ProxyId,
        /// The node of the client.
        node: Arc<str>,
        /// The local name: `@NODE.NAME`, or its alias.
        name: Arc<str>,
        /// Whether the node has announced it. Otherwise it is a sender that is not exported, or not imported.
        /// If the node announces it later, nothing changes for the broker.
        is_listed: bool,
        /// The way to the client.
        outbox: Arc<Outbox<C>>,
    },
    /// End the registration of a remote client.
    RemoveProxy {
        /// The client.
        proxy: ProxyId,
        /// Why it has left.
        reason: RemoveReason,
    },
    /// What a node's clients are subscribed to, limited to what this node exports. Subscribe and unsubscribe.
    Interest {
        /// The node.
        node: Arc<str>,
        /// New filters.
        added: Vec<String>,
        /// Filters that are not needed any more.
        removed: Vec<String>,
    },
    /// Dispatch a run of a remote client, then call [`dispatched`](crate::Bridge::dispatched) or
    /// [`blocked`](crate::Bridge::blocked).
    Dispatch(Delivery),
    /// Complete a pending acknowledgement.
    Complete {
        /// What the sink has passed to [`Outbox::push`].
        completion: C,
        /// The result.
        code: Code,
    },
    /// Send an error reply to a local client that waits for a reply from a client of a lost node.
    ReplyError {
        /// The local client.
        caller: Arc<str>,
        /// The remote client: the sender of the reply.
        callee: ProxyId,
        /// The id of the call.
        call_id: u32,
    },
    /// Senders to a remote client can continue: notify those that wait. `None` are publications to the node.
    Drained {
        /// The node.
        node: Arc<str>,
        /// The client.
        proxy: Option<ProxyId>,
    },
    /// Something that an operator should know, at most one of each kind per second.
    Report(Report),
}

/// Who gets a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// All nodes: [`Settings::subject_of_all`](crate::Settings::subject_of_all).
    All,
    /// One node: [`Settings::subject_of`](crate::Settings::subject_of).
    Node(Arc<str>),
}

/// Whether this node has its name on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnName {
    /// The node listens for another node of its name. The state after the start and after each loss of the
    /// engine for longer than [`Limits::lost_after`](crate::Limits::lost_after).
    Listening,
    /// The node has its name.
    Claimed,
    /// Another node has the name: this node stays local until the name is free.
    Taken,
}

/// Why a node was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostReason {
    /// It has given no sign of life for [`Limits::lost_after`](crate::Limits::lost_after).
    Silent,
    /// It has stopped.
    Stopped,
    /// It has restarted, or has lost this node in the meantime.
    Restarted,
    /// This node has stopped, or has lost its name.
    Local,
    /// Too many batches were lost.
    Unreliable,
    /// It has sent what only a defective node sends.
    Violation,
}

/// Why a proxy is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoveReason {
    /// The remote client has left.
    Left,
    /// Its node was lost.
    NodeLost(LostReason),
    /// It is not listed, and others have sent more recently.
    Idle,
}

/// What is known of another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub node: Arc<str>,
    /// Whether it can be reached.
    pub is_up: bool,
    /// Time since its last sign of life.
    pub silent_for: Duration,
    /// Names that it has announced.
    pub names: usize,
    /// Filters that it has announced.
    pub filters: usize,
    /// Bytes queued for it and not yet published.
    pub queued_bytes: usize,
    /// Bytes in flight to it.
    pub in_flight_bytes: usize,
    /// Bytes of its runs that wait for local receivers.
    pub parked_bytes: usize,
    /// Batches to it that are neither arrived nor lost.
    pub unacknowledged: usize,
    /// Its messages of which some pieces have arrived.
    pub incomplete: usize,
    /// What was counted for it.
    pub counters: Counters,
}
