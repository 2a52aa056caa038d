//! Deliveries to a client as a part of its new subscription, by the plugin that keeps earlier publications.
//!
//! While a plugin replays to a client, what the client receives is delivered in turn: a publication that the
//! plugin sends is compared with those of its topic that were delivered live, and the other way round, by
//! their marks. The client gets each once, and none older than what a replay has given it.
//!
//! Lock order: the turn of a client, then its marks. A turn is held while a sink is called, the one exception
//! to the rule that no lock is; it is reentrant, only deliveries to this client take it, and a thread that
//! does not get it in [`TURN_LIMIT`] delivers without it.

use elbus_plugin_api::{QueueReservation, hooks::Replayed};
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

/// How long a thread waits for its turn.
pub(super) const TURN_LIMIT: Duration = Duration::from_millis(100);
/// Marks are kept for this time after the last replay of a client: live publications that were accepted
/// before may still be on their way.
const KEPT: Duration = Duration::from_secs(60);
/// The shortest time between two searches for marks that are not needed any more.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Memory of a mark beside its topic, in bytes.
const MARK_BYTES: usize = 48 + size_of::<Marks>();
/// The most memory of the marks of one client.
const MAX_MARK_BYTES: usize = 64 << 20;

/// The newest publications of a topic that a client was given while there were replays; 0 is none.
#[derive(Debug, Clone, Copy, Default)]
struct Marks {
    live: u64,
    replayed: u64,
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
    /// Whether a publication was replayed.
    has_replayed: bool,
    /// When the last one has ended.
    ended_at: Option<Instant>,
    topics: HashMap<Box<str>, Marks, Hashing>,
    bytes: usize,
    reservation: Option<QueueReservation>,
}

impl State {
    /// Returns the marks of a topic. `None` if there is no memory for them.
    fn marks(&mut self, topic: &str) -> Option<&mut Marks> {
        if !self.topics.contains_key(topic) {
            let bytes = self.bytes + topic.len() + MARK_BYTES;
            if bytes > MAX_MARK_BYTES {
                return None;
            }
            self.bytes = bytes;
            if let Some(reservation) = &mut self.reservation {
                reservation.resize(bytes);
            }
            self.topics.insert(topic.into(), Marks::default());
        }
        self.topics.get_mut(topic)
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
        skipped: impl FnOnce() -> R,
    ) -> R {
        self.turn.take(TURN_LIMIT, || {
            if mark != 0 {
                let mut state = self.state.lock();
                if let Some(marks) = state.marks(topic) {
                    if mark <= marks.replayed {
                        return skipped();
                    }
                    marks.live = marks.live.max(mark);
                }
            }
            deliver()
        })
    }

    /// Delivers an earlier publication, unless it was delivered live, or a newer one.
    pub(super) fn deliver_earlier(&self, topic: &str, mark: u64, deliver: impl FnOnce() -> bool) -> Replayed {
        self.turn.take(TURN_LIMIT, || {
            {
                let mut state = self.state.lock();
                let Some(marks) = state.marks(topic) else { return Replayed::Ended };
                if mark <= marks.live.max(marks.replayed) {
                    return Replayed::Skipped;
                }
                marks.replayed = mark;
                state.has_replayed = true;
            }
            if deliver() { Replayed::Sent } else { Replayed::Ended }
        })
    }

    fn begin(&self, reservation: Option<QueueReservation>) {
        let mut state = self.state.lock();
        state.running += 1;
        if state.reservation.is_none() {
            state.reservation = reservation;
        }
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
        replays.begin(self.pacer.reservation());
        client.set_replaying(true);
        BegunReplay { all: self.clone(), client: client.clone(), replays: replays.clone() }
    }

    /// Removes a client whose marks are not needed any more, or has that done later.
    fn remove_or_schedule(&self, client: &RegisteredClient, replays: &ClientReplays) {
        let mut clients = self.clients.write();
        let Some(over_at) = replays.over_at() else { return };
        if over_at <= Instant::now() {
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

    /// Frees the marks that are not needed any more. Returns when to call it again.
    pub(super) fn sweep(&self, now: Instant) -> Option<Instant> {
        let due = self.due.lock().take_if(|due| *due <= now);
        if due.is_none() {
            return *self.due.lock();
        }
        let mut next: Option<Instant> = None;
        self.clients.write().retain(|_, (client, replays)| {
            let Some(client) = client.upgrade().filter(|client| !client.is_gone()) else { return false };
            let Some(over_at) = replays.over_at() else { return true };
            if over_at <= now {
                client.set_replaying(false);
                return false;
            }
            next = Some(next.map_or(over_at, |next| next.min(over_at)));
            true
        });
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
    pub(super) replays: Arc<ClientReplays>,
}

impl Drop for BegunReplay {
    fn drop(&mut self) {
        self.replays.end();
        self.all.remove_or_schedule(&self.client, &self.replays);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use crate::{
        client_origin::ClientOrigin,
        routing::{closed_sink::closed_sink, holds::Holds},
    };

    fn client() -> Arc<RegisteredClient> {
        Arc::new(RegisteredClient::new("c".into(), ClientOrigin::default(), 0, closed_sink(), None))
    }

    #[test]
    fn marks_are_freed_at_once_if_nothing_was_replayed_and_else_later() {
        let replays = Replays::new(Arc::new(Pacer::new(Arc::<Holds>::default())));
        let client = client();
        drop((replays.begin(&client), replays.begin(&client)));
        assert!(!client.is_replaying() && replays.of(&client).is_none());
        let (first, second) = (replays.begin(&client), replays.begin(&client));
        assert_eq!(first.replays.deliver_earlier("t", 1, || true), Replayed::Sent);
        assert_eq!(second.replays.deliver_earlier("t", 1, || true), Replayed::Skipped);
        drop((first, second));
        assert!(client.is_replaying() && replays.of(&client).is_some());
        let now = Instant::now();
        assert!(replays.sweep(now).is_some() && client.is_replaying());
        assert_eq!(replays.sweep(now + KEPT), None);
        assert!(!client.is_replaying() && replays.of(&client).is_none());
    }
}
