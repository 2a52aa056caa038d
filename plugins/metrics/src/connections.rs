//! The open HTTP connections: their number is limited, and a new one takes the place of the oldest one that
//! is not being served. Owns the places and the counters, not the connections.

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::Notify;

use crate::{
    exposition::Samples,
    families::{HTTP_CONNECTIONS, HTTP_REQUESTS},
};

/// What a connection is doing. Those that send their request are evicted first, then those that read their
/// answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    Request = 0,
    Answer = 1,
    /// Its figures are collected.
    Served = 2,
}

/// How a connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Served,
    /// The time limit was exceeded.
    Late,
    /// Another connection has taken its place.
    Evicted,
    /// All places were being served.
    Refused,
    /// The request was wrong, or the client has left.
    Failed,
}

const OUTCOMES: [(Outcome, &str); 5] = [
    (Outcome::Served, "served"),
    (Outcome::Late, "late"),
    (Outcome::Evicted, "evicted"),
    (Outcome::Refused, "refused"),
    (Outcome::Failed, "failed"),
];

/// What is counted of HTTP.
#[derive(Default)]
pub(crate) struct HttpCounts {
    outcomes: [AtomicU64; OUTCOMES.len()],
    /// By status code; the server has a handful of them.
    answers: Mutex<BTreeMap<u16, u64>>,
}

impl HttpCounts {
    /// Counts a connection that has ended.
    pub(crate) fn ended(&self, outcome: Outcome) {
        let counters = OUTCOMES.iter().zip(&self.outcomes);
        if let Some((_, count)) = counters.into_iter().find(|((other, _), _)| *other == outcome) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, code: u16) {
        *self.answers.lock().entry(code).or_default() += 1;
    }

    /// Adds the figures.
    pub(crate) fn sample(&self, samples: &mut Samples) {
        for ((_, outcome), count) in OUTCOMES.iter().zip(&self.outcomes) {
            samples.count(&HTTP_CONNECTIONS, &[outcome], count.load(Relaxed));
        }
        for (code, count) in &*self.answers.lock() {
            samples.count(&HTTP_REQUESTS, &[&code.to_string()], *count);
        }
    }
}

/// The place of an open connection.
#[derive(Debug)]
pub(crate) struct Place {
    phase: AtomicU8,
    evicted: Notify,
}

impl Place {
    /// Records what the connection is doing.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Returns what it is doing.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Request,
            1 => Phase::Answer,
            _ => Phase::Served,
        }
    }

    /// Returns once the connection must end.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

/// The places of an instance.
pub(crate) struct Places {
    limit: usize,
    /// The oldest first. A leaf lock.
    open: Mutex<VecDeque<Arc<Place>>>,
}

/// A place that is free again when this is dropped.
pub(crate) struct TakenPlace {
    places: Arc<Places>,
    pub(crate) place: Arc<Place>,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Places { limit, open: Mutex::default() })
    }

    /// Takes a place for a new connection, that of another one if there is no free one. `None` if all are
    /// being served.
    pub(crate) fn take(self: &Arc<Self>) -> Option<TakenPlace> {
        let mut open = self.open.lock();
        if open.len() >= self.limit {
            let phases = open.iter().map(|place| place.phase()).enumerate();
            let (oldest, _) = phases
                .filter(|(_, phase)| *phase < Phase::Served)
                .min_by_key(|(position, phase)| (*phase, *position))?;
            if let Some(evicted) = open.remove(oldest) {
                evicted.evicted.notify_one();
            }
        }
        let place = Arc::new(Place { phase: AtomicU8::new(Phase::Request as u8), evicted: Notify::new() });
        open.push_back(place.clone());
        Some(TakenPlace { places: self.clone(), place })
    }

    /// Returns the number of open connections.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().len()
    }
}

impl Drop for TakenPlace {
    fn drop(&mut self) {
        self.places.open.lock().retain(|place| !Arc::ptr_eq(place, &self.place));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    fn is_evicted(taken: &TakenPlace) -> bool {
        pin!(taken.place.evicted()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_oldest_that_is_not_served_makes_room() {
        let places = Places::new(3);
        let taken: Vec<_> = (0..3).map(|_| places.take().unwrap()).collect();
        taken[0].place.set_phase(Phase::Answer);
        taken[1].place.set_phase(Phase::Served);
        let fourth = places.take().unwrap();
        assert!(is_evicted(&taken[2]) && !is_evicted(&taken[0]) && places.count() == 3);
        fourth.place.set_phase(Phase::Served);
        let fifth = places.take().unwrap();
        assert!(is_evicted(&taken[0]));
        fifth.place.set_phase(Phase::Served);
        assert!(places.take().is_none() && !is_evicted(&taken[1]));
        drop(taken);
        assert_eq!(places.count(), 2);
        assert!(places.take().is_some());
    }
}
