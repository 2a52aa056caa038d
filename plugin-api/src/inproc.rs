//! Clients inside the process: what the plugin that offers them implements, and what programs and other
//! plugins use. Needs no runtime; futures complete through a [`Notifier`].

mod client;
pub(crate) mod guarded;
pub(crate) mod owned_run;
mod receiver;

use elbus_protocol::Code;

use crate::{
    notifier::Notifier,
    request::{Dispatch, Request},
};

pub(crate) use receiver::waker_of_thread;

pub use client::InprocClient;
pub use owned_run::{Message, OwnedRun, RunBatch};

/// Offers in-process clients; implemented by the plugin that does. Called from any thread; does not block.
pub trait InprocConnector: Send + Sync + 'static {
    /// The plugin's side of a client.
    type Endpoint: InprocEndpoint;
    /// Registers a client.
    ///
    /// # Errors
    /// As [`Host::register`](crate::Host::register).
    fn connect(&self, name: &str) -> Result<Self::Endpoint, Code>;
}

/// The plugin's side of an in-process client. Called from any thread, concurrently; never blocks. Dropping
/// it ends the registration.
pub trait InprocEndpoint: Send + Sync + 'static {
    /// Routes a request, which [ends its batch](Request::ends_batch). If the result [is
    /// congested](Dispatch::is_congested), the client waits for [`when_ready`](InprocEndpoint::when_ready).
    fn dispatch(&self, request: &Request<'_>) -> Dispatch;
    /// Calls `notifier` once when the receivers over their limit have drained.
    fn when_ready(&self, notifier: Notifier);
    /// Moves received runs into `into`, at least one if there is any. Returns `false` once the client is
    /// closed and nothing will follow. If there is nothing yet and the reader `waits`, the
    /// [notifier](InprocEndpoint::set_notifier) is called once when there is something or the client is
    /// closed.
    fn receive(&self, into: &mut RunBatch, waits: bool) -> bool;
    /// Sets the notifier for readers that wait, for the lifetime of the client. Called before anything is
    /// received.
    fn set_notifier(&self, notifier: Notifier);
    /// Ends the registration.
    fn close(&self);
    /// As [`Client::drain`](crate::Client::drain): received messages stay readable and can be answered.
    fn drain(&self) {}
}
