//! What other threads see of an instance: its connection, its name on the bus, other nodes and counters. The
//! thread of the instance replaces it; nobody waits for it.

use elbus_bridge::{Counters, NodeStatus, OwnName, ReportKind};
use elbus_plugin_api::Figure;
use parking_lot::Mutex;

/// The state of an instance.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// A leaf lock.
    state: Mutex<State>,
}

/// What the thread of the instance knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// The server, while there is a connection.
    pub(crate) server: Option<String>,
    /// Why there is no connection, or what the server has refused last.
    pub(crate) problem: Option<String>,
    pub(crate) own_name: Option<OwnName>,
    pub(crate) nodes: Vec<NodeStatus>,
    pub(crate) counters: Counters,
    /// Connections that were lost.
    pub(crate) lost_connections: u64,
    /// Remote clients that are registered, and those that the broker has refused.
    pub(crate) proxies: usize,
    pub(crate) refused_proxies: usize,
    /// Subscriptions of local clients.
    pub(crate) filters: usize,
    pub(crate) mirror: MirrorCounts,
    /// Why mirrored topics are not connected, or what the server has refused last of them.
    pub(crate) mirror_problem: Option<String>,
}

/// What was mirrored.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MirrorCounts {
    /// Publications that were passed to NATS programs.
    pub(crate) sent: u64,
    /// Publications of NATS programs.
    pub(crate) received: u64,
    /// Publications that were dropped, in both directions.
    pub(crate) dropped: u64,
    /// Bytes that wait for the server.
    pub(crate) queued_bytes: usize,
    /// Bytes that wait for local receivers.
    pub(crate) parked_bytes: usize,
    /// Topics are mirrored, and there is no connection for them.
    pub(crate) is_disconnected: bool,
    /// Connections for mirrored topics that were lost.
    pub(crate) lost_connections: u64,
}

/// Counters, by the names that operators see.
const COUNTERS: [(ReportKind, &str); 23] = [
    (ReportKind::Stranger, "strangers"),
    (ReportKind::Version, "other_versions"),
    (ReportKind::Replay, "replays"),
    (ReportKind::Malformed, "malformed"),
    (ReportKind::BatchesLost, "batches_lost"),
    (ReportKind::MessagesLost, "messages_lost"),
    (ReportKind::MessagesDropped, "messages_dropped"),
    (ReportKind::DeliveriesDropped, "deliveries_dropped"),
    (ReportKind::NodesOverLimit, "nodes_over_limit"),
    (ReportKind::DuplicateNode, "duplicate_node"),
    (ReportKind::NamesOverLimit, "names_over_limit"),
    (ReportKind::NamesInvalid, "names_invalid"),
    (ReportKind::FiltersOverLimit, "filters_over_limit"),
    (ReportKind::FiltersInvalid, "filters_invalid"),
    (ReportKind::NamesTaken, "names_taken"),
    (ReportKind::NotImported, "not_imported"),
    (ReportKind::NotExported, "not_exported"),
    (ReportKind::WindowExceeded, "window_exceeded"),
    (ReportKind::UnknownWindow, "unknown_windows"),
    (ReportKind::Incomplete, "incomplete"),
    (ReportKind::UnknownResult, "unknown_results"),
    (ReportKind::ResultsTimedOut, "results_timed_out"),
    (ReportKind::CallsOverLimit, "calls_over_limit"),
];

impl Snapshot {
    /// Replaces the state.
    pub(crate) fn set(&self, state: State) {
        *self.state.lock() = state;
    }

    /// Returns the other nodes.
    pub(crate) fn nodes(&self) -> Vec<NodeStatus> {
        self.state.lock().nodes.clone()
    }

    /// Returns the state for people.
    pub(crate) fn detail(&self) -> String {
        let state = self.state.lock();
        let connection = match (&state.server, &state.problem) {
            (Some(server), None) => format!("connected to {server}"),
            (Some(server), Some(problem)) => format!("connected to {server}; {problem}"),
            (None, Some(problem)) => format!("not connected: {problem}"),
            (None, None) => "not connected".to_owned(),
        };
        let name = match state.own_name {
            Some(OwnName::Taken) => "; another node has the name of this one",
            Some(OwnName::Listening) => "; listening for another node of its name",
            Some(OwnName::Claimed) | None => "",
        };
        // without any connection, both are missing for the same reason
        let problem = state.mirror_problem.as_ref().filter(|_| state.server.is_some());
        let mirror = match (state.mirror.is_disconnected, problem) {
            (true, Some(problem)) => format!("; mirrored topics: not connected: {problem}"),
            (true, None) => "; mirrored topics: not connected".to_owned(),
            (false, Some(problem)) => format!("; mirrored topics: {problem}"),
            (false, None) => String::new(),
        };
        let up = state.nodes.iter().filter(|node| node.is_up).count();
        let nodes = if up == 1 { "node" } else { "nodes" };
        format!("{connection}{mirror}{name}; {up} {nodes}, remote clients: {}", state.proxies)
    }

    /// Returns what is counted and measured.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let state = self.state.lock().clone();
        let sum = |of: fn(&NodeStatus) -> usize| state.nodes.iter().map(of).sum::<usize>() as f64;
        let mut figures = vec![
            Figure::gauge("connected", f64::from(u8::from(state.server.is_some()))),
            Figure::counter(
                "lost_connections",
                (state.lost_connections + state.mirror.lost_connections) as f64,
            ),
            Figure::gauge("nodes", state.nodes.iter().filter(|node| node.is_up).count() as f64),
            Figure::gauge("remote_clients", state.proxies as f64),
            Figure::gauge("refused_remote_clients", state.refused_proxies as f64),
            Figure::gauge("local_subscriptions", state.filters as f64),
            Figure::gauge("queued_bytes", sum(|node| node.queued_bytes) + state.mirror.queued_bytes as f64),
            Figure::gauge("in_flight_bytes", sum(|node| node.in_flight_bytes)),
            Figure::gauge("parked_bytes", sum(|node| node.parked_bytes) + state.mirror.parked_bytes as f64),
            Figure::counter("mirrored", state.mirror.sent as f64).of("to_nats"),
            Figure::counter("mirrored", state.mirror.received as f64).of("from_nats"),
            Figure::counter("mirrored", state.mirror.dropped as f64).of("dropped"),
        ];
        let events = COUNTERS
            .iter()
            .map(|(kind, name)| Figure::counter("bridge_events", state.counters.get(*kind) as f64).of(*name));
        figures.extend(events);
        figures
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_detail_says_what_is_wrong() {
        let snapshot = Snapshot::default();
        assert_eq!(snapshot.detail(), "not connected; 0 nodes, remote clients: 0");
        let problem = Some("authorization violation".to_owned());
        snapshot.set(State { problem, ..State::default() });
        assert_eq!(snapshot.detail(), "not connected: authorization violation; 0 nodes, remote clients: 0");
        let server = Some("a:4222".to_owned());
        snapshot.set(State { server, own_name: Some(OwnName::Taken), proxies: 2, ..State::default() });
        let expected =
            "connected to a:4222; another node has the name of this one; 0 nodes, remote clients: 2";
        assert_eq!(snapshot.detail(), expected);
        let server = Some("a:4222".to_owned());
        let mut mirror = MirrorCounts { is_disconnected: true, ..MirrorCounts::default() };
        let mirror_problem = Some("why".to_owned());
        let both = State { server, mirror, mirror_problem, ..State::default() };
        snapshot.set(both.clone());
        let expected = "connected to a:4222; mirrored topics: not connected: why; 0 nodes, remote clients: 0";
        assert_eq!(snapshot.detail(), expected);
        mirror.is_disconnected = false;
        snapshot.set(State { mirror, ..both });
        let expected = "connected to a:4222; mirrored topics: why; 0 nodes, remote clients: 0";
        assert_eq!(snapshot.detail(), expected);
    }

    #[test]
    fn every_kind_has_a_figure_of_its_own() {
        let names: std::collections::BTreeSet<_> = COUNTERS.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), COUNTERS.len());
        assert_eq!(Snapshot::default().figures().len(), 12 + COUNTERS.len());
    }
}
