//! What one run measures. Owns the defaults and the valid combinations.

use clap::ValueEnum;
use std::time::Duration;

use super::sequence;
use crate::{BoxError, names::Side};

/// The shape of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Messages from one client to another, or to `--targets` others in turn, in `--pairs` pairs
    Pairs,
    /// Messages from `--senders` clients to one client
    FanIn,
    /// Publications of one client to `--subscribers` clients, on one topic or on `--topics` in turn
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

/// The node at which receivers are, and the names by which clients reach each other.
#[derive(Debug, Clone)]
pub struct FarNode {
    /// The address of its broker.
    pub address: String,
    /// Its name.
    pub node: String,
    /// The name of the node of the senders.
    pub near: String,
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The broker's protocol.
    pub protocol: Protocol,
    /// A UNIX socket, with `?rings` behind it if clients ask for rings of shared memory there, or host:port;
    /// empty for [`Protocol::InProcess`].
    pub address: String,
    /// The other broker, if receivers are clients of another node of a bridged bus.
    pub far: Option<FarNode>,
    /// The shape of the load.
    pub scenario: Scenario,
    /// Independent groups of clients.
    pub pairs: usize,
    /// Senders of [`Scenario::FanIn`] and [`Scenario::Topic`].
    pub senders: usize,
    /// Receivers of [`Scenario::Topic`] and [`Scenario::Broadcast`].
    pub subscribers: usize,
    /// Targets of each sender of [`Scenario::Pairs`], in turn.
    pub targets: usize,
    /// Topics of each sender of [`Scenario::Topic`], in turn; the receivers subscribe to a wildcard filter.
    /// `None` is one topic of all senders, to which the receivers subscribe.
    pub topics: Option<usize>,
    /// Consecutive messages to each target or topic that takes turns.
    pub repeat: usize,
    /// Whether each topic has one subscriber: [`Plan::subscribers`] share the topics.
    pub own_subscribers: bool,
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
/// The names of topics have six digits.
const MAX_TOPICS: usize = 1_000_000;
/// The limit of the frames that a sender has encoded.
const MAX_FRAME_BYTES: usize = 1 << 30;
const FAN_IN_SENDERS: usize = 4;
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
            far: None,
            scenario,
            pairs: 1,
            senders: if scenario == Scenario::FanIn { FAN_IN_SENDERS } else { 1 },
            subscribers: 8,
            targets: 1,
            topics: None,
            repeat: 1,
            own_subscribers: false,
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

    /// The address at which clients of a side connect.
    pub(crate) fn address_of(&self, side: Side) -> &str {
        match (&self.far, side) {
            (Some(far), Side::Receiver) => &far.address,
            _ => &self.address,
        }
    }

    /// The name by which clients of the other side reach a client.
    pub(crate) fn reached_as(&self, side: Side, name: String) -> String {
        match (&self.far, side) {
            (Some(far), Side::Receiver) => format!("@{}.{name}", far.node),
            (Some(far), Side::Sender) => format!("@{}.{name}", far.near),
            (None, _) => name,
        }
    }

    /// Waits until the clients of one node are known at the other one, which takes less than a second.
    pub(crate) fn wait_for_names(&self) {
        if self.far.is_some() {
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    /// Whether clients ask for rings of shared memory.
    pub(crate) fn asks_for_rings(&self) -> bool {
        self.address.ends_with("?rings")
    }

    /// Senders per group.
    pub(crate) fn senders(&self) -> usize {
        if matches!(self.scenario, Scenario::FanIn | Scenario::Topic) { self.senders } else { 1 }
    }

    /// Receivers per group.
    pub(crate) fn receivers(&self) -> usize {
        match self.scenario {
            Scenario::Topic | Scenario::Broadcast => self.subscribers,
            Scenario::Pairs => self.targets,
            _ => 1,
        }
    }

    /// Receivers of each message.
    pub(crate) fn copies(&self) -> usize {
        if self.has_shares() { 1 } else { self.receivers() }
    }

    /// Whether each message has one of several receivers.
    fn has_shares(&self) -> bool {
        self.targets > 1 || self.own_subscribers
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
            return invalid("--pairs, --senders, --subscribers and --targets must be at least 1".into());
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
        let shares = if self.has_shares() { self.receivers() as u64 } else { 1 };
        if let RunLength::Messages(messages) = self.length
            && messages < shares
        {
            return invalid(format!("invalid --messages {messages}: expected at least {shares}"));
        }
        if let Some(rate) = self.rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
            return invalid(format!("invalid --rate {rate}: expected a number above 0"));
        }
        self.validate_mix()?;
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
            // the relay would interleave parts of frames of several senders, and passes on all to all
            Scenario::FanIn => self.protocol != Protocol::Relay,
            Scenario::Topic | Scenario::Pairs if self.senders() > 1 || self.has_shares() => {
                self.protocol != Protocol::Relay
            }
            Scenario::Idle => self.protocol != Protocol::InProcess,
            _ => true,
        };
        if self.asks_for_rings() && self.protocol != Protocol::Elbus {
            return invalid(format!("{:?} has no rings: use an address without ?rings", self.protocol));
        }
        let acknowledges = matches!(self.protocol, Protocol::Elbus | Protocol::InProcess | Protocol::Redis);
        if self.qos & 1 != 0 && !acknowledges {
            return invalid(format!(
                "--qos {} is not supported over {:?}: messages are not acknowledged",
                self.qos, self.protocol
            ));
        }
        if !supported {
            return invalid(format!(
                "scenario {:?} is not supported over {:?}",
                self.scenario, self.protocol
            ));
        }
        Ok(())
    }

    /// Checks the topics and targets that take turns.
    fn validate_mix(&self) -> Result<(), BoxError> {
        let invalid = |message: String| Err(message.into());
        if self.targets > 1 && self.scenario != Scenario::Pairs {
            return invalid("--targets needs --scenario pairs".into());
        }
        match self.topics {
            Some(_) if self.scenario != Scenario::Topic => {
                return invalid("--topics needs --scenario topic".into());
            }
            Some(topics) if !(1..=MAX_TOPICS).contains(&topics) => {
                return invalid(format!("invalid --topics {topics}: expected 1 to {MAX_TOPICS}"));
            }
            Some(topics) if self.own_subscribers && topics % self.subscribers != 0 => {
                return invalid(format!(
                    "--topics {topics} cannot be shared equally by --subscribers {}",
                    self.subscribers
                ));
            }
            None if self.own_subscribers => return invalid("--own-subscribers needs --topics".into()),
            _ => {}
        }
        if self.repeat != 1 && (self.repeat == 0 || self.topics.unwrap_or(self.targets) < 2) {
            return invalid(format!(
                "invalid --repeat {}: expected at least 1, and --topics or --targets of at least 2",
                self.repeat
            ));
        }
        let cycle = self.topics.unwrap_or(self.targets).saturating_mul(self.repeat);
        if cycle > 1 && cycle.saturating_mul(self.bytes) > MAX_FRAME_BYTES {
            return invalid(format!(
                "a cycle of {cycle} messages of {} bytes is longer than {MAX_FRAME_BYTES} bytes",
                self.bytes
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
            Plan { qos: 1, protocol: Protocol::Nats, ..valid.clone() },
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

    #[test]
    fn topics_and_targets_in_turn_need_their_scenarios() {
        let plan = |scenario| Plan::new(Protocol::Elbus, "x", scenario, 100);
        let topics = Plan { topics: Some(128), ..plan(Scenario::Topic) };
        let targets = Plan { targets: 8, ..plan(Scenario::Pairs) };
        let own = Plan { own_subscribers: true, subscribers: 64, ..topics.clone() };
        for valid in [
            topics.clone(),
            targets.clone(),
            own.clone(),
            Plan { repeat: 5, ..topics.clone() },
            Plan { repeat: 5, ..targets.clone() },
            Plan { senders: 8, ..topics.clone() },
            Plan { protocol: Protocol::Relay, ..topics.clone() },
            Plan { topics: Some(1), ..topics.clone() },
            Plan { protocol: Protocol::InProcess, ..own.clone() },
        ] {
            assert!(valid.validate().is_ok(), "{valid:?}");
        }
        for invalid in [
            Plan { topics: Some(0), ..topics.clone() },
            Plan { topics: Some(MAX_TOPICS + 1), ..topics.clone() },
            Plan { scenario: Scenario::Pairs, ..topics.clone() },
            Plan { scenario: Scenario::Topic, ..targets.clone() },
            Plan { targets: 0, ..targets.clone() },
            Plan { subscribers: 7, ..own.clone() },
            Plan { topics: None, ..own.clone() },
            Plan { repeat: 0, ..topics.clone() },
            Plan { repeat: 2, targets: 1, ..targets.clone() },
            Plan { repeat: usize::MAX, ..topics.clone() },
            Plan { length: RunLength::Messages(7), ..targets.clone() },
            Plan { protocol: Protocol::Relay, ..targets },
            Plan { protocol: Protocol::Relay, ..own },
            Plan { protocol: Protocol::Relay, senders: 2, ..topics },
        ] {
            assert!(invalid.validate().is_err(), "{invalid:?}");
        }
    }
}
