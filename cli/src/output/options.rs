//! How results and notices are printed, according to the command line.

use std::io::Write;

use super::escape;

/// How results and notices are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OutputOptions {
    /// Results as one JSON object per line, never coloured.
    pub(crate) json: bool,
    /// No notices and no confirmations; results and errors only.
    pub(crate) quiet: bool,
    /// Details on stderr.
    pub(crate) verbose: bool,
    /// Coloured results: stdout is a terminal with colours, without `--json` and `NO_COLOR`.
    pub(crate) colour: bool,
}

impl OutputOptions {
    /// Prints a line on stderr, unless `--quiet`.
    pub(crate) fn notice(&self, text: &str) {
        if !self.quiet {
            // stderr may be closed, which must not fail the command
            _ = writeln!(std::io::stderr(), "{}", escape(text));
        }
    }

    /// Prints a line on stderr, with `--verbose` only.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose {
            self.notice(text);
        }
    }
}
