//! `elbusd --check`: reports all errors of a configuration. Owns the checks that a plugin cannot make by
//! itself: two plugins with one address, missing folders, a file without plugins. Binds and creates nothing.

use elbus_broker::{BrokerError, ConfigError, ConfigFile, PluginDeclaration};
use elbus_plugin_api::PluginError;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{arguments::Arguments, builder, builtin_plugins, process::ProcessSettings};

/// Folders whose contents are created when the machine or the service starts, such as by RuntimeDirectory= of
/// systemd. A folder below them may not exist yet.
const VOLATILE: [&str; 2] = ["/run/", "/var/run/"];

/// Checks the broker that the command line describes.
///
/// # Errors
/// All errors, one line each.
pub(crate) fn check(arguments: &Arguments) -> Result<(), Vec<String>> {
    let linked = builtin_plugins::linked_plugins();
    let (file, mut errors) = match arguments.config.as_deref() {
        None => (None, Vec::new()),
        Some(path) => {
            let (read, errors) = ConfigFile::inspect_with::<ProcessSettings>(path, &linked);
            let Some((file, _)) = read else { return Err(lines(errors)) };
            (Some(file), errors)
        }
    };
    let builder = builder::broker_builder(arguments, file.as_ref());
    if let Some(missing) = builder::missing_web_library(arguments, &builder) {
        return Err(vec![missing]);
    }
    let mut found = duplicate_addresses(builder.declarations());
    found.extend(missing_folders(builder.declarations()));
    if let (Some(file), true) = (&file, builder.declarations().is_empty() && errors.is_empty()) {
        let message = "the file declares no plugin, so clients cannot connect; add a [[plugin]]";
        errors.push(ConfigError::new(file.path(), None, message));
    }
    errors.extend(file.iter().flat_map(missing_plugin_folders));
    let declarations = builder.declarations().to_vec();
    found.extend(builder.check_all());
    let located = |error: &BrokerError| match &file {
        Some(file) => file.locate(error),
        None => ConfigError::new(Path::new(""), None, &error.to_string()),
    };
    errors.extend(found.iter().map(located));
    if !errors.is_empty() {
        return Err(lines(errors));
    }
    if let Some(file) = &file {
        report_changed_defaults(file, &declarations);
    }
    Ok(())
}

/// Logs limits that earlier versions did not have, or had higher (docs/upgrading.md), and that the file does
/// not set.
fn report_changed_defaults(file: &ConfigFile, plugins: &[PluginDeclaration]) {
    let settings = file.settings();
    let changed = [
        ("hold_budget_seconds", settings.hold_budget_seconds.to_string()),
        ("max_name_bytes", settings.max_name_bytes.to_string()),
        ("max_topic_bytes", settings.max_topic_bytes.to_string()),
        ("max_filters", settings.max_filters.to_string()),
        ("filter_memory_bytes", settings.filter_memory_bytes.to_string()),
        ("total_filter_memory_bytes", settings.total_filter_memory_bytes.to_string()),
        ("max_complex_segments", settings.max_complex_segments.to_string()),
    ];
    let is_set = |key: &str| file.sets(key) || (key == "hold_budget_seconds" && file.sets("may_hold"));
    let defaults = changed.into_iter().filter(|(key, _)| !is_set(key));
    let defaults = defaults.map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ");
    if !defaults.is_empty() {
        tracing::info!(
            defaults,
            "limits that version 0.1.0 did not have apply by default; see docs/upgrading.md; \
             set a key to remove it from this message"
        );
    }
    if file.sets("max_filters") && !file.sets("filter_memory_bytes") {
        let (max_filters, filter_memory_bytes) = (settings.max_filters, settings.filter_memory_bytes);
        tracing::warn!(
            max_filters,
            filter_memory_bytes,
            "filter_memory_bytes is not set; its default may be reached before max_filters"
        );
    }
    for plugin in plugins {
        let table = plugin.table();
        if table.contains_key("max_clients") && !table.contains_key("max_source_share") {
            let place = plugin.location_of("max_clients");
            tracing::warn!(
                plugin = plugin.name(),
                place,
                "max_source_share is not set: one user or address gets at most half of max_clients while other clients \
                 connect"
            );
        }
    }
}

/// Returns the errors in the order of the file, each once.
fn lines(mut errors: Vec<ConfigError>) -> Vec<String> {
    errors.sort_by_key(|error| error.line);
    let mut lines: Vec<_> = errors
        .iter()
        .map(
            |error| if error.path.as_os_str().is_empty() { error.message.clone() } else { error.to_string() },
        )
        .collect();
    lines.dedup();
    lines
}

fn plugin_error(plugin: &PluginDeclaration, key: &str, message: String) -> BrokerError {
    BrokerError::Configure { plugin: plugin.name().to_owned(), error: PluginError::of_key(key, message) }
}

/// An address that a standard plugin binds, and that no other can bind.
#[derive(PartialEq)]
enum BoundAddress {
    Path(PathBuf),
    Port(SocketAddr),
    Text(String),
}

impl BoundAddress {
    fn collides(&self, other: &BoundAddress) -> bool {
        match (self, other) {
            (BoundAddress::Port(a), BoundAddress::Port(b)) => {
                let any = a.ip().is_unspecified() || b.ip().is_unspecified();
                a.port() != 0
                    && a.port() == b.port()
                    && a.is_ipv4() == b.is_ipv4()
                    && (any || a.ip() == b.ip())
            }
            _ => self == other,
        }
    }
}

/// Returns the addresses of a plugin, each with its key.
fn bound_addresses(plugin: &PluginDeclaration) -> Vec<(String, BoundAddress)> {
    let text = |value: &toml::Value| value.as_str().map(str::to_owned);
    let port =
        |text: String| text.parse().map_or_else(|_| BoundAddress::Text(text.clone()), BoundAddress::Port);
    if let Some(path) = path_of(plugin) {
        return vec![("path".to_owned(), BoundAddress::Path(path))];
    }
    let has_ports = builtin_plugins::library_of(plugin.code()) == builder::WEB_LIBRARY
        || ["tcp", "websocket"].iter().any(|name| builtin_plugins::is(plugin.code(), name));
    match (has_ports, plugin.table().get("bind")) {
        (true, Some(toml::Value::Array(all))) => {
            let each = all.iter().enumerate();
            each.filter_map(|(index, value)| Some((format!("bind[{index}]"), port(text(value)?)))).collect()
        }
        (true, Some(one)) => text(one).map(|one| ("bind".to_owned(), port(one))).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Returns the absolute path of the socket or FIFO of a plugin.
fn path_of(plugin: &PluginDeclaration) -> Option<PathBuf> {
    let makes_file = ["unix", "fifo"].iter().any(|name| builtin_plugins::is(plugin.code(), name));
    let path = plugin.table().get("path").filter(|_| makes_file)?.as_str()?;
    if path.is_empty() { None } else { std::path::absolute(path).ok() }
}

fn duplicate_addresses(plugins: &[PluginDeclaration]) -> Vec<BrokerError> {
    let mut errors = Vec::new();
    let mut seen: Vec<(&str, BoundAddress)> = Vec::new();
    for plugin in plugins {
        for (key, address) in bound_addresses(plugin) {
            match seen.iter().find(|(_, other)| address.collides(other)) {
                Some((other, _)) => {
                    errors.push(plugin_error(plugin, &key, format!("plugin {other:?} uses it as well")))
                }
                None => seen.push((plugin.name(), address)),
            }
        }
    }
    errors
}

fn missing_folders(plugins: &[PluginDeclaration]) -> Vec<BrokerError> {
    let mut errors = Vec::new();
    for plugin in plugins {
        let Some(path) = path_of(plugin) else { continue };
        let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) else { continue };
        let message = format!("folder {} does not exist", folder.display());
        if VOLATILE.iter().any(|volatile| path.starts_with(volatile)) {
            tracing::warn!(plugin = plugin.name(), folder = %folder.display(), "folder does not exist yet");
        } else {
            errors.push(plugin_error(plugin, "path", message));
        }
    }
    errors
}

fn missing_plugin_folders(file: &ConfigFile) -> Vec<ConfigError> {
    let missing = |folder: &&PathBuf| !Path::is_dir(folder);
    let each = file.settings().plugin_dirs.iter().enumerate();
    each.filter(|(_, folder)| missing(folder))
        .map(|(index, folder)| {
            let message = format!("folder {} does not exist", folder.display());
            file.broker_error(&PluginError::of_key(format!("plugin_dirs[{index}]"), message))
        })
        .collect()
}
