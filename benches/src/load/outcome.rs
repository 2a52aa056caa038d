//! The outcome of a run of any scenario.

mod idle_clients;
mod traffic;

pub use idle_clients::IdleClients;
pub use traffic::Traffic;

use serde_json::Value;
use std::fmt;

/// The figures of a run in which nothing was lost.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Messages or round trips.
    Traffic(Traffic),
    /// Idle clients.
    IdleClients(IdleClients),
}

impl Outcome {
    /// The figures of messages, if the scenario sends any.
    pub fn traffic(&self) -> Option<&Traffic> {
        match self {
            Outcome::Traffic(traffic) => Some(traffic),
            Outcome::IdleClients(_) => None,
        }
    }

    /// The figures of idle clients, if the scenario has any.
    pub fn idle_clients(&self) -> Option<&IdleClients> {
        match self {
            Outcome::Traffic(_) => None,
            Outcome::IdleClients(clients) => Some(clients),
        }
    }

    /// The broker's peak memory since it was started, in bytes.
    pub fn broker_peak_memory(&self) -> Option<u64> {
        match self {
            Outcome::Traffic(traffic) => traffic.broker_peak_memory,
            Outcome::IdleClients(clients) => clients.broker_peak_memory,
        }
    }

    /// The growth of the broker's memory from before the run until some time after it, in bytes.
    pub fn broker_memory_after(&self) -> Option<i64> {
        match self {
            Outcome::Traffic(traffic) => traffic.broker_memory_after,
            Outcome::IdleClients(clients) => clients.broker_memory_after,
        }
    }

    /// All figures as a JSON object.
    pub fn to_json(&self) -> Value {
        match self {
            Outcome::Traffic(traffic) => traffic.to_json(),
            Outcome::IdleClients(clients) => clients.to_json(),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Traffic(traffic) => traffic.fmt(f),
            Outcome::IdleClients(clients) => clients.fmt(f),
        }
    }
}
