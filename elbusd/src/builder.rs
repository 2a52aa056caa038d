//! Builds the broker that the command line and broker.toml describe: the file's plugins, then those of
//! `--bind` and `--web`, or the default ones without file and `--bind`.

use elbus_broker::{Broker, BrokerBuilder, ConfigFile, PluginDeclaration};
use elbus_protocol::address::{self, Address};
use std::path::{Path, PathBuf};

use crate::{
    arguments::{Arguments, Plugins},
    builtin_plugins::{BUILTIN_PLUGINS, BuiltinPlugin},
};

/// The library of the page, which is not linked in.
pub(crate) const WEB_LIBRARY: &str = "elbus_web";

/// Returns the socket that the broker serves without `--config` and `--bind`.
fn default_socket() -> PathBuf {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| Path::new(folder).is_dir());
    let may_use_run = rustix::process::geteuid().is_root() && Path::new("/run").is_dir();
    address::default_socket(folder.as_deref(), may_use_run)
}

/// Returns the builder of the broker that the command line and `file`, that of `--config`, describe.
pub(crate) fn broker_builder(arguments: &Arguments, file: Option<&ConfigFile>) -> BrokerBuilder {
    let mut builder = file.map_or_else(Broker::builder, ConfigFile::builder).library_probe("/proc/self/exe");
    for folder in &arguments.plugin_dir {
        builder = builder.plugin_dir(folder);
    }
    if arguments.force_register {
        builder = builder.force_register(true);
    }
    let default_bind = default_socket().to_string_lossy().into_owned();
    let default_binds = [format!("unix:{default_bind}")];
    let binds = match (arguments.bind.is_empty(), file) {
        (true, None) => &default_binds[..],
        _ => &arguments.bind[..],
    };
    for (index, bind) in binds.iter().enumerate() {
        let (address, keys) = split_keys(bind);
        let (standard, key, value, url_path) = match Address::parse(address) {
            Address::Unix(path) => ("unix", "path", path, ""),
            Address::Tcp(address) => ("tcp", "bind", address, ""),
            Address::WebSocket(address, path) => ("websocket", "bind", address, path),
            Address::Fifo(path) => ("fifo", "path", path, ""),
        };
        let name = if index == 0 { standard.to_owned() } else { format!("{standard}-{}", index + 1) };
        // plugins of the file may have the same name
        let name = if file.is_some() { format!("bind-{name}") } else { name };
        let mut declaration = declare(arguments, &builder, name, standard).set(key, value);
        if !url_path.is_empty() {
            declaration = declaration.set("path", url_path);
        }
        for (key, value) in keys {
            declaration = declaration.set(key, value);
        }
        if standard != "fifo" {
            declaration = with_transport_settings(arguments, declaration);
        }
        builder = builder.plugin(declaration);
    }
    if let Some(web) = &arguments.web {
        let (address, keys) = match split_pairs(web) {
            Some((address, keys)) => (address, keys),
            None => (&**web, Vec::new()),
        };
        let name = if file.is_some() { "bind-web" } else { "web" };
        let declaration = PluginDeclaration::library(name, WEB_LIBRARY).set("bind", address);
        let declaration =
            keys.into_iter().fold(declaration, |declaration, (key, value)| declaration.set(key, value));
        builder = builder.plugin(with_transport_settings(arguments, declaration));
    }
    if file.is_none() {
        // `monitor` too: only local administrators can use it, and it has no hook while nobody does
        for standard in ["rpc", "announce", "monitor"] {
            let declaration = declare(arguments, &builder, standard.to_owned(), standard);
            builder = builder.plugin(declaration);
        }
    }
    builder
}

/// Splits `fifo:PATH?mode=0620&group=plant` into the address of a socket, FIFO or WebSocket and its keys. A
/// question mark that is not followed by `KEY=VALUE` belongs to the path.
fn split_keys(bind: &str) -> (&str, Vec<(&str, toml::Value)>) {
    match split_pairs(bind) {
        Some((address, keys)) if !matches!(Address::parse(address), Address::Tcp(_)) => (address, keys),
        _ => (bind, Vec::new()),
    }
}

/// Splits `ADDRESS?KEY=VALUE&KEY=VALUE`; `None` if it has not this form.
fn split_pairs(text: &str) -> Option<(&str, Vec<(&str, toml::Value)>)> {
    let (address, pairs) = text.rsplit_once('?')?;
    let keys: Option<Vec<_>> = pairs.split('&').map(|pair| pair.split_once('=')).collect();
    Some((address, keys?.into_iter().map(|(key, value)| (key, value_of(key, value))).collect()))
}

/// Returns why `--web` cannot work, if its library is not installed.
pub(crate) fn missing_web_library(arguments: &Arguments, builder: &BrokerBuilder) -> Option<String> {
    let is_missing = arguments.web.is_some() && !builder.finds_library(WEB_LIBRARY);
    is_missing.then(|| {
        format!(
            "--web needs the library lib{WEB_LIBRARY}.so, which is in no folder of plugin_dirs, in none of \
             --plugin-dir, and not next to elbusd: the Debian package has it, and \
             `cargo build --release -p elbus-web` builds it (docs/web.md)"
        )
    })
}

/// Returns the value with its type in broker.toml: a mode is a string, ids of users and groups are numbers.
fn value_of(key: &str, value: &str) -> toml::Value {
    let typed =
        || value.parse().map(toml::Value::Integer).or_else(|_| value.parse().map(toml::Value::Boolean));
    if key == "mode" { value.into() } else { typed().unwrap_or_else(|_| value.into()) }
}

fn declare(
    arguments: &Arguments,
    builder: &BrokerBuilder,
    name: String,
    standard: &str,
) -> PluginDeclaration {
    // callers pass only names of the table
    let index = BUILTIN_PLUGINS.iter().position(|plugin| plugin.name == standard).unwrap_or(0);
    let BuiltinPlugin { library, linked, .. } = &BUILTIN_PLUGINS[index];
    let from_library = match arguments.plugins {
        Plugins::Library => true,
        Plugins::Builtin => false,
        Plugins::Auto => builder.finds_library(library),
    };
    if from_library {
        PluginDeclaration::library(name, *library)
    } else {
        PluginDeclaration::linked(name, linked())
    }
}

fn with_transport_settings(arguments: &Arguments, mut declaration: PluginDeclaration) -> PluginDeclaration {
    if let Some(workers) = arguments.workers {
        declaration = declaration.set("workers", i64::from(workers));
    }
    if let Some(timeout) = arguments.timeout {
        declaration = declaration.set("timeout_seconds", timeout.as_secs_f64());
    }
    if let Some(bytes) = arguments.queue_limit() {
        declaration = declaration.set("queue_bytes", i64::try_from(bytes).unwrap_or(i64::MAX));
    }
    declaration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_follow_a_path() {
        let split = |bind: &'static str| {
            let (address, keys) = split_keys(bind);
            (
                address,
                keys.iter().map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", "),
            )
        };
        for (bind, address, keys) in [
            ("fifo:/run/f?mode=0620&group=plant", "fifo:/run/f", "mode = \"0620\", group = \"plant\""),
            ("./bus.sock?group=7", "./bus.sock", "group = 7"),
            ("unix:bus?mode=0666&owner=root", "unix:bus", "mode = \"0666\", owner = \"root\""),
            ("fifo:f?admin=true", "fifo:f", "admin = true"),
            ("ws://[::1]:80/bus?tokens_file=/t", "ws://[::1]:80/bus", "tokens_file = \"/t\""),
            // a path can contain a question mark
            ("fifo:what?", "fifo:what?", ""),
            ("unix:a?b=c?d", "unix:a?b=c?d", ""),
            ("localhost:7777?mode=0600", "localhost:7777?mode=0600", ""),
        ] {
            assert_eq!(split(bind), (address, keys.to_owned()), "{bind}");
        }
    }
}
