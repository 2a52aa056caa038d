//! The client: its operations and the state of its connection. Owns the meaning of an operation; waiting,
//! writing and reading are in `connection`.

use bytes::Bytes;
use elbus_protocol::{Op, Qos};
use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::filters::Filters;
use crate::{
    connection::{inner::Inner, request::Request},
    error::Error,
    events::ConnectionEvents,
    subscription_state::FilterUser,
};

/// A client of a broker: registered under a name, over any transport.
///
/// Cheap to clone; all methods can be called concurrently from many tasks. The connection ends when the last
/// clone, its [`Frames`](crate::Frames), subscriptions and handlers are dropped, or with
/// [`close`](Client::close).
///
/// An operation *without* acknowledgement ([`Qos::NO`], [`Qos::REALTIME`]) completes when its frame is
/// queued, and waits only while more than `queue_bytes` are queued for sending. An operation *with*
/// acknowledgement ([`Qos::PROCESSED`], [`Qos::REALTIME_PROCESSED`]) completes with the broker's answer. In
/// both cases the frame is queued when the future is first polled: dropping the future later does not cancel
/// it.
///
/// ```no_run
/// # async fn example() -> Result<(), elbus_client::Error> {
/// use elbus_client::{Client, Qos};
/// let (client, _) = Client::connect("/tmp/elbus.sock", "plant.sensor").await?;
/// client.publish("temperature/boiler", "71.5", Qos::PROCESSED).await?;
/// client.close().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    _guard: Arc<CloseGuard>,
}

/// Closes the connection when the last clone is dropped.
struct CloseGuard(Arc<Inner>);

impl Drop for CloseGuard {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Counters of a client; from [`Client::stats`].
///
/// ```no_run
/// # fn example(client: elbus_client::Client) {
/// let stats = client.stats();
/// println!("{} frames sent, {} bytes queued", stats.frames_sent, stats.queued_bytes);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClientStats {
    /// Frames queued for sending, including pings.
    pub frames_sent: u64,
    /// Bytes of these frames.
    pub bytes_sent: u64,
    /// Received messages, broadcasts and publications.
    pub frames_received: u64,
    /// Bytes received over the current connection.
    pub bytes_received: u64,
    /// Received frames without a consumer: late replies, and frames after [`Frames`](crate::Frames) was
    /// dropped.
    pub unclaimed: u64,
    /// Successful reconnections.
    pub reconnects: u64,
    /// Bytes currently queued for sending.
    pub queued_bytes: usize,
    /// Panics of functions passed to [`Client::subscribe_with`]. Each is logged, and the function is called
    /// with the next frame.
    pub handler_panics: u64,
}

impl Client {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Client { _guard: Arc::new(CloseGuard(inner.clone())), inner }
    }

    /// Returns the name the client is registered under.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns the broker's address as text.
    pub fn address(&self) -> String {
        self.inner.endpoint.to_string()
    }

    /// Returns whether the client is connected.
    pub fn is_connected(&self) -> bool {
        self.inner.events.is_connected()
    }

    /// Waits until the client is connected.
    ///
    /// # Errors
    /// The reason why the client has ended.
    pub async fn connected(&self) -> Result<(), Error> {
        self.inner.events.connected().await
    }

    /// Returns the future changes of the connection.
    pub fn events(&self) -> ConnectionEvents {
        self.inner.events.listen()
    }

    /// Returns the client's counters.
    pub fn stats(&self) -> ClientStats {
        let (frames_sent, bytes_sent, queued_bytes) = self.inner.send_queue.counts();
        let (frames_received, unclaimed) = self.inner.demux.counts();
        ClientStats {
            frames_sent,
            bytes_sent,
            frames_received,
            bytes_received: self.inner.bytes_received.load(Ordering::Relaxed),
            unclaimed,
            reconnects: self.inner.reconnects.load(Ordering::Relaxed),
            queued_bytes,
            handler_panics: self.inner.handler_panics.load(Ordering::Relaxed),
        }
    }

    /// Writes the send queue, within the client's timeout, and disconnects. The name is free when this
    /// returns.
    pub async fn close(&self) {
        self.inner.close();
        self.inner.events.closed().await;
    }

    /// Sends a message to one client.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::Qos;
    /// client.send("plant.display", "71.5", Qos::PROCESSED).await?; // queued for the display
    /// client.send("plant.display", vec![1, 2, 3], Qos::NO).await?; // queued here
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Disconnected`], [`Error::Closed`], [`Error::Timeout`], [`Error::QueueFull`] (real-time only),
    /// [`Error::Unsendable`], [`Error::FrameTooLong`]; with acknowledgement also [`Error::NotRegistered`],
    /// [`Error::NotDelivered`], [`Error::AccessDenied`], [`Error::Refused`], [`Error::UnknownCode`].
    pub fn send<'a>(
        &'a self,
        target: &'a str,
        payload: impl Into<Bytes>,
        qos: Qos,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'a {
        self.send_request(Op::Message, qos, target, "", payload.into())
    }

    /// Sends a message to all clients whose name matches a mask: `?` matches one part of a name, `*` all
    /// remaining parts.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::Qos;
    /// client.broadcast("plant.display.*", "stop", Qos::PROCESSED).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Client::send). It is not an error if no client matches.
    pub fn broadcast<'a>(
        &'a self,
        mask: &'a str,
        payload: impl Into<Bytes>,
        qos: Qos,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'a {
        self.send_request(Op::Broadcast, qos, mask, "", payload.into())
    }

    /// Publishes to a topic.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// use elbus_client::Qos;
    /// client.publish("temperature/boiler", "71.5", Qos::NO).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Client::send). It is not an error if the topic has no subscriber.
    pub fn publish<'a>(
        &'a self,
        topic: &'a str,
        payload: impl Into<Bytes>,
        qos: Qos,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'a {
        self.send_request(Op::Publish, qos, topic, "", payload.into())
    }

    /// Publishes to the subscribers of a topic whose primary name is `receiver`.
    ///
    /// # Errors
    /// As [`publish`](Client::publish).
    pub fn publish_for<'a>(
        &'a self,
        topic: &'a str,
        receiver: &'a str,
        payload: impl Into<Bytes>,
        qos: Qos,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'a {
        self.send_request(Op::PublishFor, qos, topic, receiver, payload.into())
    }

    /// Subscribes the client's [`Frames`](crate::Frames) to one or more topic filters. Publications that
    /// match arrive there, in order with messages and broadcasts. [`subscribe`](Client::subscribe) returns a
    /// queue of its own instead.
    ///
    /// With [`Reconnect`](crate::Reconnect) the client subscribes again after each lost connection. Without a
    /// connection this then succeeds at once. [`Options`](crate::Options) can be added to the filters.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// client.add_filters("temperature/+").await?;
    /// client.add_filters(["alarm/#", "state/line1"]).await?;
    /// client.remove_filters("temperature/+").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Client::send) with acknowledgement; [`Error::BadOptions`], [`Error::NotSupported`]. If the
    /// broker refuses one of the filters, none is added, and earlier ones stay.
    pub async fn add_filters(&self, filters: impl Filters) -> Result<(), Error> {
        self.inner.require_features(&filters.required_features()?).await?;
        self.inner.subscribe(&filters.as_filters(), FilterUser::Frames).await
    }

    /// Reverts [`add_filters`](Client::add_filters). A filter that a [`Subscription`](crate::Subscription) or
    /// a handler uses as well stays subscribed.
    ///
    /// # Errors
    /// As [`add_filters`](Client::add_filters).
    pub async fn remove_filters(&self, filters: impl Filters) -> Result<(), Error> {
        filters.required_features()?;
        self.inner.unsubscribe(&filters.as_filters(), FilterUser::Frames).await
    }

    /// Reverts [`add_filters`](Client::add_filters).
    ///
    /// # Errors
    /// As [`add_filters`](Client::add_filters).
    #[deprecated = "renamed to remove_filters"]
    pub async fn unsubscribe(&self, filters: impl Filters) -> Result<(), Error> {
        self.remove_filters(filters).await
    }

    /// Excludes topics: publications that match one of these filters are not delivered, even if they match a
    /// subscription.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// client.exclude("log/debug/#").await?;
    /// let logs = client.subscribe("log/#").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`add_filters`](Client::add_filters).
    pub async fn exclude(&self, filters: impl Filters) -> Result<(), Error> {
        filters.required_features()?;
        self.inner.exclude(&filters.as_filters()).await
    }

    /// Reverts [`exclude`](Client::exclude).
    ///
    /// # Errors
    /// As [`add_filters`](Client::add_filters).
    pub async fn unexclude(&self, filters: impl Filters) -> Result<(), Error> {
        filters.required_features()?;
        self.inner.unexclude(&filters.as_filters()).await
    }

    /// Sends a ping, which the broker does not answer. The client also pings by itself; see
    /// [`ClientBuilder::ping_interval`](crate::ClientBuilder::ping_interval).
    ///
    /// # Errors
    /// [`Error::Disconnected`], [`Error::Closed`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.inner.ping()
    }

    /// Measures how long the broker takes to acknowledge an operation that changes nothing.
    ///
    /// # Errors
    /// [`Error::Disconnected`], [`Error::Closed`], [`Error::Timeout`].
    pub async fn round_trip(&self) -> Result<Duration, Error> {
        let start = Instant::now();
        self.inner.probe().await?;
        Ok(start.elapsed())
    }

    fn send_request<'a>(
        &'a self,
        op: Op,
        qos: Qos,
        target: &'a str,
        receiver: &'a str,
        payload: Bytes,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'a {
        self.inner.send(Request { op, qos, target, receiver, head: &[], payload })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client {:?} at {}", self.name(), self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<F>(_: impl FnOnce(&'static Client) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_send_is_small() {
        // it is copied several times per frame, and what few frames need can be boxed
        let send = size_of_future(|client| client.send("a", "b", Qos::NO));
        let publish = size_of_future(|client| client.publish("a", "b", Qos::NO));
        assert!(send <= 192 && publish <= 192, "{send} and {publish} bytes");
    }
}
