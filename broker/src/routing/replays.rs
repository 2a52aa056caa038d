//! Deliveries to a client as a part of its new subscription, by the plugin that keeps earlier publications.
//!
//! While a plugin replays to a client, what the client receives is delivered in turn: a publication that the
//! plugin sends is compared with those of its topic that were delivered live, and the other way round, by
//! their marks. The client gets each once, and none older than what a replay has given it.
//!
//! Lock order: the turn of a client, then its marks. A turn is held while a sink is called, the one exception
//! to the rule that no lock is; it is reentrant, only deliveries to this client take it, and a thread that
//! does not get it in [`TURN_LIMIT`] delivers without it.

use elbus_plugin_api::{QueueBudget, QueueReservation, hooks::Replayed};
use std::{
    collections::{HashMap, HashSet},
    mem::size_of,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    Hashing,
    optioned::{Pacer, Subscriber},
    registered_client::RegisteredClient,
};
use crate::sync::{Mutex, RwLock, Turn};

/// How long a thread waits for its turn. A busy machine can interrupt the one whose turn it is for longer
/// than a sink takes.
const TURN_LIMIT: Duration = Duration::from_secs(1);
/// Marks are kept for this time after the last replay of a client: live publications that were accepted
/// before may still be on their way.
const KEPT: Duration = Duration::from_secs(60);
/// The shortest time between two searches for marks that are not needed any more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Memory of a mark beside its topic, in bytes.
const MARK_BYTES: usize = 48 + size_of::<Marks>();
/// The most memory of the marks of one client. Beyond it, replays to the client end.
const MAX_MARK_BYTES: usize = 64 << 20;
/// What marks of replayed publications take of it. Further ones are not recorded: they are needed only if a
/// sender takes longer than a replay waits for it, see [`marked`](super::marked).
const MAX_REPLAYED_MARK_BYTES: usize = MAX_MARK_BYTES / 2;

/// The newest publications of a topic that a client was given while there were replays; 0 is none.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    live: u64,
    replayed: u64,
    /// The replay that had begun last when the client was given one of them. To a replay that has begun
    /// since, it does not matter: the client has subscribed again.
    given_in: u64,
}

/// The replays of a client, present from the first one until some time after the last.
#[derive(Default)]
pub(super) struct ClientReplays {
    turn: Turn,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    /// How many have begun.
    begun: u64,
    /// Whether a publication was replayed.
    has_replayed: bool,
    /// When the last one has ended.
    ended_at: Option<Instant>,
    topics: HashMap<Box<str>, Marks, Hashing>,
    /// There was no memory for the mark of a live publication.
    is_incomplete: bool,
    bytes: usize,
    memory: Option<(QueueBudget, QueueReservation)>,
}

impl State {
    /// Returns the marks of a topic. `None` if there are none and no memory for them up to `limit`, and up to
    /// an equal share of the queue budget from half of it on.
    fn marks(&mut self, topic: &str, limit: usize) -> Option<&mut Marks> {
        if !self.topics.contains_key(topic) {
            let bytes = self.bytes + topic.len() + MARK_BYTES;
            let share = self.memory.as_ref().and_then(|(budget, _)| budget.fair_share());
            if bytes > limit.min(share.unwrap_or(usize::MAX)) {
                return None;
            }
            self.bytes = bytes;
            if let Some((_, reservation)) = &mut self.memory {
                reservation.resize(bytes);
            }
            self.topics.insert(topic.into(), Marks::default());
        }
        self.topics.get_mut(topic)
    }

    /// Records that a publication is delivered live; returns the mark of the one before.
    fn note_live(&mut self, topic: &str, mark: u64) -> Option<u64> {
        let begun = self.begun;
        let Some(marks) = self.marks(topic, MAX_MARK_BYTES) else {
            self.is_incomplete = true;
            return None;
        };
        let before = marks.live;
        marks.live = before.max(mark);
        marks.given_in = begun;
        Some(before)
    }
}

impl ClientReplays {
    /// Has what is delivered live wait for its turn, and returns whether the client gets it: not what a
    /// replay has given it already. `mark` is 0 for a publication that is not kept, and for other frames.
    pub(super) fn deliver_live<R>(
        &self,
        topic: &str,
        mark: u64,
        deliver: impl FnOnce() -> R,
        is_taken: impl FnOnce(&R) -> bool,
        skipped: impl FnOnce() -> R,
    ) -> R {
        self.turn.take(TURN_LIMIT, || {
            if mark == 0 {
                return deliver();
            }
            let before = {
                let mut state = self.state.lock();
                if state.topics.get(topic).is_some_and(|marks| mark <= marks.replayed) {
                    return skipped();
                }
                // a later replay does not need it
                if state.running == 0 { None } else { state.note_live(topic, mark) }
            };
            let delivered = deliver();
            if let Some(before) = before
                && !is_taken(&delivered)
                && let Some(marks) = self.state.lock().topics.get_mut(topic)
                && marks.live == mark
            {
                // so that a replay gives it what it has missed
                marks.live = before;
            }
            delivered
        })
    }

    /// Delivers an earlier publication because of the replay of this number, unless it was delivered live, or
    /// a newer one.
    fn deliver_earlier(
        &self,
        number: u64,
        topic: &str,
        mark: u64,
        deliver: impl FnOnce() -> bool,
    ) -> Replayed {
        self.turn.take(TURN_LIMIT, || {
            {
                let mut state = self.state.lock();
                let (is_incomplete, begun) = (state.is_incomplete, state.begun);
                match state.marks(topic, MAX_REPLAYED_MARK_BYTES) {
                    Some(Marks { live, replayed, given_in })
                        if *given_in >= number && mark <= (*live).max(*replayed) =>
                    {
                        return Replayed::Skipped;
                    }
                    Some(marks) => {
                        marks.replayed = mark.max(marks.replayed);
                        marks.given_in = begun;
                    }
                    None if is_incomplete => return Replayed::Ended,
                    None => {}
                }
                state.has_replayed = true;
            }
            if deliver() { Replayed::Sent } else { Replayed::Ended }
        })
    }

    fn begin(&self, budget: Option<&QueueBudget>) -> u64 {
        let mut state = self.state.lock();
        state.running += 1;
        state.begun += 1;
        if state.memory.is_none() {
            state.memory = budget.map(|budget| (budget.clone(), budget.reserve()));
        }
        state.begun
    }

    fn end(&self) {
        let mut state = self.state.lock();
        state.running -= 1;
        state.ended_at = (state.running == 0).then(Instant::now);
    }

    /// Returns when the marks are not needed any more: at once if nothing was replayed. `None` while a replay
    /// runs.
    fn over_at(&self) -> Option<Instant> {
        let state = self.state.lock();
        let ended_at = state.ended_at.filter(|_| state.running == 0)?;
        Some(if state.has_replayed { ended_at + KEPT } else { ended_at })
    }
}

/// The filters that a client has added, for which a replay is.
#[derive(Default)]
pub(super) struct NewFilters {
    /// Where the plain ones stand, and the indices of those with options.
    pub(super) plain: HashSet<u32, Hashing>,
    pub(super) optioned: HashSet<u32, Hashing>,
}

/// How a client gets an earlier publication.
pub(super) enum Way {
    /// It does not: it is not subscribed to the topic, or was before.
    Closed,
    Plain,
    Optioned(Arc<Subscriber>),
}

type ReplayingClient = (Weak<RegisteredClient>, Arc<ClientReplays>);

/// The clients to which plugins replay, by the ID of their registration.
pub(super) struct Replays {
    /// Lock order: this, then the state of a client.
    clients: RwLock<HashMap<u64, ReplayingClient, Hashing>>,
    /// When marks are not needed any more, if there are any.
    due: Mutex<Option<Instant>>,
    pacer: Arc<Pacer>,
}

impl Replays {
    pub(super) fn new(pacer: Arc<Pacer>) -> Arc<Self> {
        Arc::new(Replays { clients: RwLock::default(), due: Mutex::default(), pacer })
    }

    pub(super) fn of(&self, client: &RegisteredClient) -> Option<Arc<ClientReplays>> {
        self.clients.read().get(&client.id).map(|(_, replays)| replays.clone())
    }

    /// Begins a replay to a client: from now on, what it receives is delivered in turn.
    pub(super) fn begin(self: &Arc<Self>, client: &Arc<RegisteredClient>) -> BegunReplay {
        let mut clients = self.clients.write();
        let (_, replays) =
            clients.entry(client.id).or_insert_with(|| (Arc::downgrade(client), Arc::default()));
        // under the lock, so that it is not removed
        let number = replays.begin(self.pacer.budget());
        client.set_replaying(true);
        BegunReplay { all: self.clone(), client: client.clone(), replays: replays.clone(), number }
    }

    /// Removes a client whose marks are not needed any more, or has that done later.
    fn remove_or_schedule(&self, client: &RegisteredClient, replays: &ClientReplays) {
        let mut clients = self.clients.write();
        let Some(over_at) = replays.over_at() else { return };
        if over_at <= Instant::now() || client.is_gone() {
            client.set_replaying(false);
            clients.remove(&client.id);
            return;
        }
        drop(clients);
        let mut due = self.due.lock();
        if due.is_none_or(|before| over_at < before) {
            *due = Some(over_at);
            drop(due);
            self.pacer.wake();
        }
    }

    /// Frees the marks of a client that has left.
    pub(super) fn forget(&self, client: &RegisteredClient) {
        let forgotten = self.clients.write().remove(&client.id);
        // there can be many: without the lock
        drop(forgotten);
    }

    /// Frees the marks that are not needed any more. Returns when to call it again.
    pub(super) fn sweep(&self, now: Instant) -> Option<Instant> {
        let due = self.due.lock().take_if(|due| *due <= now);
        if due.is_none() {
            return *self.due.lock();
        }
        let mut next: Option<Instant> = None;
        // dropped without the lock
        let mut over = Vec::new();
        self.clients.write().retain(|_, (client, replays)| {
            let client = client.upgrade().filter(|client| !client.is_gone());
            if client.is_some() && replays.over_at().is_none_or(|over_at| over_at > now) {
                next = [next, replays.over_at()].into_iter().flatten().min();
                return true;
            }
            if let Some(client) = client {
                client.set_replaying(false);
            }
            over.push(replays.clone());
            false
        });
        drop(over);
        // all of them are visited, so not too often
        let mut due = self.due.lock();
        let next = next.map(|next| next.max(now + SWEEP_INTERVAL));
        *due = [*due, next].into_iter().flatten().min();
        *due
    }
}

/// A replay that was begun before the filters of its client are added. Ends when it is dropped.
pub(super) struct BegunReplay {
    all: Arc<Replays>,
    pub(super) client: Arc<RegisteredClient>,
    replays: Arc<ClientReplays>,
    number: u64,
}

impl BegunReplay {
    /// Returns whether marks of live publications are missing, so that it cannot go on.
    pub(super) fn is_incomplete(&self) -> bool {
        self.replays.state.lock().is_incomplete
    }

    /// Delivers an earlier publication, unless it was delivered live since the replay has begun, or a newer
    /// one.
    pub(super) fn deliver_earlier(&self, topic: &str, mark: u64, deliver: impl FnOnce() -> bool) -> Replayed {
        self.replays.deliver_earlier(self.number, topic, mark, deliver)
    }
}

impl Drop for BegunReplay {
    fn drop(&mut self) {
        self.replays.end();
        self.all.remove_or_schedule(&self.client, &self.replays);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests;
