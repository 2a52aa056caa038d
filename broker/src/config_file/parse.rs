//! Parses `broker.toml` and checks what concerns the broker itself. The table of a plugin is left to the
//! plugin.

use elbus_plugin_api::{Config, LinkedPlugin, PluginError, hooks::OnFailure};
use serde::Deserialize;
use std::{collections::HashSet, path::Path, sync::Arc};
use toml::{Table, Value};

use super::{
    ConfigFile, MAX_ERRORS, ProgramSettings,
    syntax::{self, PLUGIN_LIST},
    wrong_keys::WrongKeys,
};
use crate::{
    config_error::ConfigError,
    declaration::{PluginDeclaration, Restart},
    location::{DeclarationLocation, FileText, Step, cut},
    settings::BrokerSettings,
};

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
    priority: i32,
    #[serde(default)]
    on_failure: Option<OnFailure>,
    #[serde(default)]
    config: Table,
}

/// Parses a file and reports everything that is wrong with it. The file that is returned has its valid parts.
pub(super) fn parse_all<P: ProgramSettings>(
    path: &Path,
    text: String,
    linked: &[(&str, LinkedPlugin)],
) -> (Option<(ConfigFile, P)>, Vec<ConfigError>) {
    let source = Arc::new(FileText::new(path, text));
    let table: Table = match syntax::parse(&source) {
        Ok(table) => table,
        Err(errors) => return (None, errors),
    };
    let mut errors = Vec::new();
    let unknown = table.keys().filter(|key| !["broker", "plugin"].contains(&key.as_str()));
    for key in unknown.take(MAX_ERRORS) {
        let error = PluginError::new("unknown key; known are [broker] and [[plugin]]");
        // not parsed as a path, since it can contain anything
        let shown = if key.is_empty() { "\"\"" } else { key };
        errors.push(source.error(&[Step::Key(key)], &cut(shown, 100), &error));
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
        let located = |error| source.error(&[Step::Key("broker")], "[broker]", error);
        errors.extend(wrong.iter().map(located));
        (settings, program) = read.unwrap_or_default();
    }
    settings.plugin_dirs.iter_mut().for_each(|dir| *dir = folder.join(&*dir));
    let entries = match table.get("plugin") {
        None => &[],
        Some(Value::Array(entries)) => entries.as_slice(),
        Some(_) => {
            errors.push(source.error(&[], "", &PluginError::of_key("plugin", PLUGIN_LIST)));
            &[]
        }
    };
    let mut plugins: Vec<PluginDeclaration> = Vec::new();
    let mut names = HashSet::new();
    for (index, value) in entries.iter().enumerate() {
        let steps = [Step::Key("plugin"), Step::Index(index)];
        let name = value.get("name").and_then(Value::as_str).unwrap_or("?");
        let who = format!("plugin {:?}", cut(name, 100));
        let (declared, wrong) = read_all(value, |table| {
            let keys: PluginKeys = read_table(table)?;
            if names.contains(&keys.name) {
                let why = "another plugin already has this name; names are unique";
                return Err(PluginError::of_key("name", why));
            }
            declaration(keys, folder, linked)
        });
        // further errors are not reported, but valid tables are still declared
        let reported = wrong.iter().take(MAX_ERRORS.saturating_sub(errors.len()));
        errors.extend(reported.map(|error| source.error(&steps, &who, error)));
        if let Some(mut declared) = declared {
            names.insert(declared.name.clone());
            declared.location = Some(DeclarationLocation { file: source.clone(), index });
            plugins.push(declared);
        }
    }
    errors.truncate(MAX_ERRORS);
    let linked = linked.iter().map(|(name, _)| (*name).to_owned()).collect();
    (Some((ConfigFile { source, settings, plugins, linked }, program)), errors)
}

/// Reads a table and finds all errors in it: after each error its key is left out or corrected, and the table
/// is read again.
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

/// Reads a table into a struct. Unknown keys are errors.
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
    let PluginKeys { name, library, builtin, restart, priority, on_failure, config } = keys;
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
                let message =
                    format!("no such plugin is linked in; the linked-in plugins are {}", known.join(", "));
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
            let message = "missing key `library` (a compiled library) or `builtin` (a linked-in plugin)";
            return Err(PluginError::new(message));
        }
    };
    let declaration = declaration.config(config).restart(restart).priority(priority);
    Ok(match on_failure {
        Some(on_failure) => declaration.on_failure(on_failure),
        None => declaration,
    })
}
