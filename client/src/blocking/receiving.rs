//! Receiving: frames, publications of a subscription, events, and functions that are called for publications.
//! Owns the iterators; the async client decides which consumer gets a frame.

use parking_lot::Mutex;
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::timeout;

use super::{
    block_on::{block_on, run_blocking},
    client::Client,
};
use crate::{
    api::{self, filters::Filters},
    error::Error,
    events::{self, ConnectionEvent},
    frame::Frame,
};

/// The received frames of a client, as [`crate::Frames`]. An iterator that waits for each frame and ends with
/// the client.
///
/// ```no_run
/// # fn example() -> Result<(), elbus_client::Error> {
/// use elbus_client::blocking::Client;
/// let (client, mut frames) = Client::connect("/tmp/elbus.sock", "plant.display")?;
/// let first = frames.next();
/// for frame in &mut frames {
///     println!("{frame:?}");
/// }
/// // the connection has ended, and this is why
/// client.connected()
/// # }
/// ```
pub struct Frames {
    client: Client,
    inner: api::frames::Frames,
}

impl Frames {
    pub(super) fn new(client: Client, inner: api::frames::Frames) -> Self {
        Frames { client, inner }
    }

    /// Returns the next frame if it arrives in time.
    ///
    /// ```no_run
    /// # fn example(mut frames: elbus_client::blocking::Frames) -> Result<(), elbus_client::Error> {
    /// use std::time::Duration;
    /// loop {
    ///     match frames.next_timeout(Duration::from_secs(1)) {
    ///         Ok(frame) => println!("{frame:?}"),
    ///         Err(error) if error.is_timeout() => println!("nothing for a second"),
    ///         Err(error) => return Err(error),
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`]; the reason why the client has ended, once the queue is empty;
    /// [`Error::InAsyncContext`].
    pub fn next_timeout(&mut self, after: Duration) -> Result<Frame, Error> {
        match block_on(async { timeout(after, self.inner.next()).await })? {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(end_of(&self.client.inner)),
            Err(_) => Err(timed_out("receiving a frame", after)),
        }
    }

    /// Returns the next frame if one is queued. Does not wait.
    pub fn try_next(&mut self) -> Option<Frame> {
        self.inner.try_next()
    }

    /// Returns how many frames have been dropped so far; see [`crate::Frames::missed`].
    pub fn missed(&self) -> u64 {
        self.inner.missed()
    }

    /// Returns the client that receives the frames.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Iterator for Frames {
    type Item = Frame;

    /// Waits for the next frame; `None` once the client has ended and the queue is empty.
    fn next(&mut self) -> Option<Frame> {
        block_on(self.inner.next()).ok()?
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Publications that match some filters, as [`crate::Subscription`]. An iterator that waits for each of them
/// and ends with the client. Dropping it unsubscribes.
///
/// ```no_run
/// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
/// let mut temperatures = client.subscribe("temperature/+")?;
/// let first = temperatures.next();
/// temperatures.unsubscribe()
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it unsubscribes"]
pub struct Subscription {
    client: Client,
    inner: api::subscription::Subscription,
}

impl Subscription {
    /// Returns the next publication if it arrives in time.
    ///
    /// # Errors
    /// As [`Frames::next_timeout`].
    pub fn next_timeout(&mut self, after: Duration) -> Result<Frame, Error> {
        match block_on(async { timeout(after, self.inner.next()).await })? {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(end_of(&self.client.inner)),
            Err(_) => Err(timed_out("receiving a publication", after)),
        }
    }

    /// Returns the next publication if one is queued. Does not wait.
    pub fn try_next(&mut self) -> Option<Frame> {
        self.inner.try_next()
    }

    /// Returns how many frames have been dropped so far; see [`crate::Frames::missed`].
    pub fn missed(&self) -> u64 {
        self.inner.missed()
    }

    /// Unsubscribes, and waits for the broker's acknowledgement.
    ///
    /// # Errors
    /// As [`Client::remove_filters`].
    pub fn unsubscribe(self) -> Result<(), Error> {
        block_on(self.inner.unsubscribe())?
    }
}

impl Iterator for Subscription {
    type Item = Frame;

    /// Waits for the next publication; `None` once the client has ended and the queue is empty.
    fn next(&mut self) -> Option<Frame> {
        block_on(self.inner.next()).ok()?
    }
}

/// The changes of a connection since [`Client::events`] was called. An iterator that waits for each of them
/// and ends after [`ConnectionEvent::Closed`].
///
/// ```no_run
/// # fn example(client: elbus_client::blocking::Client) {
/// for event in client.events() {
///     println!("{event:?}");
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct ConnectionEvents {
    inner: events::ConnectionEvents,
}

impl ConnectionEvents {
    pub(super) fn new(inner: events::ConnectionEvents) -> Self {
        ConnectionEvents { inner }
    }

    /// Returns the next event if it happens in time.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Closed`] after [`ConnectionEvent::Closed`]; [`Error::InAsyncContext`].
    pub fn next_timeout(&mut self, after: Duration) -> Result<ConnectionEvent, Error> {
        match block_on(async { timeout(after, self.inner.next()).await })? {
            Ok(event) => event.ok_or(Error::Closed),
            Err(_) => Err(timed_out("receiving an event", after)),
        }
    }
}

impl Iterator for ConnectionEvents {
    type Item = ConnectionEvent;

    /// Waits for the next event; `None` after [`ConnectionEvent::Closed`].
    fn next(&mut self) -> Option<ConnectionEvent> {
        block_on(self.inner.next()).ok()?
    }
}

/// Handle of a function that is called for publications; from [`Client::subscribe_with`]. Dropping it does
/// not stop the function.
///
/// ```no_run
/// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
/// let handler = client.subscribe_with("temperature/+", |frame| println!("{frame:?}"))?;
/// handler.stop()
/// # }
/// ```
#[derive(Debug)]
pub struct HandlerHandle {
    inner: api::handler::HandlerHandle,
}

impl HandlerHandle {
    /// Unsubscribes and stops calling the function. A call in progress runs to its end.
    ///
    /// # Errors
    /// As [`Client::remove_filters`].
    pub fn stop(self) -> Result<(), Error> {
        block_on(self.inner.stop())?
    }
}

impl Client {
    /// Subscribes to one or more topic filters and returns the publications that match; see
    /// [`crate::Client::subscribe`].
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// for alarm in client.subscribe(["alarm/#", "fire"])? {
    ///     println!("{}: {:?}", alarm.topic(), alarm.payload());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Client::send) with acknowledgement.
    pub fn subscribe(&self, filters: impl Filters) -> Result<Subscription, Error> {
        let inner = block_on(self.inner.subscribe(filters))??;
        Ok(Subscription { client: self.clone(), inner })
    }

    /// Subscribes with a queue of its own.
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    #[deprecated = "renamed to subscribe"]
    pub fn subscription(&self, filters: impl Filters) -> Result<Subscription, Error> {
        self.subscribe(filters)
    }

    /// Subscribes and calls a function for every publication that matches: in order, one at a time, on the
    /// library's threads, until [`HandlerHandle::stop`] or the end of the client. The function can block.
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// client.subscribe_with("temperature/+", |frame| println!("{}: {:?}", frame.topic(), frame.payload()))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub fn subscribe_with(
        &self,
        filters: impl Filters,
        function: impl FnMut(Frame) + Send + 'static,
    ) -> Result<HandlerHandle, Error> {
        // calls do not overlap, so the lock is always free
        let function = Arc::new(Mutex::new(function));
        let call = move |frame| {
            let function = function.clone();
            run_blocking(move || {
                let mut function = function.lock();
                function(frame);
            })
        };
        let inner = block_on(self.inner.subscribe_with(filters, call))??;
        Ok(HandlerHandle { inner })
    }

    /// Subscribes and calls a function for every publication that matches.
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    #[deprecated = "renamed to subscribe_with"]
    pub fn on(
        &self,
        filters: impl Filters,
        function: impl FnMut(Frame) + Send + 'static,
    ) -> Result<HandlerHandle, Error> {
        self.subscribe_with(filters, function)
    }
}

/// Returns why a client has ended.
fn end_of(client: &api::client::Client) -> Error {
    match block_on(client.connected()) {
        Ok(Ok(())) => Error::Closed,
        Ok(Err(error)) | Err(error) => error,
    }
}

fn timed_out(operation: &str, after: Duration) -> Error {
    Error::Timeout { operation: operation.to_owned(), after }
}
