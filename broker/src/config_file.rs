//! `broker.toml`: reading it, and saying where in it something is wrong.
//!
//! The core and the plugins report errors about keys; this file, which has the text, adds file, line and value.

mod location;
mod syntax;
mod wrong_keys;

use elbus_plugin_api::{Config, LinkedPlugin, PluginError};
use rustix::fs::OFlags;
use serde::Deserialize;
use std::{
    collections::HashSet,
    fs::{File, FileType},
    io::Read,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use toml::{Table, Value};

use location::{Layout, Place, Step, path_steps};
pub(crate) use wrong_keys::WrongKeys;

use crate::{
    broker::{Broker, BrokerBuilder},
    declaration::{PluginDeclaration, Restart},
    error::BrokerError,
    host::LibraryError,
    settings::BrokerSettings,
};

/// No more of a file is read; a larger one is refused.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// More errors of one file are not reported at once.
const MAX_ERRORS: usize = 50;

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
    layout: OnceLock<Layout>,
}

impl FileText {
    fn place(&self) -> Place<'_> {
        Place { path: &self.path, text: &self.text, layout: &self.layout }
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
    /// The first thing that is wrong with it, with file and line.
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

    /// As [`read`](ConfigFile::read), from text; `path` is for messages and for what is relative to it.
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
        let (file, errors) = Self::parse_all(path, text, linked);
        match (errors.into_iter().next(), file) {
            (None, Some(file)) => Ok(file),
            (Some(error), _) => Err(error),
            (None, None) => Err(error_of(path, "cannot be read".to_owned())),
        }
    }

    /// Reads a file and reports everything that is wrong with it, with file and line, rather than the first thing. The file
    /// that is returned has what is right of it, so that this can be checked further; there is none if it is no TOML.
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
            Ok(text) => Self::parse_all(path, text, linked),
            Err(error) => (None, vec![error]),
        }
    }

    fn parse_all<P: ProgramSettings>(
        path: &Path,
        text: String,
        linked: &[(&str, LinkedPlugin)],
    ) -> (Option<(Self, P)>, Vec<ConfigError>) {
        let file = Arc::new(FileText { path: path.to_owned(), text, layout: OnceLock::new() });
        let place = file.place();
        let table: Table = match syntax::parse(&place) {
            Ok(table) => table,
            Err(errors) => return (None, errors),
        };
        let mut errors = Vec::new();
        let unknown = table.keys().filter(|key| !["broker", "plugin"].contains(&key.as_str()));
        for key in unknown.take(MAX_ERRORS) {
            let error = PluginError::new("unknown key; known are [broker] and [[plugin]]");
            // not as a path, since it may hold anything
            let shown = if key.is_empty() { "\"\"" } else { key };
            errors.push(place.error(&[Step::Key(key)], &location::cut(shown, 100), &error));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let (mut settings, mut program) = (BrokerSettings::default(), P::default());
        if let Some(value) = table.get("broker") {
            let (read, wrong) = read_all(value, |table| {
                let config = Config::parse(&table.to_string())?;
                let (settings, program) = (config.read::<BrokerSettings>()?, config.read::<P>()?);
                config.finish()?;
                settings.check()?;
                program.check().map(|()| (settings, program))
            });
            let located = |error| place.error(&[Step::Key("broker")], "[broker]", error);
            errors.extend(wrong.iter().map(located));
            (settings, program) = read.unwrap_or_default();
        }
        settings.plugin_dirs.iter_mut().for_each(|dir| *dir = folder.join(&*dir));
        let entries = match table.get("plugin") {
            None => &[],
            Some(Value::Array(entries)) => entries.as_slice(),
            Some(_) => {
                errors.push(place.error(&[], "", &PluginError::of_key("plugin", syntax::PLUGIN_LIST)));
                &[]
            }
        };
        let mut plugins: Vec<PluginDeclaration> = Vec::new();
        let mut names = HashSet::new();
        for (index, value) in entries.iter().enumerate() {
            let steps = [Step::Key("plugin"), Step::Index(index)];
            let name = value.get("name").and_then(Value::as_str).unwrap_or("?");
            let who = format!("plugin {:?}", location::cut(name, 100));
            let (declared, wrong) = read_all(value, |table| {
                let keys: PluginKeys = read_table(table)?;
                if names.contains(&keys.name) {
                    let why = "another plugin has this name already; names are unique";
                    return Err(PluginError::of_key("name", why));
                }
                declaration(keys, folder, linked)
            });
            // further errors are not shown, but correct tables are still declared
            let shown = wrong.iter().take(MAX_ERRORS.saturating_sub(errors.len()));
            errors.extend(shown.map(|error| place.error(&steps, &who, error)));
            if let Some(mut declared) = declared {
                names.insert(declared.name.clone());
                declared.entry = Some(Entry { file: file.clone(), index });
                plugins.push(declared);
            }
        }
        errors.truncate(MAX_ERRORS);
        let linked = linked.iter().map(|(name, _)| (*name).to_owned()).collect();
        (Some((ConfigFile { text: file, settings, plugins, linked }, program)), errors)
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.text.path
    }

    /// The settings of the broker.
    pub fn settings(&self) -> &BrokerSettings {
        &self.settings
    }

    /// Whether `[broker]` has this key.
    pub fn sets(&self, key: &str) -> bool {
        let (_, value) = self.text.place().find(&[Step::Key("broker")], &[Step::Key(key)]);
        value.is_some()
    }

    /// Whether the file declares any plugins.
    pub fn declares_plugins(&self) -> bool {
        !self.plugins.is_empty()
    }

    /// Whether both were read from the same text.
    pub fn has_text_of(&self, other: &ConfigFile) -> bool {
        self.text.text == other.text.text
    }

    /// A builder with all that the file declares.
    pub fn builder(&self) -> BrokerBuilder {
        let builder = Broker::builder().settings(self.settings.clone());
        self.plugins.iter().cloned().fold(builder, BrokerBuilder::plugin)
    }

    /// An error about a key of `[broker]`.
    pub fn broker_error(&self, error: &PluginError) -> ConfigError {
        self.text.place().error(&[Step::Key("broker")], "[broker]", error)
    }

    /// Says where in the file the reason of an error stands.
    pub fn locate(&self, error: &BrokerError) -> ConfigError {
        let place = self.text.place();
        let named = error.plugin().and_then(|name| self.plugins.iter().find(|plugin| plugin.name == name));
        let Some((plugin, entry)) = named.and_then(|plugin| Some((plugin, plugin.entry.as_ref()?))) else {
            return error_of(&self.text.path, error.to_string());
        };
        let steps = table_steps(entry.index);
        let who = format!("plugin {:?}", plugin.name);
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
            BrokerError::Requires { required, .. } => {
                let mut message = error.to_string();
                if let Some(name) = self.linked.iter().find(|name| required.ends_with(name.as_str())) {
                    message.push_str(&format!(" or, linked into this program, builtin = {name:?}"));
                }
                place.error(&steps[..2], "", &PluginError::new(message))
            }
            other => place.error(&steps[..2], "", &PluginError::new(other.to_string())),
        }
    }
}

fn error_of(path: &Path, message: String) -> ConfigError {
    ConfigError { path: path.to_owned(), line: None, message }
}

fn text_of(path: &Path) -> Result<String, ConfigError> {
    let failed = |error| error_of(path, format!("cannot be read: {error}"));
    // a named pipe would be waited for until somebody opens it for writing
    let nonblock = OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(failed)?;
    let file_type = file.metadata().map_err(failed)?.file_type();
    if !file_type.is_file() {
        let kind = kind_of(file_type);
        return Err(error_of(path, format!("cannot be read: it is a {kind}, must be a regular file")));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(error_of(path, format!("exceeds {MAX_FILE_BYTES} bytes")));
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

/// Reads a table, and finds all that is wrong with it: after each error the key that it is about is left out.
fn read_all<T>(
    value: &Value,
    read: impl Fn(&Table) -> Result<T, PluginError>,
) -> (Option<T>, Vec<PluginError>) {
    let Some(mut table) = value.as_table().cloned() else {
        return (None, vec![PluginError::new("must be a table")]);
    };
    let mut wrong = WrongKeys::default();
    loop {
        match read(&table) {
            Ok(read) => return (Some(read), wrong.errors),
            Err(error) => {
                if !wrong.leave_out(error, &mut table) {
                    return (None, wrong.errors);
                }
            }
        }
    }
}

/// Reads a table into a struct, all keys of which are known.
fn read_table<T: serde::de::DeserializeOwned>(table: &Table) -> Result<T, PluginError> {
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
            (
                "[broker]\nname = 5",
                "dir/broker.toml:2: [broker]: name = 5: expected a string, found integer 5; write it in quotes",
            ),
            ("[broker]\n\nnames = 'x'", "dir/broker.toml:3: [broker]: names = 'x': unknown key; known are "),
            ("[broker]\nname = ''", "dir/broker.toml:2: [broker]: name = '': must not be empty"),
            ("\n[brocker]", "dir/broker.toml:2: brocker: unknown key; known are [broker] and [[plugin]]"),
            ("\n\"\" = 1", "dir/broker.toml:2: \"\": unknown key; known are [broker] and [[plugin]]"),
            ("\n\"a.b[\" = 1", "dir/broker.toml:2: a.b[: unknown key; known are [broker] and [[plugin]]"),
            ("\"a\\nb\" = 1", "dir/broker.toml:1: a\\nb: unknown key; known are [broker] and [[plugin]]"),
            ("plugin = 5", "dir/broker.toml:1: plugin = 5: must be a list of tables: write [[plugin]]"),
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
    fn all_that_is_wrong_is_reported_and_none_of_it_is_long() {
        let all = |text: &str| {
            let (file, errors) =
                ConfigFile::parse_all::<NoSettings>(Path::new("b.toml"), text.to_owned(), &[]);
            (file.is_some(), errors.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let (read, errors) =
            all("x = 1\n[broker]\nname = 5\nmax_filters = 0\nqueue = 1\n[[plugin]]\nname = 'a'\n\
             library = 7\nlibary = 'b'\n[[plugin]]\nname = 'b'\nlibrary = 'elbus_rpc'\n[y]\n");
        assert!(read, "the rest of it can be checked");
        let expected = [
            "b.toml:1: x: unknown key",
            "b.toml:13: y: unknown key",
            "b.toml:3: [broker]: name = 5: expected a string",
            "b.toml:5: [broker]: queue = 1: unknown key",
            "b.toml:4: [broker]: max_filters = 0: must be at least 1",
            "b.toml:8: plugin \"a\": library = 7: expected a string",
            "b.toml:9: plugin \"a\": libary = 'b': unknown key",
        ];
        for expected in expected {
            assert!(errors.iter().any(|error| error.starts_with(expected)), "{expected}: {errors:#?}");
        }
        let (read, errors) = all("[[plugin]]\nname = 'a'\nmode = 0660\nx = [1, 2\n\n[broker]\nname = \n");
        assert!(!read && errors.len() >= 2, "{errors:#?}");
        assert!(
            errors[0].starts_with("b.toml:3: a number cannot begin with 0")
                && errors[0].ends_with("mode = \"0660\""),
            "{errors:#?}"
        );
        for text in ["[plugin]\nname = 'a'\n", "[plugin]\nname = 'a'\n[plugin]\nname = 'b'\n"] {
            let (_, errors) = all(text);
            assert!(
                errors.len() == 1 && errors[0].contains("write [[plugin]] with two brackets"),
                "{errors:?}"
            );
        }
        let long = "x".repeat(100_000);
        for text in [
            format!("[broker]\nname = {long}"),
            format!("[broker]\nmax_filters = '{long}'"),
            format!("[broker]\n{long} = 1"),
            format!("{long} = 1"),
            format!("[[plugin]]\nname = '{long}'"),
            format!("[[plugin]]\nname = 'a'\nbuiltin = '{long}'"),
            format!("[[plugin]]\nname = 'a'\nlibrary = 'a'\nrestart = '{long}'"),
        ] {
            let (_, errors) = all(&text);
            assert!(!errors.is_empty());
            assert!(
                errors.iter().all(|error| error.len() < 1500),
                "{:?}",
                &errors[0][..2000.min(errors[0].len())]
            );
        }
    }

    #[test]
    fn the_file_is_parsed_once_for_all_errors() {
        const TABLES: usize = 5000;
        let table =
            |index| format!("[[plugin]]\nname = 'p{index}'\nlibrary = 'x'\nconfig = {{ x = {index} }}\n");
        let text: String = (0..TABLES).map(table).collect();
        let file = ConfigFile::parse(Path::new("b.toml"), text, &[]).unwrap();
        // takes an hour if each parses the file
        for (index, plugin) in file.plugins.iter().enumerate() {
            assert_eq!(plugin.place("x"), Some(format!("b.toml:{}", 4 * index + 4)));
        }
        let (_, errors) = ConfigFile::parse_all::<NoSettings>(
            Path::new("b.toml"),
            (0..TABLES).map(|index| format!("[unknown{index}]\n")).collect(),
            &[],
        );
        assert_eq!(errors.len(), MAX_ERRORS);
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
