//! Payloads and parameters from the command line, stdin or a file. Bounded; never interprets them beyond JSON.

use serde_json::Value;
use std::{
    fs::File,
    io::{IsTerminal, Read},
};

use crate::{arguments::PayloadArguments, failure::Failure, link::Link};

/// The longest payload; a broker takes no longer one unless it is told to.
const MAX_BYTES: u64 = 256 << 20;

/// The payload that the arguments mean.
pub(crate) fn payload(link: &Link, arguments: &PayloadArguments) -> Result<Vec<u8>, Failure> {
    let bytes = match (&arguments.text, &arguments.payload) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(payload)) => argument(link, payload)?,
        (None, None) => stdin(link)?,
    };
    if arguments.msgpack { pack(&json(&bytes, "the payload")?) } else { Ok(bytes) }
}

/// `-` is stdin, `@FILE` a file, anything else itself.
pub(crate) fn argument(link: &Link, text: &str) -> Result<Vec<u8>, Failure> {
    match text.strip_prefix('@') {
        Some(path) => {
            let failed = |error| Failure::usage(format!("cannot read {path:?}: {error} (@ names a file)"));
            read(File::open(path).map_err(failed)?, path, MAX_BYTES)
        }
        None if text == "-" => stdin(link),
        None => Ok(text.as_bytes().to_vec()),
    }
}

/// Bytes as JSON.
pub(crate) fn json(bytes: &[u8], what: &str) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::usage(format!("{what}: not JSON: {error}")))
}

/// A value as msgpack.
pub(crate) fn pack(value: &Value) -> Result<Vec<u8>, Failure> {
    rmp_serde::to_vec_named(value).map_err(|error| Failure::usage(format!("cannot be msgpack: {error}")))
}

fn stdin(link: &Link) -> Result<Vec<u8>, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        link.notice("reading the payload from the terminal, Ctrl-D ends it");
    }
    read(stdin.lock(), "stdin", MAX_BYTES)
}

fn read(source: impl Read, what: &str, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    source
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("cannot read {what}: {error}")))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::usage(format!("{what}: longer than {limit} bytes, the most of a payload")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_input_is_refused() {
        let failure = read(std::io::repeat(0), "stdin", 1000).unwrap_err();
        assert_eq!(failure.to_string(), "error: stdin: longer than 1000 bytes, the most of a payload");
        assert_eq!(failure.exit_code(), 2);
    }

    #[test]
    fn json_becomes_msgpack() {
        let value = json(br#"{"k": [1, -1, 1.5, null, "a"]}"#, "the payload").unwrap();
        assert_eq!(pack(&value).unwrap(), b"\x81\xa1k\x95\x01\xff\xcb\x3f\xf8\0\0\0\0\0\0\xc0\xa1a");
        assert_eq!(json(b"{", "x").unwrap_err().exit_code(), 2);
    }
}
