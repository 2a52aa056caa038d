//! The client for programs without tokio: every function waits instead of returning a future.
//!
//! The names and meanings are those of the [crate] itself, whose documentation holds here as well; only waiting
//! differs. The connections of all blocking clients are served by one thread of the library's own, which starts with the
//! first of them and stays.
//!
//! ```no_run
//! # fn example() -> Result<(), elbus_client::Error> {
//! use elbus_client::{Qos, blocking::Client};
//!
//! let (display, mut frames) = Client::connect("/tmp/elbus.sock", "plant.display")?;
//! display.subscribe("temperature/+")?;
//!
//! let (sensor, _) = Client::connect("/tmp/elbus.sock", "plant.sensor")?;
//! sensor.publish("temperature/boiler", "71.5", Qos::PROCESSED)?;
//!
//! let frame = frames.next().expect("connected");
//! assert_eq!((frame.topic(), frame.payload()), ("temperature/boiler", &b"71.5"[..]));
//! # Ok(()) }
//! ```
//!
//! Nothing here may wait on a thread that runs async tasks: there every function that would wait fails with
//! [`Error::InAsyncContext`](crate::Error::InAsyncContext), and what returns an [`Option`] gives `None`. That goes for
//! tokio's `spawn_blocking` as well, but not for the functions that this module calls: methods, notifications and
//! [handlers](Client::on) may wait, for calls of their own for instance.
//!
//! A program that ends while frames are queued loses them; [`Client::close`] sends them first.
//!
//! This module decides nothing: each function hands its arguments to the async one of the same name.

mod client;
mod receiving;
mod rpc;
mod waiting;

pub use client::{Client, ClientBuilder};
pub use receiving::{ConnectionEvents, Frames, Handler, Subscription};
pub use rpc::{Cursor, Router, RpcHandler, Serving};
