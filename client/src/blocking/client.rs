//! The blocking client and its builder. Owns the signatures without async; the operations are the async
//! client's.

use std::{fmt, time::Duration};

use bytes::Bytes;
use elbus_protocol::Qos;

use super::{
    block_on::{block_on, runtime},
    receiving::{ConnectionEvents, Frames},
};
#[cfg(feature = "tls")]
use crate::tls::TlsConfig;
use crate::{
    address::Address,
    api::{self, client::ClientStats, filters::Filters},
    error::Error,
    settings::{Overflow, Reconnect},
};

/// A client of a broker without async; as [`crate::Client`], except that each operation waits for its
/// outcome. The [module](super) lists where these functions can be called.
///
/// Cheap to clone; all methods can be called concurrently from many threads. The connection ends when the
/// last clone, its [`Frames`], subscriptions and handlers are dropped, or with [`close`](Client::close).
///
/// ```no_run
/// # fn example() -> Result<(), elbus_client::Error> {
/// use elbus_client::{Qos, blocking::Client};
/// let (client, _) = Client::connect("/tmp/elbus.sock", "plant.sensor")?;
/// client.publish("temperature/boiler", "71.5", Qos::PROCESSED)?;
/// client.close()
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(super) inner: api::client::Client,
}

impl Client {
    /// Returns a builder with the default settings.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), elbus_client::Error> {
    /// use elbus_client::{Reconnect, blocking::Client};
    /// let (client, frames) =
    ///     Client::builder("plant.line1.sensor").reconnect(Reconnect::backoff()).connect("/tmp/elbus.sock")?;
    /// # Ok(()) }
    /// ```
    pub fn builder(name: &str) -> ClientBuilder {
        ClientBuilder { inner: api::client::Client::builder(name) }
    }

    /// Connects with the default settings.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), elbus_client::Error> {
    /// use elbus_client::blocking::Client;
    /// let (client, frames) = Client::connect("127.0.0.1:7777", "plant.display")?;
    /// client.add_filters("temperature/+")?;
    /// for frame in frames {
    ///     println!("{} sent {:?} to {}", frame.sender(), frame.payload(), frame.topic());
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

    /// Connects a secondary client; see [`crate::Client::secondary`].
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// let (secondary, _) = client.secondary()?;
    /// assert_eq!(secondary.name(), format!("{}%%0", client.name()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub fn secondary(&self) -> Result<(Client, Frames), Error> {
        block_on(self.inner.secondary())?.map(wrap)
    }

    /// Returns the name the client is registered under.
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// Returns the broker's address as text.
    pub fn address(&self) -> String {
        self.inner.address()
    }

    /// Returns whether the client is connected.
    pub fn is_connected(&self) -> bool {
        self.inner.is_connected()
    }

    /// Waits until the client is connected.
    ///
    /// # Errors
    /// The reason why the client has ended; [`Error::InAsyncContext`].
    pub fn connected(&self) -> Result<(), Error> {
        block_on(self.inner.connected())?
    }

    /// Returns the future changes of the connection.
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

    /// Returns the client's counters.
    pub fn stats(&self) -> ClientStats {
        self.inner.stats()
    }

    /// Writes the send queue, within the client's timeout, and disconnects. The name is free when this
    /// returns.
    ///
    /// # Errors
    /// [`Error::InAsyncContext`].
    pub fn close(&self) -> Result<(), Error> {
        block_on(self.inner.close())
    }

    /// Sends a message to one client. Without acknowledgement it waits only while more than `queue_bytes` are
    /// queued for sending.
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::Qos;
    /// client.send("plant.display", "71.5", Qos::PROCESSED)?; // queued for the display
    /// client.send("plant.display", vec![1, 2, 3], Qos::NO)?; // queued here
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`crate::Client::send`]; [`Error::InAsyncContext`].
    pub fn send(&self, target: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        block_on(self.inner.send(target, payload, qos))?
    }

    /// Sends a message to all clients whose name matches a mask: `?` matches one part of a name, `*` all
    /// remaining parts.
    ///
    /// # Errors
    /// As [`send`](Client::send). It is not an error if no client matches.
    pub fn broadcast(&self, mask: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        block_on(self.inner.broadcast(mask, payload, qos))?
    }

    /// Publishes to a topic.
    ///
    /// # Errors
    /// As [`send`](Client::send). It is not an error if the topic has no subscriber.
    pub fn publish(&self, topic: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        block_on(self.inner.publish(topic, payload, qos))?
    }

    /// Publishes to the subscribers of a topic whose primary name is `receiver`.
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
        block_on(self.inner.publish_for(topic, receiver, payload, qos))?
    }

    /// Subscribes the client's [`Frames`] to one or more topic filters; see [`crate::Client::add_filters`].
    ///
    /// ```no_run
    /// # fn example(client: elbus_client::blocking::Client) -> Result<(), elbus_client::Error> {
    /// client.add_filters("temperature/+")?;
    /// client.add_filters(["alarm/#", "state/line1"])?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Client::send) with acknowledgement.
    pub fn add_filters(&self, filters: impl Filters) -> Result<(), Error> {
        block_on(self.inner.add_filters(filters))?
    }

    /// Reverts [`add_filters`](Client::add_filters). A filter that a [`Subscription`](super::Subscription) or
    /// a handler uses as well stays subscribed.
    ///
    /// # Errors
    /// As [`add_filters`](Client::add_filters).
    pub fn remove_filters(&self, filters: impl Filters) -> Result<(), Error> {
        block_on(self.inner.remove_filters(filters))?
    }

    /// Reverts [`add_filters`](Client::add_filters).
    ///
    /// # Errors
    /// As [`add_filters`](Client::add_filters).
    #[deprecated = "renamed to remove_filters"]
    pub fn unsubscribe(&self, filters: impl Filters) -> Result<(), Error> {
        self.remove_filters(filters)
    }

    /// Excludes topics; see [`crate::Client::exclude`].
    ///
    /// # Errors
    /// As [`add_filters`](Client::add_filters).
    pub fn exclude(&self, filters: impl Filters) -> Result<(), Error> {
        block_on(self.inner.exclude(filters))?
    }

    /// Reverts [`exclude`](Client::exclude).
    ///
    /// # Errors
    /// As [`add_filters`](Client::add_filters).
    pub fn unexclude(&self, filters: impl Filters) -> Result<(), Error> {
        block_on(self.inner.unexclude(filters))?
    }

    /// Sends a ping, which the broker does not answer. The client also pings by itself; see
    /// [`ClientBuilder::ping_interval`].
    ///
    /// # Errors
    /// [`Error::Disconnected`], [`Error::Closed`], [`Error::InAsyncContext`].
    pub fn ping(&self) -> Result<(), Error> {
        block_on(self.inner.ping())?
    }

    /// Measures how long the broker takes to acknowledge an operation that changes nothing.
    ///
    /// # Errors
    /// As [`ping`](Client::ping); [`Error::Timeout`].
    pub fn round_trip(&self) -> Result<Duration, Error> {
        block_on(self.inner.round_trip())?
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Builder of a [`Client`]; from [`Client::builder`].
///
/// ```no_run
/// # fn example() -> Result<(), elbus_client::Error> {
/// use elbus_client::{Reconnect, blocking::Client};
/// let (client, frames) = Client::builder("plant.display")
///     .queue_bytes(1 << 20)
///     .reconnect(Reconnect::backoff())
///     .connect("/run/elbus/bus.sock")?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before connect"]
pub struct ClientBuilder {
    inner: api::builder::ClientBuilder,
}

impl ClientBuilder {
    /// See [`crate::ClientBuilder::timeout`]. Default: 5 s.
    pub fn timeout(self, timeout: Duration) -> Self {
        ClientBuilder { inner: self.inner.timeout(timeout) }
    }

    /// See [`crate::ClientBuilder::ping_interval`]. Default: 1 s.
    pub fn ping_interval(self, interval: Duration) -> Self {
        ClientBuilder { inner: self.inner.ping_interval(interval) }
    }

    /// See [`crate::ClientBuilder::rings`]. Default: off.
    pub fn rings(self, rings: bool) -> Self {
        ClientBuilder { inner: self.inner.rings(rings) }
    }

    /// See [`crate::ClientBuilder::queue_bytes`]. Default: 8 MiB.
    pub fn queue_bytes(self, bytes: usize) -> Self {
        ClientBuilder { inner: self.inner.queue_bytes(bytes) }
    }

    /// See [`crate::ClientBuilder::max_frame_bytes`]. Default: 256 MiB.
    pub fn max_frame_bytes(self, bytes: usize) -> Self {
        ClientBuilder { inner: self.inner.max_frame_bytes(bytes) }
    }

    /// See [`crate::ClientBuilder::overflow`]. Default: [`Overflow::Block`].
    pub fn overflow(self, overflow: Overflow) -> Self {
        ClientBuilder { inner: self.inner.overflow(overflow) }
    }

    /// See [`crate::ClientBuilder::hold_limit`]. Default: 3 s.
    pub fn hold_limit(self, limit: Duration) -> Self {
        ClientBuilder { inner: self.inner.hold_limit(limit) }
    }

    /// See [`crate::ClientBuilder::queue_calls`]. Default: off.
    pub fn queue_calls(self) -> Self {
        ClientBuilder { inner: self.inner.queue_calls() }
    }

    /// See [`crate::ClientBuilder::reconnect`]. Default: [`Reconnect::Off`].
    pub fn reconnect(self, reconnect: impl Into<Reconnect>) -> Self {
        ClientBuilder { inner: self.inner.reconnect(reconnect) }
    }

    /// See [`crate::ClientBuilder::tls`].
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: TlsConfig) -> Self {
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
        block_on(self.with_runtime()?.connect(address))?.map(wrap)
    }

    /// Connects to a broker in the same program; see [`crate::ClientBuilder::connect_in_process`].
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Error::Refused`] if the broker does not have the plugin `inproc`.
    #[cfg(feature = "in-process")]
    pub fn connect_in_process(self, host: &elbus_plugin_api::Host) -> Result<(Client, Frames), Error> {
        block_on(self.with_runtime()?.connect_in_process(host))?.map(wrap)
    }

    /// Returns the async builder of a client that keeps the runtime running.
    fn with_runtime(self) -> Result<api::builder::ClientBuilder, Error> {
        let mut builder = self.inner;
        builder.settings.runtime_guard = Some(runtime()?);
        Ok(builder)
    }
}

fn wrap((client, frames): (api::client::Client, api::frames::Frames)) -> (Client, Frames) {
    let client = Client { inner: client };
    (client.clone(), Frames::new(client, frames))
}
