//! What is written to stdout and stderr. Everything that came from the bus passes through here on its way to a
//! terminal, so that no control character gets there unescaped.

mod colour;
mod escape;
mod hex;
mod msgpack;
mod payload;
mod size;
mod table;

use serde_json::Value;
use std::io::{BufWriter, Stdout, Write};

use crate::{failure::Failure, link::Link};

pub(crate) use colour::{Palette, Tone};
pub(crate) use escape::escape;
pub(crate) use payload::{Bound, Expect, Payload, Shown};
pub(crate) use size::{human_bytes, human_seconds};
pub(crate) use table::{Align, Column, Table};

/// Stdout: lines of text, JSON or bytes. Nothing is seen before [`flush`](Self::flush).
pub(crate) struct Results {
    stdout: BufWriter<Stdout>,
    pub(crate) palette: Palette,
}

impl Results {
    pub(crate) fn new(link: &Link) -> Self {
        Results { stdout: BufWriter::new(std::io::stdout()), palette: Palette::new(link.colour()) }
    }

    /// A line, escaped where it has to be by whoever made it.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.stdout, "{text}").map_err(Failure::output)
    }

    /// A value in one line.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(&escape::escape_json(&value.to_string()))
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stdout.write_all(bytes).map_err(Failure::output)
    }

    /// Whatever was written is seen from now on.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.stdout.flush().map_err(Failure::output)
    }
}

fn complaint(failure: &Failure, json: bool) -> String {
    if json {
        escape::escape_json(&failure.to_json().to_string()).into_owned()
    } else {
        escape(&failure.to_string()).into_owned()
    }
}

/// Writes to stderr in one line why the command failed; as a JSON object for scripts.
pub(crate) fn complain(failure: &Failure, json: bool) {
    let line = complaint(failure, json);
    // stderr may be closed, and there is nowhere else to write to
    _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_callee_says_commands_no_terminal() {
        let failure = Failure::Rpc { code: 7, text: "\u{9b}31m \x1b[2J \u{202e}x \u{7f}".to_owned() };
        for json in [false, true] {
            let line = complaint(&failure, json);
            assert!(line.is_ascii() && !line.contains(char::is_control), "{line:?}");
        }
        let value: Value = serde_json::from_str(&complaint(&failure, true)).unwrap();
        assert_eq!(value, failure.to_json());
    }
}
