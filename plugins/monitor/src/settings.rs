//! The configuration of the monitor and its limits.

use elbus_plugin_api::{Config, PluginError, config::check_range, config::seconds};
use serde::Deserialize;
use std::time::Duration;

/// The table of an instance. Every key has a default.
#[derive(Deserialize)]
struct Table {
    #[serde(default = "default_max_sessions")]
    max_sessions: usize,
    #[serde(default = "default_queue_bytes")]
    queue_bytes: usize,
    #[serde(default = "default_window_bytes")]
    window_bytes: usize,
    #[serde(default = "default_max_payload_bytes")]
    max_payload_bytes: usize,
    #[serde(default = "default_lease_seconds")]
    lease_seconds: f64,
    #[serde(default = "default_call_seconds")]
    call_seconds: f64,
}

fn default_max_sessions() -> usize {
    8
}

fn default_queue_bytes() -> usize {
    8 << 20
}

fn default_window_bytes() -> usize {
    1 << 20
}

fn default_max_payload_bytes() -> usize {
    256 << 10
}

fn default_lease_seconds() -> f64 {
    30.0
}

fn default_call_seconds() -> f64 {
    60.0
}

/// The limits of an instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Clients that can monitor at the same time.
    pub(crate) max_sessions: usize,
    /// Bytes of observed messages that wait for the thread of a session.
    pub(crate) queue_bytes: usize,
    /// Bytes that were sent to a client and that it has not confirmed.
    pub(crate) window_bytes: usize,
    /// Bytes of a payload in a record, at most.
    pub(crate) max_payload_bytes: usize,
    /// Time after which a session ends that its client does not renew.
    pub(crate) lease: Duration,
    /// Time after which a call is reported as unanswered.
    pub(crate) call_time: Duration,
}

impl Settings {
    /// Reads and checks the table.
    pub(crate) fn read(config: &Config) -> Result<Self, PluginError> {
        let table: Table = config.read()?;
        check_range("max_sessions", table.max_sessions, 1..=32)?;
        check_range("queue_bytes", table.queue_bytes, 64 << 10..=1 << 30)?;
        check_range("window_bytes", table.window_bytes, 64 << 10..=64 << 20)?;
        check_range("max_payload_bytes", table.max_payload_bytes, 0..=16 << 20)?;
        check_range("lease_seconds", table.lease_seconds, 1.0..=3600.0)?;
        check_range("call_seconds", table.call_seconds, 0.1..=3600.0)?;
        Ok(Settings {
            max_sessions: table.max_sessions,
            queue_bytes: table.queue_bytes,
            window_bytes: table.window_bytes,
            max_payload_bytes: table.max_payload_bytes,
            lease: seconds(table.lease_seconds),
            call_time: seconds(table.call_seconds),
        })
    }
}
