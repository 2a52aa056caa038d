//! The declaration of an instance of a plugin: its name, where its code comes from, its table.

use elbus_plugin_api::LinkedPlugin;

/// An instance of a plugin that a broker shall have.
#[derive(Debug, Clone)]
pub struct PluginDeclaration {
    pub(crate) name: String,
    pub(crate) source: PluginSource,
    pub(crate) config: toml::Table,
}

#[derive(Debug, Clone)]
pub(crate) enum PluginSource {
    Library(String),
    Linked(LinkedPlugin),
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
        PluginDeclaration { name: name.into(), source, config: toml::Table::new() }
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

    /// The name of the instance.
    pub fn name(&self) -> &str {
        &self.name
    }
}
