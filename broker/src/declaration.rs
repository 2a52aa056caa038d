//! The declaration of an instance of a plugin: its name, the source of its code, its table, its restart
//! policy, and its location in the configuration file.

use elbus_plugin_api::{LinkedPlugin, hooks::OnFailure};
use serde::Deserialize;

use crate::location::DeclarationLocation;

/// An instance of a plugin that a broker runs.
///
/// ```
/// use elbus_broker::{PluginDeclaration, Restart};
///
/// let declaration = PluginDeclaration::library("local", "elbus_unix")
///     .set("path", "/run/example.sock")
///     .restart(Restart::Never);
/// assert_eq!(declaration.name(), "local");
/// ```
#[derive(Debug, Clone)]
pub struct PluginDeclaration {
    pub(crate) name: String,
    pub(crate) source: PluginSource,
    pub(crate) config: toml::Table,
    pub(crate) restart: Restart,
    pub(crate) priority: i32,
    /// `None`: as the plugin declares.
    pub(crate) on_failure: Option<OnFailure>,
    /// `None` if it was not read from a file.
    pub(crate) location: Option<DeclarationLocation>,
}

#[derive(Debug, Clone)]
pub(crate) enum PluginSource {
    Library(String),
    Linked(LinkedPlugin),
}

impl PluginSource {
    /// Returns whether both are the same library or linked-in plugin.
    fn is_same(&self, other: &PluginSource) -> bool {
        match (self, other) {
            (PluginSource::Library(a), PluginSource::Library(b)) => a == b,
            (PluginSource::Linked(a), PluginSource::Linked(b)) => {
                (a.name(), a.version()) == (b.name(), b.version())
            }
            _ => false,
        }
    }
}

/// The restart policy of an instance that has failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Restart {
    /// It is restarted after a delay, which doubles each time.
    #[default]
    OnFailure,
    /// It stays failed until it is started by request.
    Never,
}

impl PluginDeclaration {
    /// Declares an instance from a compiled library: a path, or a name such as `elbus_unix` that is searched
    /// in the plugin folders.
    pub fn library(name: impl Into<String>, library: impl Into<String>) -> Self {
        Self::new(name, PluginSource::Library(library.into()))
    }

    /// Declares an instance of a plugin that is linked into the program: `plugin()` of its crate returns it.
    pub fn linked(name: impl Into<String>, plugin: LinkedPlugin) -> Self {
        Self::new(name, PluginSource::Linked(plugin))
    }

    fn new(name: impl Into<String>, source: PluginSource) -> Self {
        let (name, restart) = (name.into(), Restart::default());
        PluginDeclaration {
            name,
            source,
            config: toml::Table::new(),
            restart,
            priority: 0,
            on_failure: None,
            location: None,
        }
    }

    /// Sets a key of its table.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<toml::Value>) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }

    /// Replaces its whole table.
    pub fn config(mut self, table: toml::Table) -> Self {
        self.config = table;
        self
    }

    /// Sets the restart policy. The default is [`Restart::OnFailure`].
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// Sets the order of its interceptors among those of other instances: lower ones are called first. The
    /// default is 0. Interceptors of equal priority are called in the order of their instances' names, those
    /// that ask to come after others last.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Sets what happens to the messages that its interceptors would check while they cannot be called. The
    /// default is what the plugin declares.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = Some(on_failure);
        self
    }

    /// Returns the name of the instance.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its table.
    pub fn table(&self) -> &toml::Table {
        &self.config
    }

    /// Returns the source of its code: the library as it was named, or the crate name of a linked-in plugin.
    pub fn code(&self) -> &str {
        match &self.source {
            PluginSource::Library(library) => library,
            PluginSource::Linked(plugin) => plugin.name(),
        }
    }

    /// Returns file and line of a key of its table, such as `broker.toml:42`: the line of the last part of
    /// the dotted path (`client[2].publish[0]`) that is in the file. `None` if the declaration was not read
    /// from a file.
    pub fn location_of(&self, key: &str) -> Option<String> {
        self.location.as_ref()?.of_key(key)
    }

    /// Returns whether both declare the same instance, in any file and line.
    pub(crate) fn is_same(&self, other: &PluginDeclaration) -> bool {
        self.name == other.name
            && self.source.is_same(&other.source)
            && self.config == other.config
            && self.restart == other.restart
            && self.priority == other.priority
            && self.on_failure == other.on_failure
    }
}
