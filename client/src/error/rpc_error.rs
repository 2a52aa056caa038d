//! The error that a callee answers with (protocol section 7). Owns its codes and text; never a bus error of the
//! caller's own.

use bytes::Bytes;
use elbus_protocol::{Code, rpc};
use std::fmt;

use crate::Error;

/// What a callee answers instead of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// One of protocol section 7, or the callee's own.
    pub code: i16,
    /// Usually text; may be empty.
    pub data: Bytes,
}

impl RpcError {
    /// With a code and a text.
    pub fn new(code: i16, text: impl Into<String>) -> Self {
        RpcError { code, data: text.into().into() }
    }

    /// There is no such method: -32601.
    pub fn method_not_found() -> Self {
        Self::new(rpc::METHOD_NOT_FOUND, "")
    }

    /// The parameters are not what the method takes: -32602.
    pub fn invalid_params(text: impl Into<String>) -> Self {
        Self::new(rpc::INVALID_PARAMS, text)
    }

    /// The parameters cannot be parsed: -32700.
    pub fn parse(text: impl Into<String>) -> Self {
        Self::new(rpc::PARSE_ERROR, text)
    }

    /// The callee failed: -32603.
    pub fn internal(text: impl Into<String>) -> Self {
        Self::new(rpc::INTERNAL_ERROR, text)
    }

    /// There is no such thing: -32001.
    pub fn not_found() -> Self {
        Self::new(rpc::NOT_FOUND, "")
    }

    /// The data, where it is text.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.data).ok()
    }

    /// What the code means, where it is one of the protocol's.
    pub fn meaning(&self) -> Option<&'static str> {
        Some(match self.code {
            rpc::PARSE_ERROR => "parameters cannot be parsed",
            rpc::INVALID_REQUEST => "invalid request",
            rpc::METHOD_NOT_FOUND => "no such method",
            rpc::INVALID_PARAMS => "invalid parameters",
            rpc::INTERNAL_ERROR => "internal error",
            rpc::NOT_FOUND => "not found",
            code => {
                let bus = u8::try_from(-32000 - i32::from(code)).ok()?;
                Code::from_wire(bus)?.text()
            }
        })
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rpc error {}", self.code)?;
        if let Some(meaning) = self.meaning() {
            write!(f, " ({meaning})")?;
        }
        match self.text() {
            Some("") => Ok(()),
            Some(text) => write!(f, ": {}", text.escape_debug()),
            None => write!(f, ": {} bytes of data", self.data.len()),
        }
    }
}

impl std::error::Error for RpcError {}

impl From<Error> for RpcError {
    /// For methods that call or send themselves: the error of a callee as it is, that of the bus with its code.
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

    #[test]
    fn errors_of_the_bus_keep_their_code() {
        let unknown = Error::NotRegistered { target: "x".to_owned() };
        assert_eq!(RpcError::from(unknown).code, -32113);
        let callee = RpcError::new(5, "five");
        assert_eq!(RpcError::from(Error::Rpc(callee.clone())), callee);
    }

    #[test]
    fn texts() {
        assert_eq!(RpcError::method_not_found().to_string(), "rpc error -32601 (no such method)");
        assert_eq!(RpcError::new(7, "it is\nhot").to_string(), "rpc error 7: it is\\nhot");
        assert_eq!(RpcError::new(-32113, "").to_string(), "rpc error -32113 (not registered)");
        let binary = RpcError { code: 1, data: Bytes::from_static(&[0xFF, 1]) };
        assert_eq!((binary.to_string(), binary.text()), ("rpc error 1: 2 bytes of data".to_owned(), None));
    }
}
