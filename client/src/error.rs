//! Errors of the client. Owns their texts: what failed, the value, the limit and the remedy.

pub(crate) mod rpc_error;

use elbus_protocol::{Code, EncodeError, rpc, subscription::SubscriptionError};
use std::{fmt, io, sync::Arc, time::Duration};

use self::rpc_error::RpcError;

/// Shared, because errors are cloned for every operation that a lost connection ends.
type Source = Arc<dyn std::error::Error + Send + Sync>;

/// An error of the client. Its text is one line and names a remedy if there is one.
///
/// ```no_run
/// # async fn example(client: elbus_client::Client) {
/// use elbus_client::{Error, Qos};
/// match client.send("plant.display", "71.5", Qos::PROCESSED).await {
///     Ok(()) => {}
///     Err(Error::NotRegistered { target, .. }) => println!("{target} is not running"),
///     Err(error) if error.is_disconnected() || error.is_timeout() => println!("try again later: {error}"),
///     Err(error) => eprintln!("{error}"),
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// Nothing listens at the address.
    #[non_exhaustive]
    NoBroker {
        /// The address.
        address: String,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
    /// The program at the address does not speak the protocol.
    #[non_exhaustive]
    NotABroker {
        /// The address.
        address: String,
        /// What it did instead; follows "it".
        reason: String,
        /// The error behind the reason, if there is one.
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// The TLS connection could not be established.
    #[non_exhaustive]
    Tls {
        /// The address.
        address: String,
        /// The cause.
        reason: String,
        /// The error behind the reason, if there is one.
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// Another client has the name.
    #[non_exhaustive]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The broker refused the name.
    #[non_exhaustive]
    NameRefused {
        /// The name.
        name: String,
        /// The broker's answer.
        code: Code,
    },
    /// The name is that of a secondary client, and its primary client is not registered.
    #[non_exhaustive]
    NoPrimary {
        /// The secondary name.
        name: String,
    },
    /// The broker's access rules do not allow the operation.
    #[non_exhaustive]
    AccessDenied {
        /// The operation and its target.
        operation: String,
    },
    /// The client is not connected, or the connection was lost before the outcome was known.
    #[non_exhaustive]
    Disconnected {
        /// Why the connection was lost.
        reason: String,
        /// The error behind the reason, if there is one.
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// The client has been closed.
    Closed,
    /// The operation did not complete in time.
    #[non_exhaustive]
    Timeout {
        /// The operation and its target.
        operation: String,
        /// The timeout.
        after: Duration,
    },
    /// No client is registered under the target's name.
    #[non_exhaustive]
    NotRegistered {
        /// The target.
        target: String,
    },
    /// The target's queue is full.
    #[non_exhaustive]
    NotDelivered {
        /// The target.
        target: String,
    },
    /// The broker refused the operation.
    #[non_exhaustive]
    Refused {
        /// The operation and its target.
        operation: String,
        /// The broker's answer.
        code: Code,
    },
    /// The broker refused the operation with a code that the protocol does not define.
    #[non_exhaustive]
    UnknownCode {
        /// The operation and its target.
        operation: String,
        /// The code as it was received.
        code: u8,
    },
    /// The send queue is too long for another real-time frame.
    #[non_exhaustive]
    QueueFull {
        /// Queued bytes.
        queued: usize,
        /// The limit in bytes: twice the client's `queue_bytes`.
        limit: usize,
    },
    /// The operation cannot be encoded: a text contains a NUL byte, or a part is too long.
    Unsendable(EncodeError),
    /// The options of a topic filter are malformed.
    #[non_exhaustive]
    BadOptions {
        /// The filter with its options.
        filter: String,
        /// What is wrong.
        reason: SubscriptionError,
    },
    /// The broker does not know an option of a topic filter, and would take the text for a plain filter.
    #[non_exhaustive]
    NotSupported {
        /// The option, as the broker's method `features` would name it.
        feature: &'static str,
        /// The broker's address.
        address: String,
    },
    /// The payload is longer than `max_frame_bytes`.
    #[non_exhaustive]
    FrameTooLong {
        /// Length of the payload, in bytes.
        len: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The text is not an address.
    #[non_exhaustive]
    BadAddress {
        /// The text.
        text: String,
    },
    /// The called method returned an error.
    Rpc(RpcError),
    /// Parameters or a result could not be converted to or from msgpack.
    #[non_exhaustive]
    Conversion {
        /// What could not be converted, and why.
        reason: String,
        /// The error behind the reason.
        source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// The client already serves calls.
    AlreadyServing,
    /// A blocking function was called on the thread that serves the blocking clients; see
    /// [`blocking`](crate::blocking).
    InAsyncContext,
    /// The thread of the blocking clients could not be started.
    #[non_exhaustive]
    NoRuntime {
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// Returns whether the operation did not complete in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Timeout { .. })
    }

    /// Returns whether there is no connection: it was lost, or the client has been closed.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Error::Disconnected { .. } | Error::Closed)
    }

    /// Returns whether no client is registered under the target's name.
    pub fn is_not_registered(&self) -> bool {
        matches!(self, Error::NotRegistered { .. })
    }

    /// Returns whether the broker's access rules do not allow the operation.
    pub fn is_access_denied(&self) -> bool {
        matches!(self, Error::AccessDenied { .. })
    }

    /// Returns the code that the broker refused the operation or the name with, if it did.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::NameTaken { .. } => Some(Code::Busy),
            Error::NameRefused { code, .. } | Error::Refused { code, .. } => Some(*code),
            Error::NoPrimary { .. } | Error::NotRegistered { .. } => Some(Code::NotRegistered),
            Error::NotDelivered { .. } => Some(Code::NotDelivered),
            Error::AccessDenied { .. } => Some(Code::AccessDenied),
            _ => None,
        }
    }

    /// Converts the code of an acknowledgement. `operation` is a verb that precedes the target.
    pub(crate) fn from_code(code: u8, operation: &str, target: &str) -> Self {
        let operation = || format!("{operation} {target:?}");
        match Code::from_wire(code) {
            Some(Code::NotRegistered) => Error::NotRegistered { target: target.to_owned() },
            Some(Code::NotDelivered) => Error::NotDelivered { target: target.to_owned() },
            Some(Code::AccessDenied) => Error::AccessDenied { operation: operation() },
            Some(code) => Error::Refused { operation: operation(), code },
            None => Error::UnknownCode { operation: operation(), code },
        }
    }

    pub(crate) fn disconnected(reason: impl Into<String>) -> Self {
        Error::Disconnected { reason: reason.into(), source: None }
    }

    /// `context` precedes the text of the source, if it is not empty.
    pub(crate) fn disconnected_by(
        context: &str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let reason = if context.is_empty() { source.to_string() } else { format!("{context}: {source}") };
        Error::Disconnected { reason, source: Some(Arc::new(source)) }
    }

    pub(crate) fn conversion(context: &str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Error::Conversion { reason: format!("{context}: {source}"), source: Some(Arc::new(source)) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoBroker { address, source } => {
                write!(f, "no broker at {address} ({source}): start elbusd or check the address")
            }
            Error::NotABroker { address, reason, .. } => {
                write!(f, "{address} is not an ELBUS broker: it {reason}: check the address")
            }
            Error::Tls { address, reason, .. } => {
                write!(f, "cannot establish a TLS connection to {address}: {reason}")
            }
            Error::NameTaken { name } => {
                write!(f, "another client is registered as {name:?}: choose another name or stop that client")
            }
            Error::NameRefused { name, code } => write!(
                f,
                "the broker refused the name {name:?} ({code}): a name must not be empty, start with a dot, \
                 contain a NUL byte or exceed the broker's max_name_bytes"
            ),
            Error::NoPrimary { name } => write!(
                f,
                "{name:?} is a secondary name and its primary client is not registered: connect that first"
            ),
            Error::AccessDenied { operation } => {
                write!(f, "access denied: {operation}: the broker's access rules do not allow it")
            }
            Error::Disconnected { reason, .. } => write!(f, "not connected: {reason}"),
            Error::Closed => f.write_str("the client has been closed"),
            Error::Timeout { operation, after } => {
                write!(f, "{operation}: timed out after {} s", after.as_secs_f64())
            }
            Error::NotRegistered { target } => write!(f, "no client is registered as {target:?}"),
            Error::NotDelivered { target } => {
                write!(f, "not delivered: the queue of {target:?} is full: send less, or without real-time")
            }
            Error::Refused { operation, code } => {
                write!(f, "{operation}: refused by the broker: {code} (0x{:02x})", *code as u8)
            }
            Error::UnknownCode { operation, code } => {
                write!(f, "{operation}: refused by the broker with the unknown code 0x{code:02x}")
            }
            Error::QueueFull { queued, limit } => write!(
                f,
                "{queued} bytes are queued; the limit for real-time frames is {limit} (twice queue_bytes)"
            ),
            Error::Unsendable(error) => write!(f, "cannot be encoded: {error}"),
            Error::BadOptions { filter, reason } => write!(f, "invalid topic filter {filter:?}: {reason}"),
            Error::NotSupported { feature, address } => write!(
                f,
                "the broker at {address} does not know the option ${feature} of topic filters: subscribe \
                 without it, or use a broker whose method \"features\" lists it"
            ),
            Error::FrameTooLong { len, limit } => {
                write!(f, "payload of {len} bytes exceeds the limit of {limit} bytes (max_frame_bytes)")
            }
            Error::BadAddress { text } => write!(
                f,
                "{text:?} is not a broker address: expected a UNIX socket path, host:port or tls://host:port{}",
                if ["ws:", "wss:"].iter().any(|scheme| text.trim_start().starts_with(scheme)) {
                    "; this client does not speak WebSocket: bind the broker to one of these as well"
                } else {
                    ""
                }
            ),
            Error::Rpc(error) => write!(f, "{error}"),
            Error::Conversion { reason, .. } => f.write_str(reason),
            Error::AlreadyServing => f.write_str(
                "the client already serves calls: stop its server first, or use a secondary client",
            ),
            Error::InAsyncContext => {
                f.write_str("a blocking function was called on the thread that serves the blocking clients")
            }
            Error::NoRuntime { source } => {
                write!(f, "cannot start the thread of the blocking clients: {source}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        fn shared(source: &Option<Source>) -> Option<&(dyn std::error::Error + 'static)> {
            source.as_deref().map(|source| source as _)
        }
        match self {
            Error::NoBroker { source, .. } | Error::NoRuntime { source } => Some(&**source),
            Error::NotABroker { source, .. }
            | Error::Tls { source, .. }
            | Error::Disconnected { source, .. }
            | Error::Conversion { source, .. } => shared(source),
            Error::Unsendable(error) => Some(error),
            Error::BadOptions { reason, .. } => Some(reason),
            Error::Rpc(error) => Some(error),
            _ => None,
        }
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        Error::Unsendable(error)
    }
}

impl From<Error> for RpcError {
    /// Converts the error of a method that itself calls or sends: the error of a called method is passed on,
    /// a bus error becomes its RPC code.
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Rpc(error) => return error.clone(),
            Error::NotRegistered { .. } => Code::NotRegistered.rpc_code(),
            Error::NotDelivered { .. } | Error::QueueFull { .. } => Code::NotDelivered.rpc_code(),
            Error::AccessDenied { .. } => Code::AccessDenied.rpc_code(),
            Error::Timeout { .. } => Code::Timeout.rpc_code(),
            Error::Disconnected { .. } | Error::Closed => Code::Io.rpc_code(),
            _ => rpc::INTERNAL_ERROR,
        };
        RpcError::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn acknowledgement_codes_become_typed_errors() {
        let error = |code| Error::from_code(code, "send to", "x");
        assert!(error(0x71).is_not_registered() && error(0x79).is_access_denied());
        for code in [Code::NotRegistered, Code::NotDelivered, Code::AccessDenied, Code::Busy, Code::Other] {
            assert_eq!(error(code as u8).code(), Some(code));
        }
        assert!(matches!(error(0xEE), Error::UnknownCode { code: 0xEE, .. }));
        assert_eq!(error(0xEE).code(), None);
        assert_eq!(error(0x76).to_string(), "send to \"x\": refused by the broker: busy (0x76)");
    }

    #[test]
    fn sources_are_kept() {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        let lost = Error::disconnected_by("write failed", reset());
        assert!(lost.is_disconnected() && !lost.is_timeout());
        assert_eq!(lost.to_string(), format!("not connected: write failed: {}", reset()));
        let source = lost.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::ConnectionReset));
        assert!(Error::disconnected("closed by the broker").source().is_none());
    }

    #[test]
    fn bus_errors_keep_their_code_as_rpc_errors() {
        let unknown = Error::NotRegistered { target: "x".to_owned() };
        assert_eq!(RpcError::from(unknown).code, -32113);
        let callee = RpcError::new(5, "five");
        assert_eq!(RpcError::from(Error::Rpc(callee.clone())), callee);
    }
}
