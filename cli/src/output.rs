//! Writes to stdout and stderr. Everything that comes from the bus passes through here on its way to a
//! terminal, so that no control character reaches it unescaped.

mod colour;
mod escape;
mod hex;
mod msgpack;
mod options;
mod payload;
mod table;
mod units;

use serde_json::Value;
use std::io::{BufWriter, Stdout, Write};

use crate::error::CliError;

pub(crate) use colour::{Palette, Style};
pub(crate) use escape::escape;
pub(crate) use options::OutputOptions;
pub(crate) use payload::{DisplayLimit, Expect, Payload, Rendered};
pub(crate) use table::{Align, Column, Table};
pub(crate) use units::{compact_bytes, human_bytes, human_seconds};

/// Writes results to stdout as lines of text, JSON or bytes, buffered until [`flush`](Self::flush).
pub(crate) struct Results {
    stdout: BufWriter<Stdout>,
    pub(crate) palette: Palette,
}

impl Results {
    pub(crate) fn new(options: &OutputOptions) -> Self {
        Results { stdout: BufWriter::new(std::io::stdout()), palette: Palette::new(options.colour) }
    }

    /// Writes a line. The caller escapes what comes from outside.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.stdout, "{text}").map_err(CliError::output)
    }

    /// Writes a value in one line.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), CliError> {
        self.line(&escape::escape_json(&value.to_string()))
    }

    /// Writes bytes unchanged.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.stdout.write_all(bytes).map_err(CliError::output)
    }

    /// Flushes everything written so far.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        self.stdout.flush().map_err(CliError::output)
    }
}

fn error_line(error: &CliError, json: bool) -> String {
    if json {
        escape::escape_json(&error.to_json().to_string()).into_owned()
    } else {
        escape(&error.to_string()).into_owned()
    }
}

/// Writes the error to stderr in one line, as a JSON object if `json`.
pub(crate) fn print_error(error: &CliError, json: bool) {
    let line = error_line(error, json);
    // stderr may be closed, and there is nowhere else to report to
    _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_callee_are_escaped() {
        let error = CliError::Rpc { code: 7, text: "\u{9b}31m \x1b[2J \u{202e}x \u{7f}".to_owned() };
        for json in [false, true] {
            let line = error_line(&error, json);
            assert!(line.is_ascii() && !line.contains(char::is_control), "{line:?}");
        }
        let value: Value = serde_json::from_str(&error_line(&error, true)).unwrap();
        assert_eq!(value, error.to_json());
    }
}
