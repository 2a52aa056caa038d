//! One in-process client: its sink for the broker and its endpoint for its user. The watch thread decides
//! when to disconnect a slow client.
//!
//! Lock order: `client`, then either `inbox` (of any peer) or the lock in `credit`, which are leaf locks. A
//! client that sends to itself holds its `client` and locks its own `inbox`. Notifiers are called without any
//! of these locks, see [`deferred_wakes`].

use elbus_plugin_api::{
    Client, Code, DeliveryStatus, Departure, Dispatch, Notifier, Op, Queued, Request, Run, Sink,
    inproc::{InprocEndpoint, OwnedRun, RunBatch},
};
use parking_lot::Mutex;
use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use crate::{
    clients::{Cause, Clients},
    deferred_wakes,
    inbox::{self, FollowUp, Health, Inbox},
    send_credit::SendCredit,
    settings::Limits,
};

/// The state of one client.
pub(crate) struct Peer {
    name: String,
    limits: Limits,
    clients: Arc<Clients<Peer>>,
    /// `None` before the registration and after its end. The broker holds the sink, and with it the peer,
    /// while it is registered.
    client: Mutex<Option<Client>>,
    inbox: Mutex<Inbox>,
    credit: SendCredit,
}

impl Peer {
    pub(crate) fn new(name: &str, limits: Limits, clients: Arc<Clients<Peer>>) -> Arc<Self> {
        Arc::new(Peer {
            name: name.to_owned(),
            limits,
            clients,
            client: Mutex::default(),
            inbox: Mutex::default(),
            credit: SendCredit::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Stores the registration; ends it at once if the peer was closed meanwhile.
    pub(crate) fn set_client(&self, client: Client) {
        *self.client.lock() = Some(client);
        if self.inbox.lock().is_closed() {
            self.unregister(Departure::Closed, "closed during its registration");
        }
    }

    /// Refuses further messages and wakes all waiting tasks; [`unregister`](Peer::unregister) ends the
    /// registration. Returns `false` if it was closed before. Can be called from within a dispatch of this
    /// client.
    fn close_queues(&self) -> bool {
        let (was_open, notifiers) = self.inbox.lock().close();
        let tasks = self.credit.close();
        deferred_wakes::wake(notifiers.into_iter().chain(tasks));
        was_open
    }

    /// Ends the registration. Must not be called from within a dispatch.
    pub(crate) fn unregister(&self, departure: Departure, reason: &str) {
        self.close_queues();
        let client = self.client.lock().take();
        // outside the lock, since dropping it enters the broker
        if let Some(mut client) = client {
            client.set_close_reason(reason);
            client.set_departure(departure);
        }
    }

    /// Checks for the watch thread whether the client receives.
    pub(crate) fn check(&self, now: Instant) -> Health {
        self.inbox.lock().check(&self.limits, now)
    }
}

/// The broker's side of a peer.
pub(crate) struct PeerSink(pub(crate) Arc<Peer>);

impl Sink for PeerSink {
    fn deliver(&self, run: &mut Run<'_>) -> DeliveryStatus {
        let peer = &self.0;
        // copied before the lock is taken, so that senders do not wait for each other's copies
        let owned = OwnedRun::new(run);
        let mut inbox = peer.inbox.lock();
        let mut accepted = inbox.accept(run, owned, &peer.limits, Instant::now);
        // a deferred notifier is called no later than one in a flush
        let reader = if accepted.delivery.has(DeliveryStatus::DIRTY) && deferred_wakes::is_deferring() {
            accepted.delivery = accepted.delivery.without(DeliveryStatus::DIRTY);
            inbox.flush()
        } else {
            None
        };
        drop(inbox);
        deferred_wakes::wake(reader);
        match accepted.follow_up {
            FollowUp::Nothing => {}
            FollowUp::Watch => peer.clients.watch_over_limit(peer),
            // the watch thread wakes waiting tasks: the broker is routing at this point
            FollowUp::Disconnect { bytes } => peer.clients.disconnect(peer, Cause::Slow { bytes }),
            FollowUp::LogRefused { refused, bytes } => tracing::warn!(
                client = peer.name,
                refused,
                bytes,
                limit = peer.limits.queue_bytes,
                "messages refused: queue_bytes exceeded"
            ),
        }
        accepted.delivery
    }

    fn flush(&self) {
        let notifiers = self.0.inbox.lock().flush();
        deferred_wakes::wake(notifiers);
    }

    fn when_drained(&self, notifier: Notifier) {
        let at_once = self.0.inbox.lock().when_drained(notifier);
        deferred_wakes::wake(at_once);
    }

    fn when_empty(&self, notifier: Notifier) {
        let at_once = self.0.inbox.lock().when_empty(notifier);
        deferred_wakes::wake(at_once);
    }

    fn take_unsent(&self, _: &str, unsent: &mut RunBatch) {
        let runs = self.0.inbox.lock().take_unread();
        runs.into_iter().for_each(|run| unsent.push(run));
    }

    fn close(&self, reason: &str) {
        if self.0.close_queues() {
            self.0.clients.disconnect(&self.0, Cause::Broker(reason.to_owned()));
        }
    }

    fn queued(&self) -> Queued {
        self.0.inbox.lock().queued()
    }
}

/// The user's side of a peer.
pub(crate) struct PeerEndpoint(pub(crate) Arc<Peer>);

impl InprocEndpoint for PeerEndpoint {
    fn dispatch(&self, request: &Request<'_>) -> Dispatch {
        let result = deferred_wakes::deferring(|| self.0.dispatch(request));
        if result.is_gone() && self.0.close_queues() {
            self.0.clients.disconnect(&self.0, Cause::Broker("no longer registered".to_owned()));
        }
        result
    }

    fn when_ready(&self, notifier: Notifier) {
        let at_once = self.0.credit.when_ready(notifier);
        deferred_wakes::wake(at_once);
    }

    fn receive(&self, into: &mut RunBatch, waits: bool) -> bool {
        let (open, notifiers) = self.0.inbox.lock().read(into, waits, &self.0.limits, Instant::now);
        if !notifiers.is_empty() {
            deferred_wakes::wake(notifiers);
        }
        open
    }

    fn set_notifier(&self, notifier: Notifier) {
        self.0.inbox.lock().set_notifier(notifier);
    }

    fn close(&self) {
        self.0.unregister(Departure::Closed, "closed");
        self.0.clients.remove(&self.0);
    }

    fn drain(&self) {
        if let Some(client) = &mut *self.0.client.lock() {
            client.drain();
        }
        // also refuses senders that looked the client up earlier
        self.0.inbox.lock().drain();
    }
}

impl Drop for PeerEndpoint {
    fn drop(&mut self) {
        self.close();
    }
}

impl Peer {
    fn dispatch(self: &Arc<Self>, request: &Request<'_>) -> Dispatch {
        let mut client = self.client.lock();
        let Some(client) = client.as_mut() else { return Dispatch::gone() };
        let for_others = !request.op().is_some_and(Op::is_topic_op);
        if for_others && !self.credit.may_send(self.limits.queue_bytes) {
            return Dispatch::new(Code::NotDelivered, 0).congested(true);
        }
        let result = client.dispatch(request);
        if result.is_congested() {
            let payloads = request.payloads();
            let cost = inbox::cost_of(payloads.len(), payloads.iter().map(|p| p.len()).sum());
            if self.credit.add_overdraft(cost) {
                let peer = Arc::downgrade(self);
                client.when_ready(Notifier::new(move || resume(&peer)));
            }
        }
        result
    }
}

/// Lets the tasks of a peer send again, since its receivers have drained.
fn resume(peer: &Weak<Peer>) {
    if let Some(peer) = peer.upgrade() {
        deferred_wakes::wake(peer.credit.reset());
    }
}
