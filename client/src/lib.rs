//! The client of the ELBUS message broker, and of any broker that speaks its protocol.
//!
//! [`Client`] registers under a name and sends, broadcasts, publishes, subscribes and calls, over a UNIX socket, TCP, with the cargo
//! feature `tls` under TLS, or within the broker's own program; [`blocking`] has the same for programs without tokio. [`Frames`] is what it receives.
//!
//! ```no_run
//! # async fn example() -> Result<(), elbus_client::Error> {
//! use elbus_client::{Client, Qos};
//!
//! let (display, mut frames) = Client::connect("/tmp/elbus.sock", "plant.display").await?;
//! display.subscribe("temperature/+").await?;
//!
//! let (sensor, _) = Client::connect("/tmp/elbus.sock", "plant.sensor").await?;
//! sensor.publish("temperature/boiler", "71.5", Qos::PROCESSED).await?;
//!
//! let frame = frames.next().await.expect("connected");
//! assert_eq!((frame.topic(), frame.payload()), ("temperature/boiler", &b"71.5"[..]));
//! # Ok(()) }
//! ```
//!
//! This crate never routes and knows no plugin; what it puts on the wire is the protocol crate's.
//!
//! The way of a frame out: `client` says what is meant, `operations` carries it out, `outgoing` queues and writes it. The way in:
//! `incoming` makes frames of bytes, `switchboard` decides who gets them, `inbox` holds them for a consumer and, through
//! `gate`, the reader back. `connection` leads all of them through their lives.
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
#[cfg(feature = "tls")]
mod tls;

pub use address::Address;
pub use api::client::{Client, ClientStats};
pub use api::filters::Filters;
pub use api::frames::Frames;
pub use api::subscription::{Handler, Subscription};
pub use bytes::Bytes;
pub use elbus_protocol::{Code, FrameKind, Qos};
pub use error::{Error, rpc_error::RpcError};
pub use events::{ConnectionEvent, ConnectionEvents};
pub use frame::Frame;
pub use receive::inbox::Overflow;
pub use rpc::{Call, CallOptions, Cursor, CursorItem, Notification, Router, RpcHandler, Serving};
pub use settings::{ClientBuilder, Reconnect};
#[cfg(feature = "tls")]
pub use tls::TlsConfig;
