//! How many clients have rings of shared memory, in all and per source. Owns the counts and the one log line
//! that says that the limit is reached; makes no rings.

use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

use crate::server::source::Source;

/// What a transport offers to clients that ask for rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingLimits {
    /// Size of each of the two rings of a client, in bytes: a power of two from 64 KiB to 16 MiB.
    pub ring_bytes: u32,
    /// Number of clients with rings.
    pub max_rings: usize,
}

/// The rings of an instance.
pub(crate) struct RingQuota {
    limits: RingLimits,
    /// Number of clients with rings that one source can have.
    share: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    count: usize,
    sources: HashMap<Source, usize>,
    /// A client was refused, which has been logged.
    was_reported: bool,
}

/// The right of one client to have rings, until it is dropped.
pub(crate) struct RingPermit {
    quota: Arc<RingQuota>,
    source: Source,
    ring_bytes: u32,
}

impl RingQuota {
    /// A quota of which one source can use `share` (0 to 1).
    pub(crate) fn new(limits: RingLimits, share: f64) -> Arc<Self> {
        let share = ((limits.max_rings as f64 * share).ceil() as usize).clamp(1, limits.max_rings.max(1));
        Arc::new(RingQuota { limits, share, state: Mutex::default() })
    }

    /// Returns the number of clients that have rings, or are about to.
    pub(crate) fn in_use(&self) -> usize {
        self.state.lock().count
    }

    /// Claims rings for a client that asks for this size class; 0 leaves the size to the broker. `None` if
    /// the quota of all or of its source is used up.
    pub(crate) fn claim(self: &Arc<Self>, source: Source, class: u8) -> Option<RingPermit> {
        let RingLimits { ring_bytes, max_rings } = self.limits;
        let mut state = self.state.lock();
        let of_source = state.sources.get(&source).copied().unwrap_or(0);
        if state.count >= max_rings || of_source >= self.share {
            let is_first = !std::mem::replace(&mut state.was_reported, true);
            drop(state);
            if is_first {
                let (source, share) = (source.to_string(), self.share);
                tracing::warn!(
                    source,
                    max_rings,
                    share,
                    "clients get no rings beyond max_rings and its share per user; they use the socket"
                );
            }
            return None;
        }
        state.count += 1;
        *state.sources.entry(source).or_default() += 1;
        drop(state);
        let ring_bytes =
            elbus_socket::ring_bytes_of_class(class).map_or(ring_bytes, |bytes| bytes.min(ring_bytes));
        Some(RingPermit { quota: self.clone(), source, ring_bytes })
    }
}

impl RingPermit {
    /// Returns the size of each ring, in bytes.
    pub(crate) fn ring_bytes(&self) -> u32 {
        self.ring_bytes
    }
}

impl Drop for RingPermit {
    fn drop(&mut self) {
        let mut state = self.quota.state.lock();
        state.count = state.count.saturating_sub(1);
        if let Some(of_source) = state.sources.get_mut(&self.source) {
            *of_source = of_source.saturating_sub(1);
            if *of_source == 0 {
                state.sources.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sources_together_and_each_have_a_limit() {
        let quota = RingQuota::new(RingLimits { ring_bytes: 512 * 1024, max_rings: 3 }, 0.5);
        let [one, two, three] = [1, 2, 3].map(Source::User);
        let first = quota.claim(one, 0).unwrap();
        let second = quota.claim(one, 0).unwrap();
        assert!(quota.claim(one, 0).is_none(), "its share is 2");
        let third = quota.claim(two, 0).unwrap();
        assert!(quota.claim(three, 0).is_none());
        assert_eq!(quota.in_use(), 3);
        drop(first);
        let fourth = quota.claim(three, 0).unwrap();
        drop((second, third, fourth));
        let state = quota.state.lock();
        assert_eq!((state.count, state.sources.len(), state.was_reported), (0, 0, true));
    }

    #[test]
    fn a_client_can_ask_for_smaller_rings_only() {
        let quota = RingQuota::new(RingLimits { ring_bytes: 512 * 1024, max_rings: 100 }, 1.0);
        let sizes = [0, 1, 3, 4, 5, 9, 15].map(|class| {
            quota.claim(Source::Unknown, class).map(|permit| permit.ring_bytes() / 1024).unwrap()
        });
        assert_eq!(sizes, [512, 64, 256, 512, 512, 512, 512]);
    }
}
