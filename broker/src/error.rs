//! The errors of setting up, starting and reloading a broker.

use elbus_plugin_api::PluginError;

use crate::host::load::libraries::LibraryError;

/// An error of setting up, starting or reloading a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerError {
    /// The broker is stopping.
    Ending,
    /// A plugin was declared without a name.
    NamelessPlugin,
    /// Two plugins were declared with one name.
    DuplicatePlugin {
        /// The name.
        name: String,
    },
    /// The library of a plugin could not be loaded.
    Library {
        /// The instance.
        plugin: String,
        /// Why.
        error: LibraryError,
    },
    /// The table of a plugin is invalid.
    Configure {
        /// The instance.
        plugin: String,
        /// The key, and what is wrong with it.
        error: PluginError,
    },
    /// A plugin requires another one that is not declared.
    Requires {
        /// The instance.
        plugin: String,
        /// The crate of the plugin that is missing.
        required: String,
    },
    /// A plugin could not start.
    Start {
        /// The instance.
        plugin: String,
        /// Why, and the key that causes it.
        error: PluginError,
    },
    /// A plugin could not read again the files that its table names.
    Refresh {
        /// The instance.
        plugin: String,
        /// Why, and the key that causes it.
        error: PluginError,
    },
}

impl BrokerError {
    /// Returns the instance that caused it.
    pub fn plugin(&self) -> Option<&str> {
        match self {
            BrokerError::Ending | BrokerError::NamelessPlugin => None,
            BrokerError::DuplicatePlugin { name } => Some(name),
            BrokerError::Library { plugin, .. }
            | BrokerError::Configure { plugin, .. }
            | BrokerError::Requires { plugin, .. }
            | BrokerError::Start { plugin, .. }
            | BrokerError::Refresh { plugin, .. } => Some(plugin),
        }
    }

    /// Returns the dotted path of the key in the instance's table that caused it.
    pub fn key(&self) -> Option<&str> {
        match self {
            BrokerError::Configure { error, .. }
            | BrokerError::Start { error, .. }
            | BrokerError::Refresh { error, .. } => Some(error.key.as_str()).filter(|key| !key.is_empty()),
            _ => None,
        }
    }
}

impl std::fmt::Display for BrokerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BrokerError::Ending => f.write_str("the broker is ending"),
            BrokerError::NamelessPlugin => f.write_str("a plugin needs a name"),
            BrokerError::DuplicatePlugin { name } => {
                write!(f, "two plugins are named {name:?}; names are unique")
            }
            BrokerError::Library { plugin, error } => write!(f, "plugin {plugin:?}: {error}"),
            BrokerError::Configure { plugin, error } => write!(f, "plugin {plugin:?}: {error}"),
            BrokerError::Requires { plugin, required } => {
                let library = required.replace('-', "_");
                write!(
                    f,
                    "plugin {plugin:?} requires the plugin {required}, which is not declared; add a \
                     [[plugin]] with library = {library:?}"
                )
            }
            BrokerError::Start { plugin, error } => write!(f, "plugin {plugin:?} could not start: {error}"),
            BrokerError::Refresh { plugin, error } => {
                write!(f, "plugin {plugin:?} could not read its files again: {error}")
            }
        }
    }
}

impl std::error::Error for BrokerError {}
