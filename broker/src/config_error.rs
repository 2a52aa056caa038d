//! The error for `broker.toml`: file, line, and what is wrong there.

use std::path::{Path, PathBuf};

/// An error in `broker.toml`, displayed as `file:line: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1, if the error is about one.
    pub line: Option<usize>,
    /// What is wrong, and what is expected.
    pub message: String,
}

impl ConfigError {
    /// Creates an error. Control characters of the message are escaped, so that it is one line.
    pub fn new(path: &Path, line: Option<usize>, message: &str) -> Self {
        let each = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        ConfigError { path: path.to_owned(), line, message: message.chars().map(each).collect() }
    }
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for ConfigError {}
