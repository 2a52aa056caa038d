//! `broker.toml`: reading it, and saying where in it something is wrong.
//!
//! The core and the plugins report errors about keys; this file, which has the text, adds file, line and value.

use elbus_plugin_api::{Config, LinkedPlugin, PluginError};
use serde::Deserialize;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

use crate::{
    broker::{Broker, BrokerBuilder},
    declaration::{PluginDeclaration, Restart},
    error::BrokerError,
    host::LibraryError,
    settings::BrokerSettings,
};

/// Larger files are not even read.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Longer values are cut in messages.
const SHOWN_VALUE_CHARS: usize = 60;

/// What is wrong with `broker.toml`: `file:line: sentence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1, where it is about one.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub message: String,
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

/// A `broker.toml` that was read and found right as far as the broker itself is concerned.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    text: Arc<FileText>,
    settings: BrokerSettings,
    plugins: Vec<PluginDeclaration>,
    /// What `builtin = "..."` may name.
    linked: Vec<String>,
}

/// A file as it was read.
#[derive(Debug)]
struct FileText {
    path: PathBuf,
    text: String,
}

impl FileText {
    fn place(&self) -> Place<'_> {
        Place { path: &self.path, text: &self.text }
    }
}

/// Where a declaration stands: the file, and which of its `[[plugin]]` it is.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    file: Arc<FileText>,
    index: usize,
}

impl Entry {
    /// The file and the line of a key of its table.
    pub(crate) fn place(&self, key: &str) -> Option<String> {
        let (line, _) = self.file.place().find(&table_steps(self.index), &path_steps(key));
        line.map(|line| format!("{}:{line}", self.file.path.display()))
    }
}

/// The way to the table of a plugin.
fn table_steps<'a>(index: usize) -> [Step<'a>; 3] {
    [Step::Key("plugin"), Step::Index(index), Step::Key("config")]
}

/// The keys of a `[[plugin]]`.
#[derive(Deserialize)]
struct PluginKeys {
    name: String,
    #[serde(default)]
    library: Option<String>,
    #[serde(default)]
    builtin: Option<String>,
    #[serde(default)]
    restart: Restart,
    #[serde(default)]
    config: Table,
}

impl ConfigFile {
    /// Reads a file. `linked` are the plugins that `builtin = "..."` may name.
    ///
    /// # Errors
    /// What is wrong with it, with file and line.
    pub fn read(path: &Path, linked: &[(&str, LinkedPlugin)]) -> Result<Self, ConfigError> {
        let error = |message: String| ConfigError { path: path.to_owned(), line: None, message };
        let metadata = std::fs::metadata(path).map_err(|e| error(format!("cannot be read: {e}")))?;
        if metadata.len() > MAX_FILE_BYTES {
            return Err(error(format!("{} bytes exceed {MAX_FILE_BYTES}", metadata.len())));
        }
        let text = std::fs::read_to_string(path).map_err(|e| error(format!("cannot be read: {e}")))?;
        Self::parse(path, text, linked)
    }

    /// As [`read`](ConfigFile::read), from text; `path` is for messages and for what is relative to it.
    ///
    /// # Errors
    /// As [`read`](ConfigFile::read).
    pub fn parse(path: &Path, text: String, linked: &[(&str, LinkedPlugin)]) -> Result<Self, ConfigError> {
        let place = Place { path, text: &text };
        let table: Table = text.parse().map_err(|e: toml::de::Error| ConfigError {
            path: path.to_owned(),
            line: e.span().map(|span| place.line_at(span.start)),
            message: e.message().to_owned(),
        })?;
        if let Some(key) = table.keys().find(|key| !["broker", "plugin"].contains(&key.as_str())) {
            let error = PluginError::new("unknown key; known are [broker] and [[plugin]]");
            // not as a path, since it may hold anything
            let shown = if key.is_empty() { "\"\"" } else { key };
            return Err(place.error(&[Step::Key(key)], shown, &error));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut settings: BrokerSettings = match table.get("broker") {
            None => BrokerSettings::default(),
            Some(value) => {
                read_table(value).map_err(|e| place.error(&[Step::Key("broker")], "[broker]", &e))?
            }
        };
        settings.check().map_err(|e| place.error(&[Step::Key("broker")], "[broker]", &e))?;
        settings.plugin_dirs.iter_mut().for_each(|dir| *dir = folder.join(&*dir));
        let mut plugins: Vec<PluginDeclaration> = Vec::new();
        let entries = match table.get("plugin") {
            None => &[],
            Some(Value::Array(entries)) => entries.as_slice(),
            Some(_) => {
                let error = PluginError::of_key("plugin", "must be a list of tables, [[plugin]]");
                return Err(place.error(&[], "", &error));
            }
        };
        for (index, value) in entries.iter().enumerate() {
            let steps = [Step::Key("plugin"), Step::Index(index)];
            let name = value.get("name").and_then(Value::as_str).unwrap_or("?");
            let who = format!("plugin {name:?}");
            let keys: PluginKeys = read_table(value).map_err(|e| place.error(&steps, &who, &e))?;
            if plugins.iter().any(|other| other.name == keys.name) {
                let error =
                    PluginError::of_key("name", "another plugin has this name already; names are unique");
                return Err(place.error(&steps, &who, &error));
            }
            plugins.push(declaration(keys, folder, linked).map_err(|e| place.error(&steps, &who, &e))?);
        }
        let linked = linked.iter().map(|(name, _)| (*name).to_owned()).collect();
        let text = Arc::new(FileText { path: path.to_owned(), text });
        for (index, plugin) in plugins.iter_mut().enumerate() {
            plugin.entry = Some(Entry { file: text.clone(), index });
        }
        Ok(ConfigFile { text, settings, plugins, linked })
    }

    /// The settings of the broker.
    pub fn settings(&self) -> &BrokerSettings {
        &self.settings
    }

    /// A builder with all that the file declares.
    pub fn builder(&self) -> BrokerBuilder {
        let builder = Broker::builder().settings(self.settings.clone());
        self.plugins.iter().cloned().fold(builder, BrokerBuilder::plugin)
    }

    /// Says where in the file the reason of an error stands.
    pub fn locate(&self, error: &BrokerError) -> ConfigError {
        let place = self.text.place();
        let index =
            error.plugin().and_then(|name| self.plugins.iter().position(|plugin| plugin.name == name));
        let Some(index) = index else {
            return ConfigError { path: self.text.path.clone(), line: None, message: error.to_string() };
        };
        let steps = table_steps(index);
        let who = format!("plugin {:?}", self.plugins[index].name);
        match error {
            BrokerError::Configure { error, .. } => place.error(&steps, &who, error),
            BrokerError::Start { error, .. } => place.error(&steps, &format!("{who} could not start"), error),
            BrokerError::Refresh { error, .. } => {
                place.error(&steps, &format!("{who} could not read its files anew"), error)
            }
            BrokerError::Library { error, .. } => {
                let mut message = error.to_string();
                if let LibraryError::NotFound { library, .. } = error
                    && let Some(name) = self.linked.iter().find(|name| library.ends_with(name.as_str()))
                {
                    message.push_str(&format!("; this program has it linked in: builtin = {name:?}"));
                }
                place.error(&steps[..2], &who, &PluginError::of_key("library", message))
            }
            other => place.error(&steps[..2], "", &PluginError::new(other.to_string())),
        }
    }
}

/// Reads a table into a struct, all keys of which are known.
fn read_table<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, PluginError> {
    let table = value.as_table().ok_or_else(|| PluginError::new("must be a table"))?;
    let config = Config::parse(&table.to_string())?;
    let read = config.read()?;
    config.finish()?;
    Ok(read)
}

fn declaration(
    keys: PluginKeys,
    folder: &Path,
    linked: &[(&str, LinkedPlugin)],
) -> Result<PluginDeclaration, PluginError> {
    let PluginKeys { name, library, builtin, restart, config } = keys;
    if name.is_empty() {
        return Err(PluginError::of_key("name", "must not be empty"));
    }
    let declaration = match (library, builtin) {
        (Some(library), None) if library.contains('/') => {
            PluginDeclaration::library(name, folder.join(library).to_string_lossy())
        }
        (Some(library), None) => PluginDeclaration::library(name, library),
        (None, Some(builtin)) => match linked.iter().find(|(known, _)| *known == builtin) {
            Some((_, plugin)) => PluginDeclaration::linked(name, *plugin),
            None => {
                let known: Vec<_> = linked.iter().map(|(known, _)| *known).collect();
                let message = format!("no such plugin is linked in; there are {}", known.join(", "));
                return Err(PluginError::of_key("builtin", message));
            }
        },
        (Some(_), Some(_)) => {
            return Err(PluginError::of_key(
                "builtin",
                "a plugin has either a library or a builtin, not both",
            ));
        }
        (None, None) => {
            let message =
                "missing key `library` (a compiled library) or `builtin` (a plugin that is linked in)";
            return Err(PluginError::new(message));
        }
    };
    Ok(declaration.config(config).restart(restart))
}

/// The way to a value in the file.
#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// The file, for finding lines in it.
struct Place<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Place<'_> {
    /// The line of a byte, from 1.
    fn line_at(&self, byte: usize) -> usize {
        1 + self.text.bytes().take(byte).filter(|b| *b == b'\n').count()
    }

    /// An error about a key of the table that `steps` lead to; `who` is named before it.
    fn error(&self, steps: &[Step<'_>], who: &str, error: &PluginError) -> ConfigError {
        let keys = path_steps(&error.key);
        let (line, value) = self.find(steps, &keys);
        let who = if who.is_empty() { String::new() } else { format!("{who}: ") };
        let message = match (error.key.as_str(), value) {
            ("", _) => format!("{who}{}", error.message),
            (key, None) => format!("{who}{key}: {}", error.message),
            (key, Some(value)) => format!("{who}{key} = {value}: {}", error.message),
        };
        ConfigError { path: self.path.to_owned(), line, message: printable(&message) }
    }

    /// The line of the last of the keys that is in the file, and the value of the very last one as it is written.
    fn find(&self, steps: &[Step<'_>], keys: &[Step<'_>]) -> (Option<usize>, Option<String>) {
        let Ok(root) = DeTable::parse(self.text) else { return (None, None) };
        let mut line = None;
        let mut table = Some(root.get_ref());
        let mut array: Option<&[Spanned<DeValue<'_>>]> = None;
        let mut value = None;
        for step in steps.iter().chain(keys) {
            let found = match step {
                Step::Key(key) => table
                    .and_then(|table| table.iter().find(|(k, _)| k.get_ref() == key))
                    .map(|(key, value)| (key.span().start, value)),
                Step::Index(index) => {
                    array.and_then(|array| array.get(*index)).map(|value| (value.span().start, value))
                }
            };
            let Some((start, found)) = found else { return (line, None) };
            line = Some(self.line_at(start));
            value = Some(found.span());
            table = found.get_ref().as_table();
            array = found.get_ref().as_array().map(|array| &array[..]);
        }
        let is_leaf = table.is_none() && !keys.is_empty();
        let text = value.filter(|_| is_leaf).and_then(|span| self.text.get(span));
        (line, text.map(shorten))
    }
}

/// One line, whatever keys and values hold.
fn printable(text: &str) -> String {
    let each = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(each).collect()
}

fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN_VALUE_CHARS) {
        None => line,
        Some((end, _)) => format!("{}...", &line[..end]),
    }
}

/// `a.b[2]` as steps.
fn path_steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (key, indices) = part.split_once('[').unwrap_or((part, ""));
        steps.push(Step::Key(key));
        let indices = indices.split('[').filter_map(|index| index.strip_suffix(']')?.parse().ok());
        steps.extend(indices.map(Step::Index));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        ConfigFile::parse(Path::new("dir/broker.toml"), text.to_owned(), &[]).err().unwrap().to_string()
    }

    #[test]
    fn what_is_wrong_and_where() {
        for (text, expected) in [
            ("[broker]\nname = ", "dir/broker.toml:2: "),
            ("[broker]\nname = 5", "dir/broker.toml:2: [broker]: name = 5: invalid type: integer `5`"),
            ("[broker]\n\nnames = 'x'", "dir/broker.toml:3: [broker]: names = 'x': unknown key; known are "),
            ("[broker]\nname = ''", "dir/broker.toml:2: [broker]: name = '': must not be empty"),
            ("\n[brocker]", "dir/broker.toml:2: brocker: unknown key; known are [broker] and [[plugin]]"),
            ("\n\"\" = 1", "dir/broker.toml:2: \"\": unknown key; known are [broker] and [[plugin]]"),
            ("\n\"a.b[\" = 1", "dir/broker.toml:2: a.b[: unknown key; known are [broker] and [[plugin]]"),
            ("\"a\\nb\" = 1", "dir/broker.toml:1: a\\nb: unknown key; known are [broker] and [[plugin]]"),
            ("plugin = 5", "dir/broker.toml:1: plugin = 5: must be a list of tables"),
            ("[[plugin]]\nlibrary = 'x'", "dir/broker.toml:1: plugin \"?\": missing key `name`"),
            ("[[plugin]]\nname = 'x'", "dir/broker.toml:1: plugin \"x\": missing key `library`"),
            (
                "[[plugin]]\nname = 'x'\nlibrary = 'y'\n[[plugin]]\nname = 'x'\nlibrary = 'y'",
                "dir/broker.toml:5: plugin \"x\": name = 'x': another plugin has this name already",
            ),
            (
                "[[plugin]]\nname = 'x'\nbuiltin = 'y'",
                "dir/broker.toml:3: plugin \"x\": builtin = 'y': no such plugin is linked in",
            ),
            (
                "[[plugin]]\nname = 'x'\nlibary = 'y'",
                "dir/broker.toml:3: plugin \"x\": libary = 'y': unknown key; known are builtin, config, library, name, restart",
            ),
        ] {
            let error = error(text);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn errors_of_plugins_get_line_and_value() {
        let text = "[[plugin]]\nname = 'a'\nlibrary = 'x'\n\n[[plugin]]\nname = 'b'\nlibrary = 'lib/y.so'\n\
                    [plugin.config]\npath = '/x'\nbind = ['a:1',\n 'b:2']\n[plugin.config.tls]\nkey = 3\n";
        let file = ConfigFile::parse(Path::new("dir/b.toml"), text.to_owned(), &[]).unwrap();
        let of = |key: &str| {
            let error = PluginError::of_key(key, "wrong");
            file.locate(&BrokerError::Configure { plugin: "b".into(), error }).to_string()
        };
        assert_eq!(of("path"), "dir/b.toml:9: plugin \"b\": path = '/x': wrong");
        assert_eq!(of("bind[1]"), "dir/b.toml:11: plugin \"b\": bind[1] = 'b:2': wrong");
        assert_eq!(of("tls.key"), "dir/b.toml:13: plugin \"b\": tls.key = 3: wrong");
        assert_eq!(of("mode"), "dir/b.toml:8: plugin \"b\": mode: wrong");
        assert_eq!(of(""), "dir/b.toml:8: plugin \"b\": wrong");
        let restart = ConfigFile::parse(
            Path::new("b.toml"),
            "[[plugin]]\nname = 'a'\nlibrary = 'x'\nrestart = 'maybe'".to_owned(),
            &[],
        );
        assert_eq!(
            restart.err().unwrap().to_string(),
            "b.toml:4: plugin \"a\": restart = 'maybe': unknown variant `maybe`, expected `on_failure` or `never`"
        );
        let library = file.builder();
        assert!(format!("{library:?}").contains("dir/lib/y.so"), "relative to the file");
    }

    #[test]
    fn declarations_know_where_their_keys_stand() {
        let text = "[[plugin]]\nname = 'a'\nlibrary = 'x'\n\n[[plugin]]\nname = 'b'\nlibrary = 'y'\n\
                    [[plugin.config.client]]\nname = 'x'\n[[plugin.config.client]]\nname = 'y'\n\
                    publish = ['a/#',\n 'b/#']\n";
        let file = ConfigFile::parse(Path::new("dir/b.toml"), text.to_owned(), &[]).unwrap();
        let of = |key: &str| file.plugins[1].place(key).unwrap();
        assert_eq!(of("client[0].name"), "dir/b.toml:9");
        assert_eq!(of("client[1].publish[0]"), "dir/b.toml:12");
        assert_eq!(of("client[1].publish[1]"), "dir/b.toml:13");
        assert_eq!(of("client[1].nothing"), "dir/b.toml:10", "the last part that is there");
        assert_eq!(file.plugins[0].place("any").unwrap(), "dir/b.toml:1");
        assert_eq!(PluginDeclaration::library("a", "x").place("any"), None);
    }
}
