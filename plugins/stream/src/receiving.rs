//! Long frames that are being received, or that are kept since a receiver is full, while they hold more than one read of
//! memory. Owns who has to give its memory back when there is none for others: the longest of the source that holds the most.
//! Closes nobody.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use crate::{Source, connection::Connection};

/// Who holds memory for long frames, by the addresses of their connections.
#[derive(Default)]
pub(crate) struct Receiving(HashMap<usize, Holding>);

struct Holding {
    connection: Weak<Connection>,
    source: Source,
    bytes: usize,
}

impl Receiving {
    /// A connection holds `bytes` now; zero: it holds no more than any connection may.
    pub(crate) fn note(
        &mut self,
        connection: &Arc<Connection>,
        source: impl FnOnce() -> Source,
        bytes: usize,
    ) {
        let address = Arc::as_ptr(connection).addr();
        if bytes == 0 {
            self.0.remove(&address);
            return;
        }
        let new = || Holding { connection: Arc::downgrade(connection), source: source(), bytes };
        self.0.entry(address).or_insert_with(new).bytes = bytes;
    }

    /// Takes out whoever has to make room for `asking`, and tells how much that one holds. `None`: nobody, as `asking` itself
    /// holds the most.
    pub(crate) fn take_greediest(&mut self, asking: &Arc<Connection>) -> Option<(Arc<Connection>, usize)> {
        let mut sums: HashMap<Source, usize> = HashMap::new();
        for holding in self.0.values() {
            *sums.entry(holding.source).or_default() += holding.bytes;
        }
        let greedy = |holding: &Holding| (sums.get(&holding.source).copied(), holding.source, holding.bytes);
        let (address, _) = self.0.iter().max_by_key(|(_, holding)| greedy(holding))?;
        let address = *address;
        if address == Arc::as_ptr(asking).addr() {
            return None;
        }
        let greediest = self.0.remove(&address)?;
        Some((greediest.connection.upgrade()?, greediest.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StreamSettings, testing::Pair};

    const ONE: Source = Source::User(1);
    const TWO: Source = Source::User(2);

    #[test]
    fn the_longest_of_the_greediest_source_makes_room() {
        let pairs: Vec<_> = (0..4).map(|_| Pair::new(StreamSettings::default())).collect();
        let [asking, small, large, other] = [0, 1, 2, 3].map(|at: usize| &pairs[at].connection);
        let mut receiving = Receiving::default();
        assert!(receiving.take_greediest(asking).is_none());
        receiving.note(asking, || TWO, 900);
        assert!(receiving.take_greediest(asking).is_none(), "nobody else");
        receiving.note(small, || ONE, 400);
        receiving.note(large, || ONE, 100);
        receiving.note(large, || ONE, 600);
        receiving.note(other, || TWO, 50);
        let taken =
            receiving.take_greediest(asking).map(|(taken, bytes)| (Arc::ptr_eq(&taken, large), bytes));
        assert_eq!(taken, Some((true, 600)), "the source holds more, though no connection of it does");
        assert!(receiving.take_greediest(asking).is_none(), "it holds the most now");
        receiving.note(asking, || TWO, 0);
        let taken =
            receiving.take_greediest(asking).map(|(taken, bytes)| (Arc::ptr_eq(&taken, small), bytes));
        assert_eq!(taken, Some((true, 400)));
    }
}
