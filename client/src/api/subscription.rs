//! Subscriptions with a queue or a function of their own. Owns their lives; matching is the switchboard's.

use futures_core::Stream;
use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Weak, atomic::Ordering},
    task::{Context, Poll},
};
use tokio::task::JoinHandle;

use crate::{
    Client, Error, Filters, Frame,
    catch_panic::caught,
    connection::Shared,
    connection::subscription_state::Whose,
    receive::inbox::{Inbox, Receiver},
};

/// Publications that match some filters, in a queue of their own. A stream as well.
///
/// What matches comes here instead of with the client's [`Frames`](crate::Frames); where it matches several subscriptions,
/// each gets it. Its queue has the client's bound and [`Overflow`](crate::Overflow). Dropping it unsubscribes.
pub struct Subscription {
    receiver: Receiver,
    place: Option<Place>,
}

/// Where it is entered; leaving it is told to the broker.
struct Place {
    client: Client,
    id: u64,
}

impl Client {
    /// Subscribes with a queue of its own.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// let mut alarms = client.subscription(["alarm/#", "fire"]).await?;
    /// while let Some(alarm) = alarms.next().await {
    ///     println!("{}: {:?}", alarm.topic(), alarm.payload());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub async fn subscription(&self, filters: impl Filters) -> Result<Subscription, Error> {
        let settings = self.shared.settings();
        let inbox = Inbox::new(settings.queue_bytes, settings.overflow, self.shared.gate.clone());
        let receiver = Receiver::new(inbox.clone());
        let filters = filters.as_strs();
        // entered first: what comes before the acknowledgement is not missed
        let id = self
            .shared
            .switchboard
            .subscribe(filters.iter().map(|filter| (*filter).to_owned()).collect(), inbox);
        if let Err(error) = self.shared.subscribe_as(&filters, Whose::Subscriptions).await {
            self.shared.switchboard.unsubscribe(id);
            return Err(error);
        }
        Ok(Subscription { receiver, place: Some(Place { client: self.clone(), id }) })
    }

    /// Calls a function for every publication that matches some filters: in order, one at a time, in a task of its own,
    /// until [`Handler::stop`] or the end of the client. A panic of the function is logged and counted
    /// ([`ClientStats::handler_panics`](crate::ClientStats::handler_panics)); it is called again with the next frame.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// client.on("temperature/+", |frame| async move {
    ///     println!("{}: {:?}", frame.topic(), frame.payload());
    /// }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub async fn on<F, R>(&self, filters: impl Filters, mut function: F) -> Result<Handler, Error>
    where
        F: FnMut(Frame) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let mut subscription = self.subscription(filters).await?;
        let Some(place) = subscription.place.take() else { return Err(Error::Closed) };
        // the task must not keep the client: it ends with it
        let Place { client, id } = place;
        let (name, shared) = (client.name().to_owned(), Arc::downgrade(&client.shared));
        let task = tokio::spawn(async move {
            while let Some(frame) = subscription.next().await {
                let topic = frame.topic().to_owned();
                // the function is called within the future: a panic before its first await is caught as well
                if caught(async { function(frame).await }).await.is_none() {
                    tracing::error!(client = name, topic, "handler panicked");
                    if let Some(shared) = shared.upgrade() {
                        shared.handler_panics.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Ok(Handler { shared: Arc::downgrade(&client.shared), id, task })
    }
}

impl Subscription {
    /// The next publication; `None` once the client has ended and everything is taken. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Frame> {
        poll_fn(|context| self.receiver.poll_next(context)).await
    }

    /// The next publication if there is one. Any thread; does not block.
    pub fn try_next(&mut self) -> Option<Frame> {
        self.receiver.try_next()
    }

    /// As [`Frames::missed`](crate::Frames::missed).
    pub fn missed(&self) -> u64 {
        self.receiver.missed()
    }

    /// Unsubscribes, and waits until the broker knows.
    ///
    /// # Errors
    /// As [`Client::unsubscribe`].
    pub async fn stop(mut self) -> Result<(), Error> {
        match self.place.take() {
            Some(Place { client, id }) => client.shared.leave(id).await,
            None => Ok(()),
        }
    }
}

impl Shared {
    async fn leave(&self, id: u64) -> Result<(), Error> {
        let filters = self.switchboard.unsubscribe(id);
        self.unsubscribe_as(&filters.as_strs(), Whose::Subscriptions).await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(Place { client, id }) = self.place.take() else { return };
        client.shared.runtime.clone().spawn(async move { client.shared.leave(id).await });
    }
}

impl Stream for Subscription {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        self.receiver.poll_next(context)
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("client", &self.place.as_ref().map(|place| &place.client))
            .finish()
    }
}

/// A function that is called for publications; from [`Client::on`]. Dropping it leaves the function in place.
#[derive(Debug)]
pub struct Handler {
    shared: Weak<Shared>,
    id: u64,
    task: JoinHandle<()>,
}

impl Handler {
    /// Unsubscribes, and ends the function where it stands.
    ///
    /// # Errors
    /// As [`Client::unsubscribe`].
    pub async fn stop(self) -> Result<(), Error> {
        self.task.abort();
        match self.shared.upgrade() {
            Some(shared) => shared.leave(self.id).await,
            None => Ok(()),
        }
    }
}
