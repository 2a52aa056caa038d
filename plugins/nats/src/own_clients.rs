//! The names under which an instance registers clients of its own.

/// The kind of connection of clients of other nodes, as `client.list` shows it.
pub(crate) const KIND: &str = "nats";

/// The sender of what NATS programs publish to mirrored topics, and its node in access rules.
pub(crate) const NATS_SENDER: &str = "@nats";

/// Returns the name of the instance itself. Nodes and buses contain no colon, so that names are unambiguous.
pub(crate) fn bridge_name(bus: &str) -> String {
    format!(".nats:{bus}")
}

/// Returns the name of the client that subscribes for a node.
pub(crate) fn node_name(bus: &str, node: &str) -> String {
    format!(".nats:{bus}:{node}")
}

/// Returns the name of the client that subscribes for NATS programs. `*` is the name of no node.
pub(crate) fn mirror_name(bus: &str) -> String {
    format!(".nats:{bus}:*")
}

/// Returns whether what this client publishes stays on this node: it is a client of another node, or a part
/// of the broker.
pub(crate) fn stays_local(sender: &str) -> bool {
    sender.starts_with(['@', '.'])
}
