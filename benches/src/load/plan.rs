//! What is to be measured. Owns the defaults and what makes sense together.

use clap::ValueEnum;
use std::time::Duration;

use crate::{Failure, load::sequence};

/// The shape of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Messages from one client to another, `--pairs` times
    Pairs,
    /// Messages from `--writers` clients to one
    FanIn,
    /// Publications from one client to `--subscribers`
    Topic,
    /// Broadcasts from one client to `--subscribers`
    Broadcast,
    /// A message there and one back, one at a time
    Echo,
    /// A call to `.broker`, method benchmark.test, one at a time
    Call,
    /// `--clients` that connect as fast as they can, and then only ping
    Idle,
}

/// Whom to speak to, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Over {
    /// The protocol of ELBUS and BUS/RT
    Elbus,
    /// The same to elbus-relay, which passes on what it reads
    Relay,
    /// The text protocol of NATS
    Nats,
    /// The protocol of Redis
    Redis,
    /// MQTT 3.1.1
    Mqtt,
    /// A broker inside the generator, without a socket
    InProcess,
}

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// After so many messages of each writer.
    Messages(u64),
    /// After so long.
    Time(Duration),
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How to speak.
    pub over: Over,
    /// A UNIX socket or host:port; nothing for [`Over::InProcess`].
    pub address: String,
    /// The shape.
    pub scenario: Scenario,
    /// Groups that go on side by side.
    pub pairs: usize,
    /// Writers of [`Scenario::FanIn`].
    pub writers: usize,
    /// Readers of [`Scenario::Topic`] and [`Scenario::Broadcast`].
    pub subscribers: usize,
    /// Clients of [`Scenario::Idle`].
    pub clients: usize,
    /// The time between two pings of a client of [`Scenario::Idle`], where the broker wants pings.
    pub ping: Duration,
    /// Bytes of each payload.
    pub bytes: usize,
    /// Messages of one write.
    pub batch: usize,
    /// Messages of a writer that may be under way.
    pub window: usize,
    /// Bits of the quality of service: 1 asks for acknowledgements, 2 is real-time.
    pub qos: u8,
    /// When it ends.
    pub bound: Bound,
    /// Messages a second of each writer, where it is not as many as there is room for.
    pub rate: Option<f64>,
    /// The process id of the broker, to tell what it uses.
    pub broker: Option<u32>,
    /// Whether to wait for the broker's memory of some time after the end; of [`Scenario::Idle`] that is told anyhow.
    pub afterwards: bool,
}

/// Clients that ping more often are not idle.
const MOST_OFTEN: Duration = Duration::from_millis(100);
const CLIENTS: usize = 10_000;
const PING: Duration = Duration::from_millis(2500);
const BATCH: usize = 128;
const BATCH_BYTES: usize = 64 * 1024;
const WINDOW: usize = 4096;
const WINDOW_BYTES: usize = 4 << 20;

impl Plan {
    /// A plan with the defaults for this size of payloads: batches of up to 128 messages and 64 KiB, and up to 4,096
    /// messages and 4 MiB under way.
    pub fn new(over: Over, address: impl Into<String>, scenario: Scenario, bytes: usize) -> Self {
        Plan {
            over,
            address: address.into(),
            scenario,
            pairs: 1,
            writers: 4,
            subscribers: 8,
            clients: CLIENTS,
            ping: PING,
            bytes,
            batch: (BATCH_BYTES / bytes.max(1)).clamp(1, BATCH),
            window: (WINDOW_BYTES / bytes.max(1)).clamp(4, WINDOW),
            qos: 0,
            bound: Bound::Time(Duration::from_secs(3)),
            rate: None,
            broker: None,
            afterwards: false,
        }
    }

    /// Writers of each group.
    pub(crate) fn writers(&self) -> usize {
        if self.scenario == Scenario::FanIn { self.writers } else { 1 }
    }

    /// Readers of each group.
    pub(crate) fn readers(&self) -> usize {
        match self.scenario {
            Scenario::Topic | Scenario::Broadcast => self.subscribers,
            _ => 1,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Failure> {
        let wrong = |what: String| Err(what.into());
        if self.bytes < sequence::HEAD_BYTES {
            return wrong(format!(
                "payloads of {} bytes; at least {} are needed",
                self.bytes,
                sequence::HEAD_BYTES
            ));
        }
        if self.pairs == 0 || self.readers() == 0 || self.writers() == 0 {
            return wrong("pairs, writers and subscribers must be at least 1".into());
        }
        if self.writers() > sequence::MAX_WRITERS {
            return wrong(format!(
                "{} writers; at most {} are possible",
                self.writers(),
                sequence::MAX_WRITERS
            ));
        }
        if self.batch == 0 || self.window < self.batch {
            return wrong(format!(
                "batch {} and window {}: a batch is at least 1, a window at least a batch",
                self.batch, self.window
            ));
        }
        if self.qos > 3 {
            return wrong(format!("QoS {}; it is 0 to 3", self.qos));
        }
        if self.bound == Bound::Messages(0) {
            return wrong("no messages: at least one is needed".into());
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return wrong("a rate must be above 0".into());
        }
        if self.scenario == Scenario::Idle && (self.clients == 0 || self.ping < MOST_OFTEN) {
            return wrong(format!(
                "{} idle clients that ping each {:?}: at least 1 client, and {MOST_OFTEN:?} between two pings",
                self.clients, self.ping
            ));
        }
        if self.scenario == Scenario::Idle && !matches!(self.bound, Bound::Time(_)) {
            return wrong("idle clients send no messages: give a time".into());
        }
        let possible = match self.scenario {
            Scenario::Broadcast | Scenario::Call => matches!(self.over, Over::Elbus | Over::InProcess),
            Scenario::FanIn => self.over != Over::Relay,
            Scenario::Idle => self.over != Over::InProcess,
            _ => true,
        };
        if !possible {
            return wrong(format!("{:?} is not possible over {:?}", self.scenario, self.over));
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
            let plan = Plan::new(Over::Elbus, "x", Scenario::Pairs, bytes);
            assert!(plan.check().is_ok());
            (plan.batch, plan.window)
        };
        assert_eq!(sizes(100), (128, 4096));
        assert_eq!(sizes(1024), (64, 4096));
        assert_eq!(sizes(64 << 10), (1, 64));
        assert_eq!(sizes(1 << 20), (1, 4));
        assert_eq!(sizes(64 << 20), (1, 4));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = Plan::new(Over::Elbus, "x", Scenario::FanIn, 100);
        assert!(good.check().is_ok());
        assert!(Plan { over: Over::Redis, ..good.clone() }.check().is_ok());
        for bad in [
            Plan { bytes: 8, ..good.clone() },
            Plan { writers: 0, ..good.clone() },
            Plan { batch: 0, ..good.clone() },
            Plan { window: 1, ..good.clone() },
            Plan { qos: 4, ..good.clone() },
            Plan { bound: Bound::Messages(0), ..good.clone() },
            Plan { rate: Some(0.0), ..good.clone() },
            Plan { over: Over::Relay, ..good.clone() },
            Plan { over: Over::Nats, scenario: Scenario::Call, ..good.clone() },
            Plan { over: Over::InProcess, scenario: Scenario::Idle, ..good.clone() },
            Plan { clients: 0, scenario: Scenario::Idle, ..good.clone() },
            Plan { ping: Duration::ZERO, scenario: Scenario::Idle, ..good.clone() },
            Plan { bound: Bound::Messages(1), scenario: Scenario::Idle, ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
