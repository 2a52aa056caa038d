//! What messages came to, as text and as JSON. Owns the names of the figures.

use serde_json::{Value, json};
use std::{fmt, time::Duration};

use crate::{
    histogram::Histogram,
    load::{Plan, Scenario, memory_growth},
    process::Used,
};

/// How long messages took, in nanoseconds. Of a stream: from before the write that held it until after the read that did; of
/// a request: until its reply.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// Half took less.
    pub p50: u64,
    /// One of a hundred took longer.
    pub p99: u64,
    /// One of a thousand took longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// How many were timed.
    pub samples: u64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram) -> Self {
        Latency {
            p50: histogram.at(0.5),
            p99: histogram.at(0.99),
            p999: histogram.at(0.999),
            max: histogram.max(),
            samples: histogram.samples(),
        }
    }
}

/// The figures of a run in which nothing was lost and all was in order.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Messages that arrived, counted at each receiver; of requests, round trips.
    pub messages: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Bytes of the payloads.
    pub payload_bytes: u64,
    /// How long messages took.
    pub latency: Latency,
    /// What the broker's processors did for it.
    pub broker_cpu: Option<Duration>,
    /// The most memory the broker ever had, in bytes.
    pub broker_peak_memory: Option<u64>,
    /// How much more memory the broker holds some time after the end than before the beginning, in bytes, where that was
    /// asked for.
    pub broker_memory_after: Option<i64>,
    /// What the generator took of the same processors.
    pub own_cpu: Option<Duration>,
    requests: bool,
}

impl Traffic {
    pub(crate) fn new(plan: &Plan, messages: u64, used: &Used, latency: &Histogram) -> Self {
        Traffic {
            messages,
            elapsed: used.elapsed,
            payload_bytes: messages * plan.bytes as u64,
            latency: Latency::of(latency),
            broker_cpu: used.broker_cpu,
            broker_peak_memory: used.broker_peak_memory,
            broker_memory_after: None,
            own_cpu: used.own_cpu,
            requests: matches!(plan.scenario, Scenario::Echo | Scenario::Call),
        }
    }

    /// Messages that arrived in a second.
    pub fn messages_per_second(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }

    /// Bytes of payloads that arrived in a second.
    pub fn bytes_per_second(&self) -> f64 {
        self.payload_bytes as f64 / self.elapsed.as_secs_f64()
    }

    /// Nanoseconds of the broker for each message.
    pub fn broker_nanos(&self) -> Option<f64> {
        self.each(self.broker_cpu)
    }

    fn each(&self, cpu: Option<Duration>) -> Option<f64> {
        cpu.map(|cpu| cpu.as_nanos() as f64 / self.messages.max(1) as f64)
    }

    /// All figures, by name.
    pub fn to_json(&self) -> Value {
        json!({
            "messages": self.messages,
            "seconds": self.elapsed.as_secs_f64(),
            "messages_per_second": self.messages_per_second(),
            "bytes_per_second": self.bytes_per_second(),
            "latency_ns": {
                "p50": self.latency.p50,
                "p99": self.latency.p99,
                "p99.9": self.latency.p999,
                "max": self.latency.max,
                "samples": self.latency.samples,
            },
            "broker_cpu_ns_per_message": self.broker_nanos(),
            "broker_peak_memory_bytes": self.broker_peak_memory,
            "broker_memory_after_bytes": self.broker_memory_after,
            "generator_cpu_ns_per_message": self.each(self.own_cpu),
        })
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.requests { "round trips" } else { "messages" };
        let micros = |nanos: u64| nanos as f64 / 1e3;
        writeln!(
            f,
            "{:.0} {what}/s, {:.1} MB/s; {} {what} in {:.2} s, none lost, all in order",
            self.messages_per_second(),
            self.bytes_per_second() / 1e6,
            self.messages,
            self.elapsed.as_secs_f64()
        )?;
        let Latency { p50, p99, p999, max, samples } = self.latency;
        write!(
            f,
            "latency p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us, max {:.1} us, of {samples}",
            micros(p50),
            micros(p99),
            micros(p999),
            micros(max)
        )?;
        if let Some(nanos) = self.broker_nanos() {
            write!(f, "\nbroker: {nanos:.1} ns of CPU a message")?;
            if let Some(bytes) = self.broker_peak_memory {
                write!(f, ", peak memory {:.1} MiB", bytes as f64 / f64::from(1 << 20))?;
            }
        }
        if let Some(bytes) = self.broker_memory_after {
            write!(f, "\n{}", memory_growth::tell(bytes))?;
        }
        if let Some(nanos) = self.each(self.own_cpu) {
            write!(f, "\ngenerator: {nanos:.1} ns of CPU a message")?;
        }
        Ok(())
    }
}
