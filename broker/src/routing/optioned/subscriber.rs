//! One subscription with options: what it may miss, what waits for its client, and feeding the client from
//! that.
//!
//! With `$latest` and `$every`, publications wait here as values and are encoded only when the queue of the
//! client is empty. One thread at a time feeds a client: the sender that ends a batch, the thread that has
//! emptied the queue, or the [pacer]. Feeding never waits for the client.
//!
//! Lock order: the pending values or the unreported count, then the pacer's. None is held while a sink is
//! called.

pub(in crate::routing) mod missed;
pub(in crate::routing) mod pacer;

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::{
    DeliveryStatus, Encoding, FrameKind, Payload, Qos, QueueReservation, Run,
    abi::{RawNotifier, RawNotifier_TO},
};
use elbus_protocol::subscription::DeliveryMode;
use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    group::Group,
    pending::{PendingValues, Put, ValueRef},
};
use crate::{
    routing::registered_client::RegisteredClient,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering, Ordering::Relaxed},
    },
};

use missed::{Missed, Unreported};
use pacer::Pacer;

/// The most memory of the values of one subscription, in bytes, unless access rules set a smaller
/// `queue_bytes`.
const MAX_PENDING_BYTES: usize = 8 << 20;
/// What is delivered to an empty queue at once, in bytes.
const FEED_BYTES: usize = 64 * 1024;
/// How often one call feeds a client that takes everything at once. The pacer continues.
const MAX_ROUNDS: u32 = 8;

/// [`Subscriber::feeding`]: nobody feeds the client, somebody does, or does so once more.
const IDLE: u8 = 0;
const RUNNING: u8 = 1;
const AGAIN: u8 = 2;

/// A subscription with options of one client.
pub(in crate::routing) struct Subscriber {
    /// The filter with its options.
    pub(in crate::routing) text: Arc<str>,
    mode: DeliveryMode,
    pub(in crate::routing) group: Option<Arc<Group>>,
    /// Greater for each later subscription; never reused.
    pub(in crate::routing) serial: u64,
    pub(in crate::routing) client: Arc<RegisteredClient>,
    pacer: Arc<Pacer>,
    missed: Missed,
    unreported: Mutex<Unreported>,
    pending: Mutex<Pending>,
    feeding: AtomicU8,
    /// Whether the sink was asked to notify when its queue is empty, and whether it has.
    armed: AtomicBool,
    emptied: AtomicBool,
    /// Whether a sender feeds it at the end of its batch.
    marked: AtomicBool,
    /// Whether the subscription has ended.
    ended: AtomicBool,
}

/// The values that wait, and their place in the queue budget.
#[derive(Default)]
struct Pending {
    values: PendingValues,
    reservation: Option<QueueReservation>,
}

/// A subscription with options, as `client.info` shows it.
pub(crate) struct SubscriptionReport {
    pub(crate) filter: Arc<str>,
    pub(crate) dropped: u64,
    pub(crate) replaced: u64,
    pub(crate) pending: usize,
}

impl Subscriber {
    pub(in crate::routing) fn new(
        text: Arc<str>,
        mode: DeliveryMode,
        group: Option<Arc<Group>>,
        serial: u64,
        client: Arc<RegisteredClient>,
        pacer: Arc<Pacer>,
    ) -> Self {
        Subscriber {
            text,
            mode,
            group,
            serial,
            client,
            pacer,
            missed: Missed::default(),
            unreported: Mutex::default(),
            pending: Mutex::default(),
            feeding: AtomicU8::new(IDLE),
            armed: AtomicBool::new(false),
            emptied: AtomicBool::new(false),
            marked: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// Ends the subscription: values that wait are not delivered.
    pub(in crate::routing) fn end(&self) {
        self.ended.store(true, Relaxed);
        *self.pending.lock() = Pending::default();
    }

    /// Returns how publications are delivered: as the option says. Without one the overflow policy of the
    /// client decides.
    pub(in crate::routing) fn mode(&self) -> DeliveryMode {
        match self.mode {
            DeliveryMode::Queued if self.client.keeps_newest() => DeliveryMode::Latest,
            mode => mode,
        }
    }

    /// Returns whether publications wait here until the queue of the client is empty.
    pub(in crate::routing) fn keeps_values(&self) -> bool {
        matches!(self.mode(), DeliveryMode::Latest | DeliveryMode::Every { .. })
    }

    /// Drops what waits because of an overflow policy that the client no longer has: later publications
    /// do not wait for it.
    pub(in crate::routing) fn abandon(&self) {
        if self.mode != DeliveryMode::Queued {
            return;
        }
        let count = {
            let mut pending = self.pending.lock();
            let count = pending.values.len();
            *pending = Pending::default();
            count
        };
        if count > 0 {
            let client = &*self.client.name;
            self.missed.dropped.fetch_add(count as u64, Relaxed);
            self.pacer.count_missed(count);
            self.client.dropped.fetch_add(count as u64, Relaxed);
            tracing::warn!(
                client,
                count,
                "newest values dropped: the overflow policy of the client has changed"
            );
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Relaxed) || self.client.is_gone()
    }

    pub(in crate::routing) fn report(&self) -> SubscriptionReport {
        SubscriptionReport {
            filter: self.text.clone(),
            dropped: self.missed.dropped.load(Relaxed),
            replaced: self.missed.replaced.load(Relaxed),
            pending: self.pending.lock().values.len(),
        }
    }

    /// Adds the last publication of a run; the earlier ones are replaced. Returns whether the caller must
    /// [feed](Self::feed) the client at the end of its batch.
    pub(in crate::routing) fn put(self: &Arc<Self>, run: &Run<'_>) -> bool {
        let Some((newest, older)) = run.payloads().split_last() else { return false };
        if self.has_ended() {
            return false;
        }
        let value = ValueRef {
            sender: run.sender(),
            sender_id: run.sender_id(),
            realtime: run.is_realtime(),
            payload: newest,
        };
        let limit = self.pending_limit();
        let put = {
            let mut pending = self.pending.lock();
            let put = pending.values.put(run.topic(), value, limit);
            pending.account(&self.pacer);
            put
        };
        let replaced = older.len() as u64 + u64::from(put == Put::Replaced);
        if replaced > 0 {
            self.missed.replaced.fetch_add(replaced, Relaxed);
        }
        if let Put::Dropped { older } = put {
            self.miss(run.topic(), 1 + usize::from(older));
            return false;
        }
        !self.marked.swap(true, Ordering::AcqRel)
    }

    fn pending_limit(&self) -> usize {
        let of_rules = self.client.policy().map(|policy| policy.sink_limits().queue_bytes.as_usize());
        let share = self.pacer.budget().and_then(|budget| budget.fair_share());
        let limit = MAX_PENDING_BYTES.min(of_rules.unwrap_or(usize::MAX));
        limit.min(share.unwrap_or(usize::MAX))
    }

    /// Delivers values that wait, if the queue of the client is empty; otherwise its sink continues once it
    /// is.
    pub(in crate::routing) fn feed(self: &Arc<Self>) {
        if self.feeding.swap(AGAIN, Ordering::AcqRel) != IDLE {
            return; // the thread that feeds it does so once more
        }
        for _ in 0..MAX_ROUNDS {
            self.feeding.store(RUNNING, Ordering::Release);
            self.feed_once();
            if self.feeding.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Relaxed).is_ok() {
                return;
            }
        }
        self.feeding.store(IDLE, Ordering::Release);
        self.pacer.schedule(self, Instant::now());
    }

    fn feed_once(self: &Arc<Self>) {
        self.marked.store(false, Ordering::Release);
        if self.has_ended() {
            *self.pending.lock() = Pending::default();
            return;
        }
        if self.armed.load(Ordering::Acquire) {
            return; // the sink continues
        }
        let is_empty = self.emptied.swap(false, Ordering::AcqRel) || self.client.queued().bytes == 0;
        let now = Instant::now();
        if is_empty && !self.client.is_full() {
            self.deliver_pending(now);
        }
        let (is_ready, due) = {
            let mut pending = self.pending.lock();
            (pending.values.is_ready(now), pending.values.next_due())
        };
        if let Some(due) = due {
            self.pacer.schedule(self, due);
        }
        if !is_ready {
            return;
        }
        self.armed.store(true, Ordering::Release);
        let emptied = RArc::new(Emptied(Arc::downgrade(self)));
        let notifier = RawNotifier_TO::from_ptr(emptied, TD_Opaque);
        if self.client.is_full() {
            self.client.when_drained(notifier);
        } else {
            self.client.when_empty(notifier);
        }
    }

    /// Delivers values until there are [`FEED_BYTES`] in the queue.
    fn deliver_pending(self: &Arc<Self>, now: Instant) {
        let interval = match self.mode() {
            DeliveryMode::Every { millis } => Duration::from_millis(u64::from(millis)),
            _ => Duration::ZERO,
        };
        let (mut encoding, mut bytes, mut is_dirty) = (Encoding::new(), 0, false);
        while bytes < FEED_BYTES {
            let taken = {
                let mut pending = self.pending.lock();
                let taken = pending.values.take(now, interval);
                pending.account(&self.pacer);
                taken
            };
            let Some((topic, value)) = taken else { break };
            let payloads = [Payload::from(value.payload.as_slice())];
            let qos = if value.realtime { Qos::REALTIME } else { Qos::NO };
            encoding.reset();
            let mut run =
                Run::new(FrameKind::Publish, qos, &value.sender, &topic, &payloads, None, &mut encoding)
                    .with_sender_id(value.sender_id);
            let delivery = self.client.deliver(&mut run);
            let body_bytes = topic.len() + 1 + value.payload.len();
            bytes += body_bytes + value.sender.len();
            if delivery.is_taken() {
                self.client.counts.sent(1, body_bytes);
            } else {
                self.miss(&topic, 1);
            }
            if delivery.has(DeliveryStatus::FULL) {
                self.client.fill(self.pacer.holds());
            }
            is_dirty |= delivery.has(DeliveryStatus::DIRTY);
            if delivery.has(DeliveryStatus::FULL) || !delivery.is_taken() {
                break;
            }
        }
        if is_dirty {
            self.client.flush();
        }
    }

    /// Does what a delivery outside a batch requires.
    fn settle(&self, delivery: DeliveryStatus) {
        if delivery.has(DeliveryStatus::FULL) {
            self.client.fill(self.pacer.holds());
        }
        if delivery.has(DeliveryStatus::DIRTY) {
            self.client.flush();
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.pacer.forget(self.serial);
    }
}

impl Pending {
    /// Counts what waits in the queue budget.
    fn account(&mut self, pacer: &Pacer) {
        let bytes = self.values.bytes();
        if self.reservation.is_none() {
            self.reservation = pacer.budget().map(|budget| budget.reserve());
        }
        if let Some(reservation) = &mut self.reservation {
            reservation.resize(bytes);
        }
    }
}

/// What a sink calls when its queue is empty.
#[derive(Clone)]
struct Emptied(Weak<Subscriber>);

impl RawNotifier for Emptied {
    fn notify(&self) {
        if let Some(subscriber) = self.0.upgrade() {
            subscriber.emptied.store(true, Ordering::Release);
            subscriber.armed.store(false, Ordering::Release);
            subscriber.feed();
        }
    }
}
