//! Functions that are called for publications. Owns their tasks; the subscription behind them is in
//! `subscription`.

use std::sync::{Arc, Weak, atomic::Ordering};
use tokio::task::JoinHandle;

use super::{client::Client, filters::Filters, subscription::Registration};
use crate::{catch_panic::catch_panic, connection::inner::Inner, error::Error, frame::Frame};

/// Handle of a function that is called for publications; from [`Client::subscribe_with`]. Dropping it does
/// not stop the function.
///
/// ```no_run
/// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
/// let handler = client.subscribe_with("temperature/+", |frame| async move { println!("{frame:?}") }).await?;
/// handler.stop().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct HandlerHandle {
    inner: Weak<Inner>,
    id: u64,
    task: JoinHandle<()>,
}

impl Client {
    /// Subscribes and calls a function for every publication that matches: in order, one at a time, in a task
    /// of its own, until [`HandlerHandle::stop`] or the end of the client.
    ///
    /// A panic of the function is logged and counted
    /// ([`ClientStats::handler_panics`](crate::ClientStats::handler_panics)); the function is called with the
    /// next frame.
    ///
    /// ```no_run
    /// # async fn example(client: elbus_client::Client) -> Result<(), elbus_client::Error> {
    /// client.subscribe_with("temperature/+", |frame| async move {
    ///     println!("{}: {:?}", frame.topic(), frame.payload());
    /// }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    pub async fn subscribe_with<F, R>(
        &self,
        filters: impl Filters,
        mut function: F,
    ) -> Result<HandlerHandle, Error>
    where
        F: FnMut(Frame) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let mut subscription = self.subscribe(filters).await?;
        // the task ends with the client, so it must not own it
        let Some(registration) = subscription.take_registration() else { return Err(Error::Closed) };
        let Registration { client, id } = registration;
        let (name, inner) = (client.name().to_owned(), Arc::downgrade(&client.inner));
        let task = tokio::spawn(async move {
            while let Some(frame) = subscription.next().await {
                let topic = frame.topic().to_owned();
                // called within the future: catches a panic before the first await as well
                if catch_panic(async { function(frame).await }).await.is_none() {
                    tracing::error!(client = name, topic, "handler panicked");
                    if let Some(inner) = inner.upgrade() {
                        inner.handler_panics.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Ok(HandlerHandle { inner: Arc::downgrade(&client.inner), id, task })
    }

    /// Subscribes and calls a function for every publication that matches.
    ///
    /// # Errors
    /// As [`subscribe`](Client::subscribe).
    #[deprecated = "renamed to subscribe_with"]
    pub async fn on<F, R>(&self, filters: impl Filters, function: F) -> Result<HandlerHandle, Error>
    where
        F: FnMut(Frame) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        self.subscribe_with(filters, function).await
    }
}

impl HandlerHandle {
    /// Unsubscribes and cancels the function at its current await point.
    ///
    /// # Errors
    /// As [`Client::remove_filters`].
    pub async fn stop(self) -> Result<(), Error> {
        self.task.abort();
        match self.inner.upgrade() {
            Some(inner) => inner.end_subscription(self.id).await,
            None => Ok(()),
        }
    }
}
