//! Why a broker could not be set up or started.

use elbus_plugin_api::PluginError;

use crate::host::LibraryError;

/// Why a broker could not be set up or started.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BrokerError {
    /// The broker has been stopped.
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
    /// The table of a plugin is wrong.
    Configure {
        /// The instance.
        plugin: String,
        /// What is wrong, and with which key.
        error: PluginError,
    },
    /// A plugin needs another one that is not declared.
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
        /// Why, and which key is behind it.
        error: PluginError,
    },
    /// A plugin could not read anew the files that its table names.
    Refresh {
        /// The instance.
        plugin: String,
        /// Why, and which key is behind it.
        error: PluginError,
    },
}

impl BrokerError {
    /// The instance it is about.
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

    /// The key of the instance's table that it is about, dotted.
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
                    "plugin {plugin:?} requires the plugin {required}, which is not declared; add a [[plugin]] with \
                     library = {library:?}"
                )
            }
            BrokerError::Start { plugin, error } => write!(f, "plugin {plugin:?} could not start: {error}"),
            BrokerError::Refresh { plugin, error } => {
                write!(f, "plugin {plugin:?} could not read its files anew: {error}")
            }
        }
    }
}

impl std::error::Error for BrokerError {}
