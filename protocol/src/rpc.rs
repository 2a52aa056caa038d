//! The RPC layer: the payload of messages by convention (section 7). Owns its four frames and the error
//! codes; never routes, calls or times out.

use crate::{EncodeError, Field};
use std::fmt;

/// First byte of a notification.
pub const NOTIFICATION: u8 = 0x00;
/// First byte of a request.
pub const REQUEST: u8 = 0x01;
/// First byte of a reply.
pub const REPLY: u8 = 0x11;
/// First byte of an error reply.
pub const ERROR: u8 = 0x12;

/// Bytes of a reply before its result: kind and call id.
pub const REPLY_HEAD_BYTES: usize = 5;
/// Bytes of an error reply before its data: kind, call id and error code.
pub const ERROR_HEAD_BYTES: usize = 7;

/// The call id of a request without a reply.
pub const NO_REPLY: u32 = 0;

/// The parameters could not be parsed.
pub const PARSE_ERROR: i16 = -32700;
/// The request is invalid.
pub const INVALID_REQUEST: i16 = -32600;
/// The method does not exist.
pub const METHOD_NOT_FOUND: i16 = -32601;
/// The parameters do not match the method.
pub const INVALID_PARAMS: i16 = -32602;
/// The callee failed.
pub const INTERNAL_ERROR: i16 = -32603;
/// The object does not exist; used for cursors.
pub const NOT_FOUND: i16 = -32001;

/// A payload of the RPC layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RpcFrame<'a> {
    /// A message that has no reply.
    Notification {
        /// Any bytes.
        payload: &'a [u8],
    },
    /// A call.
    Request {
        /// Chosen by the caller and repeated in the reply; [`NO_REPLY`] requests no reply.
        call_id: u32,
        /// The method, not checked to be UTF-8: the callee answers an invalid one with an error.
        method: &'a [u8],
        /// The parameters, by convention msgpack; empty if there are none.
        params: &'a [u8],
    },
    /// The result of a call.
    Reply {
        /// The call id of the request.
        call_id: u32,
        /// The result, by convention msgpack; can be empty.
        result: &'a [u8],
    },
    /// The failure of a call.
    Error {
        /// The call id of the request.
        call_id: u32,
        /// An error code of this module, of [`Code::rpc_code`](crate::Code::rpc_code), or of the callee.
        code: i16,
        /// Details, usually text; can be empty.
        data: &'a [u8],
    },
}

/// Why a payload is not an RPC frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RpcDecodeError {
    /// The payload has no bytes.
    Empty,
    /// The first byte is none of the four kinds.
    UnknownKind {
        /// The byte.
        kind: u8,
    },
    /// The payload ends within its call id or error code.
    Truncated {
        /// Its length, in bytes.
        len: usize,
    },
    /// The method has no terminating NUL.
    MissingNul,
}

impl fmt::Display for RpcDecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RpcDecodeError::Empty => f.write_str("rpc payload is empty"),
            RpcDecodeError::UnknownKind { kind } => write!(f, "unknown rpc frame kind 0x{kind:02x}"),
            RpcDecodeError::Truncated { len } => write!(f, "rpc payload of {len} bytes is truncated"),
            RpcDecodeError::MissingNul => f.write_str("method has no terminating NUL"),
        }
    }
}

impl std::error::Error for RpcDecodeError {}

/// Parses the payload of a message; copies nothing.
pub fn decode_rpc(payload: &[u8]) -> Result<RpcFrame<'_>, RpcDecodeError> {
    let truncated = RpcDecodeError::Truncated { len: payload.len() };
    let (kind, rest) = payload.split_first().ok_or(RpcDecodeError::Empty)?;
    if *kind == NOTIFICATION {
        return Ok(RpcFrame::Notification { payload: rest });
    }
    if !matches!(*kind, REQUEST | REPLY | ERROR) {
        return Err(RpcDecodeError::UnknownKind { kind: *kind });
    }
    let (id, rest) = rest.split_first_chunk::<4>().ok_or(truncated)?;
    let call_id = u32::from_le_bytes(*id);
    match *kind {
        REQUEST => {
            let nul = rest.iter().position(|byte| *byte == 0).ok_or(RpcDecodeError::MissingNul)?;
            let (method, params) = rest.split_at(nul);
            Ok(RpcFrame::Request { call_id, method, params: params.get(1..).unwrap_or_default() })
        }
        REPLY => Ok(RpcFrame::Reply { call_id, result: rest }),
        _ => {
            let (code, data) = rest.split_first_chunk::<2>().ok_or(truncated)?;
            Ok(RpcFrame::Error { call_id, code: i16::from_le_bytes(*code), data })
        }
    }
}

/// Returns the payload of a notification.
pub fn encode_notification(payload: &[u8]) -> Vec<u8> {
    [&[NOTIFICATION], payload].concat()
}

/// Encodes the payload of a request.
///
/// # Errors
/// The method contains a NUL.
pub fn encode_request(call_id: u32, method: &str, params: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(request_head_len(method) + params.len());
    encode_request_head(&mut out, call_id, method)?;
    out.extend_from_slice(params);
    Ok(out)
}

/// Returns the payload of a reply.
pub fn encode_reply(call_id: u32, result: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(REPLY_HEAD_BYTES + result.len());
    encode_reply_head(&mut out, call_id);
    out.extend_from_slice(result);
    out
}

/// Returns the payload of an error reply.
pub fn encode_error(call_id: u32, code: i16, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ERROR_HEAD_BYTES + data.len());
    encode_error_head(&mut out, call_id, code);
    out.extend_from_slice(data);
    out
}

/// Returns the number of bytes that [`encode_request_head`] appends.
#[inline]
pub fn request_head_len(method: &str) -> usize {
    REPLY_HEAD_BYTES + method.len() + 1
}

/// Appends a request without its parameters, which the caller sends after it. After an error `out` is
/// unchanged.
///
/// # Errors
/// The method contains a NUL.
pub fn encode_request_head(out: &mut Vec<u8>, call_id: u32, method: &str) -> Result<(), EncodeError> {
    if method.as_bytes().contains(&0) {
        return Err(EncodeError::HasNul { field: Field::Method });
    }
    append_head(out, REQUEST, call_id);
    out.extend_from_slice(method.as_bytes());
    out.push(0);
    Ok(())
}

/// Appends a reply without its result, which the caller sends after it: [`REPLY_HEAD_BYTES`].
pub fn encode_reply_head(out: &mut Vec<u8>, call_id: u32) {
    append_head(out, REPLY, call_id);
}

/// Appends an error reply without its data, which the caller sends after it: [`ERROR_HEAD_BYTES`].
pub fn encode_error_head(out: &mut Vec<u8>, call_id: u32, code: i16) {
    append_head(out, ERROR, call_id);
    out.extend_from_slice(&code.to_le_bytes());
}

#[inline]
fn append_head(out: &mut Vec<u8>, kind: u8, call_id: u32) {
    let [i0, i1, i2, i3] = call_id.to_le_bytes();
    out.extend_from_slice(&[kind, i0, i1, i2, i3]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decode_after_encode_is_identity() {
        assert_eq!(decode_rpc(&encode_notification(b"n")), Ok(RpcFrame::Notification { payload: b"n" }));
        let request = encode_request(7, "test", b"p\0q").unwrap();
        let expected = RpcFrame::Request { call_id: 7, method: b"test", params: b"p\0q" };
        assert_eq!(decode_rpc(&request), Ok(expected));
        assert_eq!(decode_rpc(&encode_reply(9, b"")), Ok(RpcFrame::Reply { call_id: 9, result: b"" }));
        let error = encode_error(u32::MAX, -32601, b"no");
        let expected = RpcFrame::Error { call_id: u32::MAX, code: METHOD_NOT_FOUND, data: b"no" };
        assert_eq!(decode_rpc(&error), Ok(expected));
    }

    #[test]
    fn a_method_with_nul_is_refused() {
        assert_eq!(encode_request(1, "a\0b", b""), Err(EncodeError::HasNul { field: Field::Method }));
        let mut out = vec![7];
        assert!(encode_request_head(&mut out, 1, "a\0b").is_err());
        assert_eq!(out, [7], "as before");
    }

    #[test]
    fn heads_are_appended_and_have_the_declared_length() {
        let mut out = vec![7];
        encode_request_head(&mut out, 0x0403_0201, "ab").unwrap();
        assert_eq!(out, b"\x07\x01\x01\x02\x03\x04ab\0");
        assert_eq!(request_head_len("ab"), out.len() - 1);
        let mut out = vec![7];
        encode_reply_head(&mut out, 0x0403_0201);
        assert_eq!(out, b"\x07\x11\x01\x02\x03\x04");
        assert_eq!(REPLY_HEAD_BYTES, out.len() - 1);
        let mut out = vec![7];
        encode_error_head(&mut out, 0x0403_0201, -2);
        assert_eq!(out, b"\x07\x12\x01\x02\x03\x04\xFE\xFF");
        assert_eq!(ERROR_HEAD_BYTES, out.len() - 1);
    }

    #[test]
    fn invalid_rpc_payloads_are_errors() {
        assert_eq!(decode_rpc(b""), Err(RpcDecodeError::Empty));
        assert_eq!(decode_rpc(b"hello"), Err(RpcDecodeError::UnknownKind { kind: b'h' }));
        assert_eq!(decode_rpc(&[1, 0, 0]), Err(RpcDecodeError::Truncated { len: 3 }));
        assert_eq!(decode_rpc(&[1, 0, 0, 0, 0, b'm']), Err(RpcDecodeError::MissingNul));
        assert_eq!(decode_rpc(&[0x12, 1, 0, 0, 0, 9]), Err(RpcDecodeError::Truncated { len: 6 }));
    }
}
