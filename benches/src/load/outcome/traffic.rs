//! The figures of messages or round trips, as text and as JSON. Owns the keys of the figures.

use serde_json::{Value, json};
use std::{fmt, time::Duration};

use crate::{
    load::{Latency, Plan, Scenario, latency::LatencyHistogram, memory_growth},
    process::Usage,
};

/// The figures of a run in which nothing was lost and everything was in order.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Messages that arrived, counted at each receiver; round trips, if the scenario makes requests.
    pub messages: u64,
    /// The time they took.
    pub elapsed: Duration,
    /// The bytes of their payloads.
    pub payload_bytes: u64,
    /// How long single messages took.
    pub latency: Latency,
    /// The broker's CPU time.
    pub broker_cpu: Option<Duration>,
    /// The broker's peak memory since it was started, in bytes.
    pub broker_peak_memory: Option<u64>,
    /// The growth of the broker's memory from before the run until some time after it, in bytes, if the plan
    /// asks for it.
    pub broker_memory_after: Option<i64>,
    /// The generator's CPU time.
    pub generator_cpu: Option<Duration>,
    round_trips: bool,
}

impl Traffic {
    pub(crate) fn new(plan: &Plan, messages: u64, usage: &Usage, latency: &LatencyHistogram) -> Self {
        Traffic {
            messages,
            elapsed: usage.elapsed,
            payload_bytes: messages * plan.bytes as u64,
            latency: latency.summary(),
            broker_cpu: usage.broker_cpu,
            broker_peak_memory: usage.broker_peak_memory,
            broker_memory_after: None,
            generator_cpu: usage.generator_cpu,
            round_trips: matches!(plan.scenario, Scenario::Echo | Scenario::Call),
        }
    }

    /// Messages that arrived per second.
    pub fn messages_per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }

    /// Payload bytes that arrived per second.
    pub fn bytes_per_second(&self) -> f64 {
        self.payload_bytes as f64 / self.elapsed.as_secs_f64()
    }

    /// The broker's CPU time per message, in nanoseconds.
    pub fn broker_nanos(&self) -> Option<f64> {
        self.per_message(self.broker_cpu)
    }

    fn per_message(&self, cpu: Option<Duration>) -> Option<f64> {
        cpu.map(|cpu| cpu.as_nanos() as f64 / self.messages.max(1) as f64)
    }

    /// All figures as a JSON object.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "messages": self.messages,
            "seconds": self.elapsed.as_secs_f64(),
            "messages_per_second": self.messages_per_second(),
            "bytes_per_second": self.bytes_per_second(),
            "latency_ns": self.latency.to_json(),
            "broker_cpu_ns_per_message": self.broker_nanos(),
            "broker_peak_memory_bytes": self.broker_peak_memory,
            "broker_memory_after_bytes": self.broker_memory_after,
            "generator_cpu_ns_per_message": self.per_message(self.generator_cpu),
        })
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, units) =
            if self.round_trips { ("round trip", "round trips") } else { ("message", "messages") };
        writeln!(
            f,
            "{:.0} {units}/s, {:.1} MB/s; {} {units} in {:.2} s, none lost, all in order",
            self.messages_per_second(),
            self.bytes_per_second() / 1e6,
            self.messages,
            self.elapsed.as_secs_f64()
        )?;
        write!(f, "{}", self.latency)?;
        if let Some(nanos) = self.broker_nanos() {
            write!(f, "\nbroker: {nanos:.1} ns of CPU per {unit}")?;
            if let Some(bytes) = self.broker_peak_memory {
                write!(f, ", peak memory {:.1} MiB", bytes as f64 / f64::from(1 << 20))?;
            }
        }
        if let Some(bytes) = self.broker_memory_after {
            write!(f, "\n{}", memory_growth::describe(bytes))?;
        }
        if let Some(nanos) = self.per_message(self.generator_cpu) {
            write!(f, "\ngenerator: {nanos:.1} ns of CPU per {unit}")?;
        }
        Ok(())
    }
}
