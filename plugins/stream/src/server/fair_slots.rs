//! A limited number of slots, shared fairly by sources. If all are in use, a new connection still gets one:
//! the source with the most slots loses its oldest. Owns the choice; the owner of a slot defines what
//! eviction does. An eviction costs the logarithm of the number of slots, so a connection flood costs little
//! more than accepting.

use parking_lot::Mutex;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::server::source::Source;

/// An active connection is not evicted during this time while there is a silent one.
const GRACE: Duration = Duration::from_millis(250);

/// A slot is lost earlier only while connections come faster than this allows.
pub(crate) const MIN_TENURE: Duration = Duration::from_millis(25);

type Evict = Box<dyn FnOnce() + Send>;

/// A limited number of slots.
pub struct FairSlots(Arc<Shared>);

struct Shared {
    limit: usize,
    /// Taken last; no eviction is carried out while it is held.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Number of the next slot, in the order of acquisition.
    next: u64,
    taken: HashMap<u64, Occupant>,
    sources: HashMap<Source, SourceSlots>,
    /// Sources by number of slots, then by the age of their oldest.
    by_count: BTreeSet<(usize, Reverse<u64>, Source)>,
}

struct Occupant {
    source: Source,
    since: Instant,
    evict: Option<Evict>,
}

/// The slots of one source.
#[derive(Default)]
struct SourceSlots {
    silent: BTreeSet<u64>,
    active: BTreeSet<u64>,
}

/// A slot, returned when it is dropped.
pub struct Slot {
    shared: Arc<Shared>,
    number: u64,
}

impl FairSlots {
    /// Creates `limit` slots.
    pub fn new(limit: usize) -> Self {
        FairSlots(Arc::new(Shared { limit, state: Mutex::default() }))
    }

    /// Returns the number of slots.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Returns the number of slots in use.
    pub(crate) fn in_use(&self) -> usize {
        self.0.state.lock().taken.len()
    }

    /// Acquires a slot for a connection of `source`, evicting another connection if all are in use.
    pub fn take(&self, source: Source) -> Slot {
        self.take_at(source, Instant::now())
    }

    fn take_at(&self, source: Source, now: Instant) -> Slot {
        let mut state = self.0.state.lock();
        let evict = if state.taken.len() >= self.0.limit { state.evict(source, now) } else { None };
        let number = state.next;
        state.next += 1;
        state.taken.insert(number, Occupant { source, since: now, evict: None });
        state.change(source, |held| _ = held.silent.insert(number));
        drop(state);
        if let Some(evict) = evict {
            evict();
        }
        Slot { shared: self.0.clone(), number }
    }

    /// Returns whether the next acquisition would evict a connection that has had its slot for less than
    /// [`MIN_TENURE`].
    pub(crate) fn is_contended(&self) -> bool {
        let state = self.0.state.lock();
        if state.taken.len() < self.0.limit {
            return false;
        }
        let now = Instant::now();
        state
            .victim_for(Source::Unknown, now)
            .is_some_and(|number| !state.is_held_for(MIN_TENURE, number, now))
    }

    /// Evicts a connection although slots may be free, unless all are new. Returns whether it did.
    pub(crate) fn evict_one(&self) -> bool {
        let (mut state, now) = (self.0.state.lock(), Instant::now());
        let is_old_enough = |number: &u64| state.is_held_for(GRACE, *number, now);
        let Some(number) = state.victim_for(Source::Unknown, now).filter(is_old_enough) else {
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

impl Slot {
    /// Marks that the connection has sent something useful.
    pub fn mark_active(&self) {
        let mut state = self.shared.state.lock();
        let Some(source) = state.taken.get(&self.number).map(|taken| taken.source) else { return };
        state.change(source, |held| {
            if held.silent.remove(&self.number) {
                held.active.insert(self.number);
            }
        });
    }

    /// Counts the slot as one of another source. Nothing is evicted.
    pub(crate) fn move_to(&self, source: Source) {
        let mut state = self.shared.state.lock();
        let number = self.number;
        let Some(taken) = state.taken.get_mut(&number) else { return };
        let previous = std::mem::replace(&mut taken.source, source);
        let mut is_active = false;
        state.change(previous, |held| {
            is_active = held.active.remove(&number);
            held.silent.remove(&number);
        });
        state.change(source, |held| {
            let slots = if is_active { &mut held.active } else { &mut held.silent };
            slots.insert(number);
        });
    }

    /// Sets what to do on eviction, replacing the previous action; done immediately if the slot was lost
    /// already.
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

impl Drop for Slot {
    fn drop(&mut self) {
        let taken = self.shared.state.lock().remove(self.number);
        drop(taken); // not under the lock
    }
}

impl State {
    /// Changes what a source holds.
    fn change(&mut self, source: Source, change: impl FnOnce(&mut SourceSlots)) {
        let held = self.sources.entry(source).or_default();
        if let Some(rank) = held.rank(source) {
            self.by_count.remove(&rank);
        }
        change(held);
        match held.rank(source) {
            Some(rank) => _ = self.by_count.insert(rank),
            None => _ = self.sources.remove(&source),
        }
    }

    fn remove(&mut self, number: u64) -> Option<Occupant> {
        let taken = self.taken.remove(&number)?;
        self.change(taken.source, |held| _ = held.silent.remove(&number) || held.active.remove(&number));
        Some(taken)
    }

    fn evict(&mut self, source: Source, now: Instant) -> Option<Evict> {
        self.remove(self.victim_for(source, now)?)?.evict
    }

    /// Returns the slot to evict, of the source with the most slots, counting the one that `source` is about
    /// to acquire.
    fn victim_for(&self, source: Source, now: Instant) -> Option<u64> {
        let own = self.sources.get(&source).and_then(|held| held.rank(source));
        let (most, _, largest) = self.by_count.last().copied()?;
        // with the new slot the source itself may have the most
        let victim_for = match own {
            Some((count, ..)) if count + 1 > most => source,
            _ => largest,
        };
        self.sources.get(&victim_for)?.victim(|number| self.is_held_for(GRACE, number, now))
    }

    fn is_held_for(&self, time: Duration, number: u64, now: Instant) -> bool {
        self.taken.get(&number).is_some_and(|taken| now.saturating_duration_since(taken.since) >= time)
    }
}

impl SourceSlots {
    fn rank(&self, source: Source) -> Option<(usize, Reverse<u64>, Source)> {
        let oldest = match (self.silent.first(), self.active.first()) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other)?,
        };
        Some((self.silent.len() + self.active.len(), Reverse(*oldest), source))
    }

    /// Returns the slot to evict: the oldest silent one, unless it is new and the oldest active one is not.
    fn victim(&self, is_old_enough: impl Fn(u64) -> bool) -> Option<u64> {
        match (self.silent.first().copied(), self.active.first().copied()) {
            (Some(silent), Some(active)) if !is_old_enough(silent) && is_old_enough(active) => Some(active),
            (silent, active) => silent.or(active),
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
        slots: FairSlots,
        now: Instant,
        held: HashMap<u32, Slot>,
        evicted: (Sender<u32>, Receiver<u32>),
    }

    impl Table {
        fn new(limit: usize) -> Self {
            Table {
                slots: FairSlots::new(limit),
                now: Instant::now(),
                held: HashMap::new(),
                evicted: channel(),
            }
        }

        /// A millisecond later, connection `number` of `source`; returns who had to go.
        fn take(&mut self, source: Source, number: u32) -> Option<u32> {
            self.now += Duration::from_millis(1);
            let slot = self.slots.take_at(source, self.now);
            let sender = self.evicted.0.clone();
            slot.on_eviction(move || sender.send(number).unwrap());
            self.held.insert(number, slot);
            let evicted_now = self.evicted.1.try_recv().ok();
            evicted_now.iter().for_each(|evicted_now| drop(self.held.remove(evicted_now)));
            evicted_now
        }
    }

    #[test]
    fn a_new_connection_always_gets_a_slot_and_the_oldest_is_evicted() {
        let mut table = Table::new(3);
        let evicted_now: Vec<_> = (0..6).map(|number| table.take(ONE, number)).collect();
        assert_eq!(evicted_now, [None, None, None, Some(0), Some(1), Some(2)]);
        assert_eq!(table.slots.in_use(), 3);
        table.held.clear();
        assert_eq!(table.slots.in_use(), 0);
        let state = table.slots.0.state.lock();
        assert!(state.sources.is_empty() && state.by_count.is_empty());
    }

    #[test]
    fn the_source_with_the_most_slots_is_evicted_from() {
        let mut table = Table::new(10);
        assert_eq!(table.take(TWO, 0), None);
        for number in 1..1000 {
            assert!(table.take(ONE, number).is_none_or(|evicted_now| evicted_now > 0), "its own oldest goes");
        }
        for number in 1000..1004 {
            assert!(table.take(TWO, number).is_some_and(|evicted_now| evicted_now < 1000), "up to the half");
        }
        assert_eq!(table.take(TWO, 1004), Some(0), "then its own");
        // many sources of one place each: the oldest of all
        let mut table = Table::new(10);
        for number in 0..30 {
            let evicted_now = table.take(Source::User(1000 - number), number);
            assert_eq!(evicted_now, number.checked_sub(10));
        }
    }

    #[test]
    fn a_slot_that_moves_counts_for_its_new_source() {
        let mut table = Table::new(4);
        (0..4).for_each(|number| assert_eq!(table.take(ONE, number), None));
        // all came through one proxy, and two are of another source
        table.held[&0].mark_active();
        table.held[&0].move_to(TWO);
        table.held[&1].move_to(TWO);
        assert_eq!(table.take(ONE, 4), Some(2), "the source with the most");
        assert_eq!(table.take(TWO, 5), Some(1), "silent ones first");
        table.held.clear();
        let state = table.slots.0.state.lock();
        assert!(state.sources.is_empty() && state.by_count.is_empty());
    }

    #[test]
    fn silent_connections_are_evicted_before_active_ones_unless_these_take_long() {
        let mut table = Table::new(3);
        (0..3).for_each(|number| _ = table.take(ONE, number));
        table.held[&0].mark_active();
        assert_eq!(table.take(ONE, 3), Some(1));
        assert_eq!(table.take(ONE, 4), Some(2));
        table.now += GRACE;
        // 0 has had its time; 5 is silent and new
        assert_eq!((table.take(ONE, 5), table.take(ONE, 6)), (Some(3), Some(4)));
        assert_eq!((table.take(ONE, 7), table.take(ONE, 8)), (Some(0), Some(5)));
    }

    #[test]
    fn an_eviction_before_an_action_is_set_is_carried_out_then() {
        let slots = FairSlots::new(1);
        let first = slots.take(ONE);
        let second = slots.take(TWO);
        let (sender, evicted) = channel();
        first.mark_active();
        first.on_eviction(move || sender.send(()).unwrap());
        assert_eq!(evicted.try_recv(), Ok(()));
        drop(first);
        assert_eq!(slots.in_use(), 1);
        drop(second);
        assert!(!slots.evict_one());
    }
}
