//! Subscriptions with a queue of their own. Owns their lifetime; matching is the demux's.

use futures_core::Stream;
use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use super::{client::Client, filters::Filters};
use crate::{
    connection::inner::Inner, error::Error, frame::Frame, receive::inbox::Receiver,
    subscription_state::FilterUser,
};

/// Publications that match some filters, in a queue of their own; from [`Client::subscribe`].
///
/// Also a [`Stream`]. A publication that matches several subscriptions is delivered to each of them, and not
/// to the client's [`Frames`](crate::Frames). The queue has the client's limit and
/// [`Overflow`](crate::Overflow). Dropping the subscription unsubscribes.
///
/// ```no_run
/// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
/// let mut temperatures = client.subscribe("temperature/+").await?;
/// let first = temperatures.next().await;
/// temperatures.unsubscribe().await?;
/// # Ok(()) }
/// ```
#[must_use = "dropping it unsubscribes"]
pub struct Subscription {
    receiver: Receiver,
    /// `None` once it is unsubscribed, or owned by a handler.
    registration: Option<Registration>,
}

/// The entry of a subscription in the demux.
pub(super) struct Registration {
    pub(super) client: Client,
    pub(super) id: u64,
}

/// A consumer whose filters are being subscribed to. When it is dropped, it gets no publications any more.
struct Consumer<'a> {
    client: &'a Client,
    id: Option<u64>,
}

impl Consumer<'_> {
    fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for Consumer<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.client.inner.demux.remove_subscription(id);
        }
    }
}

impl Client {
    /// Subscribes to one or more topic filters: `+` matches one level of a topic, `#` all remaining levels.
    /// Returns the publications that match.
    ///
    /// With [`Reconnect`](crate::Reconnect) the client subscribes again after each lost connection. Without a
    /// connection this then succeeds at once. [`Options`](crate::Options) can be added to the filters.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// let mut alarms = client.subscribe(["alarm/#", "fire"]).await?;
    /// while let Some(alarm) = alarms.next().await {
    ///     println!("{}: {:?}", alarm.topic(), alarm.payload());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Client::send) with acknowledgement; [`Error::BadOptions`], [`Error::NotSupported`]. If the
    /// broker refuses one of the filters, the client is subscribed to none of them.
    pub async fn subscribe(&self, filters: impl Filters) -> Result<Subscription, Error> {
        self.inner.require_features(&filters.required_features()?).await?;
        let inbox = self.inner.new_inbox();
        let receiver = Receiver::new(inbox.clone());
        let filters = filters.as_filters();
        // registered first: nothing that arrives before the acknowledgement is missed
        let owned = filters.iter().map(|filter| (*filter).to_owned()).collect();
        let id = self.inner.demux.add_subscription(owned, inbox);
        let consumer = Consumer { client: self, id: Some(id) };
        self.inner.subscribe(&filters, FilterUser::Subscription).await?;
        consumer.keep();
        let registration = Registration { client: self.clone(), id };
        Ok(Subscription { receiver, registration: Some(registration) })
    }

    /// Subscribes with a queue of its own.
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    #[deprecated = "renamed to subscribe"]
    pub async fn subscription(&self, filters: impl Filters) -> Result<Subscription, Error> {
        self.subscribe(filters).await
    }
}

impl Subscription {
    /// Returns the next publication; `None` once the client has ended and the queue is empty. Dropping the
    /// future loses no publication.
    pub async fn next(&mut self) -> Option<Frame> {
        poll_fn(|context| self.receiver.poll_next(context)).await
    }

    /// Returns the next publication if one is queued. Does not block.
    pub fn try_next(&mut self) -> Option<Frame> {
        self.receiver.try_next()
    }

    /// Returns how many publications have been dropped so far, here or by the broker; see
    /// [`Frames::missed`](crate::Frames::missed).
    pub fn missed(&self) -> u64 {
        self.receiver.missed()
    }

    /// Unsubscribes, and waits for the broker's acknowledgement.
    ///
    /// # Errors
    /// As [`Client::remove_filters`].
    pub async fn unsubscribe(mut self) -> Result<(), Error> {
        match self.registration.take() {
            Some(Registration { client, id }) => client.inner.end_subscription(id).await,
            None => Ok(()),
        }
    }

    /// Separates the queue from the registration, which is then not removed when the queue is dropped.
    pub(super) fn take_registration(&mut self) -> Option<Registration> {
        self.registration.take()
    }
}

impl Inner {
    /// Removes a subscription and unsubscribes from its filters that have no other use.
    pub(super) async fn end_subscription(&self, id: u64) -> Result<(), Error> {
        let filters = self.demux.remove_subscription(id);
        self.unsubscribe(&filters.as_filters(), FilterUser::Subscription).await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(Registration { client, id }) = self.registration.take() else { return };
        client.inner.runtime.clone().spawn(async move { client.inner.end_subscription(id).await });
    }
}

impl Stream for Subscription {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        self.receiver.poll_next(context)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.registration.as_ref().map(|registration| &registration.client);
        f.debug_struct("Subscription").field("client", &client).finish()
    }
}
