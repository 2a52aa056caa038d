//! The declaration of an instance of a plugin: its name, where its code comes from, its table, what happens when it
//! fails, and where all that stands.

use elbus_plugin_api::LinkedPlugin;
use serde::Deserialize;

use crate::config_file::Entry;

/// An instance of a plugin that a broker shall have.
#[derive(Debug, Clone)]
pub struct PluginDeclaration {
    pub(crate) name: String,
    pub(crate) source: PluginSource,
    pub(crate) config: toml::Table,
    pub(crate) restart: Restart,
    /// Where it comes from a file.
    pub(crate) entry: Option<Entry>,
}

#[derive(Debug, Clone)]
pub(crate) enum PluginSource {
    Library(String),
    Linked(LinkedPlugin),
}

impl PluginSource {
    fn is(&self, other: &PluginSource) -> bool {
        match (self, other) {
            (PluginSource::Library(a), PluginSource::Library(b)) => a == b,
            (PluginSource::Linked(a), PluginSource::Linked(b)) => {
                (a.name(), a.version()) == (b.name(), b.version())
            }
            _ => false,
        }
    }
}

/// What happens to an instance that has failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Restart {
    /// It is started again after a while, a longer one each time.
    #[default]
    OnFailure,
    /// It stays failed until somebody starts it.
    Never,
}

impl PluginDeclaration {
    /// An instance from a compiled library: a name such as `elbus_unix`, looked for in the plugin folders, or a
    /// path.
    pub fn library(name: impl Into<String>, library: impl Into<String>) -> Self {
        Self::new(name, PluginSource::Library(library.into()))
    }

    /// An instance of a plugin that is linked into the program: what `plugin()` of its crate returns.
    pub fn linked(name: impl Into<String>, plugin: LinkedPlugin) -> Self {
        Self::new(name, PluginSource::Linked(plugin))
    }

    fn new(name: impl Into<String>, source: PluginSource) -> Self {
        let (name, restart) = (name.into(), Restart::default());
        PluginDeclaration { name, source, config: toml::Table::new(), restart, entry: None }
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

    /// What happens when it fails; starting it again unless this says otherwise.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// The name of the instance.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its table.
    pub fn table(&self) -> &toml::Table {
        &self.config
    }

    /// Where its code comes from: the library as it was named, or the name of the crate of a plugin that is linked in.
    pub fn code(&self) -> &str {
        match &self.source {
            PluginSource::Library(library) => library,
            PluginSource::Linked(plugin) => plugin.name(),
        }
    }

    /// Where a key of its table stands, `broker.toml:42`: the line of the last part of the dotted path
    /// (`client[2].publish[0]`) that is in the file. `None` where the declaration comes from no file.
    pub fn place(&self, key: &str) -> Option<String> {
        self.entry.as_ref()?.place(key)
    }

    /// Whether an instance of the one is an instance of the other: where they stand makes no difference.
    pub(crate) fn is_same(&self, other: &PluginDeclaration) -> bool {
        self.name == other.name
            && self.source.is(&other.source)
            && self.config == other.config
            && self.restart == other.restart
    }
}
