//! The error of a plugin, about a key of its configuration.

use crate::abi::{FromRaw, IntoRaw, RawPluginError, convert::sealed::Sealed};

/// The error of an instance that could not be configured or started.
///
/// # Examples
/// ```
/// use elbus_plugin_api::PluginError;
///
/// let error = PluginError::of_key("max_topics", "0 is not allowed; expected 1 or more");
/// assert_eq!(error.to_string(), "max_topics: 0 is not allowed; expected 1 or more");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    /// Key of its table that it is about, dotted; empty if it is about no key.
    pub key: String,
    /// What is wrong and what would be right, lower case, without a full stop.
    pub message: String,
}

impl PluginError {
    /// Creates an error about no particular key.
    pub fn new(message: impl Into<String>) -> Self {
        PluginError { key: String::new(), message: message.into() }
    }

    /// Creates an error about the value of a key.
    pub fn of_key(key: impl Into<String>, message: impl Into<String>) -> Self {
        PluginError { key: key.into(), message: message.into() }
    }
}

impl Sealed for PluginError {}

impl IntoRaw for PluginError {
    type Raw = RawPluginError;

    fn into_raw(self) -> RawPluginError {
        RawPluginError::new(&self.key, &self.message)
    }
}

impl FromRaw<RawPluginError> for PluginError {
    fn from_raw(raw: RawPluginError) -> Self {
        PluginError { key: raw.key.into_string(), message: raw.message.into_string() }
    }
}

impl std::fmt::Display for PluginError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.key.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.key, self.message)
        }
    }
}

impl std::error::Error for PluginError {}
