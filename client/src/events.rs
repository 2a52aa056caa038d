//! The state of a connection and its changes. Owns the current state and the queue of events; takes no
//! action.

use std::time::Duration;
use tokio::sync::{broadcast, watch};

use crate::error::Error;

/// Events that are queued for a slow listener.
const QUEUED_EVENTS: usize = 64;

/// A change of the connection; from [`ConnectionEvents::next`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// The client is connected again: registered, and its subscriptions and exclusions take effect before any
    /// operation that follows.
    Connected,
    /// The connection was lost.
    #[non_exhaustive]
    Disconnected {
        /// Why the connection was lost.
        reason: String,
    },
    /// An attempt to reconnect follows.
    #[non_exhaustive]
    Retrying {
        /// Number of the attempt; counts from 1 since the connection was lost.
        attempt: u32,
        /// The delay before the attempt.
        after: Duration,
        /// Why the connection was lost, or why the previous attempt failed.
        reason: String,
    },
    /// The client has ended. No event follows.
    Closed,
    /// This many events were dropped because the listener is slow.
    Missed(u64),
}

/// The state of a connection.
#[derive(Debug, Clone)]
pub(crate) enum Status {
    Connected,
    Disconnected(Error),
    Closed(Error),
}

pub(crate) struct EventSender {
    status: watch::Sender<Status>,
    events: broadcast::Sender<ConnectionEvent>,
}

impl EventSender {
    pub(crate) fn new() -> Self {
        let status = watch::Sender::new(Status::Disconnected(Error::disconnected("not yet connected")));
        EventSender { status, events: broadcast::Sender::new(QUEUED_EVENTS) }
    }

    /// Changes the state and emits the event of the change.
    pub(crate) fn set(&self, status: Status) {
        let event = match &status {
            Status::Connected => ConnectionEvent::Connected,
            Status::Disconnected(error) => ConnectionEvent::Disconnected { reason: reason_of(error) },
            Status::Closed(_) => ConnectionEvent::Closed,
        };
        self.status.send_replace(status);
        self.emit(event);
    }

    pub(crate) fn emit(&self, event: ConnectionEvent) {
        // fails if there is no listener
        let _ = self.events.send(event);
    }

    pub(crate) fn listen(&self) -> ConnectionEvents {
        let ended = matches!(*self.status.borrow(), Status::Closed(_));
        ConnectionEvents { events: self.events.subscribe(), ended }
    }

    pub(crate) fn is_connected(&self) -> bool {
        matches!(*self.status.borrow(), Status::Connected)
    }

    /// Waits for a connection.
    pub(crate) async fn connected(&self) -> Result<(), Error> {
        let mut status = self.status.subscribe();
        let settled = status.wait_for(|status| !matches!(status, Status::Disconnected(_))).await;
        match settled.as_deref() {
            Ok(Status::Connected) => Ok(()),
            Ok(Status::Disconnected(error) | Status::Closed(error)) => Err(error.clone()),
            Err(_) => Err(Error::Closed),
        }
    }

    /// Waits for the end of the client.
    pub(crate) async fn closed(&self) {
        let mut status = self.status.subscribe();
        let _ = status.wait_for(|status| matches!(status, Status::Closed(_))).await;
    }
}

/// Returns the text of an error without the prefix that all lost connections have.
pub(crate) fn reason_of(error: &Error) -> String {
    match error {
        Error::Disconnected { reason, .. } => reason.clone(),
        error => error.to_string(),
    }
}

/// The changes of a connection since [`Client::events`](crate::Client::events) was called.
///
/// ```no_run
/// # async fn example(client: elbus_client::Client) {
/// use elbus_client::ConnectionEvent;
/// let mut events = client.events();
/// while let Some(event) = events.next().await {
///     match event {
///         ConnectionEvent::Connected => println!("connected"),
///         ConnectionEvent::Disconnected { reason, .. } => println!("disconnected: {reason}"),
///         event => println!("{event:?}"),
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct ConnectionEvents {
    events: broadcast::Receiver<ConnectionEvent>,
    ended: bool,
}

impl ConnectionEvents {
    /// Returns the next event; `None` after [`ConnectionEvent::Closed`]. Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<ConnectionEvent> {
        if self.ended {
            return None;
        }
        let event = match self.events.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(count)) => ConnectionEvent::Missed(count),
            Err(broadcast::error::RecvError::Closed) => ConnectionEvent::Closed,
        };
        self.ended = event == ConnectionEvent::Closed;
        Some(event)
    }
}
