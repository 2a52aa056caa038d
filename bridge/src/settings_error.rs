//! Why a setting is refused.

use crate::wire::MAX_NODE_NAME_BYTES;
use std::fmt;

/// The shortest key, in bytes.
pub(crate) const MIN_KEY_BYTES: usize = 16;
/// The longest key, in bytes.
pub(crate) const MAX_KEY_BYTES: usize = 4096;

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingsError {
    /// The name of a node or bus is empty, too long, or has other characters than letters of ASCII, digits,
    /// `-` and `_`.
    NodeName {
        /// The name.
        name: String,
    },
    /// The key has an unsuitable length.
    KeyLength {
        /// Its length, in bytes.
        len: usize,
    },
    /// A mask or filter is empty, too long, or has options.
    Pattern {
        /// The mask or filter.
        pattern: String,
    },
    /// The left side of an alias is not the name of one remote client, or the right side is no name.
    Alias {
        /// The text.
        text: String,
    },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingsError::NodeName { name } => write!(
                f,
                "invalid name {name:?}: expected 1 to {} letters, digits, \"-\" or \"_\"",
                MAX_NODE_NAME_BYTES
            ),
            SettingsError::KeyLength { len } => {
                write!(f, "the key has {len} bytes: expected {} to {}", MIN_KEY_BYTES, MAX_KEY_BYTES)
            }
            SettingsError::Pattern { pattern } => {
                write!(f, "invalid pattern {pattern:?}: it is empty, too long, or begins with an option")
            }
            SettingsError::Alias { text } => {
                write!(f, "invalid alias {text:?}: expected \"@NODE.NAME as NAME\" without wildcards")
            }
        }
    }
}

impl std::error::Error for SettingsError {}
