//! The ELBUS broker as a library.
//!
//! The core does registration, wildcard broadcast and topic routing, keeps the table of control methods and tells
//! events; everything else is a plugin, loaded from a compiled library or linked in. This crate names none.
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
mod calls;
mod config_file;
mod control;
mod declaration;
mod error;
mod events;
mod host;
mod origin;
mod routing;
mod settings;
mod sync;

pub use broker::{Broker, BrokerBuilder, Stopping};
pub use config_file::{ConfigError, ConfigFile, ProgramSettings};
pub use declaration::{PluginDeclaration, Restart};
pub use error::BrokerError;
pub use host::{
    LibraryError, PluginRecord, PluginReport, PluginState, Reloaded, hanging_calls, inspect,
    report_fatal_signals, run_library_probe,
};
pub use settings::BrokerSettings;
