//! What one run measures. Owns the defaults and the valid combinations.

use clap::ValueEnum;
use std::time::Duration;

use super::sequence;
use crate::BoxError;

/// The shape of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Messages from one client to another, in `--pairs` pairs
    Pairs,
    /// Messages from `--senders` clients to one client
    FanIn,
    /// Publications of one client to `--subscribers` clients
    Topic,
    /// Broadcasts of one client to `--subscribers` clients
    Broadcast,
    /// Request and reply between two clients, one at a time
    Echo,
    /// Calls of method `benchmark.test` of `.broker`, one at a time
    Call,
    /// `--clients` that connect as fast as possible and then only ping
    Idle,
}

/// The protocol that the broker speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// ELBUS and BUS/RT
    Elbus,
    /// The same, for elbus-relay, which does not transform what it passes on
    Relay,
    /// The text protocol of NATS
    Nats,
    /// RESP, the protocol of Redis
    Redis,
    /// MQTT 3.1.1
    Mqtt,
    /// None: a broker inside the generator
    #[value(skip)]
    InProcess,
}

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RunLength {
    /// After this number of messages per sender.
    Messages(u64),
    /// After this time.
    Time(Duration),
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The broker's protocol.
    pub protocol: Protocol,
    /// A UNIX socket or host:port; empty for [`Protocol::InProcess`].
    pub address: String,
    /// The shape of the load.
    pub scenario: Scenario,
    /// Independent groups of clients.
    pub pairs: usize,
    /// Senders of [`Scenario::FanIn`].
    pub senders: usize,
    /// Receivers of [`Scenario::Topic`] and [`Scenario::Broadcast`].
    pub subscribers: usize,
    /// Clients of [`Scenario::Idle`].
    pub clients: usize,
    /// The time between two pings of a client of [`Scenario::Idle`], if the protocol has pings.
    pub ping_interval: Duration,
    /// Bytes per payload.
    pub bytes: usize,
    /// Messages per write.
    pub batch: usize,
    /// The limit of messages in flight per sender.
    pub window: usize,
    /// QoS bits: 1 asks for acknowledgements, 2 is real-time.
    pub qos: u8,
    /// When the run ends.
    pub length: RunLength,
    /// Messages per second and sender; `None` sends as many as the window allows.
    pub rate: Option<f64>,
    /// The broker's process id, to measure its CPU time and memory.
    pub broker_pid: Option<u32>,
    /// Whether to measure the broker's memory some time after the run. [`Scenario::Idle`] always does.
    pub memory_after: bool,
}

/// Clients that ping more often are not idle.
const MIN_PING_INTERVAL: Duration = Duration::from_millis(100);
const CLIENTS: usize = 10_000;
const PING_INTERVAL: Duration = Duration::from_millis(2500);
const BATCH: usize = 128;
const BATCH_BYTES: usize = 64 * 1024;
const WINDOW: usize = 4096;
const WINDOW_BYTES: usize = 4 << 20;

impl Plan {
    /// A plan with the defaults for payloads of this size: batches of up to 128 messages and 64 KiB, and up
    /// to 4,096 messages and 4 MiB in flight.
    pub fn new(protocol: Protocol, address: impl Into<String>, scenario: Scenario, bytes: usize) -> Self {
        Plan {
            protocol,
            address: address.into(),
            scenario,
            pairs: 1,
            senders: 4,
            subscribers: 8,
            clients: CLIENTS,
            ping_interval: PING_INTERVAL,
            bytes,
            batch: (BATCH_BYTES / bytes.max(1)).clamp(1, BATCH),
            window: (WINDOW_BYTES / bytes.max(1)).clamp(4, WINDOW),
            qos: 0,
            length: RunLength::Time(Duration::from_secs(3)),
            rate: None,
            broker_pid: None,
            memory_after: false,
        }
    }

    /// Senders per group.
    pub(crate) fn senders(&self) -> usize {
        if self.scenario == Scenario::FanIn { self.senders } else { 1 }
    }

    /// Receivers per group.
    pub(crate) fn receivers(&self) -> usize {
        match self.scenario {
            Scenario::Topic | Scenario::Broadcast => self.subscribers,
            _ => 1,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), BoxError> {
        let invalid = |message: String| Err(message.into());
        if self.bytes < sequence::HEADER_BYTES {
            return invalid(format!(
                "payloads of {} bytes are too short: at least {} are needed (--bytes)",
                self.bytes,
                sequence::HEADER_BYTES
            ));
        }
        if self.pairs == 0 || self.receivers() == 0 || self.senders() == 0 {
            return invalid("--pairs, --senders and --subscribers must be at least 1".into());
        }
        if self.senders() > sequence::MAX_SENDERS {
            let (senders, limit) = (self.senders(), sequence::MAX_SENDERS);
            return invalid(format!("{senders} senders are too many: the limit is {limit} (--senders)"));
        }
        if self.batch == 0 || self.window < self.batch {
            return invalid(format!(
                "--batch {} and --window {}: a batch is at least 1 message, a window at least a batch",
                self.batch, self.window
            ));
        }
        if self.qos > 3 {
            return invalid(format!("invalid --qos {}: expected 0 to 3", self.qos));
        }
        if self.length == RunLength::Messages(0) {
            return invalid("invalid --messages 0: expected at least 1".into());
        }
        if let Some(rate) = self.rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
            return invalid(format!("invalid --rate {rate}: expected a number above 0"));
        }
        if self.scenario == Scenario::Idle {
            if self.clients == 0 {
                return invalid("invalid --clients 0: expected at least 1".into());
            }
            if self.ping_interval < MIN_PING_INTERVAL {
                return invalid(format!(
                    "a ping interval of {:?} is too short: at least {MIN_PING_INTERVAL:?} (--ping)",
                    self.ping_interval
                ));
            }
            if matches!(self.length, RunLength::Messages(_)) {
                return invalid("idle clients send no messages: use --seconds instead of --messages".into());
            }
        }
        let supported = match self.scenario {
            Scenario::Broadcast | Scenario::Call => {
                matches!(self.protocol, Protocol::Elbus | Protocol::InProcess)
            }
            Scenario::FanIn => self.protocol != Protocol::Relay,
            Scenario::Idle => self.protocol != Protocol::InProcess,
            _ => true,
        };
        if !supported {
            return invalid(format!(
                "scenario {:?} is not supported over {:?}",
                self.scenario, self.protocol
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_and_window_follow_the_payload() {
        let sizes = |bytes| {
            let plan = Plan::new(Protocol::Elbus, "x", Scenario::Pairs, bytes);
            assert!(plan.validate().is_ok());
            (plan.batch, plan.window)
        };
        assert_eq!(sizes(100), (128, 4096));
        assert_eq!(sizes(1024), (64, 4096));
        assert_eq!(sizes(64 << 10), (1, 64));
        assert_eq!(sizes(1 << 20), (1, 4));
        assert_eq!(sizes(64 << 20), (1, 4));
    }

    #[test]
    fn invalid_plans_are_rejected() {
        let valid = Plan::new(Protocol::Elbus, "x", Scenario::FanIn, 100);
        assert!(valid.validate().is_ok());
        assert!(Plan { protocol: Protocol::Redis, ..valid.clone() }.validate().is_ok());
        for invalid in [
            Plan { bytes: 8, ..valid.clone() },
            Plan { senders: 0, ..valid.clone() },
            Plan { senders: (1 << 16) + 1, ..valid.clone() },
            Plan { batch: 0, ..valid.clone() },
            Plan { window: 1, ..valid.clone() },
            Plan { qos: 4, ..valid.clone() },
            Plan { length: RunLength::Messages(0), ..valid.clone() },
            Plan { rate: Some(0.0), ..valid.clone() },
            Plan { protocol: Protocol::Relay, ..valid.clone() },
            Plan { protocol: Protocol::Nats, scenario: Scenario::Call, ..valid.clone() },
            Plan { protocol: Protocol::InProcess, scenario: Scenario::Idle, ..valid.clone() },
            Plan { clients: 0, scenario: Scenario::Idle, ..valid.clone() },
            Plan { ping_interval: Duration::ZERO, scenario: Scenario::Idle, ..valid.clone() },
            Plan { length: RunLength::Messages(1), scenario: Scenario::Idle, ..valid.clone() },
        ] {
            assert!(invalid.validate().is_err(), "{invalid:?}");
        }
    }
}
