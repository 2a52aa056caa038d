//! What can go wrong, in one enum. Owns the wording: what failed, and what to try.

use elbus_protocol::{Code, EncodeError};
use std::{fmt, io, sync::Arc, time::Duration};

pub(crate) mod rpc_error;

use self::rpc_error::RpcError;

/// Why an operation failed. Each message is one line and says what to try.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens at the address.
    NoBroker {
        /// Where.
        address: String,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// Whoever listens at the address does not speak the protocol.
    NotABroker {
        /// Where.
        address: String,
        /// What it did instead.
        what: String,
    },
    /// The connection could not be secured.
    Tls {
        /// Where.
        address: String,
        /// What was wrong.
        what: String,
    },
    /// Another client has the name.
    NameTaken {
        /// The name.
        name: String,
    },
    /// The broker does not take the name.
    NameRefused {
        /// The name.
        name: String,
        /// What the broker answered.
        code: Code,
    },
    /// The name is that of a secondary client, and its primary is not registered.
    NoPrimary {
        /// The secondary name.
        name: String,
    },
    /// Access rules of the broker forbid it.
    AccessDenied {
        /// What was tried.
        what: String,
    },
    /// There is no connection now, or it was lost before the outcome was known.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// This client has been closed.
    Closed,
    /// There was no answer in time.
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// No client is registered under the target's name.
    NotRegistered {
        /// The target.
        target: String,
    },
    /// The target's queue is full.
    NotDelivered {
        /// The target.
        target: String,
    },
    /// The broker refused the operation with another code.
    Refused {
        /// What was tried.
        what: String,
        /// The code, perhaps one that the protocol does not list.
        code: u8,
    },
    /// Too much waits to be sent for another real-time frame.
    QueueFull {
        /// Bytes that wait.
        waiting: usize,
        /// Twice the client's `queue_bytes`.
        limit: usize,
    },
    /// The operation cannot be put on the wire: a text holds a NUL, or the body is too long.
    Unsendable(EncodeError),
    /// The frame is longer than `max_frame_bytes`.
    FrameTooLong {
        /// Its payload, in bytes.
        len: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The address is none.
    BadAddress {
        /// The text.
        text: String,
    },
    /// The callee answered with an error.
    Rpc(RpcError),
    /// Parameters or a result could not be converted.
    Conversion {
        /// What.
        what: String,
    },
    /// The client serves calls already.
    AlreadyServing,
    /// A blocking function was called from a task, which would hold up its runtime.
    InAsyncContext,
    /// The blocking API could not start its thread.
    NoRuntime {
        /// What the system says.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// What the code of an acknowledgement means for an operation.
    pub(crate) fn from_code(code: u8, what: &str, target: &str) -> Self {
        match Code::from_wire(code) {
            Some(Code::NotRegistered) => Error::NotRegistered { target: target.to_owned() },
            Some(Code::NotDelivered) => Error::NotDelivered { target: target.to_owned() },
            Some(Code::AccessDenied) => Error::AccessDenied { what: format!("{what} {target:?}") },
            _ => Error::Refused { what: format!("{what} {target:?}"), code },
        }
    }

    pub(crate) fn disconnected(reason: &str) -> Self {
        Error::Disconnected { reason: reason.to_owned() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoBroker { address, source } => {
                write!(
                    f,
                    "no broker at {address} ({source}): start elbusd, or give the address it listens at"
                )
            }
            Error::NotABroker { address, what } => {
                write!(f, "no broker of this protocol at {address}: it {what}")
            }
            Error::Tls { address, what } => write!(f, "no TLS connection to {address}: {what}"),
            Error::NameTaken { name } => {
                write!(
                    f,
                    "another client is registered as {name:?}: choose another name, or stop that client"
                )
            }
            Error::NameRefused { name, code } => write!(
                f,
                "the broker refuses the name {name:?} ({code}): it must not be empty, begin with a dot or hold a NUL"
            ),
            Error::NoPrimary { name } => write!(
                f,
                "{name:?} is the name of a secondary client, and its primary is not registered: connect that first"
            ),
            Error::AccessDenied { what } => {
                write!(f, "access denied: {what}: the broker's rules must allow it")
            }
            Error::Disconnected { reason } => write!(f, "not connected: {reason}"),
            Error::Closed => f.write_str("this client has been closed"),
            Error::Timeout { what, after } => {
                write!(f, "{what}: no answer within {} s (timeout)", after.as_secs_f64())
            }
            Error::NotRegistered { target } => write!(f, "no client is registered as {target:?}"),
            Error::NotDelivered { target } => {
                write!(f, "not delivered: the queue of {target:?} is full: send less, or not as real-time")
            }
            Error::Refused { what, code } => {
                let text = Code::from_wire(*code).map_or("unknown code", Code::text);
                write!(f, "{what}: refused by the broker: {text} (0x{code:02x})")
            }
            Error::QueueFull { waiting, limit } => write!(
                f,
                "{waiting} bytes wait to be sent, {limit} (twice queue_bytes) are the most for real-time frames"
            ),
            Error::Unsendable(error) => write!(f, "cannot be sent: {error}"),
            Error::FrameTooLong { len, limit } => {
                write!(f, "payload of {len} bytes exceeds {limit} (max_frame_bytes)")
            }
            Error::BadAddress { text } => {
                write!(f, "{text:?} is no address of a broker: give the path of a UNIX socket or host:port")
            }
            Error::Rpc(error) => write!(f, "{error}"),
            Error::Conversion { what } => f.write_str(what),
            Error::AlreadyServing => {
                f.write_str("this client serves calls already: stop that, or use a secondary client")
            }
            Error::InAsyncContext => f.write_str(
                "a blocking function was called from an async task: use elbus_client::Client there",
            ),
            Error::NoRuntime { source } => write!(f, "no thread for the blocking client: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::NoBroker { source, .. } | Error::NoRuntime { source } => Some(&**source),
            Error::Unsendable(error) => Some(error),
            _ => None,
        }
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        Error::Unsendable(error)
    }
}
