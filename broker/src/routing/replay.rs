//! One replay: deliveries of earlier publications to a client, as fast as it reads.
//! [`replays`](super::replays) decides what the client still needs.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::{
    DeliveryStatus, Encoding, FrameKind, Payload, Qos, Run,
    abi::{NotifierObject, RawNotifier, RawNotifier_TO, RawReplay},
    hooks::{EarlierPublication, Replayed},
};
use std::sync::{Arc, Weak};

use super::{
    registered_client::RegisteredClient,
    replays::{BegunReplay, NewFilters, Way},
    router::Router,
};
use crate::{
    statistics::Refusal,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering, Ordering::Relaxed},
};

/// What is sent to an empty queue at once, in bytes.
const BYTES_AT_ONCE: usize = 64 * 1024;

/// A replay to a client: see [`Replay`](elbus_plugin_api::hooks::Replay).
pub(super) struct Replay {
    router: Weak<Router>,
    begun: BegunReplay,
    filters: NewFilters,
    sent: Arc<AtomicUsize>,
    dirty: AtomicBool,
}

impl Router {
    /// Begins a replay to a client: from now on, what it receives is delivered in turn.
    pub(super) fn begin_replay(&self, client: &Arc<RegisteredClient>) -> BegunReplay {
        self.replays.begin(client)
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
        is_taken: impl FnOnce(&R) -> bool,
        skipped: impl FnOnce() -> R,
    ) -> R {
        match self.replays.of(client) {
            Some(replays) => replays.deliver_live(topic, mark, deliver, is_taken, skipped),
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
        let bytes = topic.len() + 1 + publication.payload().len();
        self.sent.fetch_add(bytes + sender.len(), Relaxed);
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
        if delivery.is_taken() {
            client.counts.sent(1, bytes);
        } else if delivery.has(DeliveryStatus::REFUSED) {
            router.count_refused(Refusal::QueueFull, 1);
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
        router.marked.wait_for(publication.mark());
        let topic = publication.topic();
        let way = router.registry.read().way_of_replay(client, topic, &self.filters);
        if matches!(way, Way::Closed) {
            return Replayed::Skipped as u8;
        }
        let deliver = || self.deliver(&router, publication, &way);
        let replayed = self.begun.deliver_earlier(topic, publication.mark(), deliver);
        if replayed == Replayed::Ended && !client.is_gone() && self.begun.is_incomplete() {
            let client = &*client.name;
            tracing::warn!(client, "replay ended: no memory for the marks of live publications");
        }
        replayed as u8
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
