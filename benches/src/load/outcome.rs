//! What a run came to, whichever scenario it was.

use serde_json::Value;
use std::fmt;

mod idle_clients;
mod traffic;

pub use idle_clients::Crowd;
pub use traffic::{Latency, Traffic};

/// The figures of a run in which nothing was lost.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Of messages.
    Traffic(Traffic),
    /// Of idle clients.
    Crowd(Crowd),
}

impl Outcome {
    /// The figures of messages, if it was about these.
    pub fn traffic(&self) -> Option<&Traffic> {
        match self {
            Outcome::Traffic(traffic) => Some(traffic),
            Outcome::Crowd(_) => None,
        }
    }

    /// The figures of idle clients, if it was about these.
    pub fn crowd(&self) -> Option<&Crowd> {
        match self {
            Outcome::Traffic(_) => None,
            Outcome::Crowd(crowd) => Some(crowd),
        }
    }

    /// The most memory the broker ever had, in bytes.
    pub fn broker_peak_memory(&self) -> Option<u64> {
        match self {
            Outcome::Traffic(traffic) => traffic.broker_peak_memory,
            Outcome::Crowd(crowd) => crowd.broker_peak_memory,
        }
    }

    /// How much more memory the broker holds some time after the end than before the beginning, in bytes.
    pub fn broker_memory_after(&self) -> Option<i64> {
        match self {
            Outcome::Traffic(traffic) => traffic.broker_memory_after,
            Outcome::Crowd(crowd) => crowd.broker_memory_after,
        }
    }

    /// All figures, by name.
    pub fn to_json(&self) -> Value {
        match self {
            Outcome::Traffic(traffic) => traffic.to_json(),
            Outcome::Crowd(crowd) => crowd.to_json(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Traffic(traffic) => traffic.fmt(f),
            Outcome::Crowd(crowd) => crowd.fmt(f),
        }
    }
}
