//! The ELBUS broker as a library.
//!
//! The core does registration, wildcard broadcast and topic routing, owns the table of control methods and
//! emits events. Everything else is a plugin, loaded from a compiled library or linked in. This crate names
//! no plugin, and does not change the process around it: signals, allocator and environment belong to the
//! program.
//!
//! ```no_run
//! use elbus_broker::{Broker, PluginDeclaration};
//! use std::time::Duration;
//!
//! let broker = Broker::builder()
//!     .plugin(PluginDeclaration::library("local", "elbus_unix").set("path", "/run/example.sock"))
//!     .start()?;
//! broker.stop(Duration::from_secs(1)).wait();
//! # Ok::<(), elbus_broker::BrokerError>(())
//! ```

mod access;
mod broker;
mod callbacks;
mod client_origin;
mod config_error;
mod config_file;
mod control;
mod declaration;
mod error;
mod events;
mod hooks;
mod host;
mod location;
mod routing;
mod settings;
mod statistics;
mod sync;

pub use broker::{Broker, BrokerBuilder, Stopping};
pub use config_error::ConfigError;
pub use config_file::{ConfigFile, ProgramSettings};
pub use declaration::{PluginDeclaration, Restart};
pub use error::BrokerError;
pub use host::{
    lifecycle::{
        reload::Reloaded,
        report::{PluginReport, PluginState},
    },
    load::{
        fatal_signals::report_fatal_signals,
        inspect::{PluginManifest, inspect},
        libraries::LibraryError,
        probe::run_library_probe,
    },
    watch::callback_watch::hanging_calls,
};
pub use settings::BrokerSettings;
/// The crate whose `Table` and `Value` [`PluginDeclaration`] accepts, in the matching version.
pub use toml;
