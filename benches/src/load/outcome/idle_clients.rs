//! What idle clients came to, as text and as JSON. Owns the names of the figures.

use serde_json::{Value, json};
use std::{fmt, time::Duration};

use crate::load::memory_growth;

/// The figures of idle clients, all of which were connected to the end.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// How many.
    pub clients: usize,
    /// From the first connect until the last was registered.
    pub connecting: Duration,
    /// What the broker's processors did for that.
    pub connect_cpu: Option<Duration>,
    /// How long they were idle.
    pub idle: Duration,
    /// What the broker's processors did meanwhile.
    pub idle_cpu: Option<Duration>,
    /// How much more memory the broker holds at the end of that than before the first connected, in bytes.
    pub broker_memory: Option<i64>,
    /// The same some time after all have left.
    pub broker_memory_after: Option<i64>,
    /// The most memory the broker ever had, in bytes.
    pub broker_peak_memory: Option<u64>,
    /// What the generator took of the same processors while they connected, and while they were idle.
    pub own_cpu: [Option<Duration>; 2],
}

impl Crowd {
    /// Clients that were connected and registered in a second.
    pub fn connects_per_second(&self) -> f64 {
        self.clients as f64 / self.connecting.as_secs_f64()
    }

    /// The part of one processor that the idle clients cost the broker, in percent.
    pub fn idle_percent(&self) -> Option<f64> {
        self.percent(self.idle_cpu)
    }

    fn percent(&self, cpu: Option<Duration>) -> Option<f64> {
        cpu.map(|cpu| cpu.as_secs_f64() / self.idle.as_secs_f64() * 100.0)
    }

    /// Bytes of the broker's memory for each client.
    pub fn bytes_per_client(&self) -> Option<f64> {
        self.broker_memory.map(|bytes| bytes as f64 / self.clients as f64)
    }

    /// Nanoseconds of the broker for each connect.
    pub fn connect_nanos(&self) -> Option<f64> {
        self.each(self.connect_cpu)
    }

    fn each(&self, cpu: Option<Duration>) -> Option<f64> {
        cpu.map(|cpu| cpu.as_nanos() as f64 / self.clients as f64)
    }

    /// All figures, by name.
    pub fn to_json(&self) -> Value {
        let [connecting, idle] = self.own_cpu;
        json!({
            "clients": self.clients,
            "connect_seconds": self.connecting.as_secs_f64(),
            "connects_per_second": self.connects_per_second(),
            "broker_cpu_ns_per_connect": self.connect_nanos(),
            "idle_seconds": self.idle.as_secs_f64(),
            "idle_broker_cpu_percent": self.idle_percent(),
            "broker_memory_bytes_per_client": self.bytes_per_client(),
            "broker_memory_after_bytes": self.broker_memory_after,
            "broker_peak_memory_bytes": self.broker_peak_memory,
            "generator_cpu_ns_per_connect": self.each(connecting),
            "idle_generator_cpu_percent": self.percent(idle),
        })
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} connects/s: {} clients in {:.2} s, all still connected after {:.1} s",
            self.connects_per_second(),
            self.clients,
            self.connecting.as_secs_f64(),
            self.idle.as_secs_f64()
        )?;
        if let (Some(nanos), Some(percent)) = (self.connect_nanos(), self.idle_percent()) {
            write!(
                f,
                "\nbroker: {:.1} us of CPU a connect, {percent:.2} % of a processor idle",
                nanos / 1e3
            )?;
        }
        if let Some(bytes) = self.bytes_per_client() {
            write!(f, "\nbroker: {bytes:.0} bytes of memory a client")?;
        }
        if let Some(bytes) = self.broker_memory_after {
            write!(f, "\n{}", memory_growth::tell(bytes))?;
        }
        let [connecting, idle] = self.own_cpu;
        if let (Some(nanos), Some(percent)) = (self.each(connecting), self.percent(idle)) {
            write!(f, "\ngenerator: {:.1} us of CPU a connect, {percent:.2} % idle", nanos / 1e3)?;
        }
        Ok(())
    }
}
