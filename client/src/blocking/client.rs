//! The blocking client and its builder. Owns the signatures without async; what they do is the async client's.

use std::{fmt, time::Duration};

use super::{
    ConnectionEvents, Frames,
    waiting::{runtime, wait},
};
use crate::{Address, Bytes, ClientStats, Error, Filters, Overflow, Qos, Reconnect};

/// A client of a broker for programs without tokio; as [`crate::Client`], each operation waiting for its end.
///
/// Cheap to clone; every method may be called from many threads at once. The connection ends when the last clone, its
/// [`Frames`] and subscriptions are gone, or with [`close`](Client::close).
#[derive(Clone)]
pub struct Client {
    pub(super) inner: crate::Client,
}

impl Client {
    /// Begins with the defaults.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), elbus_client::Error> {
    /// use elbus_client::{Reconnect, blocking::Client};
    /// let (client, frames) =
    ///     Client::builder("plant.line1.sensor").reconnect(Reconnect::backoff()).connect("/tmp/elbus.sock")?;
    /// # Ok(()) }
    /// ```
    pub fn builder(name: &str) -> ClientBuilder {
        ClientBuilder { inner: crate::Client::builder(name) }
    }

    /// Connects with the defaults.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), elbus_client::Error> {
    /// use elbus_client::blocking::Client;
    /// let (client, frames) = Client::connect("127.0.0.1:7777", "plant.display")?;
    /// client.subscribe("temperature/+")?;
    /// for frame in frames {
    ///     println!("{} says {:?} at {}", frame.sender(), frame.payload(), frame.topic());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub fn connect<A>(address: A, name: &str) -> Result<(Client, Frames), Error>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        Client::builder(name).connect(address)
    }

    /// Connects a secondary client: [`crate::Client::secondary`].
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// let (second, _) = client.secondary()?;
    /// assert_eq!(second.name(), format!("{}%%0", client.name()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub fn secondary(&self) -> Result<(Client, Frames), Error> {
        wait(self.inner.secondary())?.map(both)
    }

    /// The name it is registered under.
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// Where the broker is, for messages.
    pub fn address(&self) -> String {
        self.inner.address()
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.inner.is_connected()
    }

    /// Waits until there is a connection.
    ///
    /// # Errors
    /// Why the client has ended, once it has; [`Error::InAsyncContext`].
    pub fn connected(&self) -> Result<(), Error> {
        wait(self.inner.connected())?
    }

    /// What happens to the connection from now on.
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) {
    /// let events = client.events();
    /// std::thread::spawn(|| events.for_each(|event| println!("{event:?}")));
    /// # }
    /// ```
    pub fn events(&self) -> ConnectionEvents {
        ConnectionEvents::new(self.inner.events())
    }

    /// What it has done so far.
    pub fn stats(&self) -> ClientStats {
        self.inner.stats()
    }

    /// Writes what is queued, within the client's timeout, and leaves the bus. Afterwards the name is free.
    ///
    /// # Errors
    /// [`Error::InAsyncContext`].
    pub fn close(&self) -> Result<(), Error> {
        wait(self.inner.close())
    }

    /// Sends a message to one client. Without acknowledgement it waits only while more than `queue_bytes` wait to be sent.
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::Qos;
    /// client.send("plant.display", "71.5", Qos::PROCESSED)?; // the display's queue has it
    /// client.send("plant.display", vec![1, 2, 3], Qos::NO)?; // on its way
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::send`]; [`Error::InAsyncContext`].
    pub fn send(&self, target: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        wait(self.inner.send(target, payload, qos))?
    }

    /// Sends to every client whose name matches a mask: `?` stands for one part of a name, `*` for the rest.
    ///
    /// # Errors
    /// As [`send`](Client::send); reaching nobody is none.
    pub fn broadcast(&self, mask: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        wait(self.inner.broadcast(mask, payload, qos))?
    }

    /// Publishes to a topic.
    ///
    /// # Errors
    /// As [`send`](Client::send); reaching nobody is none.
    pub fn publish(&self, topic: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        wait(self.inner.publish(topic, payload, qos))?
    }

    /// Publishes to those subscribers of a topic whose primary name is `receiver`.
    ///
    /// # Errors
    /// As [`publish`](Client::publish).
    pub fn publish_for(
        &self,
        topic: &str,
        receiver: &str,
        payload: impl Into<Bytes>,
        qos: Qos,
    ) -> Result<(), Error> {
        wait(self.inner.publish_for(topic, receiver, payload, qos))?
    }

    /// Subscribes to one or more topic filters: [`crate::Client::subscribe`].
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// client.subscribe("temperature/+")?;
    /// client.subscribe(["alarm/#", "state/line1"])?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Client::send) with acknowledgement.
    pub fn subscribe(&self, filters: impl Filters) -> Result<(), Error> {
        wait(self.inner.subscribe(filters))?
    }

    /// Takes subscriptions back. A filter that a [`Subscription`](super::Subscription) or a handler has as well stays.
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub fn unsubscribe(&self, filters: impl Filters) -> Result<(), Error> {
        wait(self.inner.unsubscribe(filters))?
    }

    /// Withholds publications that match a filter, whatever the client is subscribed to.
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub fn exclude(&self, filters: impl Filters) -> Result<(), Error> {
        wait(self.inner.exclude(filters))?
    }

    /// Takes exclusions back.
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub fn unexclude(&self, filters: impl Filters) -> Result<(), Error> {
        wait(self.inner.unexclude(filters))?
    }

    /// Sends a ping, which nobody answers. The client pings by itself; see [`ClientBuilder::ping_interval`].
    ///
    /// # Errors
    /// [`Error::Disconnected`], [`Error::Closed`], [`Error::InAsyncContext`].
    pub fn ping(&self) -> Result<(), Error> {
        wait(self.inner.ping())?
    }

    /// How long the broker takes to acknowledge an operation that changes nothing.
    ///
    /// # Errors
    /// As [`ping`](Client::ping); [`Error::Timeout`].
    pub fn round_trip(&self) -> Result<Duration, Error> {
        wait(self.inner.round_trip())?
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// How a client is to be; from [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before connect"]
pub struct ClientBuilder {
    inner: crate::ClientBuilder,
}

impl ClientBuilder {
    /// [`crate::ClientBuilder::timeout`]. Default: 5 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        ClientBuilder { inner: self.inner.timeout(timeout) }
    }

    /// [`crate::ClientBuilder::ping_interval`]. Default: 1 s.
    pub fn ping_interval(self, interval: Duration) -> Self {
        ClientBuilder { inner: self.inner.ping_interval(interval) }
    }

    /// [`crate::ClientBuilder::queue_bytes`]. Default: 8 MiB.
    pub fn queue_bytes(self, bytes: usize) -> Self {
        ClientBuilder { inner: self.inner.queue_bytes(bytes) }
    }

    /// [`crate::ClientBuilder::max_frame_bytes`]. Default: 256 MiB.
    pub fn max_frame_bytes(self, bytes: usize) -> Self {
        ClientBuilder { inner: self.inner.max_frame_bytes(bytes) }
    }

    /// [`crate::ClientBuilder::overflow`]. Default: [`Overflow::Block`].
    pub fn overflow(self, overflow: Overflow) -> Self {
        ClientBuilder { inner: self.inner.overflow(overflow) }
    }

    /// [`crate::ClientBuilder::hold_limit`]. Default: 3 s.
    pub fn hold_limit(self, limit: Duration) -> Self {
        ClientBuilder { inner: self.inner.hold_limit(limit) }
    }

    /// [`crate::ClientBuilder::queue_calls`]. Default: off.
    pub fn queue_calls(self) -> Self {
        ClientBuilder { inner: self.inner.queue_calls() }
    }

    /// [`crate::ClientBuilder::reconnect`]. Default: [`Reconnect::Off`].
    pub fn reconnect(self, reconnect: Reconnect) -> Self {
        ClientBuilder { inner: self.inner.reconnect(reconnect) }
    }

    /// [`crate::ClientBuilder::tls`].
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: crate::TlsConfig) -> Self {
        ClientBuilder { inner: self.inner.tls(tls) }
    }

    /// Connects and registers.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), elbus_client::Error> {
    /// use elbus_client::blocking::Client;
    /// use std::time::Duration;
    /// let (client, frames) =
    ///     Client::builder("plant.display").timeout(Duration::from_secs(1)).connect("/tmp/elbus.sock")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`crate::ClientBuilder::connect`]; [`Error::NoRuntime`], [`Error::InAsyncContext`].
    pub fn connect<A>(self, address: A) -> Result<(Client, Frames), Error>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        wait(self.kept()?.connect(address))?.map(both)
    }

    /// Connects to a broker in the same program: [`crate::ClientBuilder::connect_in_process`].
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Error::Refused`] where no plugin offers in-process clients.
    #[cfg(feature = "in-process")]
    pub fn connect_in_process(self, host: &elbus_plugin_api::Host) -> Result<(Client, Frames), Error> {
        wait(self.kept()?.connect_in_process(host))?.map(both)
    }

    /// The builder of a client that keeps the runtime for as long as it lives.
    fn kept(self) -> Result<crate::ClientBuilder, Error> {
        let mut builder = self.inner;
        builder.settings.keeps = Some(runtime()?);
        Ok(builder)
    }
}

fn both((client, frames): (crate::Client, crate::Frames)) -> (Client, Frames) {
    let client = Client { inner: client };
    (client.clone(), Frames::new(client, frames))
}
