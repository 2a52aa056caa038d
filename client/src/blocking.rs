//! The client without async: every function waits for its outcome instead of returning a future.
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
//! # Where the functions can be called
//!
//! - In any thread of a program without tokio.
//! - In a thread of a program with tokio, `spawn_blocking` included. The clients never use its runtimes.
//! - In `start` and `stop` of a plugin of the broker, linked or loaded.
//! - In an async task, where they block the thread as [`std::thread::sleep`] does: other tasks of a
//!   current-thread runtime, and those queued behind this one in a multi-threaded runtime, do not run until
//!   the function returns. If its outcome depends on them, it fails with
//!   [`Error::Timeout`](crate::Error::Timeout), and an iterator waits until the client ends. Examples are a
//!   broker with linked transports in this runtime, and an async [`Client`](crate::Client) that must answer.
//!   Use `spawn_blocking` there.
//! - In the functions that this module calls: methods, notification functions and
//!   [handlers](Client::subscribe_with).
//!
//! They fail only on the thread that serves the clients, with
//! [`Error::InAsyncContext`](crate::Error::InAsyncContext), and iterators return `None` there. It runs the
//! library, the subscriber of its log (`tracing`), and `drop` of functions that were passed to it.
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
