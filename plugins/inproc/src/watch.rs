//! The thread that disconnects clients: those that receive nothing while senders wait for them, and those
//! that were closed from within a dispatch, which cannot unregister them. Sleeps while there are none.

use elbus_plugin_api::{Departure, Event, EventKind, config::Overflow};
use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use crate::{
    clients::{Cause, Clients, Disconnect},
    inbox::Health,
    peer::Peer,
};

/// Clients to disconnect, and clients that exceed their limit.
type Work = (Vec<Disconnect<Peer>>, Vec<Weak<Peer>>);

impl Clients<Peer> {
    /// Runs until [`stop`](Clients::stop).
    pub(crate) fn watch(&self) {
        let mut over_limit: Vec<Weak<Peer>> = Vec::new();
        let mut until = None;
        while let Some((disconnects, more)) = self.next_work(until) {
            for Disconnect { peer, cause } in disconnects {
                self.unregister(&peer, cause);
            }
            over_limit.extend(more);
            let now = Instant::now();
            until = None;
            over_limit.retain(|peer| {
                let Some(peer) = peer.upgrade() else { return false };
                match peer.check(now) {
                    Health::Drained => return false,
                    Health::HeldUntil(at) => until = Some(until.map_or(at, |until: Instant| until.min(at))),
                    Health::Stalled { bytes } => {
                        self.unregister(&peer, Cause::Slow { bytes });
                        return false;
                    }
                }
                true
            });
        }
    }

    /// Waits for work, until `until` at most. `None` once the instance has stopped.
    fn next_work(&self, until: Option<Instant>) -> Option<Work> {
        let mut state = self.state.lock();
        while !state.stopped && state.disconnects.is_empty() && state.over_limit.is_empty() {
            match until {
                None => self.changed.wait(&mut state),
                Some(until) => {
                    if self.changed.wait_until(&mut state, until).timed_out() {
                        break;
                    }
                }
            }
        }
        let work = (std::mem::take(&mut state.disconnects), std::mem::take(&mut state.over_limit));
        (!state.stopped).then_some(work)
    }

    fn unregister(&self, peer: &Arc<Peer>, cause: Cause) {
        let (departure, reason) = match cause {
            Cause::Broker(reason) => (Departure::Other, reason),
            Cause::Slow { bytes } => {
                let limits = &self.limits;
                let limit = limits.queue_bytes;
                let stalls = matches!(limits.overflow, Overflow::Block | Overflow::Latest);
                let departure = if stalls { Departure::Stalled } else { Departure::Overflow };
                let reason = match limits.overflow {
                    Overflow::Block | Overflow::Latest => format!(
                        "received nothing for {} s (stall_seconds) with {bytes} bytes queued, over {limit} \
                         (queue_bytes)",
                        limits.stall.as_secs_f64()
                    ),
                    _ => format!("{bytes} bytes queued, the next message exceeds {limit} (queue_bytes)"),
                };
                tracing::warn!(client = peer.name(), bytes, reason, "client disconnected");
                self.host.emit(&Event::now(EventKind::SlowConsumer, peer.name(), &reason));
                (departure, reason)
            }
        };
        peer.unregister(departure, &reason);
    }
}
