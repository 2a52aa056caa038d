//! The figures of idle clients, as text and as JSON. Owns the keys of the figures.

use serde_json::{Value, json};
use std::{fmt, time::Duration};

use crate::load::memory_growth;

/// The figures of clients that connected and stayed connected until the end.
#[derive(Debug, Clone)]
pub struct IdleClients {
    /// The number of clients.
    pub count: usize,
    /// The time from the first connect until the last client was registered.
    pub connect_time: Duration,
    /// The broker's CPU time meanwhile.
    pub connect_cpu: Option<Duration>,
    /// The time in which the clients only pinged.
    pub idle_time: Duration,
    /// The broker's CPU time meanwhile.
    pub idle_cpu: Option<Duration>,
    /// The growth of the broker's memory from before the first connect until the end of the idle time, in
    /// bytes.
    pub broker_memory: Option<i64>,
    /// The same some time after all clients have left.
    pub broker_memory_after: Option<i64>,
    /// The broker's peak memory since it was started, in bytes.
    pub broker_peak_memory: Option<u64>,
    /// The generator's CPU time while the clients connected.
    pub generator_connect_cpu: Option<Duration>,
    /// The generator's CPU time while they were idle.
    pub generator_idle_cpu: Option<Duration>,
}

impl IdleClients {
    /// Clients connected and registered per second.
    pub fn connects_per_second(&self) -> f64 {
        self.count as f64 / self.connect_time.as_secs_f64()
    }

    /// The broker's CPU time while the clients are idle, in percent of one processor.
    pub fn idle_percent(&self) -> Option<f64> {
        self.percent(self.idle_cpu)
    }

    fn percent(&self, cpu: Option<Duration>) -> Option<f64> {
        cpu.map(|cpu| cpu.as_secs_f64() / self.idle_time.as_secs_f64() * 100.0)
    }

    /// The broker's memory per client, in bytes.
    pub fn bytes_per_client(&self) -> Option<f64> {
        self.broker_memory.map(|bytes| bytes as f64 / self.count as f64)
    }

    /// The broker's CPU time per connect, in nanoseconds.
    pub fn connect_nanos(&self) -> Option<f64> {
        self.per_client(self.connect_cpu)
    }

    fn per_client(&self, cpu: Option<Duration>) -> Option<f64> {
        cpu.map(|cpu| cpu.as_nanos() as f64 / self.count as f64)
    }

    /// All figures as a JSON object.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "clients": self.count,
            "connect_seconds": self.connect_time.as_secs_f64(),
            "connects_per_second": self.connects_per_second(),
            "broker_cpu_ns_per_connect": self.connect_nanos(),
            "idle_seconds": self.idle_time.as_secs_f64(),
            "idle_broker_cpu_percent": self.idle_percent(),
            "broker_memory_bytes_per_client": self.bytes_per_client(),
            "broker_memory_after_bytes": self.broker_memory_after,
            "broker_peak_memory_bytes": self.broker_peak_memory,
            "generator_cpu_ns_per_connect": self.per_client(self.generator_connect_cpu),
            "idle_generator_cpu_percent": self.percent(self.generator_idle_cpu),
        })
    }
}

impl fmt::Display for IdleClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} connects/s; {} clients connected in {:.2} s, all still connected after {:.1} s",
            self.connects_per_second(),
            self.count,
            self.connect_time.as_secs_f64(),
            self.idle_time.as_secs_f64()
        )?;
        if let (Some(nanos), Some(percent)) = (self.connect_nanos(), self.idle_percent()) {
            let micros = nanos / 1e3;
            write!(
                f,
                "\nbroker: {micros:.1} us of CPU per connect, {percent:.2} % of one processor while idle"
            )?;
        }
        if let Some(bytes) = self.bytes_per_client() {
            write!(f, "\nbroker: {bytes:.0} bytes of memory per client")?;
        }
        if let Some(bytes) = self.broker_memory_after {
            write!(f, "\n{}", memory_growth::describe(bytes))?;
        }
        if let (Some(nanos), Some(percent)) =
            (self.per_client(self.generator_connect_cpu), self.percent(self.generator_idle_cpu))
        {
            let micros = nanos / 1e3;
            write!(f, "\ngenerator: {micros:.1} us of CPU per connect, {percent:.2} % while idle")?;
        }
        Ok(())
    }
}
