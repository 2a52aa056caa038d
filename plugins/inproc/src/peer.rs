//! One in-process client: its sink towards the broker, its endpoint towards its user. Never decides how long it may
//! live; the office does.
//!
//! Lock order: `client`, then either `inbox` (of any peer) or the one in `pace`, which are leaves. A client that sends to
//! itself holds its `client` and takes its own `inbox`. Wakes are called under none of them, see [`owed`].

use elbus_plugin_api::{
    Client, Code, DeliveryStatus, Dispatch, Notifier, Op, Queued, Request, Run, Sink,
    inproc::{InprocEndpoint, OwnedRun, RunBatch},
};
use parking_lot::Mutex;
use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use crate::{
    inbox::{self, Inbox, Look, Then},
    office::Office,
    owed,
    pace::Pace,
    settings::Limits,
};

pub(crate) struct Peer {
    name: String,
    limits: Limits,
    office: Arc<Office>,
    /// Empty before it is registered, and once it has left. The broker holds the sink, and with it the peer, for as
    /// long as there is one.
    client: Mutex<Option<Client>>,
    inbox: Mutex<Inbox>,
    pace: Pace,
}

impl Peer {
    pub(crate) fn new(name: &str, limits: Limits, office: Arc<Office>) -> Arc<Self> {
        Arc::new(Peer {
            name: name.to_owned(),
            limits,
            office,
            client: Mutex::default(),
            inbox: Mutex::default(),
            pace: Pace::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// It is registered.
    pub(crate) fn arrive(&self, client: Client) {
        *self.client.lock() = Some(client);
        if self.inbox.lock().is_closed() {
            self.leave("closed while it registered");
        }
    }

    /// Takes no more, and nobody waits any more; its registration ends with [`leave`](Peer::leave). `false` where
    /// it was closed before. May be called from within a dispatch of this very client.
    fn shut(&self) -> bool {
        let (was_open, notifiers) = self.inbox.lock().close();
        let senders = self.pace.close();
        owed::wake(notifiers.into_iter().chain(senders));
        was_open
    }

    /// Ends the registration. Not to be called from within a dispatch.
    pub(crate) fn leave(&self, why: &str) {
        self.shut();
        let client = self.client.lock().take();
        // outside the lock, since dropping it enters the broker
        if let Some(mut client) = client {
            client.set_close_reason(why);
        }
    }

    /// How it does, for the watch.
    pub(crate) fn look(&self, now: Instant) -> Look {
        self.inbox.lock().look(&self.limits, now)
    }
}

/// The broker's side.
pub(crate) struct Incoming(pub(crate) Arc<Peer>);

impl Sink for Incoming {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        let peer = &self.0;
        // copied before the lock is taken: senders do not wait for each other's copies
        let kept = OwnedRun::new(run);
        let mut inbox = peer.inbox.lock();
        let mut taken = inbox.take(run, kept, &peer.limits, Instant::now);
        // where the notifier has to wait for this thread anyhow, it is no later than a flush would call it
        let bell = if taken.delivery.has(DeliveryStatus::DIRTY) && owed::is_holding() {
            taken.delivery = taken.delivery.without(DeliveryStatus::DIRTY);
            inbox.flush()
        } else {
            None
        };
        drop(inbox);
        owed::wake(bell);
        match taken.then {
            Then::Nothing => {}
            Then::Watch => peer.office.look_after(peer),
            // the watch notifiers who waits: the broker is in the midst of routing here
            Then::Disconnect { bytes } => peer.office.slow(peer, bytes),
            Then::Tell { refused, bytes } => tracing::warn!(
                client = peer.name,
                refused,
                bytes,
                "messages refused: the queue would exceed {} (queue_bytes)",
                peer.limits.queue_bytes
            ),
        }
        taken.delivery
    }

    fn flush(&self) {
        let notifiers = self.0.inbox.lock().flush();
        owed::wake(notifiers);
    }

    fn when_drained(&self, notifier: Notifier) {
        let at_once = self.0.inbox.lock().when_drained(notifier);
        owed::wake(at_once);
    }

    fn close(&self, reason: &str) {
        if self.0.shut() {
            self.0.office.dismiss(&self.0, reason);
        }
    }

    fn queued(&self) -> Queued {
        self.0.inbox.lock().queued()
    }
}

/// The user's side.
pub(crate) struct Outgoing(pub(crate) Arc<Peer>);

impl InprocEndpoint for Outgoing {
    fn dispatch(&self, request: &Request<'_>) -> Dispatch {
        let result = owed::holding(|| self.0.dispatch(request));
        if result.is_gone() && self.0.shut() {
            self.0.office.dismiss(&self.0, "no longer registered");
        }
        result
    }

    fn when_ready(&self, notifier: Notifier) {
        let at_once = self.0.pace.wait(notifier);
        owed::wake(at_once);
    }

    fn receive(&self, into: &mut RunBatch, waits: bool) -> bool {
        let (open, notifiers) = self.0.inbox.lock().give(into, waits, &self.0.limits, Instant::now);
        if !notifiers.is_empty() {
            owed::wake(notifiers);
        }
        open
    }

    fn set_notifier(&self, bell: Notifier) {
        self.0.inbox.lock().set_notifier(bell);
    }

    fn close(&self) {
        self.0.leave("closed");
        self.0.office.forget(&self.0);
    }

    fn drain(&self) {
        if let Some(client) = &mut *self.0.client.lock() {
            client.drain();
        }
        // whoever has found it before is refused as well
        self.0.inbox.lock().drain();
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.close();
    }
}

impl Peer {
    fn dispatch(self: &Arc<Self>, request: &Request<'_>) -> Dispatch {
        let mut client = self.client.lock();
        let Some(client) = client.as_mut() else { return Dispatch::gone() };
        let for_others = !request.op().is_some_and(Op::is_topic_op);
        if for_others && !self.pace.may_send(self.limits.queue_bytes) {
            return Dispatch::new(Code::NotDelivered, 0).congested(true);
        }
        let result = client.dispatch(request);
        if result.is_congested() {
            let payloads = request.payloads();
            let cost = inbox::cost_of(payloads.len(), payloads.iter().map(|p| p.len()).sum());
            if self.pace.slow_down(cost) {
                let peer = Arc::downgrade(self);
                client.when_ready(Notifier::new(move || go_on(&peer)));
            }
        }
        result
    }
}

/// The receivers of a peer have drained.
fn go_on(peer: &Weak<Peer>) {
    if let Some(peer) = peer.upgrade() {
        owed::wake(peer.pace.go_on());
    }
}
