//! Why a connection closed: the text for log, event and broker, and its log level.

use elbus_plugin_api::Departure;
use elbus_protocol::{Code, FrameError, handshake::HandshakeError};
use std::{fmt, io, time::Duration};
use tracing::Level;

use crate::{
    connection::liveness::Phase, server::log_throttle::LogCategory, session::reader::MIN_RATE_BYTES,
};

/// Why a connection closed. The first reason is kept.
#[derive(Debug)]
pub(crate) enum CloseReason {
    /// The client closed its side.
    Left,
    /// The socket failed, or the client reset it.
    Broken(io::Error),
    /// The client, which has rings, has written what it cannot have written by the protocol.
    BadRing(io::Error),
    /// The client has asked for rings and gets none; it connects again without asking.
    NoRings(Option<io::Error>),
    /// The client speaks TLS, and this port does not.
    Tls,
    /// The handshake was wrong.
    Handshake(HandshakeError),
    /// The broker refused the name.
    Refused { name: Box<str>, code: Code },
    /// `max_clients` was reached.
    Full { limit: usize },
    /// It had not registered, and its slot was needed for a new connection.
    Evicted { limit: usize },
    /// Its source had more than its share of the clients, and a client of another source registered.
    OverShare { limit: usize, share: f64 },
    /// A frame was wrong.
    Frame(FrameError),
    /// A time limit of the protocol was exceeded.
    Late { phase: Phase, timeout: Duration },
    /// The client took nothing from its queue; `cycle` is empty unless it was in a cycle of clients that wait
    /// for each other.
    Stalled { bytes: usize, stalled: Duration, cycle: Box<str> },
    /// There was no memory for the rest of its frame.
    NoRoom { bytes: usize, timeout: Duration },
    /// It held the most memory for large frames when others needed some.
    MadeRoom { bytes: usize },
    /// The queue was over its limit, and the operator wants such clients disconnected.
    Overflow { bytes: usize, limit: usize },
    /// The queue was over its share of what may wait for all clients, likewise.
    Crowded { bytes: usize, share: usize },
    /// The broker closed it.
    Closed(Box<str>),
    /// The broker does not know the client any more.
    Gone,
    /// The instance is being stopped.
    Stopping,
}

impl CloseReason {
    /// Returns the reason for an error of a read or a write.
    pub(crate) fn of_error(error: io::Error) -> Self {
        match error.kind() {
            // sockets have no such error
            io::ErrorKind::InvalidData => CloseReason::BadRing(error),
            _ => CloseReason::Broken(error),
        }
    }

    /// Returns whether nothing can be sent any more.
    pub(crate) fn is_broken(&self) -> bool {
        matches!(self, CloseReason::Broken(_) | CloseReason::BadRing(_))
    }

    /// Returns whether the client has broken the protocol, so that it is owed nothing. One that is slow may
    /// still read what has been sent.
    pub(crate) fn is_violation(&self) -> bool {
        self.departure() == Departure::Protocol
    }

    pub(crate) fn level(&self) -> Level {
        match self {
            CloseReason::Frame(_) | CloseReason::BadRing(_) | CloseReason::Tls => Level::WARN,
            CloseReason::Stalled { .. } | CloseReason::Overflow { .. } | CloseReason::Crowded { .. } => {
                Level::WARN
            }
            CloseReason::NoRoom { .. }
            | CloseReason::MadeRoom { .. }
            | CloseReason::Full { .. }
            | CloseReason::OverShare { .. } => Level::WARN,
            CloseReason::Late { .. } | CloseReason::Closed(_) | CloseReason::Evicted { .. } => Level::INFO,
            // refusals are reported as events; a client that keeps retrying must not fill the log
            CloseReason::Left | CloseReason::Broken(_) | CloseReason::Gone | CloseReason::Stopping => {
                Level::DEBUG
            }
            CloseReason::Handshake(_) | CloseReason::Refused { .. } | CloseReason::NoRings(_) => Level::DEBUG,
        }
    }

    /// Returns the kind of reason by which the broker counts the client.
    pub(crate) fn departure(&self) -> Departure {
        match self {
            CloseReason::Left => Departure::Closed,
            CloseReason::Broken(_) => Departure::Broken,
            CloseReason::Tls
            | CloseReason::Handshake(_)
            | CloseReason::Frame(_)
            | CloseReason::BadRing(_) => Departure::Protocol,
            CloseReason::Full { .. } | CloseReason::Evicted { .. } | CloseReason::OverShare { .. } => {
                Departure::Evicted
            }
            CloseReason::Late { .. } => Departure::Late,
            CloseReason::Stalled { .. } => Departure::Stalled,
            CloseReason::NoRoom { .. } | CloseReason::MadeRoom { .. } => Departure::Memory,
            CloseReason::Overflow { .. } | CloseReason::Crowded { .. } => Departure::Overflow,
            CloseReason::Stopping => Departure::Stopped,
            CloseReason::Refused { .. }
            | CloseReason::Closed(_)
            | CloseReason::Gone
            | CloseReason::NoRings(_) => Departure::Other,
        }
    }

    /// Returns the category of reasons that a peer can cause any number of times.
    pub(crate) fn category(&self) -> Option<LogCategory> {
        match self {
            CloseReason::Frame(_) | CloseReason::BadRing(_) => Some(LogCategory::Protocol),
            CloseReason::Late { .. } | CloseReason::NoRoom { .. } | CloseReason::MadeRoom { .. } => {
                Some(LogCategory::Late)
            }
            CloseReason::Tls => Some(LogCategory::Tls),
            CloseReason::Full { .. } => Some(LogCategory::Refused),
            CloseReason::Evicted { .. } | CloseReason::OverShare { .. } => Some(LogCategory::Evicted),
            _ => None,
        }
    }

    /// Returns whether the client took nothing or too little.
    pub(crate) fn is_slow_consumer(&self) -> bool {
        matches!(
            self,
            CloseReason::Stalled { .. } | CloseReason::Overflow { .. } | CloseReason::Crowded { .. }
        )
    }

    /// Returns whether the connection was refused before it was registered.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            CloseReason::Handshake(_)
                | CloseReason::Tls
                | CloseReason::Refused { .. }
                | CloseReason::Full { .. }
        )
    }

    /// Returns whether the broker closes it regardless of what the client is doing.
    pub(crate) fn is_forced(&self) -> bool {
        matches!(self, CloseReason::Closed(_) | CloseReason::OverShare { .. } | CloseReason::Stopping)
    }

    /// Returns whether unread bytes must be read before closing: otherwise TCP answers them with a reset,
    /// which can overtake the last bytes to the client.
    pub(crate) fn lingers(&self) -> bool {
        self.is_refusal() || matches!(self, CloseReason::Frame(_) | CloseReason::NoRings(_))
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Left => f.write_str("closed by the client"),
            CloseReason::Broken(error) => write!(f, "connection failed: {error}"),
            CloseReason::BadRing(error) => write!(f, "protocol error: {error}"),
            CloseReason::NoRings(None) => f.write_str("no rings left (max_rings)"),
            CloseReason::NoRings(Some(error)) => write!(f, "cannot make rings: {error}"),
            CloseReason::Tls => f.write_str("sent a TLS handshake to a port that has no TLS (tls)"),
            CloseReason::Handshake(error) => error.fmt(f),
            CloseReason::Refused { name, code } => write!(f, "name {name:?} refused: {code}"),
            CloseReason::Full { limit } => write!(f, "{limit} clients are registered already (max_clients)"),
            CloseReason::Evicted { limit } => {
                write!(
                    f,
                    "evicted before it registered: {limit} connections are waiting to register (max_pending)"
                )
            }
            CloseReason::OverShare { limit, share } => write!(
                f,
                "evicted for a client of another source: {limit} clients are registered (max_clients), and its source \
                 has more than its share (max_source_share is {share})"
            ),
            CloseReason::Frame(error) => write!(f, "protocol error: {error}"),
            CloseReason::Late { phase: Phase::Body, timeout } => write!(
                f,
                "no complete frame body in time, nor {} KiB of it (timeout_seconds is {})",
                MIN_RATE_BYTES / 1024,
                timeout.as_secs_f64()
            ),
            CloseReason::Late { phase, timeout } => {
                write!(f, "no complete {phase} in time (timeout_seconds is {})", timeout.as_secs_f64())
            }
            CloseReason::Stalled { bytes, stalled, cycle } => {
                let seconds = stalled.as_secs_f64();
                write!(f, "took none of {bytes} waiting bytes for {seconds:.1} s (stall_seconds)")?;
                if cycle.is_empty() { Ok(()) } else { write!(f, " {cycle}") }
            }
            CloseReason::NoRoom { bytes, timeout } => write!(
                f,
                "no memory for its frame of {bytes} bytes for {} s (max_queued_bytes is used up)",
                timeout.as_secs_f64()
            ),
            CloseReason::MadeRoom { bytes } => write!(
                f,
                "held {bytes} bytes of large frames, the most, when others needed memory (max_queued_bytes is used up)"
            ),
            CloseReason::Overflow { bytes, limit } => {
                write!(f, "{bytes} waiting bytes exceed {limit} (queue_bytes, overflow = \"disconnect\")")
            }
            CloseReason::Crowded { bytes, share } => write!(
                f,
                "{bytes} waiting bytes exceed {share}, a fair share of max_queued_bytes (overflow = \"disconnect\")"
            ),
            CloseReason::Closed(why) => f.write_str(why),
            CloseReason::Gone => f.write_str("no longer registered"),
            CloseReason::Stopping => f.write_str("transport stopped"),
        }
    }
}
