//! The simulated engine: delays, loses, repeats and reorders what nodes publish, and can be partitioned.

use bytes::Bytes;
use elbus_bridge::Destination;
use fastrand::Rng;
use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// A batch on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Duration,
    number: u64,
    to: usize,
    /// Start of the destination for which the batch was accepted.
    start: u64,
    is_to_all: bool,
    bytes: Bytes,
}

/// The engine that all nodes use.
#[derive(Debug)]
pub(crate) struct Engine {
    flights: BinaryHeap<Reverse<Flight>>,
    number: u64,
    /// When the last batch from one node to another arrives.
    last: [[Duration; 3]; 3],
    /// Whether batches from one node to another arrive.
    pub(crate) is_cut: [[bool; 3]; 3],
    pub(crate) loss: f64,
    pub(crate) repetition: f64,
    pub(crate) reordering: f64,
    /// The longest delay, in milliseconds.
    pub(crate) delay: u64,
}

impl Engine {
    pub(crate) fn new() -> Self {
        Engine {
            flights: BinaryHeap::new(),
            number: 0,
            last: [[Duration::ZERO; 3]; 3],
            is_cut: [[false; 3]; 3],
            loss: 0.0,
            repetition: 0.0,
            reordering: 0.0,
            delay: 2,
        }
    }

    /// Works without faults from now on.
    pub(crate) fn heal(&mut self) {
        self.is_cut = [[false; 3]; 3];
        (self.loss, self.repetition, self.reordering, self.delay) = (0.0, 0.0, 0.0, 2);
    }

    /// Publishes to one node, which is in its start number `start`.
    pub(crate) fn publish(
        &mut self,
        (from, to): (usize, usize),
        start: u64,
        destination: &Destination,
        bytes: &Bytes,
        now: Duration,
        random: &mut Rng,
    ) {
        if self.is_cut[from][to] || random.f64() < self.loss {
            return;
        }
        let copies = 1 + usize::from(random.f64() < self.repetition);
        for _ in 0..copies {
            let mut at = now + Duration::from_millis(random.u64(0..=self.delay));
            if random.f64() >= self.reordering {
                at = at.max(self.last[from][to]);
                self.last[from][to] = at;
            }
            self.number += 1;
            self.flights.push(Reverse(Flight {
                at,
                number: self.number,
                to,
                start,
                is_to_all: *destination == Destination::All,
                bytes: bytes.clone(),
            }));
        }
    }

    /// Returns the next batch that has arrived: its destination, the start of it, its subject and itself.
    pub(crate) fn next(&mut self, now: Duration) -> Option<(usize, u64, Destination, Bytes)> {
        if self.flights.peek()?.0.at > now {
            return None;
        }
        let Reverse(flight) = self.flights.pop()?;
        let subject = if flight.is_to_all { Destination::All } else { Destination::Node("x".into()) };
        Some((flight.to, flight.start, subject, flight.bytes))
    }

    /// Returns when the next batch arrives.
    pub(crate) fn next_arrival(&self) -> Option<Duration> {
        self.flights.peek().map(|flight| flight.0.at)
    }
}
