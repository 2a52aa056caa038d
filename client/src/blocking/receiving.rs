//! What arrives, waited for: frames, publications of a subscription, events, and functions that are called for
//! publications. Owns the iterators over them; where anything arrives is decided elsewhere.

use parking_lot::Mutex;
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::timeout;

use super::{
    Client,
    waiting::{apart, wait},
};
use crate::{ConnectionEvent, Error, Filters, Frame};

/// What a client receives, as [`crate::Frames`]; an iterator, which waits for each frame and ends with the client.
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
    inner: crate::Frames,
}

impl Frames {
    pub(super) fn new(client: Client, inner: crate::Frames) -> Self {
        Frames { client, inner }
    }

    /// The next frame, if it comes in time.
    ///
    /// ```no_run
    /// # fn example(mut frames: elbus_client::blocking::Frames) -> Result<(), elbus_client::Error> {
    /// use elbus_client::Error;
    /// use std::time::Duration;
    /// loop {
    ///     match frames.next_timeout(Duration::from_secs(1)) {
    ///         Ok(frame) => println!("{frame:?}"),
    ///         Err(Error::Timeout { .. }) => println!("nothing for a second"),
    ///         Err(end) => return Err(end),
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Timeout`]; why the client has ended, once it has and everything is taken; [`Error::InAsyncContext`].
    pub fn next_timeout(&mut self, after: Duration) -> Result<Frame, Error> {
        match wait(async { timeout(after, self.inner.next()).await })? {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(end_of(&self.client.inner)),
            Err(_) => Err(late("the next frame", after)),
        }
    }

    /// The next frame if there is one. Does not wait.
    pub fn try_next(&mut self) -> Option<Frame> {
        self.inner.try_next()
    }

    /// As [`crate::Frames::missed`].
    pub fn missed(&self) -> u64 {
        self.inner.missed()
    }

    /// The client they are of.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl Iterator for Frames {
    type Item = Frame;

    /// Waits for the next frame; `None` once the client has ended and everything is taken, and in an async context.
    fn next(&mut self) -> Option<Frame> {
        wait(self.inner.next()).ok()?
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Publications that match some filters, as [`crate::Subscription`]; an iterator, which waits for each of them and ends
/// with the client. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    inner: crate::Subscription,
}

impl Subscription {
    /// The next publication, if it comes in time.
    ///
    /// # Errors
    /// As [`Frames::next_timeout`].
    pub fn next_timeout(&mut self, after: Duration) -> Result<Frame, Error> {
        match wait(async { timeout(after, self.inner.next()).await })? {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(end_of(&self.client.inner)),
            Err(_) => Err(late("the next publication", after)),
        }
    }

    /// The next publication if there is one. Does not wait.
    pub fn try_next(&mut self) -> Option<Frame> {
        self.inner.try_next()
    }

    /// As [`crate::Frames::missed`].
    pub fn missed(&self) -> u64 {
        self.inner.missed()
    }

    /// Unsubscribes, and waits until the broker knows.
    ///
    /// # Errors
    /// As [`Client::unsubscribe`].
    pub fn stop(self) -> Result<(), Error> {
        wait(self.inner.stop())?
    }
}

impl Iterator for Subscription {
    type Item = Frame;

    /// Waits for the next publication; `None` once the client has ended and everything is taken, and in an async context.
    fn next(&mut self) -> Option<Frame> {
        wait(self.inner.next()).ok()?
    }
}

/// The events of a connection from [`Client::events`] on; an iterator, which waits for each of them and ends behind
/// [`ConnectionEvent::Closed`].
#[derive(Debug)]
pub struct ConnectionEvents {
    inner: crate::ConnectionEvents,
}

impl ConnectionEvents {
    pub(super) fn new(inner: crate::ConnectionEvents) -> Self {
        ConnectionEvents { inner }
    }

    /// The next event, if it comes in time.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Closed`] behind [`ConnectionEvent::Closed`]; [`Error::InAsyncContext`].
    pub fn next_timeout(&mut self, after: Duration) -> Result<ConnectionEvent, Error> {
        match wait(async { timeout(after, self.inner.next()).await })? {
            Ok(event) => event.ok_or(Error::Closed),
            Err(_) => Err(late("the next event", after)),
        }
    }
}

impl Iterator for ConnectionEvents {
    type Item = ConnectionEvent;

    /// Waits for the next event; `None` behind [`ConnectionEvent::Closed`], and in an async context.
    fn next(&mut self) -> Option<ConnectionEvent> {
        wait(self.inner.next()).ok()?
    }
}

/// A function that is called for publications; from [`Client::on`]. Dropping it leaves the function in place.
#[derive(Debug)]
pub struct Handler {
    inner: crate::Handler,
}

impl Handler {
    /// Unsubscribes, and calls the function no more; where it is running it runs to its end.
    ///
    /// # Errors
    /// As [`Client::unsubscribe`].
    pub fn stop(self) -> Result<(), Error> {
        wait(self.inner.stop())?
    }
}

impl Client {
    /// Subscribes with a queue of its own: [`crate::Client::subscription`].
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// for alarm in client.subscription(["alarm/#", "fire"])? {
    ///     println!("{}: {:?}", alarm.topic(), alarm.payload());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub fn subscription(&self, filters: impl Filters) -> Result<Subscription, Error> {
        let inner = wait(self.inner.subscription(filters))??;
        Ok(Subscription { client: self.clone(), inner })
    }

    /// Calls a function for every publication that matches some filters: in order, one at a time, on threads of the
    /// library's own, until [`Handler::stop`] or the end of the client. The function may wait.
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// client.on("temperature/+", |frame| println!("{}: {:?}", frame.topic(), frame.payload()))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub fn on(
        &self,
        filters: impl Filters,
        function: impl FnMut(Frame) + Send + 'static,
    ) -> Result<Handler, Error> {
        // no two calls overlap, so that nobody ever waits for the lock
        let function = Arc::new(Mutex::new(function));
        let call = move |frame| {
            let function = function.clone();
            apart(move || {
                let mut function = function.lock();
                function(frame);
            })
        };
        let inner = wait(self.inner.on(filters, call))??;
        Ok(Handler { inner })
    }
}

/// Why a client has ended whose frames have.
fn end_of(client: &crate::Client) -> Error {
    match wait(client.connected()) {
        Ok(Ok(())) => Error::Closed,
        Ok(Err(error)) | Err(error) => error,
    }
}

fn late(what: &str, after: Duration) -> Error {
    Error::Timeout { what: what.to_owned(), after }
}
