//! The client: operations, and what is known about its connection. Owns what an operation means; waiting, writing and
//! reading are elsewhere.

use bytes::Bytes;
use elbus_protocol::{Op, Qos, name::SECONDARY_SEPARATOR};
use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::{
    Address, ClientBuilder, ConnectionEvents, Error, Filters, Frames,
    connection::send_queue::Request,
    connection::subscription_state::{Whose, Wishes},
    connection::{PROBE_FILTER, Shared},
};

/// A client of a broker: registered under a name, over any transport.
///
/// Cheap to clone; every method may be called from many tasks at once. The connection ends when the last clone, its
/// [`Frames`], subscriptions and handlers are gone, or with [`close`](Client::close).
///
/// An operation *without* acknowledgement ([`Qos::NO`], [`Qos::REALTIME`]) has succeeded when the frame is queued, and waits
/// only while more than `queue_bytes` wait to be sent. *With* acknowledgement ([`Qos::PROCESSED`],
/// [`Qos::REALTIME_PROCESSED`]) it ends with the broker's answer. Either way the frame is on its way as soon as the future
/// is first polled: dropping it later takes nothing back.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    _handle: Arc<Handle>,
}

/// Ends the connection when the last one is dropped.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What a client has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClientStats {
    /// Frames queued for sending, pings included.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Messages, broadcasts and publications received.
    pub frames_received: u64,
    /// All bytes received over the present connection.
    pub bytes_received: u64,
    /// Frames that came although nobody wanted them: late replies, and everything else while there are no [`Frames`].
    pub unclaimed: u64,
    /// How often a lost connection was made again.
    pub reconnects: u64,
    /// Bytes that wait to be sent.
    pub queued_bytes: usize,
    /// Panics of functions passed to [`Client::on`]. Each is logged, and the function is called with the next frame.
    pub handler_panics: u64,
}

impl Client {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Client { _handle: Arc::new(Handle(shared.clone())), shared }
    }

    /// Begins with the defaults.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), elbus_client::Error> {
    /// use elbus_client::{Client, Reconnect};
    /// let (client, frames) =
    ///     Client::builder("plant.line1.sensor").reconnect(Reconnect::backoff()).connect("/tmp/elbus.sock").await?;
    /// # Ok(()) }
    /// ```
    pub fn builder(name: &str) -> ClientBuilder {
        ClientBuilder::new(name)
    }

    /// Connects with the defaults.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), elbus_client::Error> {
    /// use elbus_client::{Client, Qos};
    /// let (client, mut frames) = Client::connect("127.0.0.1:7777", "plant.display").await?;
    /// client.subscribe("temperature/+").await?;
    /// while let Some(frame) = frames.next().await {
    ///     println!("{} says {:?} at {}", frame.sender(), frame.payload(), frame.topic());
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

    /// Connects a secondary client: another connection with the name `NAME%%0`, `NAME%%1` and so on, settings as this one's.
    /// It ends when this client leaves the broker.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn secondary(&self) -> Result<(Client, Frames), Error> {
        let number = self.shared.secondaries.fetch_add(1, Ordering::Relaxed);
        let mut builder = self.shared.builder.clone();
        let primary = elbus_protocol::name::primary_of(&builder.name);
        builder.name = format!("{primary}{SECONDARY_SEPARATOR}{number}");
        crate::connection::open(builder, self.shared.place.clone(), self.shared.secondaries.clone()).await
    }

    /// The name it is registered under.
    pub fn name(&self) -> &str {
        &self.shared.builder.name
    }

    /// Where the broker is, for messages.
    pub fn address(&self) -> String {
        self.shared.place.to_string()
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.shared.events.is_connected()
    }

    /// Waits until there is a connection.
    ///
    /// # Errors
    /// Why the client has ended, once it has.
    pub async fn connected(&self) -> Result<(), Error> {
        self.shared.events.connected().await
    }

    /// What happens to the connection from now on.
    pub fn events(&self) -> ConnectionEvents {
        self.shared.events.listen()
    }

    /// What it has done so far.
    pub fn stats(&self) -> ClientStats {
        let (frames_sent, bytes_sent, queued_bytes) = self.shared.outgoing.counts();
        let (frames_received, unclaimed) = self.shared.switchboard.counts();
        ClientStats {
            frames_sent,
            bytes_sent,
            frames_received,
            bytes_received: self.shared.bytes_received.load(Ordering::Relaxed),
            unclaimed,
            reconnects: self.shared.reconnects.load(Ordering::Relaxed),
            queued_bytes,
            handler_panics: self.shared.handler_panics.load(Ordering::Relaxed),
        }
    }

    /// Writes what is queued, within the client's timeout, and leaves the bus. Afterwards the name is free.
    pub async fn close(&self) {
        self.shared.close();
        self.shared.events.closed().await;
    }

    /// Sends a message to one client.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::Qos;
    /// client.send("plant.display", "71.5", Qos::PROCESSED).await?; // the display's queue has it
    /// client.send("plant.display", vec![1, 2, 3], Qos::NO).await?; // on its way
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Disconnected`], [`Error::Closed`], [`Error::Timeout`], [`Error::QueueFull`] (real-time only),
    /// [`Error::Unsendable`], [`Error::FrameTooLong`]; with acknowledgement also [`Error::NotRegistered`],
    /// [`Error::NotDelivered`], [`Error::AccessDenied`], [`Error::Refused`].
    pub async fn send(&self, target: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        self.carry(Op::Message, qos, target, "", payload.into()).await
    }

    /// Sends to every client whose name matches a mask: `?` stands for one part of a name, `*` for the rest.
    ///
    /// # Errors
    /// As [`send`](Client::send); reaching nobody is none.
    pub async fn broadcast(&self, mask: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        self.carry(Op::Broadcast, qos, mask, "", payload.into()).await
    }

    /// Publishes to a topic.
    ///
    /// # Errors
    /// As [`send`](Client::send); reaching nobody is none.
    pub async fn publish(&self, topic: &str, payload: impl Into<Bytes>, qos: Qos) -> Result<(), Error> {
        self.carry(Op::Publish, qos, topic, "", payload.into()).await
    }

    /// Publishes to those subscribers of a topic whose primary name is `receiver`.
    ///
    /// # Errors
    /// As [`publish`](Client::publish).
    pub async fn publish_for(
        &self,
        topic: &str,
        receiver: &str,
        payload: impl Into<Bytes>,
        qos: Qos,
    ) -> Result<(), Error> {
        self.carry(Op::PublishFor, qos, topic, receiver, payload.into()).await
    }

    /// Subscribes to one or more topic filters: `+` stands for one level of a topic, `#` for the rest. Publications that
    /// match come with the [`Frames`] of the client.
    ///
    /// With [`Reconnect`](crate::Reconnect) on, filters are asked for again with each new connection, and where there is
    /// none at the moment this succeeds at once.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// client.subscribe("temperature/+").await?;
    /// client.subscribe(["alarm/#", "state/line1"]).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Client::send) with acknowledgement. If the broker refuses, it has taken none of the filters, and
    /// those that were subscribed before stay.
    pub async fn subscribe(&self, filters: impl Filters) -> Result<(), Error> {
        self.shared.subscribe_as(&filters.as_strs(), Whose::Clients).await
    }

    /// Takes subscriptions back. A filter that a [`Subscription`](crate::Subscription) or a handler has as well stays.
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub async fn unsubscribe(&self, filters: impl Filters) -> Result<(), Error> {
        self.shared.unsubscribe_as(&filters.as_strs(), Whose::Clients).await
    }

    /// Withholds publications that match a filter, whatever the client is subscribed to.
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub async fn exclude(&self, filters: impl Filters) -> Result<(), Error> {
        self.shared.exclude(&filters.as_strs()).await
    }

    /// Takes exclusions back.
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub async fn unexclude(&self, filters: impl Filters) -> Result<(), Error> {
        let filters = filters.as_strs();
        let wish = |wishes: &mut Wishes| filters.iter().for_each(|filter| wishes.unexclude(filter));
        self.shared.change(Op::Unexclude, &filters, wish).await
    }

    /// Sends a ping, which nobody answers. The client pings by itself; see [`ClientBuilder::ping_interval`].
    ///
    /// # Errors
    /// [`Error::Disconnected`], [`Error::Closed`].
    pub async fn ping(&self) -> Result<(), Error> {
        #[cfg(feature = "in-process")]
        if let crate::connection::Place::InProcess(_) = self.shared.place {
            return self.shared.local.check();
        }
        self.shared.outgoing.ping()
    }

    /// How long the broker takes to acknowledge an operation that changes nothing.
    ///
    /// # Errors
    /// [`Error::Disconnected`], [`Error::Closed`], [`Error::Timeout`].
    pub async fn round_trip(&self) -> Result<Duration, Error> {
        let begin = Instant::now();
        self.shared.queue_change(Op::Unexclude, |_| (vec![PROBE_FILTER], |_: &mut Wishes| ())).await?;
        Ok(begin.elapsed())
    }
}

impl Client {
    async fn carry(
        &self,
        op: Op,
        qos: Qos,
        target: &str,
        receiver: &str,
        payload: Bytes,
    ) -> Result<(), Error> {
        self.shared.carry(&Request { op, qos, target, receiver, head: &[], payload }).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client {:?} at {}", self.name(), self.address())
    }
}
