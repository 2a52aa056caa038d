//! The thread that ends clients: those that take nothing while their senders wait, and those that were shut where
//! their registration could not be ended at once. Sleeps while there are none.

use elbus_plugin_api::{Event, EventKind};
use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use crate::{
    inbox::Look,
    office::{Leaving, Office, Why},
    peer::Peer,
    settings::Overflow,
};

impl Office {
    /// Runs until [`end`](Office::end).
    pub(crate) fn watch(&self) {
        let mut held: Vec<Weak<Peer>> = Vec::new();
        let mut until = None;
        while let Some((leaving, more)) = self.sleep(until) {
            for Leaving { peer, why } in leaving {
                self.see_off(&peer, why);
            }
            held.extend(more);
            let now = Instant::now();
            until = None;
            held.retain(|peer| {
                let Some(peer) = peer.upgrade() else { return false };
                match peer.look(now) {
                    Look::Well => return false,
                    Look::HeldUntil(at) => until = Some(until.map_or(at, |until: Instant| until.min(at))),
                    Look::Stalled { bytes } => {
                        self.see_off(&peer, Why::Slow { bytes });
                        return false;
                    }
                }
                true
            });
        }
    }

    /// Sleeps until there is something to do, `until` at most. `None`: it is over.
    fn sleep(&self, until: Option<Instant>) -> Option<(Vec<Leaving>, Vec<Weak<Peer>>)> {
        let mut desk = self.desk.lock();
        while !desk.ended && desk.leaving.is_empty() && desk.held.is_empty() {
            match until {
                None => self.changed.wait(&mut desk),
                Some(until) => {
                    if self.changed.wait_until(&mut desk, until).timed_out() {
                        break;
                    }
                }
            }
        }
        let work = (std::mem::take(&mut desk.leaving), std::mem::take(&mut desk.held));
        (!desk.ended).then_some(work)
    }

    fn see_off(&self, peer: &Arc<Peer>, why: Why) {
        let why = match why {
            Why::Told(reason) => reason,
            Why::Slow { bytes } => {
                let limits = &self.limits;
                let limit = limits.queue_bytes;
                let why = match limits.overflow {
                    Overflow::Block => format!(
                        "took nothing for {} s (stall_seconds) while {bytes} bytes waited, over {limit} (queue_bytes)",
                        limits.stall.as_secs_f64()
                    ),
                    _ => format!("{bytes} bytes waited, the next exceed {limit} (queue_bytes)"),
                };
                tracing::warn!(client = peer.name(), bytes, "client closed: {why}");
                self.host.emit(&Event::now(EventKind::SlowConsumer, peer.name(), &why));
                why
            }
        };
        peer.leave(&why);
    }
}
