//! Cycles of clients, each of which is not read until the next has drained, while none drains because all
//! write before they read. Owns the wait-for graph; finds the cycles and lets one client of each continue
//! ([`episodes`]).
//!
//! A client waits for the full receivers that hold it, and for itself while its transport does not read from
//! it because its own queue is full. It is stuck if this and its queue have not changed for [`PATIENCE`].
//!
//! Lock order: the locks here are leaves. None is held while a sink is called or a client may be dropped.

mod episodes;
mod graph;
#[cfg(all(test, not(elbus_model)))]
mod tests;

use elbus_plugin_api::QueueBudget;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use super::{Hashing, registered_client::RegisteredClient};
use crate::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};
use episodes::Episodes;

/// Interval of the checks of waiting clients.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// A client is stuck after it has waited and taken nothing for this time.
const PATIENCE: Duration = Duration::from_millis(200);
/// A client with an overdraft is stuck again after waiting for this time.
const SHORT_PATIENCE: Duration = Duration::from_millis(40);
/// Checks after the last client has waited, so that not every hold starts them again.
const IDLE_CHECKS: u32 = 20;
/// The most clients of one check: those that have waited longest.
const MAX_NODES: usize = 4096;
/// The most clients that each of them waits for.
const MAX_EDGES: usize = 16;

/// The wait-for graph of the clients, and the cycles found in it.
#[derive(Default)]
pub(super) struct Cycles {
    waiting: Mutex<WaitingClients>,
    /// Locked by the thread that checks.
    found: Mutex<CycleState>,
    /// Unset while there are no checks.
    budget: OnceLock<QueueBudget>,
}

#[derive(Default)]
struct WaitingClients {
    clients: HashMap<u64, Held, Hashing>,
    checks: bool,
    idle: u32,
}

/// A client that is not read.
struct Held {
    member: Weak<RegisteredClient>,
    /// The ids of the clients that it waits for.
    receivers: Arc<[u64]>,
    own: bool,
    since: Instant,
    /// The number of clients that it still waits for; dropped when it no longer waits.
    left: Weak<AtomicUsize>,
}

impl Held {
    fn waits(&self) -> bool {
        self.left.upgrade().is_some_and(|left| left.load(Ordering::Relaxed) > 0)
    }
}

#[derive(Default)]
struct CycleState {
    /// Bytes queued for waiting clients, and since when they have not decreased.
    samples: HashMap<u64, (u64, Instant), Hashing>,
    episodes: Episodes,
}

/// A waiting client, during a check.
struct Node {
    member: Arc<RegisteredClient>,
    receivers: Arc<[u64]>,
    own: bool,
    since: Instant,
}

impl Cycles {
    /// Starts recording: checks run from now on and charge overdrafts to `budget`.
    pub(super) fn begin(&self, budget: QueueBudget) {
        _ = self.budget.set(budget); // called once
    }

    /// Records that a client is not read until these receivers, or its `own` queue, have drained, or `left`
    /// is zero. Returns whether the checks must be started.
    pub(super) fn note(
        &self,
        sender: &Arc<RegisteredClient>,
        receivers: impl Iterator<Item = u64>,
        own: bool,
        left: &Arc<AtomicUsize>,
    ) -> bool {
        if self.budget.get().is_none() {
            return false;
        }
        let held = Held {
            member: Arc::downgrade(sender),
            receivers: receivers.collect(),
            own,
            since: Instant::now(),
            left: Arc::downgrade(left),
        };
        let mut waiting = self.waiting.lock();
        waiting.clients.insert(sender.id, held); // `Held` drops nothing of a plugin
        !std::mem::replace(&mut waiting.checks, true)
    }

    /// Finds cycles and lets one client of each continue. Returns when the next check is due, if any client
    /// waits.
    pub(super) fn check(&self, now: Instant) -> Option<Instant> {
        let budget = self.budget.get()?;
        if !self.has_waiting_clients() {
            return None;
        }
        let nodes = self.nodes(now);
        let mut found = std::mem::take(&mut *self.found.lock());
        let edges = edges_of(&nodes);
        let stuck = found.sample(&nodes, &edges, now);
        let edges: graph::Edges = edges
            .into_iter()
            .enumerate()
            .map(|(at, to)| if stuck[at] { to.into_iter().filter(|to| stuck[*to]).collect() } else { vec![] })
            .collect();
        let members: Vec<_> = nodes.into_iter().map(|node| (node.member, node.own)).collect();
        found.episodes.proceed(&members, &edges, graph::components(&edges), budget);
        *self.found.lock() = found;
        Some(now + CHECK_INTERVAL)
    }

    /// Removes clients that no longer wait. Returns whether checks continue.
    fn has_waiting_clients(&self) -> bool {
        let has_episodes = !self.found.lock().episodes.is_empty();
        let mut waiting = self.waiting.lock();
        if !waiting.checks {
            return false;
        }
        waiting.clients.retain(|_, held| held.waits());
        let idle = waiting.clients.is_empty() && !has_episodes;
        waiting.idle = if idle { waiting.idle + 1 } else { 0 };
        waiting.checks = waiting.idle <= IDLE_CHECKS;
        if !waiting.checks {
            waiting.idle = 0;
            waiting.clients.shrink_to_fit();
        }
        waiting.checks
    }

    /// Returns the clients that have waited for some time.
    fn nodes(&self, now: Instant) -> Vec<Node> {
        let mut held: Vec<_> = {
            let waiting = self.waiting.lock();
            let old = |held: &&Held| now.saturating_duration_since(held.since) >= SHORT_PATIENCE;
            let all = waiting.clients.iter().filter(|(_, held)| old(held));
            all.map(|(id, held)| (*id, held.member.clone(), held.receivers.clone(), held.own, held.since))
                .collect()
        };
        if held.len() > MAX_NODES {
            held.select_nth_unstable_by_key(MAX_NODES, |(.., since)| *since);
            held.truncate(MAX_NODES);
        }
        let (mut nodes, mut gone) = (Vec::new(), Vec::new());
        for (id, member, receivers, own, since) in held {
            match member.upgrade().filter(|member| !member.is_gone()) {
                Some(member) => nodes.push(Node { member, receivers, own, since }),
                None => gone.push(id),
            }
        }
        if !gone.is_empty() {
            let mut waiting = self.waiting.lock();
            gone.iter().for_each(|id| drop(waiting.clients.remove(id)));
        }
        nodes
    }
}

/// Returns the nodes that each one waits for, itself included. A client that waits only for itself matters
/// only if another waits for it.
fn edges_of(nodes: &[Node]) -> graph::Edges {
    let places: HashMap<u64, usize, Hashing> =
        nodes.iter().enumerate().map(|(at, node)| (node.member.id, at)).collect();
    let full = |at: &usize| nodes[*at].member.is_full();
    let mut edges: graph::Edges = nodes
        .iter()
        .map(|node| {
            let places = node.receivers.iter().filter_map(|id| places.get(id).copied());
            places.filter(full).take(MAX_EDGES).collect()
        })
        .collect();
    let waited_for: HashSet<usize, Hashing> = edges.iter().flatten().copied().collect();
    for (at, node) in nodes.iter().enumerate() {
        if node.own && waited_for.contains(&at) {
            edges[at] = vec![at];
        }
    }
    edges
}

impl CycleState {
    /// Returns whether each of the nodes has taken nothing for some time. Asks only sinks of nodes inside the
    /// graph.
    fn sample(&mut self, nodes: &[Node], edges: &graph::Edges, now: Instant) -> Vec<bool> {
        let waited_for: HashSet<usize, Hashing> = edges.iter().flatten().copied().collect();
        let before = std::mem::take(&mut self.samples);
        // samples are kept of clients that may continue and are about to wait again
        let kept = before.iter().filter(|(id, _)| self.episodes.has(**id));
        self.samples.extend(kept.map(|(id, sample)| (*id, *sample)));
        let mut stuck = vec![false; nodes.len()];
        for (at, node) in nodes.iter().enumerate() {
            if edges[at].is_empty() || !waited_for.contains(&at) {
                continue;
            }
            let (id, bytes) = (node.member.id, node.member.queued().bytes);
            let since = match before.get(&id) {
                Some((last, since)) if bytes >= *last => *since,
                _ => now,
            };
            self.samples.insert(id, (bytes, since));
            let patience = if self.episodes.has(id) { SHORT_PATIENCE } else { PATIENCE };
            stuck[at] = now.saturating_duration_since(since) >= PATIENCE
                && now.saturating_duration_since(node.since) >= patience;
        }
        stuck
    }
}
