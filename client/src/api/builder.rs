//! The builder of a client. Owns its documentation of the settings; defaults are in `settings`.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use super::{client::Client, frames::Frames};
#[cfg(feature = "tls")]
use crate::tls::TlsConfig;
use crate::{
    address::Address,
    connection::{endpoint::Endpoint, supervisor},
    error::Error,
    settings::{Overflow, Reconnect, Settings},
};

/// Builder of a [`Client`]; from [`Client::builder`].
///
/// ```no_run
/// # async fn example() -> Result<(), elbus_client::Error> {
/// use elbus_client::{Client, Overflow, Reconnect};
/// use std::time::Duration;
/// let (client, frames) = Client::builder("plant.display")
///     .timeout(Duration::from_secs(2))
///     .reconnect(Reconnect::backoff())
///     .overflow(Overflow::DropOldest)
///     .connect("/run/elbus/bus.sock")
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing before connect"]
pub struct ClientBuilder {
    pub(crate) name: String,
    pub(crate) settings: Settings,
}

impl Client {
    /// Returns a builder with the default settings.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), elbus_client::Error> {
    /// use elbus_client::{Client, Reconnect};
    /// let builder = Client::builder("plant.line1.sensor").reconnect(Reconnect::backoff());
    /// let (client, frames) = builder.connect("/tmp/elbus.sock").await?;
    /// # Ok(()) }
    /// ```
    pub fn builder(name: &str) -> ClientBuilder {
        ClientBuilder::new(name)
    }

    /// Connects with the default settings. Must be called within a tokio runtime, which runs the client's
    /// tasks.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), elbus_client::Error> {
    /// use elbus_client::Client;
    /// let (client, mut frames) = Client::connect("127.0.0.1:7777", "plant.display").await?;
    /// client.add_filters("temperature/+").await?;
    /// while let Some(frame) = frames.next().await {
    ///     println!("{} sent {:?} to {}", frame.sender(), frame.payload(), frame.topic());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn connect<A>(address: A, name: &str) -> Result<(Client, Frames), Error>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        Client::builder(name).connect(address).await
    }

    /// Connects a secondary client: another connection with the name `NAME%%0`, `NAME%%1` and so on, and the
    /// settings of this client. The broker disconnects it when this client disconnects.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// let (secondary, _) = client.secondary().await?;
    /// assert_eq!(secondary.name(), format!("{}%%0", client.name()));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn secondary(&self) -> Result<(Client, Frames), Error> {
        let name = self.inner.next_secondary_name();
        let builder = ClientBuilder { name, settings: self.inner.settings.clone() };
        builder.open(self.inner.endpoint.clone(), self.inner.secondaries.clone()).await
    }
}

impl ClientBuilder {
    pub(crate) fn new(name: &str) -> Self {
        ClientBuilder { name: name.to_owned(), settings: Settings::default() }
    }

    /// Sets the limit for connecting, for an acknowledgement, for space in the send queue and, unless
    /// [`CallOptions`] has another one, for the reply to a call. Default: 5 s.
    ///
    /// A broker that has been silent for this long is probed, and the connection is lost after twice as long.
    ///
    /// [`CallOptions`]: crate::CallOptions
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout.max(Duration::from_millis(1));
        self
    }

    /// Sets the interval of pings while nothing else is sent. The broker disconnects a client that is silent
    /// for 1.25 times its own timeout, 6.25 s by default (protocol section 5). Default: 1 s.
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.settings.ping_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Sets the limit of bytes queued for sending, beyond which senders wait, and of received bytes queued
    /// for each consumer, beyond which [`overflow`](Self::overflow) applies. Default: 8 MiB.
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.settings.queue_bytes = bytes;
        self
    }

    /// Sets the limit of a sent or received payload, in bytes. Default: 256 MiB.
    pub fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_frame_bytes = bytes;
        self
    }

    /// Sets what happens to received frames when a queue is full. Default: [`Overflow::Block`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.settings.overflow = overflow;
        self
    }

    /// Sets how long consumers can pause the reading of the connection, with [`Overflow::Block`]. After that
    /// frames over `queue_bytes` are dropped and counted: those of one read, or until the consumer continues
    /// if it has taken nothing. So the client stays connected and its operations complete: a broker
    /// disconnects a client that reads nothing
    /// for `stall_seconds`, 4 s by default. With [`Duration::MAX`] nothing is dropped, and the broker
    /// disconnects the client. Default: 3 s.
    pub fn hold_limit(mut self, limit: Duration) -> Self {
        self.settings.hold_limit = limit;
        self
    }

    /// Queues calls and notifications that arrive before [`Client::serve`] until it is called, instead of
    /// delivering them as [`Frames`]. For servers that must answer every call from the moment they are
    /// registered. Default: off.
    pub fn queue_calls(mut self) -> Self {
        self.settings.queue_calls = true;
        self
    }

    /// Sets what happens when the connection is lost: [`Reconnect`] or [`Backoff`](crate::Backoff). The first
    /// connection is attempted once only. Default: [`Reconnect::Off`].
    pub fn reconnect(mut self, reconnect: impl Into<Reconnect>) -> Self {
        self.settings.reconnect = reconnect.into();
        self
    }

    /// Sets how long the reading thread polls for further frames before it sleeps. For clients that make one
    /// call after another: it saves the time a processor needs to wake up, 5 us, or 50 us on a virtual
    /// machine, and uses a whole processor meanwhile. Reasonable are 20 to 100 us, for few clients, if a
    /// processor is idle. Has no effect on in-process clients. Default: 0, off.
    pub fn busy_poll(mut self, time: Duration) -> Self {
        self.settings.busy_poll = time;
        self
    }

    /// Asks for rings of shared memory at addresses that are UNIX sockets. The broker has them with the key
    /// `rings` of its transport `unix`; otherwise, or if it has none left, the client uses the socket.
    ///
    /// For few clients that send or receive much: rings need less of the broker's processor time per message,
    /// and far less for messages that are sent one by one. A busy client costs up to twice the size of a ring
    /// in memory, 1 MiB by default; clients that are mostly idle gain nothing. An address that ends in
    /// `?rings` asks as well. Default: off.
    pub fn rings(mut self, rings: bool) -> Self {
        self.settings.rings = rings;
        self
    }

    /// Connects to network addresses under TLS, with these certificates. Default: TLS for addresses that
    /// start with `tls://`, as [`TlsConfig::new`].
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.settings.tls = Some(tls);
        self
    }

    /// Connects and registers. Must be called within a tokio runtime, which runs the client's tasks.
    ///
    /// # Errors
    /// [`Error::BadAddress`], [`Error::NoBroker`], [`Error::NotABroker`], [`Error::Tls`],
    /// [`Error::NameTaken`], [`Error::NameRefused`], [`Error::NoPrimary`], [`Error::AccessDenied`],
    /// [`Error::Disconnected`], [`Error::Timeout`].
    pub async fn connect<A>(self, address: A) -> Result<(Client, Frames), Error>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        let address = address.try_into()?;
        self.open(Endpoint::Socket(address), Arc::default()).await
    }

    /// Connects to a broker in the same program: `host` is that of the embedded broker or of a plugin, and
    /// the broker must have the plugin `inproc`. Large payloads are shared with the receivers instead of
    /// copied.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Error::Refused`] if the broker does not have the plugin.
    #[cfg(feature = "in-process")]
    pub async fn connect_in_process(self, host: &elbus_plugin_api::Host) -> Result<(Client, Frames), Error> {
        self.open(Endpoint::InProcess(host.clone()), Arc::default()).await
    }

    /// Connects. `secondaries` counts the secondary clients of the primary.
    pub(crate) async fn open(
        self,
        endpoint: Endpoint,
        secondaries: Arc<AtomicU32>,
    ) -> Result<(Client, Frames), Error> {
        let (inner, receiver) = supervisor::open(self.name, self.settings, endpoint, secondaries).await?;
        let client = Client::new(inner);
        let frames = Frames::new(client.clone(), receiver);
        Ok((client, frames))
    }
}
