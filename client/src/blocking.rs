//! The client for programs without tokio: every function waits for its outcome instead of returning a future.
//!
//! Names and semantics are those of the [crate] itself, whose documentation applies. One thread of the
//! library serves the connections of all blocking clients. It starts with the first of them and ends with the
//! last.
//!
//! ```no_run
//! # fn example() -> Result<(), elbus_client::Error> {
//! use elbus_client::{Qos, blocking::Client};
//!
//! let (display, _) = Client::connect("/tmp/elbus.sock", "plant.display")?;
//! let mut temperatures = display.subscribe("temperature/+")?;
//!
//! let (sensor, _) = Client::connect("/tmp/elbus.sock", "plant.sensor")?;
//! sensor.publish("temperature/boiler", "71.5", Qos::PROCESSED)?;
//!
//! let frame = temperatures.next().expect("connected");
//! assert_eq!((frame.topic(), frame.payload()), ("temperature/boiler", &b"71.5"[..]));
//! # Ok(()) }
//! ```
//!
//! These functions must not wait on a thread that runs async tasks. There they fail with
//! [`Error::InAsyncContext`](crate::Error::InAsyncContext), and iterators return `None`; this includes
//! tokio's `spawn_blocking`. Functions that this module calls can wait: methods, notification functions and
//! [handlers](Client::subscribe_with).
//!
//! A program that exits while frames are queued loses them; [`Client::close`] sends them first.
//!
//! Each function passes its arguments to the async function of the same name.

mod block_on;
mod client;
mod receiving;
mod rpc;

pub use client::{Client, ClientBuilder};
pub use receiving::{ConnectionEvents, Frames, HandlerHandle, Subscription};
pub use rpc::{Cursor, Router, RpcHandler, ServeHandle};

/// Handle of a function that is called for publications.
#[deprecated = "renamed to HandlerHandle"]
pub type Handler = HandlerHandle;

/// Handle of a server of calls.
#[deprecated = "renamed to ServeHandle"]
pub type Serving = ServeHandle;
