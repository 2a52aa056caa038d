//! The receiving sides that an instance registers: those of remote clients, and of the subscriptions of other
//! nodes. They append to the queue of the node; they never wait, and never call the bridge.

use elbus_bridge::{Exports, Outbox, OutgoingRun, ProxyId, Pushed, To};
use elbus_plugin_api::{Completion, DeliveryStatus, FrameKind, Notifier, Op, Queued, Run, Sink};
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use crate::{
    inputs::{Input, Inputs},
    own_clients::stays_local,
};

/// The senders that wait for a receiver.
#[derive(Default)]
pub(crate) struct Waiters {
    /// A leaf lock; no notifier is called while it is held.
    waiting: Mutex<Vec<Notifier>>,
    is_closed: AtomicBool,
}

impl Waiters {
    /// Lets all senders continue.
    pub(crate) fn notify(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.iter().for_each(Notifier::notify);
    }

    /// Lets all senders continue, from now on at once.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.notify();
    }

    pub(crate) fn add(&self, notifier: Notifier, is_full: impl Fn() -> bool) {
        self.waiting.lock().push(notifier);
        // it may have drained before the notifier was there
        if self.is_closed.load(Ordering::Acquire) || !is_full() {
            self.notify();
        }
    }
}

/// The receiving side of a remote client.
pub(crate) struct ProxySink {
    pub(crate) proxy: ProxyId,
    pub(crate) outbox: Arc<Outbox<Completion>>,
    pub(crate) inputs: Arc<Inputs>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) proxies: Arc<ProxyNames>,
    /// Set once the client is registered.
    pub(crate) registration: Arc<AtomicU64>,
}

impl Sink for ProxySink {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        let op = match run.kind() {
            FrameKind::Message => Op::Message,
            FrameKind::Broadcast => Op::Broadcast,
            // remote clients have no subscriptions here
            _ => return DeliveryStatus::TAKEN,
        };
        let (qos, sender, payloads) = (run.qos(), run.sender(), run.payloads());
        // one hop: other names of remote clients are refused by the outbox
        if self.proxies.has_alias(sender) {
            return DeliveryStatus::REFUSED;
        }
        let outgoing = OutgoingRun { op, qos, sender, to: To::Client(self.proxy) };
        let payloads = payloads.iter().map(|payload| payload.bytes());
        let pushed = self.outbox.push(&outgoing, payloads, || run.defer());
        status(pushed, run.is_realtime())
    }

    fn flush(&self) {
        self.inputs.wake();
    }

    fn when_drained(&self, notifier: Notifier) {
        self.waiters.add(notifier, || self.outbox.is_full(Some(self.proxy)));
    }

    fn queued(&self) -> Queued {
        queued(self.outbox.outstanding(Some(self.proxy)))
    }

    fn close(&self, _: &str) {
        self.waiters.close();
        let registration = self.registration.load(Ordering::Acquire);
        self.inputs.push(Input::Closed { proxy: self.proxy, registration });
    }
}

/// The receiving side of what the clients of a node are subscribed to.
pub(crate) struct NodeSink {
    pub(crate) outbox: Arc<Outbox<Completion>>,
    pub(crate) exports: Exports,
    pub(crate) inputs: Arc<Inputs>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) proxies: Arc<ProxyNames>,
}

impl Sink for NodeSink {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        let (sender, topic) = (run.sender(), run.topic());
        // one hop: what has come from another node goes to no other
        if run.kind() != FrameKind::Publish
            || stays_local(sender)
            || self.proxies.has_alias(sender)
            || !self.exports.has_topic(topic)
        {
            return DeliveryStatus::TAKEN;
        }
        let outgoing = OutgoingRun { op: Op::Publish, qos: run.qos(), sender, to: To::Topic(topic) };
        let payloads = run.payloads().iter().map(|payload| payload.bytes());
        status(self.outbox.push(&outgoing, payloads, || None), run.is_realtime())
    }

    fn flush(&self) {
        self.inputs.wake();
    }

    fn when_drained(&self, notifier: Notifier) {
        self.waiters.add(notifier, || self.outbox.is_full(None));
    }

    fn queued(&self) -> Queued {
        queued(self.outbox.outstanding(None))
    }

    fn close(&self, _: &str) {
        self.waiters.close();
    }
}

/// The names of remote clients that do not begin with `@`: aliases, and secondaries of them.
#[derive(Default)]
pub(crate) struct ProxyNames {
    aliases: Mutex<std::collections::HashSet<Arc<str>>>,
    /// Whether there are any, so that senders look at one word.
    has_any: AtomicBool,
}

impl ProxyNames {
    pub(crate) fn add(&self, name: &Arc<str>) {
        if !name.starts_with('@') {
            self.aliases.lock().insert(name.clone());
            self.has_any.store(true, Ordering::Release);
        }
    }

    pub(crate) fn remove(&self, name: &str) {
        if !name.starts_with('@') {
            self.aliases.lock().remove(name);
        }
    }

    pub(crate) fn has_alias(&self, name: &str) -> bool {
        self.has_any.load(Ordering::Acquire) && self.aliases.lock().contains(name)
    }
}

/// Real-time messages hold nobody: beyond twice the window they are refused.
fn status(pushed: Pushed, is_realtime: bool) -> DeliveryStatus {
    match pushed {
        Pushed::Taken { is_full, wakes } => {
            let full = if is_full && !is_realtime { DeliveryStatus::FULL } else { DeliveryStatus::TAKEN };
            let dirty = if wakes { DeliveryStatus::DIRTY } else { DeliveryStatus::TAKEN };
            full | dirty
        }
        Pushed::Refused | Pushed::Invalid => DeliveryStatus::REFUSED,
        Pushed::Closed => DeliveryStatus::CLOSED,
    }
}

fn queued(bytes: usize) -> Queued {
    Queued { frames: u64::from(bytes > 0), bytes: bytes as u64 }
}
