//! Memory held for large frames: by connections that receive or keep a frame of more than one read, and by
//! queues that hold one beyond their own limit. Owns the choice who must free memory for others: the largest
//! user of the source that holds the most. Closes no connection.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use crate::{connection::Connection, server::source::Source};

/// Users of memory for large frames, by the addresses of their connections.
#[derive(Default)]
pub(crate) struct FrameMemory(HashMap<usize, MemoryUse>);

struct MemoryUse {
    connection: Weak<Connection>,
    source: Source,
    received: usize,
    queued: usize,
}

impl MemoryUse {
    fn bytes(&self) -> usize {
        self.received + self.queued
    }
}

impl FrameMemory {
    /// Sets what a connection holds of a frame that it sends; 0 if no more than any connection can.
    pub(crate) fn set_received(&mut self, connection: &Arc<Connection>, bytes: usize) {
        self.note(connection, |holding| holding.received = bytes);
    }

    /// Sets what the queue of a connection holds; 0 if no more than its limit.
    pub(crate) fn set_queued(&mut self, connection: &Arc<Connection>, bytes: usize) {
        self.note(connection, |holding| holding.queued = bytes);
    }

    fn note(&mut self, connection: &Arc<Connection>, change: impl FnOnce(&mut MemoryUse)) {
        let address = Arc::as_ptr(connection).addr();
        let new = || MemoryUse {
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

    /// Removes and returns the connection that must free memory for `asking`, and its bytes. `None` if
    /// `asking` itself holds the most.
    pub(crate) fn take_largest_user(&mut self, asking: &Arc<Connection>) -> Option<(Arc<Connection>, usize)> {
        let mut sums: HashMap<Source, usize> = HashMap::new();
        for holding in self.0.values() {
            *sums.entry(holding.source).or_default() += holding.bytes();
        }
        let rank =
            |holding: &MemoryUse| (sums.get(&holding.source).copied(), holding.source, holding.bytes());
        let (address, _) = self.0.iter().max_by_key(|(_, holding)| rank(holding))?;
        let address = *address;
        if address == Arc::as_ptr(asking).addr() {
            return None;
        }
        let largest = self.0.remove(&address)?;
        Some((largest.connection.upgrade()?, largest.bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{settings::StreamSettings, testing::Pair};

    const ONE: Source = Source::User(1);
    const TWO: Source = Source::User(2);

    #[test]
    fn the_largest_of_the_greediest_source_makes_room() {
        let pairs: Vec<_> =
            [TWO, ONE, ONE, TWO].map(|source| Pair::of(source, StreamSettings::default())).into();
        let [asking, small, large, other] = [0, 1, 2, 3].map(|at: usize| &pairs[at].connection);
        let mut frame_memory = FrameMemory::default();
        let take = |frame_memory: &mut FrameMemory| frame_memory.take_largest_user(asking);
        assert!(take(&mut frame_memory).is_none());
        frame_memory.set_received(asking, 900);
        assert!(take(&mut frame_memory).is_none(), "nobody else");
        frame_memory.set_received(small, 400);
        frame_memory.set_received(large, 100);
        frame_memory.set_queued(large, 600);
        frame_memory.set_received(large, 200);
        frame_memory.set_received(other, 50);
        let taken = take(&mut frame_memory).map(|(taken, bytes)| (Arc::ptr_eq(&taken, large), bytes));
        assert_eq!(taken, Some((true, 800)), "the source holds more, though no connection of it does");
        assert!(take(&mut frame_memory).is_none(), "it holds the most now");
        frame_memory.set_received(asking, 0);
        let taken = take(&mut frame_memory).map(|(taken, bytes)| (Arc::ptr_eq(&taken, small), bytes));
        assert_eq!(taken, Some((true, 400)));
    }
}
