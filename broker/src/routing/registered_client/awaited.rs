//! A client as one that was awaited: what waited for its name is delivered to it before anything else. Until
//! then it counts as full, so that senders that can wait do.

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};
use elbus_plugin_api::abi::RawNotifier_TO;
use std::sync::Arc;

use super::{RegisteredClient, blocked_senders::Drained};
use crate::{routing::holds::Holds, sync::atomic::Ordering};

/// [`RegisteredClient::state`]: what waited for its name is not delivered yet.
const AWAITED: u8 = 4;

impl RegisteredClient {
    /// Returns whether it still gets what waited for its name.
    #[inline]
    pub(in crate::routing) fn is_awaited(&self) -> bool {
        self.state.load(Ordering::Relaxed) & AWAITED != 0
    }

    /// Marks it as awaited, and full. Called before any sender can find it.
    #[cold]
    pub(in crate::routing) fn begin_awaited(&self, holds: &Arc<Holds>) {
        self.mark_full(holds, 0);
        self.state.fetch_or(AWAITED, Ordering::Relaxed);
    }

    /// Records that it has got what waited for its name.
    #[cold]
    pub(in crate::routing) fn end_awaited(&self) {
        self.state.fetch_and(!AWAITED, Ordering::Relaxed);
    }

    /// Releases the senders that wait for it; if its sink is full, once that has drained.
    #[cold]
    pub(in crate::routing) fn release_awaited(self: &Arc<Self>, is_full: bool) {
        if is_full && self.is_full() {
            let drained = Drained(Arc::downgrade(self));
            self.when_drained(RawNotifier_TO::from_ptr(RArc::new(drained), TD_Opaque));
        } else {
            self.drained();
        }
    }
}
