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

use super::{Hashing, optioned::Subscriber, registered_client::RegisteredClient};
use crate::sync::{Mutex, RwLock, Turn};

/// How long a thread waits for its turn.
pub(super) const TURN_LIMIT: Duration = Duration::from_millis(100);
/// Marks are kept for this time after the last replay of a client: live publications that were accepted
/// before may still be on their way.
const KEPT: Duration = Duration::from_secs(60);
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
            }
            if deliver() { Replayed::Sent } else { Replayed::Ended }
        })
    }

    fn begin(&self, reservation: Option<QueueReservation>) {
        let mut state = self.state.lock();
        state.running += 1;
        state.ended_at = None;
        if state.reservation.is_none() {
            state.reservation = reservation;
        }
    }

    fn end(&self) {
        let mut state = self.state.lock();
        state.running -= 1;
        state.ended_at = (state.running == 0).then(Instant::now);
    }

    /// Returns whether the marks are not needed any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let state = self.state.lock();
        state.running == 0 && state.ended_at.is_none_or(|at| now.saturating_duration_since(at) >= KEPT)
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

/// The clients to which plugins replay, by the ID of their registration.
#[derive(Default)]
pub(super) struct Replays(RwLock<HashMap<u64, Entry, Hashing>>);

type Entry = (Weak<RegisteredClient>, Arc<ClientReplays>);

impl Replays {
    pub(super) fn of(&self, client: &RegisteredClient) -> Option<Arc<ClientReplays>> {
        self.0.read().get(&client.id).map(|(_, replays)| replays.clone())
    }

    /// Begins a replay to a client: from now on, what it receives is delivered in turn.
    pub(super) fn begin(
        &self,
        client: &Arc<RegisteredClient>,
        reservation: Option<QueueReservation>,
    ) -> BegunReplay {
        let mut all = self.0.write();
        let (_, replays) = all.entry(client.id).or_insert_with(|| (Arc::downgrade(client), Arc::default()));
        // under the lock, so that no sweep ends it
        replays.begin(reservation);
        client.set_replaying(true);
        BegunReplay { client: client.clone(), replays: replays.clone() }
    }

    /// Frees what is not needed any more: clients that have left, or whose last replay ended long ago.
    pub(super) fn sweep(&self, now: Instant) {
        self.0.write().retain(|_, (client, replays)| {
            let client = client.upgrade().filter(|client| !client.is_gone());
            let keeps = client.as_ref().is_some_and(|_| !replays.is_over(now));
            if let Some(client) = client.filter(|_| !keeps) {
                client.set_replaying(false);
            }
            keeps
        });
    }
}

/// A replay that was begun before the filters of its client are added. Ends when it is dropped.
pub(super) struct BegunReplay {
    pub(super) client: Arc<RegisteredClient>,
    pub(super) replays: Arc<ClientReplays>,
}

impl Drop for BegunReplay {
    fn drop(&mut self) {
        self.replays.end();
    }
}
