//! The plugin API of the ELBUS broker.
//!
//! Authors implement [`Plugin`] in safe Rust, name the type in [`export_plugin!`], and build a crate of
//! crate-type `["cdylib", "rlib"]`: the same crate is loaded by a broker as a library or linked into a
//! program.
//!
//! ```
//! use elbus_plugin_api::{Config, Host, Plugin, PluginError};
//!
//! struct Greeter(Host);
//!
//! impl Plugin for Greeter {
//!     const ABOUT: &'static str = "says hello when it starts";
//!
//!     fn create(host: Host, _: &Config) -> Result<Self, PluginError> {
//!         Ok(Greeter(host))
//!     }
//!
//!     fn start(&self) -> Result<(), PluginError> {
//!         tracing::info!("hello from {}", self.0.instance());
//!         Ok(())
//!     }
//! }
//!
//! elbus_plugin_api::export_plugin!(Greeter);
//! # fn main() {}
//! ```
//!
//! # Where to look
//! - A plugin: [`Plugin`], [`Config`], [`Host`], [`Status`], [`PluginError`]. Values in tables: [`config`].
//! - A client of its own: [`Host::register`], [`Client`], [`Sink`], [`NullSink`]. Or, with futures,
//!   [`Host::connect`] and [`inproc::InprocClient`]; this needs the plugin `inproc` beside it, which the
//!   plugin declares by [`Plugin::REQUIRES`].
//! - Control methods and events: [`Method`], [`ControlHandler`], [`CallError`], [`Event`], [`EventListener`].
//! - A transport: [`Request`], [`Dispatch`], [`Run`], [`Encoding`], [`DeliveryStatus`], [`Notifier`],
//!   [`QueueBudget`], [`ClientInfo`], [`os`], [`rate`].
//! - Messages of other clients: [`hooks`].
//! - Access rules: [`access`]. Tests: [`testing`]. What a library says of itself: [`manifest`].
//!
//! `docs/plugins.md` in the repository is a guide for authors; `examples/last-value` is a plugin to copy.
//!
//! # Threads
//! Callbacks come from threads of the broker and of other plugins. [`Plugin`]'s own callbacks can block,
//! except `status`; those of [`Sink`] and [`Notifier`] must not; those of [`ControlHandler`] only if the
//! method is declared slow.
//!
//! # Versions
//! Libraries and broker must be built for the same version of this crate. Where its signatures name types of
//! other crates, those crates are re-exported: [`bytes`], [`ipnet`].
//!
//! This crate owns the boundary: what crosses it, its versions, the panic barrier, the forwarding of logs. It
//! knows no broker, no socket and no runtime, and no type of `abi_stable` or tokio is in what authors use.

mod budget;
mod buffer;
mod client;
mod client_info;
mod control;
mod delivery_status;
mod departure;
mod event;
mod figure;
mod host;
mod linked_plugin;
mod locality;
mod log;
mod mixed_run;
mod notifier;
mod pending;
mod plugin;
mod plugin_error;
mod request;
mod run;
mod sink;
mod thread;

#[doc(hidden)]
pub mod abi;
pub mod access;
pub mod config;
pub mod hooks;
pub mod inproc;
pub mod manifest;
pub mod os;
pub mod rate;
pub mod testing;

pub use abi::catch::running_instance;
pub use budget::{QueueBudget, QueueReservation};
pub use buffer::{Payload, SHARE_FROM_BYTES, SharedBytes};
pub use client::Client;
pub use client_info::{ClientInfo, Credentials};
pub use config::Config;
pub use control::{Call, CallError, ControlHandler, Method, MethodTraits};
pub use delivery_status::DeliveryStatus;
pub use departure::Departure;
pub use elbus_protocol::{BROKER_NAME, Code, FrameKind, Op, Qos, WARNINGS_TOPIC};
pub use event::{Event, EventKind, EventListener, unix_nanos};
pub use figure::{Figure, MAX_FIGURES};
pub use host::Host;
pub use linked_plugin::LinkedPlugin;
pub use locality::Locality;
pub use mixed_run::{Frame, MixedDispatch, MixedRun};
pub use notifier::{Notified, Notifier};
pub use pending::{Completion, PendingResult};
pub use plugin::{Plugin, Status};
pub use plugin_error::PluginError;
pub use request::{Dispatch, Request};
pub use run::{Encoded, Encoding, Run};
pub use sink::{NullSink, Overdraft, Queued, Sink, SinkLimits};
pub use thread::PluginThread;
pub use {bytes, ipnet};
