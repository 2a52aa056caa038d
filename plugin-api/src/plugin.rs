//! The trait that plugins implement, and the status of an instance.

use std::time::Duration;

use crate::{
    abi::{FromRaw, RawStatus, convert::sealed::Sealed},
    config::Config,
    figure::Figure,
    host::Host,
    plugin_error::PluginError,
};

/// One instance of a plugin, written in safe Rust; panics in it are caught by the panic barrier around it.
///
/// # Lifecycle
/// The broker calls [`create`](Plugin::create) for all instances, then [`start`](Plugin::start) for all,
/// then [`serve`](Plugin::serve) for all; later [`stop`](Plugin::stop), and then it drops the instance. All
/// of these are called in one thread of the broker, one at a time, and can block. [`status`](Plugin::status)
/// can be called at any time and must not block.
///
/// # Panics in a plugin
/// A panic in a callback, in a thread of [`Host::spawn`](crate::Host::spawn) or in a task of a transport
/// fails the instance: the broker logs it, closes the sinks of the instance, calls `stop`, and restarts the
/// instance later.
///
/// The broker calls `create` for all instances, then `start` for all, then `serve` for all; later `stop`, and
/// then it drops the instance. These are called from one thread of the broker that may wait, one at a time.
/// # Examples
/// ```
/// use elbus_plugin_api::{Config, Host, Plugin, PluginError, Status};
///
/// struct Greeter {
///     host: Host,
///     greeting: String,
/// }
///
/// #[derive(serde::Deserialize)]
/// struct Settings {
///     greeting: String,
/// }
///
/// impl Plugin for Greeter {
///     const ABOUT: &'static str = "logs a greeting";
///
///     fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
///         let Settings { greeting } = config.read()?;
///         Ok(Greeter { host, greeting })
///     }
///
///     fn serve(&self) {
///         tracing::info!(instance = self.host.instance(), greeting = self.greeting, "greeting");
///     }
///
///     fn status(&self) -> Status {
///         Status::with_detail(&self.greeting)
///     }
/// }
/// ```
pub trait Plugin: Send + Sync + Sized + 'static {
    /// What the plugin does, in a few words; part of its manifest.
    const ABOUT: &'static str;

    /// Returns the plugins that must be configured beside it, separated by blanks.
    const REQUIRES: &'static str = "";

    /// Creates an instance: reads and checks its table, and touches nothing outside. Also called by `elbusd
    /// --check`, and by the process that probes a new library before the broker loads it. Afterwards, keys
    /// of the table that were not read are reported as unknown.
    ///
    /// # Errors
    /// What is wrong with the configuration, with the key it is about.
    fn create(host: Host, config: &Config) -> Result<Self, PluginError>;

    /// Acquires resources: binds, registers, opens. Accepts no client yet.
    ///
    /// # Errors
    /// What could not be acquired. A broker that starts exits; one that runs tries again later.
    fn start(&self) -> Result<(), PluginError> {
        Ok(())
    }

    /// Begins to serve: all plugins have started.
    fn serve(&self) {}

    /// Stops the instance: refuses new connections, drains queued messages until `deadline` has passed,
    /// closes the rest and removes what it created outside. Can block until then.
    ///
    /// Called once, even if another instance failed to start. Instances stop in the reverse order of their
    /// declaration, so what was declared before this one still serves. A plugin that answers calls
    /// [drains](crate::Client::drain) its clients first, so that nothing is acknowledged that it will not
    /// answer.
    fn stop(&self, deadline: Duration) {
        let _ = deadline;
    }

    /// Re-reads the files that its table names: broker.toml was reloaded, and the table itself has not
    /// changed. Connected clients are not affected. If it fails, what was read before stays in force.
    ///
    /// # Errors
    /// What could not be read, with the key that names it.
    fn refresh(&self) -> Result<(), PluginError> {
        Ok(())
    }

    /// Returns what the plugin counts and measures, for programs that monitor the broker: the control method
    /// `metrics` passes the first [`MAX_FIGURES`](crate::MAX_FIGURES) on. Must not block. Names must not
    /// depend on clients, topics or messages, of which there can be any number.
    fn figures(&self) -> Vec<Figure> {
        Vec::new()
    }

    /// Returns the current status. Must not block.
    fn status(&self) -> Status {
        Status::default()
    }
}

/// The status of an instance.
///
/// # Examples
/// ```
/// use elbus_plugin_api::Status;
///
/// let status = Status::new(vec!["tcp:127.0.0.1:7777".to_owned()], "3 clients");
/// assert_eq!(status.addresses.len(), 1);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Addresses for clients, as they would use them: `unix:/run/elbus.sock`, `tcp:127.0.0.1:7777`.
    pub addresses: Vec<String>,
    /// Details for people.
    pub detail: String,
}

impl Status {
    /// Creates a status with the addresses for clients and details for people.
    pub fn new(addresses: Vec<String>, detail: impl Into<String>) -> Self {
        Status { addresses, detail: detail.into() }
    }

    /// Creates a status with details for people.
    pub fn with_detail(detail: impl Into<String>) -> Self {
        Status::new(Vec::new(), detail)
    }

    pub(crate) fn into_raw(self) -> RawStatus {
        RawStatus {
            flags: 0,
            addresses: self.addresses.into_iter().map(Into::into).collect(),
            detail: self.detail.into(),
        }
    }
}

impl Sealed for Status {}

impl FromRaw<RawStatus> for Status {
    fn from_raw(raw: RawStatus) -> Self {
        Status {
            addresses: raw.addresses.into_iter().map(Into::into).collect(),
            detail: raw.detail.into_string(),
        }
    }
}
