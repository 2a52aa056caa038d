//! The standard plugins, and the broker that command line and built-in default describe.

use elbus_broker::{Broker, BrokerBuilder, ConfigFile, PluginDeclaration};
use elbus_plugin_api::LinkedPlugin;
use elbus_protocol::address::{self, Address};
use std::path::{Path, PathBuf};

use crate::arguments::{Arguments, Plugins};

/// A plugin that comes with the broker.
struct Standard {
    /// As `builtin = "..."` in broker.toml names it.
    name: &'static str,
    /// As `library = "..."` names it.
    library: &'static str,
    linked: fn() -> LinkedPlugin,
}

const STANDARD: [Standard; 7] = [
    Standard { name: "unix", library: "elbus_unix", linked: elbus_unix::plugin },
    Standard { name: "tcp", library: "elbus_tcp", linked: elbus_tcp::plugin },
    Standard { name: "fifo", library: "elbus_fifo", linked: elbus_fifo::plugin },
    Standard { name: "rpc", library: "elbus_rpc", linked: elbus_rpc::plugin },
    Standard { name: "announce", library: "elbus_announce", linked: elbus_announce::plugin },
    Standard { name: "acl", library: "elbus_acl", linked: elbus_acl::plugin },
    Standard { name: "inproc", library: "elbus_inproc", linked: elbus_inproc::plugin },
];

/// The plugins that are linked in, by name.
pub(crate) fn linked_plugins() -> Vec<(&'static str, LinkedPlugin)> {
    STANDARD.iter().map(|standard| (standard.name, (standard.linked)())).collect()
}

/// Whether this code, as a declaration names it, is that of a standard plugin.
pub(crate) fn is(code: &str, name: &str) -> bool {
    let file = code.rsplit('/').next().unwrap_or(code);
    let stem = file.strip_suffix(".so").unwrap_or(file);
    let stem = stem.strip_prefix("lib").unwrap_or(stem).replace('-', "_");
    STANDARD.iter().any(|standard| standard.name == name && standard.library == stem)
}

/// Where the broker listens if nobody says otherwise.
fn default_socket() -> PathBuf {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| Path::new(folder).is_dir());
    let may_use_run = rustix::process::geteuid().is_root() && Path::new("/run").is_dir();
    address::default_socket(folder.as_deref(), may_use_run)
}

/// The broker that the command line describes; `file` is what `--config` names.
pub(crate) fn describe(arguments: &Arguments, file: Option<&ConfigFile>) -> BrokerBuilder {
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
        let (standard, key, value) = match Address::parse(address) {
            Address::Unix(path) => ("unix", "path", path),
            Address::Tcp(address) => ("tcp", "bind", address),
            Address::Fifo(path) => ("fifo", "path", path),
        };
        let name = if index == 0 { standard.to_owned() } else { format!("{standard}-{}", index + 1) };
        // beside those of a file, whose names may be the same
        let name = if file.is_some() { format!("bind-{name}") } else { name };
        let mut declaration = declare(arguments, &builder, name, standard).set(key, value);
        for (key, value) in keys {
            declaration = declaration.set(key, value);
        }
        if standard != "fifo" {
            declaration = with_transport_settings(arguments, declaration);
        }
        builder = builder.plugin(declaration);
    }
    if file.is_none() {
        for standard in ["rpc", "announce"] {
            let declaration = declare(arguments, &builder, standard.to_owned(), standard);
            builder = builder.plugin(declaration);
        }
    }
    builder
}

/// The address of a socket file or a FIFO, and the keys behind it: `fifo:PATH?mode=0620&group=plant`. A question mark that is not
/// followed by `KEY=VALUE` belongs to the path.
fn split_keys(bind: &str) -> (&str, Vec<(&str, toml::Value)>) {
    let Some((address, text)) = bind.rsplit_once('?') else { return (bind, Vec::new()) };
    let keys: Option<Vec<_>> = text.split('&').map(|pair| pair.split_once('=')).collect();
    match (Address::parse(address), keys) {
        (Address::Unix(_) | Address::Fifo(_), Some(keys)) => {
            (address, keys.into_iter().map(|(key, value)| (key, value_of(key, value))).collect())
        }
        _ => (bind, Vec::new()),
    }
}

/// A value as broker.toml would have it: a mode is text there, numbers of users and groups are numbers.
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
    // the callers name only those that stand in the table
    let index = STANDARD.iter().position(|s| s.name == standard).unwrap_or(0);
    let Standard { library, linked, .. } = &STANDARD[index];
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
    fn keys_follow_a_path() {
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
            // a path may have a question mark
            ("fifo:what?", "fifo:what?", ""),
            ("unix:a?b=c?d", "unix:a?b=c?d", ""),
            ("localhost:7777?mode=0600", "localhost:7777?mode=0600", ""),
        ] {
            assert_eq!(split(bind), (address, keys.to_owned()), "{bind}");
        }
    }
}
