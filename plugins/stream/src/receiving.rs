//! Who holds memory for large frames: connections that receive or keep one of more than one read, and those whose queue holds
//! one beyond its own limit. Owns who has to give its memory back when there is none for others: the largest of the source
//! that holds the most. Closes nobody.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use crate::{Source, connection::Connection};

/// Who holds memory for large frames, by the addresses of their connections.
#[derive(Default)]
pub(crate) struct Receiving(HashMap<usize, Holding>);

struct Holding {
    connection: Weak<Connection>,
    source: Source,
    received: usize,
    queued: usize,
}

impl Holding {
    fn bytes(&self) -> usize {
        self.received + self.queued
    }
}

impl Receiving {
    /// A connection holds `bytes` of a frame that it sends; zero: no more than any connection may.
    pub(crate) fn note_received(&mut self, connection: &Arc<Connection>, bytes: usize) {
        self.note(connection, |holding| holding.received = bytes);
    }

    /// The queue of a connection holds `bytes`; zero: no more than its limit.
    pub(crate) fn note_queued(&mut self, connection: &Arc<Connection>, bytes: usize) {
        self.note(connection, |holding| holding.queued = bytes);
    }

    fn note(&mut self, connection: &Arc<Connection>, change: impl FnOnce(&mut Holding)) {
        let address = Arc::as_ptr(connection).addr();
        let new = || Holding {
            connection: Arc::downgrade(connection),
            source: connection.source,
            received: 0,
            queued: 0,
        };
        let holding = self.0.entry(address).or_insert_with(new);
        change(holding);
        if holding.bytes() == 0 {
            self.0.remove(&address);
        }
    }

    /// Takes out whoever has to make room for `asking`, and tells how much that one holds. `None`: nobody, as `asking` itself
    /// holds the most.
    pub(crate) fn take_greediest(&mut self, asking: &Arc<Connection>) -> Option<(Arc<Connection>, usize)> {
        let mut sums: HashMap<Source, usize> = HashMap::new();
        for holding in self.0.values() {
            *sums.entry(holding.source).or_default() += holding.bytes();
        }
        let greedy =
            |holding: &Holding| (sums.get(&holding.source).copied(), holding.source, holding.bytes());
        let (address, _) = self.0.iter().max_by_key(|(_, holding)| greedy(holding))?;
        let address = *address;
        if address == Arc::as_ptr(asking).addr() {
            return None;
        }
        let greediest = self.0.remove(&address)?;
        Some((greediest.connection.upgrade()?, greediest.bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StreamSettings, testing::Pair};

    const ONE: Source = Source::User(1);
    const TWO: Source = Source::User(2);

    #[test]
    fn the_largest_of_the_greediest_source_makes_room() {
        let pairs: Vec<_> =
            [TWO, ONE, ONE, TWO].map(|source| Pair::of(source, StreamSettings::default())).into();
        let [asking, small, large, other] = [0, 1, 2, 3].map(|at: usize| &pairs[at].connection);
        let mut receiving = Receiving::default();
        let take = |receiving: &mut Receiving| receiving.take_greediest(asking);
        assert!(take(&mut receiving).is_none());
        receiving.note_received(asking, 900);
        assert!(take(&mut receiving).is_none(), "nobody else");
        receiving.note_received(small, 400);
        receiving.note_received(large, 100);
        receiving.note_queued(large, 600);
        receiving.note_received(large, 200);
        receiving.note_received(other, 50);
        let taken = take(&mut receiving).map(|(taken, bytes)| (Arc::ptr_eq(&taken, large), bytes));
        assert_eq!(taken, Some((true, 800)), "the source holds more, though no connection of it does");
        assert!(take(&mut receiving).is_none(), "it holds the most now");
        receiving.note_received(asking, 0);
        let taken = take(&mut receiving).map(|(taken, bytes)| (Arc::ptr_eq(&taken, small), bytes));
        assert_eq!(taken, Some((true, 400)));
    }
}
