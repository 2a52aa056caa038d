//! Reads payloads and parameters from the command line, stdin or a file, within a limit. Never interprets
//! them beyond JSON.

use serde_json::Value;
use std::{
    fs::File,
    io::{IsTerminal, Read},
};

use crate::{arguments::messages::PayloadArguments, context::Context, error::CliError};

/// The longest payload in bytes. Brokers accept no longer one by default.
const MAX_BYTES: u64 = 256 << 20;

/// Returns the payload that the arguments describe.
pub(crate) fn read_payload(context: &Context, arguments: &PayloadArguments) -> Result<Vec<u8>, CliError> {
    let bytes = match (&arguments.text, &arguments.payload) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(payload)) => read_argument(context, payload)?,
        (None, None) => read_stdin(context)?,
    };
    if arguments.msgpack { to_msgpack(&parse_json(&bytes, "the payload")?) } else { Ok(bytes) }
}

/// Returns the bytes of stdin for `-`, of the file for `@FILE`, and of `text` itself otherwise.
pub(crate) fn read_argument(context: &Context, text: &str) -> Result<Vec<u8>, CliError> {
    match text.strip_prefix('@') {
        Some(path) => {
            let failed =
                |error| CliError::usage(format!("cannot read {path:?}: {error} (a leading @ means a file)"));
            read(File::open(path).map_err(failed)?, path, MAX_BYTES)
        }
        None if text == "-" => read_stdin(context),
        None => Ok(text.as_bytes().to_vec()),
    }
}

/// Parses JSON; `source` names it in the error.
pub(crate) fn parse_json(bytes: &[u8], source: &str) -> Result<Value, CliError> {
    serde_json::from_slice(bytes).map_err(|error| CliError::usage(format!("{source} is not JSON: {error}")))
}

/// Encodes a value as msgpack.
pub(crate) fn to_msgpack(value: &Value) -> Result<Vec<u8>, CliError> {
    rmp_serde::to_vec_named(value)
        .map_err(|error| CliError::usage(format!("cannot encode as msgpack: {error}")))
}

fn read_stdin(context: &Context) -> Result<Vec<u8>, CliError> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        context.output.notice("reading the payload from the terminal; end it with Ctrl-D");
    }
    read(stdin.lock(), "stdin", MAX_BYTES)
}

fn read(source: impl Read, what: &str, limit: u64) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    source
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::usage(format!("cannot read {what}: {error}")))?;
    if bytes.len() as u64 > limit {
        return Err(CliError::usage(format!("{what} is longer than {limit} bytes, the payload limit")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_beyond_the_limit_is_refused() {
        let error = read(std::io::repeat(0), "stdin", 1000).unwrap_err();
        assert_eq!(error.to_string(), "error: stdin is longer than 1000 bytes, the payload limit");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn json_becomes_msgpack() {
        let value = parse_json(br#"{"k": [1, -1, 1.5, null, "a"]}"#, "the payload").unwrap();
        assert_eq!(to_msgpack(&value).unwrap(), b"\x81\xa1k\x95\x01\xff\xcb\x3f\xf8\0\0\0\0\0\0\xc0\xa1a");
        assert_eq!(parse_json(b"{", "x").unwrap_err().exit_code(), 2);
    }
}
