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
pub mod blocking;
mod caught;
mod client;
mod connect;
mod connection;
mod error;
mod events;
mod filters;
mod frame;
mod frames;
mod gate;
#[cfg(feature = "in-process")]
mod in_process;
mod inbox;
mod incoming;
mod operations;
mod outgoing;
mod rpc;
mod settings;
mod subscription;
mod switchboard;
#[cfg(feature = "tls")]
mod tls;
mod topics;
mod wishes;

pub use address::Address;
pub use bytes::Bytes;
pub use client::{Client, ClientStats};
pub use elbus_protocol::{Code, FrameKind, Qos};
pub use error::Error;
pub use events::{ConnectionEvent, ConnectionEvents};
pub use filters::Filters;
pub use frame::Frame;
pub use frames::Frames;
pub use inbox::Overflow;
pub use rpc::{Call, CallOptions, Cursor, CursorItem, Notification, Router, RpcError, RpcHandler, Serving};
pub use settings::{ClientBuilder, Reconnect};
pub use subscription::{Handler, Subscription};
#[cfg(feature = "tls")]
pub use tls::TlsConfig;
