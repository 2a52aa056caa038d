//! A limited number of places that sources share fairly. When all are taken, a new connection still gets one: the source
//! that holds the most loses its oldest. Owns who is evicted; the owner of a place says what that means.
//!
//! An eviction costs the logarithm of the number of places, so that a flood of connections costs little more than
//! accepting them.

use parking_lot::Mutex;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::Source;

/// A connection that has said something is not evicted during this time as long as there is one that has said nothing.
const GRACE: Duration = Duration::from_millis(250);

/// A place is taken away so soon only while connections come faster than this allows.
pub(crate) const LEAST_TIME: Duration = Duration::from_millis(25);

type Evict = Box<dyn FnOnce() + Send>;

/// A limited number of places.
pub struct Places(Arc<Shared>);

struct Shared {
    limit: usize,
    /// Taken last; no eviction is carried out while it is held.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of the next place: places are numbered in the order in which they were taken.
    next: u64,
    taken: HashMap<u64, Taken>,
    sources: HashMap<Source, Held>,
    /// The sources by how many places they hold, then by the age of their oldest one.
    crowd: BTreeSet<(usize, Reverse<u64>, Source)>,
}

struct Taken {
    source: Source,
    since: Instant,
    evict: Option<Evict>,
}

/// The places of one source.
#[derive(Default)]
struct Held {
    silent: BTreeSet<u64>,
    spoken: BTreeSet<u64>,
}

/// A place, given back when it is dropped.
pub struct Place {
    shared: Arc<Shared>,
    number: u64,
}

impl Places {
    /// `limit` places.
    pub fn new(limit: usize) -> Self {
        Places(Arc::new(Shared { limit, state: Mutex::default() }))
    }

    /// How many there are.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.0.state.lock().taken.len()
    }

    /// Takes a place for a connection of `source`, from another connection if all are taken.
    pub fn take(&self, source: Source) -> Place {
        self.take_at(source, Instant::now())
    }

    fn take_at(&self, source: Source, now: Instant) -> Place {
        let mut state = self.0.state.lock();
        let evict = if state.taken.len() >= self.0.limit { state.evict(source, now) } else { None };
        let number = state.next;
        state.next += 1;
        state.taken.insert(number, Taken { source, since: now, evict: None });
        state.change(source, |held| _ = held.silent.insert(number));
        drop(state);
        if let Some(evict) = evict {
            evict();
        }
        Place { shared: self.0.clone(), number }
    }

    /// Whether the next one would take a place away from a connection that has had it for less than [`LEAST_TIME`].
    pub(crate) fn are_pressed(&self) -> bool {
        let state = self.0.state.lock();
        if state.taken.len() < self.0.limit {
            return false;
        }
        let now = Instant::now();
        state.loser(Source::Unknown, now).is_some_and(|number| !state.has_had(LEAST_TIME, number, now))
    }

    /// Evicts a connection although places may be free, unless all are new. Returns whether it did.
    pub(crate) fn evict_one(&self) -> bool {
        let (mut state, now) = (self.0.state.lock(), Instant::now());
        let had_time = |number: &u64| state.has_had(GRACE, *number, now);
        let Some(number) = state.loser(Source::Unknown, now).filter(had_time) else {
            return false;
        };
        let evict = state.remove(number).and_then(|taken| taken.evict);
        drop(state);
        if let Some(evict) = evict {
            evict();
        }
        true
    }
}

impl Place {
    /// The connection has said something useful.
    pub fn spoken(&self) {
        let mut state = self.shared.state.lock();
        let Some(source) = state.taken.get(&self.number).map(|taken| taken.source) else { return };
        state.change(source, |held| {
            if held.silent.remove(&self.number) {
                held.spoken.insert(self.number);
            }
        });
    }

    /// What to do when the place is needed for another connection; done at once if that was so already. Replaces what
    /// was to be done before.
    pub fn on_eviction(&self, evict: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state.lock();
        let replaced = match state.taken.get_mut(&self.number) {
            Some(taken) => taken.evict.replace(Box::new(evict)),
            None => {
                drop(state);
                return evict();
            }
        };
        drop(state);
        drop(replaced);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = self.shared.state.lock().remove(self.number);
        drop(taken); // not under the lock
    }
}

impl State {
    /// Changes what a source holds.
    fn change(&mut self, source: Source, change: impl FnOnce(&mut Held)) {
        let held = self.sources.entry(source).or_default();
        if let Some(rank) = held.rank(source) {
            self.crowd.remove(&rank);
        }
        change(held);
        match held.rank(source) {
            Some(rank) => _ = self.crowd.insert(rank),
            None => _ = self.sources.remove(&source),
        }
    }

    fn remove(&mut self, number: u64) -> Option<Taken> {
        let taken = self.taken.remove(&number)?;
        self.change(taken.source, |held| _ = held.silent.remove(&number) || held.spoken.remove(&number));
        Some(taken)
    }

    fn evict(&mut self, source: Source, now: Instant) -> Option<Evict> {
        self.remove(self.loser(source, now)?)?.evict
    }

    /// The place to lose: of the source that holds the most, counting the one that `source` is about to take.
    fn loser(&self, source: Source, now: Instant) -> Option<u64> {
        let own = self.sources.get(&source).and_then(|held| held.rank(source));
        let (most, _, greediest) = self.crowd.last().copied()?;
        // with the new place the source itself may hold the most
        let loser = match own {
            Some((count, ..)) if count + 1 > most => source,
            _ => greediest,
        };
        self.sources.get(&loser)?.victim(|number| self.has_had(GRACE, number, now))
    }

    fn has_had(&self, time: Duration, number: u64, now: Instant) -> bool {
        self.taken.get(&number).is_some_and(|taken| now.saturating_duration_since(taken.since) >= time)
    }
}

impl Held {
    fn rank(&self, source: Source) -> Option<(usize, Reverse<u64>, Source)> {
        let oldest = match (self.silent.first(), self.spoken.first()) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other)?,
        };
        Some((self.silent.len() + self.spoken.len(), Reverse(*oldest), source))
    }

    /// The place to lose: the oldest silent one, unless it is new and one that has spoken is not.
    fn victim(&self, has_had_time: impl Fn(u64) -> bool) -> Option<u64> {
        match (self.silent.first().copied(), self.spoken.first().copied()) {
            (Some(silent), Some(spoken)) if !has_had_time(silent) && has_had_time(spoken) => Some(spoken),
            (silent, spoken) => silent.or(spoken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const ONE: Source = Source::User(1);
    const TWO: Source = Source::User(2);

    struct Table {
        places: Places,
        now: Instant,
        held: HashMap<u32, Place>,
        evicted: (Sender<u32>, Receiver<u32>),
    }

    impl Table {
        fn new(limit: usize) -> Self {
            Table {
                places: Places::new(limit),
                now: Instant::now(),
                held: HashMap::new(),
                evicted: channel(),
            }
        }

        /// A millisecond later, connection `number` of `source`; returns who had to go.
        fn take(&mut self, source: Source, number: u32) -> Option<u32> {
            self.now += Duration::from_millis(1);
            let place = self.places.take_at(source, self.now);
            let told = self.evicted.0.clone();
            place.on_eviction(move || told.send(number).unwrap());
            self.held.insert(number, place);
            let gone = self.evicted.1.try_recv().ok();
            gone.iter().for_each(|gone| drop(self.held.remove(gone)));
            gone
        }
    }

    #[test]
    fn a_new_connection_always_gets_a_place_and_the_oldest_goes() {
        let mut table = Table::new(3);
        let gone: Vec<_> = (0..6).map(|number| table.take(ONE, number)).collect();
        assert_eq!(gone, [None, None, None, Some(0), Some(1), Some(2)]);
        assert_eq!(table.places.taken(), 3);
        table.held.clear();
        assert_eq!(table.places.taken(), 0);
        let state = table.places.0.state.lock();
        assert!(state.sources.is_empty() && state.crowd.is_empty());
    }

    #[test]
    fn the_source_that_holds_the_most_makes_room() {
        let mut table = Table::new(10);
        assert_eq!(table.take(TWO, 0), None);
        for number in 1..1000 {
            assert!(table.take(ONE, number).is_none_or(|gone| gone > 0), "its own oldest goes");
        }
        for number in 1000..1004 {
            assert!(table.take(TWO, number).is_some_and(|gone| gone < 1000), "up to the half");
        }
        assert_eq!(table.take(TWO, 1004), Some(0), "then its own");
        // many sources of one place each: the oldest of all
        let mut table = Table::new(10);
        for number in 0..30 {
            let gone = table.take(Source::User(1000 - number), number);
            assert_eq!(gone, number.checked_sub(10));
        }
    }

    #[test]
    fn the_silent_go_before_those_that_have_spoken_unless_these_take_long() {
        let mut table = Table::new(3);
        (0..3).for_each(|number| _ = table.take(ONE, number));
        table.held[&0].spoken();
        assert_eq!(table.take(ONE, 3), Some(1));
        assert_eq!(table.take(ONE, 4), Some(2));
        table.now += GRACE;
        // 0 has had its time; 5 is silent and new
        assert_eq!((table.take(ONE, 5), table.take(ONE, 6)), (Some(3), Some(4)));
        assert_eq!((table.take(ONE, 7), table.take(ONE, 8)), (Some(0), Some(5)));
    }

    #[test]
    fn an_eviction_before_anybody_listens_is_told_later() {
        let places = Places::new(1);
        let first = places.take(ONE);
        let second = places.take(TWO);
        let (told, evicted) = channel();
        first.spoken();
        first.on_eviction(move || told.send(()).unwrap());
        assert_eq!(evicted.try_recv(), Ok(()));
        drop(first);
        assert_eq!(places.taken(), 1);
        drop(second);
        assert!(!places.evict_one());
    }
}
