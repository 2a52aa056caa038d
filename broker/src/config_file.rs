//! `broker.toml`: reads it, and adds file, line and value to errors that the broker and its plugins report
//! about keys.

mod parse;
mod syntax;
pub(crate) mod wrong_keys;

use elbus_plugin_api::{LinkedPlugin, PluginError};
use rustix::fs::OFlags;
use serde::Deserialize;
use std::{
    fs::{File, FileType},
    io::Read,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use crate::{
    broker::{Broker, BrokerBuilder},
    config_error::ConfigError,
    declaration::PluginDeclaration,
    error::BrokerError,
    host::load::libraries::LibraryError,
    location::{FileText, Step, table_steps},
    settings::BrokerSettings,
};

/// Larger files are refused.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Further errors of one file are not reported at once.
const MAX_ERRORS: usize = 50;

/// Keys of `[broker]` that the embedding program reads, beside those of the broker. Each field is a key.
///
/// ```
/// use elbus_broker::{ConfigFile, ProgramSettings};
///
/// #[derive(Default, serde::Deserialize)]
/// #[serde(default)]
/// struct Settings {
///     greeting: String,
/// }
///
/// impl ProgramSettings for Settings {}
///
/// let text = "[broker]\nname = 'plant'\ngreeting = 'hello'".to_owned();
/// let (file, settings) = ConfigFile::parse_with::<Settings>("broker.toml".as_ref(), text, &[])?;
/// assert_eq!((&*file.settings().name, &*settings.greeting), ("plant", "hello"));
/// # Ok::<(), elbus_broker::ConfigError>(())
/// ```
pub trait ProgramSettings: serde::de::DeserializeOwned + Default {
    /// Checks the values.
    ///
    /// # Errors
    /// The first key with an invalid value.
    fn check(&self) -> Result<(), PluginError> {
        Ok(())
    }
}

/// For programs without keys of their own.
#[derive(Deserialize, Default)]
struct NoSettings {}

impl ProgramSettings for NoSettings {}

/// A `broker.toml` whose declarations and `[broker]` table are valid.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    source: Arc<FileText>,
    settings: BrokerSettings,
    plugins: Vec<PluginDeclaration>,
    /// The names that `builtin = "..."` can have.
    linked: Vec<String>,
}

impl ConfigFile {
    /// Reads a file. `linked` are the plugins that `builtin = "..."` can name.
    ///
    /// # Errors
    /// The first error in the file, with file and line.
    pub fn read(path: &Path, linked: &[(&str, LinkedPlugin)]) -> Result<Self, ConfigError> {
        Self::parse(path, text_of(path)?, linked)
    }

    /// As [`read`](ConfigFile::read), for a program with keys of its own.
    ///
    /// # Errors
    /// As [`read`](ConfigFile::read).
    pub fn read_with<P: ProgramSettings>(
        path: &Path,
        linked: &[(&str, LinkedPlugin)],
    ) -> Result<(Self, P), ConfigError> {
        Self::parse_with(path, text_of(path)?, linked)
    }

    /// As [`read`](ConfigFile::read), from text. `path` is for messages and relative paths.
    ///
    /// # Errors
    /// As [`read`](ConfigFile::read).
    pub fn parse(path: &Path, text: String, linked: &[(&str, LinkedPlugin)]) -> Result<Self, ConfigError> {
        Self::parse_with::<NoSettings>(path, text, linked).map(|(file, _)| file)
    }

    /// As [`parse`](ConfigFile::parse), for a program with keys of its own.
    ///
    /// # Errors
    /// As [`read`](ConfigFile::read).
    pub fn parse_with<P: ProgramSettings>(
        path: &Path,
        text: String,
        linked: &[(&str, LinkedPlugin)],
    ) -> Result<(Self, P), ConfigError> {
        let (file, errors) = parse::parse_all(path, text, linked);
        match (errors.into_iter().next(), file) {
            (None, Some(file)) => Ok(file),
            (Some(error), _) => Err(error),
            (None, None) => Err(error_of(path, "cannot be read")),
        }
    }

    /// Reads a file and reports all errors in it, with file and line, instead of the first. The file that is
    /// returned has the valid parts, which can be checked further; there is none if the text is not TOML.
    pub fn inspect(path: &Path, linked: &[(&str, LinkedPlugin)]) -> (Option<Self>, Vec<ConfigError>) {
        let (read, errors) = Self::inspect_with::<NoSettings>(path, linked);
        (read.map(|(file, _)| file), errors)
    }

    /// As [`inspect`](ConfigFile::inspect), for a program with keys of its own.
    pub fn inspect_with<P: ProgramSettings>(
        path: &Path,
        linked: &[(&str, LinkedPlugin)],
    ) -> (Option<(Self, P)>, Vec<ConfigError>) {
        match text_of(path) {
            Ok(text) => parse::parse_all(path, text, linked),
            Err(error) => (None, vec![error]),
        }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// Returns the settings of the broker.
    pub fn settings(&self) -> &BrokerSettings {
        &self.settings
    }

    /// Whether `[broker]` has this key.
    pub fn sets(&self, key: &str) -> bool {
        let (_, value) = self.source.find(&[Step::Key("broker")], &[Step::Key(key)]);
        value.is_some()
    }

    /// Whether the file declares any plugins.
    pub fn declares_plugins(&self) -> bool {
        !self.plugins.is_empty()
    }

    /// Whether both were read from the same text.
    pub fn has_same_text(&self, other: &ConfigFile) -> bool {
        self.source.text == other.source.text
    }

    /// Returns a builder with everything that the file declares.
    pub fn builder(&self) -> BrokerBuilder {
        let builder = Broker::builder().settings(self.settings.clone());
        self.plugins.iter().cloned().fold(builder, BrokerBuilder::plugin)
    }

    /// Returns an error about a key of `[broker]`.
    pub fn broker_error(&self, error: &PluginError) -> ConfigError {
        self.source.error(&[Step::Key("broker")], "[broker]", error)
    }

    /// Adds file and line of the cause to an error.
    pub fn locate(&self, error: &BrokerError) -> ConfigError {
        let source = &*self.source;
        let named = error.plugin().and_then(|name| self.plugins.iter().find(|plugin| plugin.name == name));
        let Some((plugin, location)) = named.and_then(|plugin| Some((plugin, plugin.location.as_ref()?)))
        else {
            return error_of(&self.source.path, &error.to_string());
        };
        let steps = table_steps(location.index);
        let who = format!("plugin {:?}", plugin.name);
        match error {
            BrokerError::Configure { error, .. } => source.error(&steps, &who, error),
            BrokerError::Start { error, .. } => {
                source.error(&steps, &format!("{who} could not start"), error)
            }
            BrokerError::Refresh { error, .. } => {
                source.error(&steps, &format!("{who} could not read its files again"), error)
            }
            BrokerError::Library { error, .. } => {
                let mut message = error.to_string();
                if let LibraryError::NotFound { library, .. } = error
                    && let Some(name) = self.linked.iter().find(|name| library.ends_with(name.as_str()))
                {
                    message.push_str(&format!("; it is linked into this program: builtin = {name:?}"));
                }
                source.error(&steps[..2], &who, &PluginError::of_key("library", message))
            }
            BrokerError::Requires { required, .. } => {
                let mut message = error.to_string();
                if let Some(name) = self.linked.iter().find(|name| required.ends_with(name.as_str())) {
                    message.push_str(&format!(" or, linked into this program, builtin = {name:?}"));
                }
                source.error(&steps[..2], "", &PluginError::new(message))
            }
            other => source.error(&steps[..2], "", &PluginError::new(other.to_string())),
        }
    }
}

fn error_of(path: &Path, message: &str) -> ConfigError {
    ConfigError::new(path, None, message)
}

fn text_of(path: &Path) -> Result<String, ConfigError> {
    let failed = |error| error_of(path, &format!("cannot be read: {error}"));
    // opening a named pipe would block until a writer opens it
    let nonblock = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(failed)?;
    let file_type = file.metadata().map_err(failed)?.file_type();
    if !file_type.is_file() {
        let kind = kind_of(file_type);
        return Err(error_of(path, &format!("cannot be read: it is a {kind}, must be a regular file")));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(error_of(path, &format!("exceeds {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

fn kind_of(file_type: FileType) -> &'static str {
    if file_type.is_dir() {
        "directory"
    } else if file_type.is_fifo() {
        "pipe"
    } else {
        "device"
    }
}

#[cfg(test)]
mod tests;
