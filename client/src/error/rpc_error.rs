//! The error that a method returns to its caller (protocol section 7). Owns its codes and text; never a bus
//! error of the caller's own.

use bytes::Bytes;
use elbus_protocol::{Code, rpc};
use std::fmt;

/// The error that a method returns instead of a result.
///
/// ```
/// use elbus_client::RpcError;
/// let error = RpcError::invalid_params("temperature must be at most 90");
/// assert_eq!(error.to_string(), "rpc error -32602 (invalid parameters): temperature must be at most 90");
/// assert_eq!(RpcError::new(7, "no water").code, 7);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RpcError {
    /// A code of protocol section 7, or the method's own.
    pub code: i16,
    /// Usually text; can be empty.
    pub data: Bytes,
}

impl RpcError {
    /// Creates an error with a code and a text.
    pub fn new(code: i16, text: impl Into<String>) -> Self {
        RpcError { code, data: text.into().into() }
    }

    /// Creates an error with a code and binary data.
    pub fn with_data(code: i16, data: impl Into<Bytes>) -> Self {
        RpcError { code, data: data.into() }
    }

    /// Returns the error for a method that does not exist: -32601.
    pub fn method_not_found() -> Self {
        Self::new(rpc::METHOD_NOT_FOUND, "")
    }

    /// Returns the error for parameters that do not fit the method: -32602.
    pub fn invalid_params(text: impl Into<String>) -> Self {
        Self::new(rpc::INVALID_PARAMS, text)
    }

    /// Returns the error for parameters that cannot be parsed: -32700.
    pub fn parse(text: impl Into<String>) -> Self {
        Self::new(rpc::PARSE_ERROR, text)
    }

    /// Returns the error for a method that failed: -32603.
    pub fn internal(text: impl Into<String>) -> Self {
        Self::new(rpc::INTERNAL_ERROR, text)
    }

    /// Returns the error for an object that does not exist: -32001.
    pub fn not_found() -> Self {
        Self::new(rpc::NOT_FOUND, "")
    }

    /// Returns the data if it is text.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.data).ok()
    }

    /// Returns the meaning of the code if the protocol defines it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(RpcError::method_not_found().to_string(), "rpc error -32601 (no such method)");
        assert_eq!(RpcError::new(7, "it is\nhot").to_string(), "rpc error 7: it is\\nhot");
        assert_eq!(RpcError::new(-32113, "").to_string(), "rpc error -32113 (not registered)");
        let binary = RpcError::with_data(1, vec![0xFF, 1]);
        assert_eq!((binary.to_string(), binary.text()), ("rpc error 1: 2 bytes of data".to_owned(), None));
    }
}
