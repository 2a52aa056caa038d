//! What is logged of a bridge: one fixed text for each kind, values in fields.

use elbus_bridge::{Limits, LostReason, OwnName, RemoveReason, Report, ReportKind};

/// Logs what an operator should know.
pub(crate) fn log(bus: &str, limits: &Limits, report: &Report) {
    let node = report.node.as_deref().unwrap_or_default();
    let count = report.count;
    match report.kind {
        ReportKind::Stranger => {
            tracing::warn!(bus, count, "messages without the key of the bus were dropped");
        }
        ReportKind::Version => {
            tracing::warn!(
                bus,
                node,
                count,
                "a node has another version of the bridge; its messages were dropped"
            );
        }
        ReportKind::Replay => tracing::debug!(bus, node, count, "repeated batches were dropped"),
        ReportKind::Malformed => tracing::error!(bus, node, count, "malformed batches were dropped"),
        ReportKind::BatchesLost => tracing::warn!(bus, node, count, "batches did not arrive"),
        ReportKind::MessagesLost => {
            tracing::warn!(bus, node, count, "messages to a node were lost on the way");
        }
        ReportKind::MessagesDropped => {
            tracing::warn!(bus, node, count, "messages were dropped, because their node was lost");
        }
        ReportKind::DeliveriesDropped => {
            tracing::warn!(bus, node, count, "messages of a node could not be dispatched");
        }
        ReportKind::NodesOverLimit => {
            let limit = limits.max_nodes;
            tracing::warn!(bus, node, count, limit, "too many nodes; the rest is left out (max_nodes)");
        }
        ReportKind::DuplicateNode => {
            tracing::warn!(bus, node, count, "two nodes have the same name; the one that was first keeps it");
        }
        ReportKind::NamesOverLimit => {
            let limit = limits.max_names;
            tracing::warn!(bus, node, count, limit, "too many names; the rest is left out (max_names)");
        }
        ReportKind::NamesInvalid => {
            tracing::warn!(bus, node, count, "names cannot be announced to other nodes")
        }
        ReportKind::FiltersOverLimit if report.node.is_none() => {
            let limit = limits.max_filters;
            tracing::warn!(
                bus,
                count,
                limit,
                "too many filters; all imported topics are requested (max_filters)"
            );
        }
        ReportKind::FiltersOverLimit => {
            let limit = limits.max_filters;
            tracing::warn!(
                bus,
                node,
                count,
                limit,
                "too many filters of a node; the rest is left out (max_filters)"
            );
        }
        ReportKind::FiltersInvalid => {
            tracing::warn!(bus, node, count, "invalid filters of a node were dropped")
        }
        ReportKind::UnknownWindow => tracing::debug!(bus, node, count, "a node has returned credit twice"),
        ReportKind::NamesTaken => {
            tracing::warn!(
                bus,
                node,
                count,
                "clients of a node are not registered: their names are taken or denied"
            );
        }
        ReportKind::NotImported => tracing::debug!(bus, node, count, "publications that are not imported"),
        ReportKind::NotExported => {
            tracing::debug!(bus, node, count, "messages to clients that are not exported")
        }
        ReportKind::WindowExceeded => tracing::error!(bus, node, count, "a node has exceeded its credit"),
        ReportKind::Incomplete => tracing::warn!(bus, node, count, "long messages did not arrive completely"),
        ReportKind::UnknownResult => tracing::debug!(bus, node, count, "results nobody waits for"),
        ReportKind::ResultsTimedOut => {
            tracing::warn!(bus, node, count, "a node did not answer in time; senders got code 0x78");
        }
        ReportKind::CallsOverLimit => tracing::debug!(bus, node, count, "too many calls to follow"),
        _ => tracing::warn!(bus, node, count, "bridge event"),
    }
}

/// Logs a change of the own name.
pub(crate) fn log_own_name(bus: &str, node: &str, state: OwnName) {
    match state {
        OwnName::Listening => tracing::debug!(bus, node, "listening for another node of this name"),
        OwnName::Claimed => tracing::info!(bus, node, "joined the bus"),
        OwnName::Taken => {
            tracing::error!(bus, node, "another node of the bus has this name; this one stays local (node)");
        }
    }
}

/// Returns the reason by which a remote client leaves.
pub(crate) fn leave_reason(node: &str, reason: RemoveReason) -> String {
    match reason {
        RemoveReason::Left => format!("left node {node}"),
        RemoveReason::NodeLost(reason) => format!("node {node} is lost: {}", lost_reason(reason)),
        RemoveReason::Idle => format!("has not sent from node {node} for long"),
    }
}

/// Returns the reason for which a node is lost.
pub(crate) fn lost_reason(reason: LostReason) -> &'static str {
    match reason {
        LostReason::Silent => "no sign of life",
        LostReason::Stopped => "it has stopped",
        LostReason::Restarted => "it has restarted",
        LostReason::Local => "this node has left the bus",
        LostReason::Unreliable => "too much is lost on the way to it",
        LostReason::Violation => "it has violated the protocol",
    }
}
