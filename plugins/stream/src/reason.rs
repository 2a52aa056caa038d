//! Why a connection ended: the words for log, event and broker, and how loud they are.

use elbus_protocol::{Code, FrameError, handshake::HandshakeError};
use std::{fmt, io, time::Duration};

use crate::{Notice, incoming::MIN_RATE_BYTES, liveness::Phase};

/// Why a connection ended. The first reason stands.
#[derive(Debug)]
pub(crate) enum Reason {
    /// The client closed its side.
    Left,
    /// The socket failed, or the client reset it.
    Broken(io::Error),
    /// The client speaks TLS, and this port does not.
    Tls,
    /// The handshake was wrong.
    Handshake(HandshakeError),
    /// The broker refused the name.
    Refused { name: Box<str>, code: Code },
    /// As many clients are registered as may be.
    Full { limit: usize },
    /// It had not registered, and its place was needed for a new connection.
    Evicted { limit: usize },
    /// Its source has more than its share of the clients, and another one wanted in.
    OverShare { limit: usize, share: f64 },
    /// A frame was wrong.
    Frame(FrameError),
    /// What the broker waited for did not come.
    Late { phase: Phase, timeout: Duration },
    /// The client took nothing of what waited for it; `cycle` is empty unless it waited for others that waited for it.
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

/// How much an operator should see of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loudness {
    /// Everyday.
    Debug,
    /// Worth a line.
    Info,
    /// A client or a setting is wrong.
    Warn,
}

impl Reason {
    pub(crate) fn loudness(&self) -> Loudness {
        match self {
            Reason::Frame(_) | Reason::Tls => Loudness::Warn,
            Reason::Stalled { .. } | Reason::Overflow { .. } | Reason::Crowded { .. } => Loudness::Warn,
            Reason::NoRoom { .. }
            | Reason::MadeRoom { .. }
            | Reason::Full { .. }
            | Reason::OverShare { .. } => Loudness::Warn,
            Reason::Late { .. } | Reason::Closed(_) | Reason::Evicted { .. } => Loudness::Info,
            // refusals are told as events; a client that tries again and again must not fill the log
            Reason::Left | Reason::Broken(_) | Reason::Gone | Reason::Stopping => Loudness::Debug,
            Reason::Handshake(_) | Reason::Refused { .. } => Loudness::Debug,
        }
    }

    /// What a stranger can cause as often as he likes: too many such lines are not shown.
    pub(crate) fn notice(&self) -> Option<Notice> {
        match self {
            Reason::Frame(_) => Some(Notice::Protocol),
            Reason::Late { .. } | Reason::NoRoom { .. } | Reason::MadeRoom { .. } => Some(Notice::Late),
            Reason::Tls => Some(Notice::Tls),
            Reason::Full { .. } => Some(Notice::Refused),
            Reason::Evicted { .. } | Reason::OverShare { .. } => Some(Notice::Evicted),
            _ => None,
        }
    }

    /// The client took nothing, or too little.
    pub(crate) fn is_slow_consumer(&self) -> bool {
        matches!(self, Reason::Stalled { .. } | Reason::Overflow { .. } | Reason::Crowded { .. })
    }

    /// The connection was refused before it was registered.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Reason::Handshake(_) | Reason::Tls | Reason::Refused { .. } | Reason::Full { .. })
    }

    /// The broker ends it, in the middle of whatever the client is doing.
    pub(crate) fn is_of_the_broker(&self) -> bool {
        matches!(self, Reason::Closed(_) | Reason::OverShare { .. } | Reason::Stopping)
    }

    /// What the client still has on its way must be read before closing: otherwise TCP answers it with a reset,
    /// which can overtake the last bytes to the client.
    pub(crate) fn lingers(&self) -> bool {
        self.is_refusal() || matches!(self, Reason::Frame(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Left => f.write_str("closed by the client"),
            Reason::Broken(error) => write!(f, "connection failed: {error}"),
            Reason::Tls => f.write_str("sent a TLS handshake to a port that has no TLS (tls)"),
            Reason::Handshake(error) => error.fmt(f),
            Reason::Refused { name, code } => write!(f, "name {name:?} refused: {code}"),
            Reason::Full { limit } => write!(f, "{limit} clients are registered already (max_clients)"),
            Reason::Evicted { limit } => {
                write!(
                    f,
                    "evicted before it registered: {limit} connections are waiting to register (max_pending)"
                )
            }
            Reason::OverShare { limit, share } => write!(
                f,
                "evicted for a client of another source: {limit} clients are registered (max_clients), and its source \
                 has more than its share (max_source_share is {share})"
            ),
            Reason::Frame(error) => write!(f, "protocol error: {error}"),
            Reason::Late { phase: Phase::Body, timeout } => write!(
                f,
                "no complete frame body in time, nor {} KiB of it (timeout_seconds is {})",
                MIN_RATE_BYTES / 1024,
                timeout.as_secs_f64()
            ),
            Reason::Late { phase, timeout } => {
                write!(f, "no complete {phase} in time (timeout_seconds is {})", timeout.as_secs_f64())
            }
            Reason::Stalled { bytes, stalled, cycle } => {
                let seconds = stalled.as_secs_f64();
                write!(f, "took none of {bytes} waiting bytes for {seconds:.1} s (stall_seconds)")?;
                if cycle.is_empty() { Ok(()) } else { write!(f, " {cycle}") }
            }
            Reason::NoRoom { bytes, timeout } => write!(
                f,
                "no memory for its frame of {bytes} bytes for {} s (max_queued_bytes is used up)",
                timeout.as_secs_f64()
            ),
            Reason::MadeRoom { bytes } => write!(
                f,
                "held {bytes} bytes of large frames, the most, when others needed memory (max_queued_bytes is used up)"
            ),
            Reason::Overflow { bytes, limit } => {
                write!(f, "{bytes} waiting bytes exceed {limit} (queue_bytes, overflow = \"disconnect\")")
            }
            Reason::Crowded { bytes, share } => write!(
                f,
                "{bytes} waiting bytes exceed {share}, a fair share of max_queued_bytes (overflow = \"disconnect\")"
            ),
            Reason::Closed(why) => f.write_str(why),
            Reason::Gone => f.write_str("no longer registered"),
            Reason::Stopping => f.write_str("transport stopped"),
        }
    }
}
