//! What a plugin is: the trait authors implement, its errors and its status.

use std::time::Duration;

use crate::{
    Config, Host,
    abi::{PluginRef, RawPluginError, RawStatus},
    manifest,
};

/// One instance of a plugin. Ordinary safe Rust: the guard around it catches panics.
///
/// The broker calls `create` for all instances, then `start` for all, then `serve` for all; later `stop`, and then
/// it drops the instance. These are called from one thread of the broker that may wait, one at a time.
pub trait Plugin: Send + Sync + Sized + 'static {
    /// What the plugin does, in a few words; part of the descriptor.
    const ABOUT: &'static str;

    /// The plugins that must be configured beside it, by the names of their crates with blanks between: `"elbus-inproc"` for one
    /// that connects clients within the process. Part of the descriptor; `elbusd --check`, the start and a reload report those
    /// that are missing.
    const REQUIRES: &'static str = "";

    /// Configures an instance: reads and checks its table, touches nothing outside. `elbusd --check` calls it too, and so does
    /// the process that a new library is probed in before the broker loads it.
    /// Keys of the table that were not read are reported as unknown afterwards.
    ///
    /// # Errors
    /// What is wrong with the configuration, with the key it is about.
    fn create(host: Host, config: &Config) -> Result<Self, PluginError>;

    /// Takes what it needs: binds, registers, opens. Serves nobody yet.
    ///
    /// # Errors
    /// What could not be had; a broker that starts ends then, one that runs tries it again later.
    fn start(&self) -> Result<(), PluginError> {
        Ok(())
    }

    /// All plugins have started: serve.
    fn serve(&self) {}

    /// Ends: accepts nobody any more, gives what is queued until `deadline` to drain, closes the rest and removes
    /// what it created outside. May block until then. Called once, also after a start that failed elsewhere. Instances stop in
    /// the reverse order of their declaration, so what was declared before this one still serves. One that answers calls
    /// [drains](crate::Client::drain) its clients first: nothing is acknowledged any more that it will not answer.
    fn stop(&self, deadline: Duration) {
        let _ = deadline;
    }

    /// broker.toml was reloaded, and the table of this instance is the same: reads anew the files that the table names.
    /// Those who are connected notice nothing. Where it fails, what was read before stays in force.
    ///
    /// # Errors
    /// What could not be read, with the key that names it.
    fn refresh(&self) -> Result<(), PluginError> {
        Ok(())
    }

    /// How it is. Must not block.
    fn status(&self) -> Status {
        Status::default()
    }
}

/// What an instance says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Where clients reach it, as they would be told: `unix:/run/elbus.sock`, `tcp:127.0.0.1:7777`.
    pub addresses: Vec<String>,
    /// Anything else, for people.
    pub detail: String,
}

impl Status {
    pub(crate) fn into_raw(self) -> RawStatus {
        RawStatus {
            flags: 0,
            addresses: self.addresses.into_iter().map(Into::into).collect(),
            detail: self.detail.into(),
        }
    }

    /// From what crossed the boundary.
    #[doc(hidden)]
    pub fn from_raw(raw: RawStatus) -> Self {
        Status {
            addresses: raw.addresses.into_iter().map(Into::into).collect(),
            detail: raw.detail.into_string(),
        }
    }
}

/// Why an instance could not be configured or started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    /// The key of its table that it is about, dotted; empty where it is about none.
    pub key: String,
    /// What is wrong and what would be right, lower case, no full stop.
    pub message: String,
}

impl PluginError {
    /// An error about no particular key.
    pub fn new(message: impl Into<String>) -> Self {
        PluginError { key: String::new(), message: message.into() }
    }

    /// An error about the value of a key.
    pub fn of_key(key: impl Into<String>, message: impl Into<String>) -> Self {
        PluginError { key: key.into(), message: message.into() }
    }

    /// As it crosses the boundary.
    #[doc(hidden)]
    pub fn into_raw(self) -> RawPluginError {
        RawPluginError::new(&self.key, &self.message)
    }

    /// From what crossed the boundary.
    #[doc(hidden)]
    pub fn from_raw(raw: RawPluginError) -> Self {
        PluginError { key: raw.key.into_string(), message: raw.message.into_string() }
    }
}

impl std::fmt::Display for PluginError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.key.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.key, self.message)
        }
    }
}

impl std::error::Error for PluginError {}

/// A plugin that is linked into the program: what the `plugin()` of its crate returns.
#[derive(Clone, Copy)]
pub struct LinkedPlugin {
    module: PluginRef,
    record: &'static str,
}

impl LinkedPlugin {
    /// Made by [`export_plugin!`](crate::export_plugin).
    #[doc(hidden)]
    pub const fn new(module: PluginRef, record: &'static str) -> Self {
        LinkedPlugin { module, record }
    }

    /// The root module.
    #[doc(hidden)]
    pub fn module(&self) -> PluginRef {
        self.module
    }

    /// The name of its crate.
    pub fn name(&self) -> &'static str {
        manifest::value(self.record, "name").unwrap_or("?")
    }

    /// The version of its crate.
    pub fn version(&self) -> &'static str {
        manifest::value(self.record, "version").unwrap_or("?")
    }

    /// The plugins that must be configured beside it, with blanks between.
    pub fn requires(&self) -> &'static str {
        manifest::value(self.record, "requires").unwrap_or("")
    }

    /// What it does.
    pub fn about(&self) -> &'static str {
        manifest::value(self.record, "about").unwrap_or("")
    }
}

impl std::fmt::Debug for LinkedPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkedPlugin({} {})", self.name(), self.version())
    }
}

/// Makes a plugin of a type: `export_plugin!(MyPlugin);` once, at the root of a crate of crate-type
/// `["cdylib", "rlib"]`.
///
/// It writes the descriptor, the one symbol a library exports (`elbus_plugin_` and the name of the crate, so that
/// several plugins can be linked into one program), and `plugin()` for programs that link the crate.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty) => {
        const ELBUS_RECORD_PARTS: &[&str] = &[
            "name=",
            env!("CARGO_PKG_NAME"),
            "\nversion=",
            env!("CARGO_PKG_VERSION"),
            "\napi=",
            $crate::manifest::API,
            "\ntarget=",
            $crate::manifest::TARGET,
            "\nentry=elbus_plugin_",
            env!("CARGO_CRATE_NAME"),
            "\npanic=",
            $crate::manifest::PANIC,
            "\nrustc=",
            $crate::manifest::RUSTC,
            "\nrequires=",
            <$plugin as $crate::Plugin>::REQUIRES,
            "\nabout=",
            <$plugin as $crate::Plugin>::ABOUT,
        ];

        #[used]
        #[unsafe(link_section = ".note.elbus")]
        static ELBUS_RECORD: $crate::manifest::PluginManifest<
            { $crate::manifest::text_len(ELBUS_RECORD_PARTS) },
        > = $crate::manifest::PluginManifest::new(ELBUS_RECORD_PARTS);

        #[unsafe(export_name = concat!("elbus_plugin_", env!("CARGO_CRATE_NAME")))]
        static ELBUS_ENTRY: $crate::abi::Entry = $crate::abi::Entry::new::<$plugin>(ELBUS_RECORD.as_ptr());

        /// The plugin, for a program that has it linked in.
        pub fn plugin() -> $crate::LinkedPlugin {
            $crate::LinkedPlugin::new($crate::abi::Make::<$plugin>::MODULE, ELBUS_RECORD.text())
        }
    };
}
