//! The client of the ELBUS message broker, and of any broker that speaks its protocol.
//!
//! [`Client`] registers under a name and sends, broadcasts, publishes, subscribes and calls, over a UNIX
//! socket, over TCP, with the cargo feature `tls` under TLS, or with the feature `in-process` within the
//! broker's program. [`blocking`] has the same without async.
//!
//! ```no_run
//! # async fn example() -> Result<(), elbus_client::Error> {
//! use elbus_client::{Client, Qos};
//!
//! let (display, _) = Client::connect("/tmp/elbus.sock", "plant.display").await?;
//! let mut temperatures = display.subscribe("temperature/+").await?;
//!
//! let (sensor, _) = Client::connect("/tmp/elbus.sock", "plant.sensor").await?;
//! sensor.publish("temperature/boiler", "71.5", Qos::PROCESSED).await?;
//!
//! let frame = temperatures.next().await.expect("connected");
//! assert_eq!((frame.topic(), frame.payload()), ("temperature/boiler", &b"71.5"[..]));
//! # Ok(()) }
//! ```
//!
//! # Receiving
//!
//! - [`Client::subscribe`] returns a [`Subscription`], a queue of publications of its own.
//! - [`Client::subscribe_with`] calls a function for each publication.
//! - [`Client::add_filters`] adds publications to the client's [`Frames`], which also receive messages and
//!   broadcasts.
//! - [`Options`] are added to topic filters: a group shares the work, a slow client gets the newest values,
//!   or misses publications instead of holding their publishers.
//! - [`Client::serve`] answers calls, with a [`Router`] or any other [`RpcHandler`].
//!
//! # Public dependencies
//!
//! Types of other crates in this API are re-exported: [`Bytes`] of `bytes`, [`Stream`] of `futures-core`, and
//! the protocol's [`Code`], [`EncodeError`], [`FrameKind`], [`Qos`] and [`SubscriptionError`]; with the
//! feature `in-process` also `Host` of `elbus-plugin-api`. Parameters and results of calls implement the
//! traits of `serde` 1.
//!
//! # Structure
//!
//! `api` and `rpc` hold the operations, `connection` performs them: its `send_queue` encodes and writes
//! frames, its `frame_reader` parses them, its `supervisor` connects and reconnects. `receive` routes
//! received frames to the queues of their consumers. This crate never routes between clients and knows no
//! plugin.
#![forbid(unsafe_code)]

mod address;
mod api;
pub mod blocking;
mod catch_panic;
mod connection;
mod error;
mod events;
mod frame;
mod receive;
mod rpc;
mod settings;
mod subscription_state;
#[cfg(feature = "tls")]
mod tls;

pub use address::Address;
pub use api::{
    builder::ClientBuilder,
    client::{Client, ClientStats},
    filters::Filters,
    frames::Frames,
    handler::HandlerHandle,
    options::{OptionedFilters, Options, SharedOptions},
    subscription::Subscription,
};
pub use bytes::Bytes;
#[cfg(feature = "in-process")]
pub use elbus_plugin_api::Host;
pub use elbus_protocol::{Code, EncodeError, FrameKind, Qos, subscription::SubscriptionError};
pub use error::{Error, rpc_error::RpcError};
pub use events::{ConnectionEvent, ConnectionEvents};
pub use frame::Frame;
pub use futures_core::Stream;
pub use rpc::{
    call::CallOptions,
    cursor::Cursor,
    router::Router,
    serve::{Call, Notification, RpcHandler, ServeHandle},
};
pub use settings::{Backoff, Overflow, Reconnect};
#[cfg(feature = "tls")]
pub use tls::TlsConfig;

/// Handle of a function that is called for publications.
#[deprecated = "renamed to HandlerHandle"]
pub type Handler = HandlerHandle;

/// Handle of a server of calls.
#[deprecated = "renamed to ServeHandle"]
pub type Serving = ServeHandle;
