//! Deliveries to a client as a part of its new subscription, by the plugin that keeps earlier publications.
//!
//! While a plugin replays to a client, what the client receives is delivered in turn: a publication that the
//! plugin sends is compared with those of its topic that were delivered live, and the other way round, by
//! their marks. The client gets each once, and none older than what a replay has given it.
//!
//! Lock order: the turn of a client, then its marks. A turn is held while a sink is called, the one exception
//! to the rule that no lock is; it is reentrant, only deliveries to this client take it, and a thread that does
//! not get it in [`TURN_LIMIT`] delivers without it.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::{
    DeliveryStatus, Encoding, FrameKind, Payload, Qos, QueueReservation, Run,
    abi::{NotifierObject, RawNotifier, RawNotifier_TO, RawReplay},
    hooks::{EarlierPublication, Replayed},
};
use std::{
    collections::{HashMap, HashSet},
    mem::size_of,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{Hashing, optioned::Subscriber, registered_client::RegisteredClient, router::Router};
use crate::sync::{
    Mutex, RwLock, Turn,
    atomic::{AtomicBool, AtomicUsize, Ordering, Ordering::Relaxed},
};

/// How long a thread waits for its turn.
pub(super) const TURN_LIMIT: Duration = Duration::from_millis(100);
/// What is sent to an empty queue at once, in bytes.
const BYTES_AT_ONCE: usize = 64 * 1024;
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
    /// Has what is delivered live wait for its turn, and returns whether the client gets it: not what a replay
    /// has given it already. `mark` is 0 for a publication that is not kept, and for other frames.
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
    fn deliver_earlier(&self, topic: &str, mark: u64, deliver: impl FnOnce() -> bool) -> Replayed {
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

/// A replay to a client: see [`Replay`](elbus_plugin_api::hooks::Replay).
pub(super) struct Replay {
    router: Weak<Router>,
    begun: BegunReplay,
    filters: NewFilters,
    sent: Arc<AtomicUsize>,
    dirty: AtomicBool,
}

/// The clients to which plugins replay, by the ID of their registration.
#[derive(Default)]
pub(super) struct Replays(RwLock<HashMap<u64, Entry, Hashing>>);

type Entry = (Weak<RegisteredClient>, Arc<ClientReplays>);

impl Replays {
    fn of(&self, client: &RegisteredClient) -> Option<Arc<ClientReplays>> {
        self.0.read().get(&client.id).map(|(_, replays)| replays.clone())
    }

    /// Frees what is not needed any more: clients that have left, or whose last replay ended long ago.
    fn sweep(&self, now: Instant) {
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
    client: Arc<RegisteredClient>,
    replays: Arc<ClientReplays>,
}

impl Drop for BegunReplay {
    fn drop(&mut self) {
        self.replays.end();
    }
}

impl Router {
    /// Begins a replay to a client: from now on, what it receives is delivered in turn.
    pub(super) fn begin_replay(&self, client: &Arc<RegisteredClient>) -> BegunReplay {
        self.replays.sweep(Instant::now());
        let replays = {
            let mut all = self.replays.0.write();
            let (_, replays) =
                all.entry(client.id).or_insert_with(|| (Arc::downgrade(client), Arc::default()));
            // under the lock, so that no sweep ends it
            replays.begin(self.pacer.reservation());
            client.set_replaying(true);
            replays.clone()
        };
        BegunReplay { client: client.clone(), replays }
    }

    /// Returns the replay of a client for the filters that it has added.
    pub(super) fn replay(self: &Arc<Self>, begun: BegunReplay, filters: NewFilters) -> Replay {
        Replay {
            router: Arc::downgrade(self),
            begun,
            filters,
            sent: Arc::default(),
            dirty: AtomicBool::new(false),
        }
    }

    /// Delivers to a client in turn with its replays. `mark` is that of a kept publication, else 0.
    #[cold]
    pub(super) fn deliver_in_turn<R>(
        &self,
        client: &RegisteredClient,
        topic: &str,
        mark: u64,
        deliver: impl FnOnce() -> R,
        skipped: impl FnOnce() -> R,
    ) -> R {
        match self.replays.of(client) {
            Some(replays) => replays.deliver_live(topic, mark, deliver, skipped),
            None => deliver(),
        }
    }
}

impl Replay {
    fn deliver(&self, router: &Arc<Router>, publication: &EarlierPublication<'_>, way: &Way) -> bool {
        let payloads: [Payload<'_>; 1] = [publication.payload()];
        let (sender, topic) = (publication.sender(), publication.topic());
        let mut encoding = Encoding::new();
        let mut run = Run::new(FrameKind::Publish, Qos::NO, sender, topic, &payloads, None, &mut encoding);
        if let Way::Optioned(subscriber) = way
            && subscriber.keeps_values()
        {
            if subscriber.put(&run) {
                subscriber.feed();
            }
            return true;
        }
        let client = &self.begun.client;
        let delivery = client.deliver(&mut run);
        let bytes = topic.len() + 1 + publication.payload().len();
        self.sent.fetch_add(bytes + sender.len(), Relaxed);
        if delivery.is_taken() {
            client.counts.sent(1, bytes);
        }
        if delivery.has(DeliveryStatus::FULL) {
            client.fill(&router.holds);
        }
        if delivery.has(DeliveryStatus::DIRTY) {
            self.dirty.store(true, Relaxed);
        }
        delivery.is_taken() || !delivery.has(DeliveryStatus::CLOSED)
    }
}

impl RawReplay for Replay {
    fn send(&self, publication: &EarlierPublication<'_>) -> u8 {
        let client = &self.begun.client;
        let Some(router) = self.router.upgrade().filter(|_| !client.is_gone()) else {
            return Replayed::Ended as u8;
        };
        if self.sent.load(Relaxed) >= BYTES_AT_ONCE || client.is_full() {
            return Replayed::Wait as u8;
        }
        let topic = publication.topic();
        let way = router.registry.read().way_of_replay(client, topic, &self.filters);
        if matches!(way, Way::Closed) {
            return Replayed::Skipped as u8;
        }
        let deliver = || self.deliver(&router, publication, &way);
        self.begun.replays.deliver_earlier(topic, publication.mark(), deliver) as u8
    }

    fn flush(&self) {
        if self.dirty.swap(false, Relaxed) {
            self.begun.client.flush();
        }
    }

    fn when_ready(&self, notifier: NotifierObject) {
        self.flush();
        let emptied = Emptied { sent: self.sent.clone(), notifier };
        let notifier = RawNotifier_TO::from_ptr(RArc::new(emptied), TD_Opaque);
        // both notify at once if the client has left
        let client = &self.begun.client;
        if client.is_full() {
            client.when_drained(notifier);
        } else {
            client.when_empty(notifier);
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.flush();
    }
}

/// What the sink of a client calls when its queue is empty.
#[derive(Clone)]
struct Emptied {
    sent: Arc<AtomicUsize>,
    notifier: NotifierObject,
}

impl RawNotifier for Emptied {
    fn notify(&self) {
        self.sent.store(0, Ordering::Release);
        self.notifier.notify();
    }
}
