//! The registered clients of an instance with `max_clients`, by source. Owns the decision when the limit is
//! reached: a client of a source below its share replaces one of a source above it.

use std::collections::HashMap;

use crate::server::source::Source;

/// Registered clients, by their keys in the connection table.
pub(crate) struct ClientQuota {
    limit: usize,
    /// Number of clients that one source can keep when others want to register.
    share: usize,
    count: usize,
    /// Keys in order of registration.
    sources: HashMap<Source, Vec<usize>>,
}

/// Result of [`ClientQuota::claim`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The client can register.
    Granted,
    /// The client can register, and the client of this key must be disconnected.
    Evicting(usize),
    /// The limit is reached.
    Full,
}

impl ClientQuota {
    /// A quota of `limit` clients, of which one source keeps `share` (0 to 1) when others want to register.
    pub(crate) fn new(limit: usize, share: f64) -> Self {
        let share = (limit as f64 * share).ceil() as usize;
        ClientQuota { limit, share: share.clamp(1, limit), count: 0, sources: HashMap::new() }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Adds a client.
    pub(crate) fn claim(&mut self, source: Source, key: usize) -> Claim {
        let own = self.sources.get(&source).map_or(0, Vec::len);
        let mut claim = Claim::Granted;
        if self.count >= self.limit {
            let largest = if own < self.share { self.largest() } else { None };
            let Some(victim) = largest.and_then(|largest| self.last_of(largest)) else {
                return Claim::Full;
            };
            claim = Claim::Evicting(victim);
        }
        self.count += 1;
        self.sources.entry(source).or_default().push(key);
        claim
    }

    /// Returns the source with the most clients, if that exceeds its share.
    fn largest(&self) -> Option<Source> {
        let (source, keys) = self.sources.iter().max_by_key(|(_, keys)| keys.len())?;
        (keys.len() > self.share).then_some(*source)
    }

    fn last_of(&mut self, source: Source) -> Option<usize> {
        let last = *self.sources.get(&source)?.last()?;
        self.release(source, last);
        Some(last)
    }

    /// Removes a client, unless it was evicted before.
    pub(crate) fn release(&mut self, source: Source, key: usize) {
        let Some(keys) = self.sources.get_mut(&source) else { return };
        // clients that come and go are usually the newest
        let Some(at) = keys.iter().rposition(|other| *other == key) else { return };
        keys.remove(at);
        if keys.is_empty() {
            self.sources.remove(&source);
        }
        self.count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Source = Source::User(1);
    const TWO: Source = Source::User(2);

    #[test]
    fn one_source_can_have_all_slots_until_another_one_connects() {
        let mut clients = ClientQuota::new(5, 0.5);
        for key in 0..5 {
            assert_eq!(clients.claim(ONE, key), Claim::Granted);
        }
        assert_eq!(clients.claim(ONE, 5), Claim::Full);
        // the last ones make room, down to the share, which is 3
        assert_eq!(clients.claim(TWO, 6), Claim::Evicting(4));
        assert_eq!(clients.claim(ONE, 7), Claim::Full);
        assert_eq!(clients.claim(TWO, 8), Claim::Evicting(3));
        assert_eq!(clients.claim(TWO, 9), Claim::Full);
        clients.release(ONE, 4); // was evicted before
        assert_eq!(clients.count, 5);
        clients.release(ONE, 0);
        assert_eq!(clients.claim(TWO, 10), Claim::Granted);
        for (source, key) in [(ONE, 1), (ONE, 2), (TWO, 6), (TWO, 8), (TWO, 10)] {
            clients.release(source, key);
        }
        assert_eq!((clients.count, clients.sources.len()), (0, 0));
    }

    #[test]
    fn a_whole_share_evicts_nobody() {
        let mut clients = ClientQuota::new(2, 1.0);
        assert_eq!((clients.claim(ONE, 0), clients.claim(ONE, 1)), (Claim::Granted, Claim::Granted));
        assert_eq!(clients.claim(TWO, 2), Claim::Full);
    }
}
