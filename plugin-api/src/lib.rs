//! The plugin API of the ELBUS broker.
//!
//! Authors implement [`Plugin`] in safe Rust, name the type in [`export_plugin!`], and build a crate of crate-type
//! `["cdylib", "rlib"]`: the same crate is loaded by a broker as a library or linked into a program.
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
//! A plugin that connects clients within the process ([`Host::connect`]) needs the plugin `inproc` beside it, and says so by
//! [`Plugin::REQUIRES`].
//!
//! It owns the boundary: what crosses it, its versions, the panic barrier, the forwarding of logs. It knows no
//! broker, no socket and no runtime, and no type of `abi_stable` or tokio is in what authors use.

mod account;
mod budget;
mod buffer;
mod client;
mod config;
mod control;
mod descriptor;
mod event;
mod guard;
mod host;
mod locality;
mod log;
mod notifier;
mod peer;
mod plugin;
mod sink;
mod thread;

#[doc(hidden)]
pub mod abi;
pub mod access;
pub mod inproc;
pub mod manifest;
pub mod testing;

pub use account::{Account, GroupMembers, user_names};
pub use budget::QueueBudget;
pub use buffer::{Payload, SHARE_FROM_BYTES, SharedBytes};
pub use client::{Client, ClientInfo, Credentials, Dispatch, Request};
pub use config::Config;
pub use control::{Call, CallError, ControlHandler, Method, MethodTraits};
pub use elbus_protocol::{BROKER_NAME, Code, FrameKind, Op, Qos, WARNINGS_TOPIC};
pub use event::{Event, EventKind, EventListener};
pub use guard::running_instance;
pub use host::Host;
pub use locality::Locality;
pub use notifier::{Notified, Notifier};
pub use peer::peer_process;
pub use plugin::{LinkedPlugin, Plugin, PluginError, Status};
pub use sink::{DeliveryStatus, Encoded, Encoding, Overdraft, Queued, Run, Sink, SinkLimits};
pub use thread::PluginThread;
