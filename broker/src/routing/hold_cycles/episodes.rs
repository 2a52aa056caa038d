//! Overdrafts of clients in cycles: an episode for each cycle, from its discovery until its overdrafts have
//! drained. Owns the sums and their limits, and the reason given to a disconnected client.

use elbus_plugin_api::{Overdraft, QueueBudget};
use elbus_protocol::name::primary_of;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use super::{
    super::{Hashing, client_keys::BudgetOwner, registered_client::RegisteredClient},
    graph::{self, Edges},
};

/// The most bytes of overdrafts of the clients of one cycle, and of one identity, at the same time.
const MOST_BYTES: u64 = 64 << 20;
/// Overdrafts grow in pieces of this many bytes while the cycle continues: the receiver's, and the sender's
/// own.
const PIECE: u64 = 8 << 20;
const OWN_PIECE: u64 = 4 << 20;
const LEAST_PIECE: u64 = 256 << 10;
/// The most episodes at the same time.
const MAX_EPISODES: usize = 256;
/// The most clients of a cycle that are informed.
const MAX_INFORMED: usize = 64;
/// The most names of a cycle that are shown, and characters of each.
const SHOWN_NAMES: usize = 8;
const SHOWN_CHARS: usize = 64;

/// All episodes.
#[derive(Default)]
pub(super) struct Episodes {
    all: Vec<Episode>,
    /// The clients in them.
    ids: HashSet<u64, Hashing>,
}

struct Episode {
    /// The client that continues.
    sender: u64,
    informed: HashMap<u64, Weak<RegisteredClient>, Hashing>,
    given: HashMap<u64, Given, Hashing>,
    outcome: Outcome,
    /// The client that must be disconnected because no further overdraft is possible: it gets no more time.
    gives_way: Option<u64>,
    logged: bool,
}

/// The overdraft of the queue of one client.
struct Given {
    member: Weak<RegisteredClient>,
    owner: BudgetOwner,
    queue: u64,
    own: u64,
}

/// Whether a cycle was given an overdraft the last time, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Given,
    UsedUp,
    NoMemory,
    Identity,
    Unsupported,
}

impl Outcome {
    fn words(self) -> &'static str {
        match self {
            Outcome::Given => "more was given to it",
            Outcome::UsedUp => "no more is given to one cycle",
            Outcome::NoMemory => "half of max_queued_bytes is used",
            Outcome::Identity => "no more is given to one identity",
            Outcome::Unsupported => "its transport supports no more",
        }
    }
}

impl Episodes {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns whether a client is in an episode.
    pub(super) fn has(&self, id: u64) -> bool {
        self.ids.contains(&id)
    }

    /// Lets one client of each of `components` continue, and ends episodes that are over. Each of `members`
    /// is held either by its receivers or, if its flag is set, by itself.
    pub(super) fn proceed(
        &mut self,
        members: &[(Arc<RegisteredClient>, bool)],
        edges: &Edges,
        components: Vec<Vec<usize>>,
        budget: &QueueBudget,
    ) {
        let in_cycles: HashSet<u64, Hashing> =
            components.iter().flatten().map(|at| members[*at].0.id).collect();
        let (go_on, over) = std::mem::take(&mut self.all)
            .into_iter()
            .partition(|episode| episode.has_any(&in_cycles) || episode.is_in_force());
        self.all = go_on;
        for episode in over {
            self.end(&episode);
        }
        let mut taken = HashSet::new();
        for component in components {
            let component = Component { members, edges, nodes: component };
            let at = self.all.iter().position(|episode| component.ids().any(|id| episode.knows(id)));
            let at = match at {
                None if self.all.len() >= MAX_EPISODES => continue,
                None => {
                    self.all.push(Episode::new(component.easiest()));
                    self.all.len() - 1
                }
                Some(at) => at,
            };
            if taken.insert(at) {
                self.step(at, &component, budget);
            }
        }
        self.ids = self.all.iter().flat_map(|episode| episode.informed.keys().copied()).collect();
    }

    /// Continues an episode whose cycle still exists: grants another piece, or informs its clients why not.
    fn step(&mut self, at: usize, component: &Component<'_>, budget: &QueueBudget) {
        let Some(episode) = self.all.get(at) else { return };
        let start = component.node_of(episode.sender).or_else(|| component.node_of(component.easiest()));
        let Some(start) = start else { return };
        let (sender, own) = (component.member(start), component.members[start].1);
        let receivers = if own { vec![start] } else { component.next_of(start) };
        let (count, sum) = (receivers.len() as u64, episode.sum());
        let piece = if own { OWN_PIECE } else { PIECE };
        let piece = piece.min((MOST_BYTES.saturating_sub(sum)) / count.max(1));
        let more = piece.saturating_mul(count);
        let has_memory = budget.fair_share().is_none()
            && (budget.queued() as u64).saturating_add(more) <= (budget.limit() / 2) as u64;
        let mut outcome = if piece < LEAST_PIECE {
            Outcome::UsedUp
        } else if !has_memory {
            Outcome::NoMemory
        } else if receivers.iter().any(|node| !self.may_have(at, component.member(*node), more)) {
            Outcome::Identity
        } else {
            Outcome::Given
        };
        let names = component.names(start);
        let Some(episode) = self.all.get_mut(at) else { return };
        episode.sender = sender.id;
        let bytes = sum + if outcome == Outcome::Given { more } else { 0 };
        let words = |outcome: Outcome| {
            let why = outcome.words();
            format!(
                "in a cycle of clients that wait for each other ({names}) with {bytes} bytes more than queue_bytes: {why}"
            )
        };
        let text = words(outcome);
        if outcome == Outcome::Given {
            for node in &receivers {
                let (queue, own) = if own { (0, piece) } else { (piece, 0) };
                if !episode.give(component.member(*node), queue, own, &text) {
                    outcome = Outcome::Unsupported;
                }
            }
        }
        let text = if outcome == Outcome::Unsupported { words(outcome) } else { text };
        let is_known = episode.outcome == outcome && episode.has_informed();
        // one of them must give way: the others get time until it has; one that has left is replaced
        let gives_way = episode.gives_way.filter(|id| component.node_of(*id).is_some());
        let others = component.nodes.iter().filter(|node| **node != start);
        for node in std::iter::once(&start).chain(others).take(MAX_INFORMED) {
            let member = component.member(*node);
            let is_given = outcome == Outcome::Given && receivers.contains(node);
            if !is_given && (outcome == Outcome::Given || gives_way != Some(member.id)) {
                episode.inform(member, &text);
            }
        }
        let receiver = receivers.first().map(|node| component.member(*node));
        episode.gives_way = match outcome {
            Outcome::Given => None,
            _ => gives_way.or(receiver.map(|receiver| receiver.id)),
        };
        episode.outcome = outcome;
        let client = receiver.map_or("", |receiver| &receiver.name);
        episode.log(client, &names, is_known);
    }

    /// Returns whether the identity of a client may have this much more, in addition to the overdrafts of its
    /// clients in all cycles.
    fn may_have(&self, at: usize, member: &Arc<RegisteredClient>, more: u64) -> bool {
        let owner = owner_of(member);
        let given = self.all.iter().enumerate().flat_map(|(other, episode)| {
            let is_elsewhere = other != at;
            episode.given.iter().map(move |(id, given)| (is_elsewhere, *id, given))
        });
        let mut sum = more;
        for (is_elsewhere, id, given) in given {
            if is_elsewhere && id == member.id {
                return false; // it has one overdraft, of one cycle
            }
            if given.owner == owner {
                sum = sum.saturating_add(given.queue).saturating_add(given.own);
            }
        }
        sum <= MOST_BYTES
    }

    /// Ends an episode whose overdrafts have drained: its clients are no longer in a cycle.
    fn end(&self, over: &Episode) {
        for (id, member) in &over.informed {
            let is_elsewhere = self.all.iter().any(|episode| episode.informed.contains_key(id));
            if let Some(member) = member.upgrade().filter(|_| !is_elsewhere) {
                member.overdraw(&Overdraft::new(0, 0, ""));
            }
        }
    }
}

impl Episode {
    fn new(sender: u64) -> Self {
        Episode {
            sender,
            informed: HashMap::default(),
            given: HashMap::default(),
            outcome: Outcome::Given,
            gives_way: None,
            logged: false,
        }
    }

    fn has_informed(&self) -> bool {
        !self.informed.is_empty()
    }

    fn knows(&self, id: u64) -> bool {
        self.informed.contains_key(&id)
    }

    fn has_any(&self, ids: &HashSet<u64, Hashing>) -> bool {
        self.informed.keys().any(|id| ids.contains(id))
    }

    /// Returns whether any part of its overdrafts is still queued.
    fn is_in_force(&self) -> bool {
        let alive = self.given.values().filter_map(|given| given.member.upgrade());
        alive.into_iter().any(|member| !member.is_gone() && member.overdrawn() > 0)
    }

    fn sum(&self) -> u64 {
        self.given.values().fold(0, |sum, given| sum.saturating_add(given.queue).saturating_add(given.own))
    }

    /// Increases the overdraft of a client.
    fn give(&mut self, member: &Arc<RegisteredClient>, queue: u64, own: u64, text: &str) -> bool {
        let (had, had_own) = self.given.get(&member.id).map_or((0, 0), |given| (given.queue, given.own));
        let (queue, own) = (had + queue, had_own + own);
        self.informed.insert(member.id, Arc::downgrade(member));
        let is_taken = member.overdraw(&Overdraft::new(queue, own, text));
        if is_taken {
            let given = Given { member: Arc::downgrade(member), owner: owner_of(member), queue, own };
            self.given.insert(member.id, given);
        }
        is_taken
    }

    /// Informs a client of its cycle, and restarts the time in which it must take something.
    fn inform(&mut self, member: &Arc<RegisteredClient>, text: &str) {
        let (queue, own) = self.given.get(&member.id).map_or((0, 0), |given| (given.queue, given.own));
        self.informed.insert(member.id, Arc::downgrade(member));
        member.overdraw(&Overdraft::new(queue, own, text));
    }

    /// Logs an episode once. A sink that has just drained takes nothing either, which is not logged.
    fn log(&mut self, client: &str, cycle: &str, is_known: bool) {
        let is_certain = self.outcome != Outcome::Unsupported || is_known;
        if !is_certain || std::mem::replace(&mut self.logged, true) {
            return;
        }
        if self.outcome == Outcome::Given {
            let limit = MOST_BYTES;
            tracing::warn!(
                client,
                cycle,
                limit,
                "clients wait for each other in a cycle: more than queue_bytes may wait for one"
            );
        } else {
            let why = self.outcome.words();
            tracing::warn!(
                client,
                cycle,
                why,
                "clients wait for each other in a cycle: one will be disconnected"
            );
        }
    }
}

/// Clients that all wait for each other, directly or not.
struct Component<'l> {
    members: &'l [(Arc<RegisteredClient>, bool)],
    edges: &'l Edges,
    nodes: Vec<usize>,
}

impl<'l> Component<'l> {
    fn member(&self, node: usize) -> &'l Arc<RegisteredClient> {
        &self.members[node].0
    }

    fn ids(&self) -> impl Iterator<Item = u64> {
        self.nodes.iter().map(|node| self.member(*node).id)
    }

    fn node_of(&self, id: u64) -> Option<usize> {
        self.nodes.iter().copied().find(|node| self.member(*node).id == id)
    }

    /// Returns the clients of the component that one waits for.
    fn next_of(&self, node: usize) -> Vec<usize> {
        self.edges[node].iter().copied().filter(|to| self.nodes.contains(to)).collect()
    }

    /// Returns the client that waits for the fewest others; of several, the oldest.
    fn easiest(&self) -> u64 {
        let cost = |node: &&usize| (self.edges[**node].len(), self.member(**node).id);
        self.nodes.iter().min_by_key(cost).map_or(0, |node| self.member(*node).id)
    }

    /// Returns the names along a cycle from one client back to it.
    fn names(&self, start: usize) -> String {
        let cycle = graph::cycle_through(self.edges, &self.nodes, start);
        let name = |node: &usize| {
            let shown: String = self.member(*node).name.chars().take(SHOWN_CHARS).collect();
            shown.escape_debug().to_string()
        };
        let mut names: Vec<_> = cycle.iter().take(SHOWN_NAMES).map(name).collect();
        if cycle.len() > SHOWN_NAMES {
            names.push(format!("{} more", cycle.len() - SHOWN_NAMES));
        }
        names.extend(cycle.first().map(name));
        names.join(" -> ")
    }
}

/// Returns the owner of the budget that is charged: the identity or, within this process, the name.
fn owner_of(member: &RegisteredClient) -> BudgetOwner {
    BudgetOwner::identity_of(&member.origin)
        .unwrap_or_else(|| BudgetOwner::Name(primary_of(&member.name).into()))
}
