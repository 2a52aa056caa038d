//! Clients that best-effort publications have skipped because their queue was full. Owns the mark of such a
//! client, and reports the client with an event when its queue has drained. Does not know what it has missed.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::{
    EventKind,
    abi::{RawNotifier, RawNotifier_TO},
};
use std::sync::{Arc, Weak, atomic::Ordering::Relaxed};

use super::{registered_client::RegisteredClient, router::Router};

/// [`RegisteredClient::state`]: it has missed publications, and its queue has not drained since.
const MISSED: u8 = 64;

impl RegisteredClient {
    /// Records that a publication has skipped the client. One event follows for everything that it misses
    /// until its queue has drained.
    #[cold]
    pub(super) fn miss(self: &Arc<Self>, router: &Arc<Router>) {
        if self.state.fetch_or(MISSED, Relaxed) & MISSED != 0 {
            return;
        }
        let (client, source, uid) = (&*self.name, self.origin.source.as_deref(), self.origin.uid());
        tracing::warn!(client, source, uid, "announcements dropped: the receiver's queue is full");
        let report = Report { client: Arc::downgrade(self), router: Arc::downgrade(router) };
        self.when_drained(RawNotifier_TO::from_ptr(RArc::new(report), TD_Opaque));
    }
}

/// Reports that the queue of a client has drained.
#[derive(Clone)]
struct Report {
    client: Weak<RegisteredClient>,
    router: Weak<Router>,
}

impl RawNotifier for Report {
    fn notify(&self) {
        let (Some(client), Some(router)) = (self.client.upgrade(), self.router.upgrade()) else { return };
        // first: a publication that is missed from now on is reported again
        client.state.fetch_and(!MISSED, Relaxed);
        if !client.is_gone() {
            router.events.enqueue(EventKind::PublicationsMissed, &client.name, "");
            router.events.dispatch();
        }
    }
}
