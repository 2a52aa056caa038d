//! Parameters and results of control methods in msgpack, and the errors for invalid ones.

use elbus_plugin_api::{Call, CallError};
use elbus_protocol::rpc::{INTERNAL_ERROR, INVALID_PARAMS, PARSE_ERROR};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The limit of a name in the parameters of a method: the longest that the wire format allows.
pub(super) const MAX_NAME_BYTES: usize = 65_535;

/// Encodes a result in msgpack, structs as maps.
pub(crate) fn encode_result(result: &impl Serialize) -> Result<Vec<u8>, CallError> {
    rmp_serde::to_vec_named(result).map_err(|error| CallError::new(INTERNAL_ERROR, error.to_string()))
}

/// Decodes parameters from msgpack; empty parameters are the default value.
pub(crate) fn decode_params<T: DeserializeOwned + Default>(params: &[u8]) -> Result<T, CallError> {
    if params.is_empty() {
        return Ok(T::default());
    }
    rmp_serde::from_slice(params).map_err(|error| CallError::new(PARSE_ERROR, error.to_string()))
}

/// Decodes the parameters of methods that take `{name: str}`.
pub(crate) fn name_param(call: &Call<'_>) -> Result<String, CallError> {
    #[derive(Deserialize, Default)]
    struct Named {
        name: String,
    }
    match decode_params::<Named>(call.params)?.name {
        name if name.is_empty() => Err(CallError::new(INVALID_PARAMS, "expected {name: str}")),
        name if name.len() > MAX_NAME_BYTES => {
            let text = format!("name has {} bytes, the limit is {MAX_NAME_BYTES}", name.len());
            Err(CallError::new(INVALID_PARAMS, text))
        }
        name => Ok(name),
    }
}

/// Cuts a text of a client to the length that errors show.
pub(crate) fn truncated(text: &str) -> String {
    const MAX_CHARS: usize = 64;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Checks that a call has no parameters.
pub(crate) fn no_params(call: &Call<'_>) -> Result<(), CallError> {
    if call.params.is_empty() { Ok(()) } else { Err(CallError::new(INVALID_PARAMS, "")) }
}
