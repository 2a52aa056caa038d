//! Conversion of parameters and results to and from msgpack. Structs become maps with the names of their
//! fields; `()` is sent as no bytes at all.

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, rpc_error::RpcError};

/// `()` as msgpack.
const NIL: [u8; 1] = [0xC0];

/// Encodes the parameters of a call.
pub(super) fn encode_params(params: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, Error> {
    let encoded = rmp_serde::to_vec_named(params)
        .map_err(|error| Error::conversion("parameters cannot be encoded", error))?;
    Ok(if encoded == NIL { Vec::new() } else { encoded })
}

/// Decodes the parameters of a call for its method.
pub(super) fn decode_params<P: DeserializeOwned>(params: &[u8]) -> Result<P, RpcError> {
    decode(params).map_err(|error| RpcError::invalid_params(error.to_string()))
}

/// Encodes a result, or an item of a cursor.
pub(super) fn encode_result(result: &impl Serialize) -> Result<Vec<u8>, RpcError> {
    rmp_serde::to_vec_named(result).map_err(|error| RpcError::internal(error.to_string()))
}

/// Decodes the result of a call for its caller.
pub(super) fn decode_result<R: DeserializeOwned>(
    result: &[u8],
    target: &str,
    method: &str,
) -> Result<R, Error> {
    decode(result).map_err(|error| {
        let context = format!("the result of {method:?} of {target:?} does not have the expected type");
        Error::conversion(&context, error)
    })
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    let bytes: &[u8] = if bytes.is_empty() { &NIL } else { bytes };
    rmp_serde::from_slice(bytes)
}

/// Encodes an array of items that are already encoded.
pub(super) fn encode_array(items: &[Vec<u8>]) -> Vec<u8> {
    let mut out = match items.len() {
        count @ 0..=15 => vec![0x90 | count as u8],
        count @ 16..=0xFFFF => [&[0xDC], &(count as u16).to_be_bytes()[..]].concat(),
        count => [&[0xDD], &(count as u32).to_be_bytes()[..]].concat(),
    };
    out.extend(items.iter().flatten());
    out
}
