//! The table of the standard plugins, which are linked into `elbusd` and also built as libraries.

use elbus_plugin_api::LinkedPlugin;

/// A standard plugin.
pub(crate) struct BuiltinPlugin {
    /// The name in `builtin = "..."` of broker.toml.
    pub(crate) name: &'static str,
    /// The name in `library = "..."` of broker.toml.
    pub(crate) library: &'static str,
    pub(crate) linked: fn() -> LinkedPlugin,
}

pub(crate) const BUILTIN_PLUGINS: [BuiltinPlugin; 12] = [
    BuiltinPlugin { name: "unix", library: "elbus_unix", linked: elbus_unix::plugin },
    BuiltinPlugin { name: "tcp", library: "elbus_tcp", linked: elbus_tcp::plugin },
    BuiltinPlugin { name: "websocket", library: "elbus_websocket", linked: elbus_websocket::plugin },
    BuiltinPlugin { name: "fifo", library: "elbus_fifo", linked: elbus_fifo::plugin },
    BuiltinPlugin { name: "rpc", library: "elbus_rpc", linked: elbus_rpc::plugin },
    BuiltinPlugin { name: "announce", library: "elbus_announce", linked: elbus_announce::plugin },
    BuiltinPlugin { name: "acl", library: "elbus_acl", linked: elbus_acl::plugin },
    BuiltinPlugin { name: "activate", library: "elbus_activate", linked: elbus_activate::plugin },
    BuiltinPlugin { name: "validate", library: "elbus_validate", linked: elbus_validate::plugin },
    BuiltinPlugin { name: "inproc", library: "elbus_inproc", linked: elbus_inproc::plugin },
    BuiltinPlugin { name: "monitor", library: "elbus_monitor", linked: elbus_monitor::plugin },
    BuiltinPlugin { name: "retain", library: "elbus_retain", linked: elbus_retain::plugin },
];

/// Returns the plugins that are linked in, by name.
pub(crate) fn linked_plugins() -> Vec<(&'static str, LinkedPlugin)> {
    BUILTIN_PLUGINS.iter().map(|plugin| (plugin.name, (plugin.linked)())).collect()
}

/// Returns the name of the library that `code`, as in a plugin's declaration, names.
pub(crate) fn library_of(code: &str) -> String {
    let file = code.rsplit('/').next().unwrap_or(code);
    let stem = file.strip_suffix(".so").unwrap_or(file);
    stem.strip_prefix("lib").unwrap_or(stem).replace('-', "_")
}

/// Returns whether `code` is the library of the standard plugin `name`.
pub(crate) fn is(code: &str, name: &str) -> bool {
    let library = library_of(code);
    BUILTIN_PLUGINS.iter().any(|plugin| plugin.name == name && plugin.library == library)
}
