//! What happens to a connection, told to whoever wants to know. Owns the present state and the events; never acts on
//! them.

use std::time::Duration;
use tokio::sync::{broadcast, watch};

use crate::Error;

/// Events that are kept for a listener who is slow.
const KEPT: usize = 64;

/// Something that happened to the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// It is there again: registered, and the broker does what it was subscribed to and excluded before it does anything
    /// that is asked for from now on.
    Connected,
    /// It was lost.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// It will be tried again.
    Retrying {
        /// Counts from 1 since the connection was lost.
        attempt: u32,
        /// The pause before the attempt.
        after: Duration,
        /// Why the last one failed.
        reason: String,
    },
    /// The client has ended, and nothing will follow.
    Closed,
    /// So many events were missed here, since nobody asked for them.
    Missed(u64),
}

/// The state of a connection.
#[derive(Debug, Clone)]
pub(crate) enum Status {
    Connected,
    Lost(Error),
    Closed(Error),
}

pub(crate) struct Events {
    status: watch::Sender<Status>,
    events: broadcast::Sender<ConnectionEvent>,
}

impl Events {
    pub(crate) fn new() -> Self {
        let status = watch::Sender::new(Status::Lost(Error::disconnected("not yet connected")));
        Events { status, events: broadcast::Sender::new(KEPT) }
    }

    pub(crate) fn set(&self, status: Status) {
        let event = match &status {
            Status::Connected => ConnectionEvent::Connected,
            Status::Lost(reason) => ConnectionEvent::Disconnected { reason: reason_of(reason) },
            Status::Closed(_) => ConnectionEvent::Closed,
        };
        self.status.send_replace(status);
        self.tell(event);
    }

    pub(crate) fn tell(&self, event: ConnectionEvent) {
        // fails where nobody listens
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
        let settled = status.wait_for(|status| !matches!(status, Status::Lost(_))).await;
        match settled.as_deref() {
            Ok(Status::Connected) => Ok(()),
            Ok(Status::Lost(error) | Status::Closed(error)) => Err(error.clone()),
            Err(_) => Err(Error::Closed),
        }
    }

    /// Waits for the end.
    pub(crate) async fn closed(&self) {
        let mut status = self.status.subscribe();
        let _ = status.wait_for(|status| matches!(status, Status::Closed(_))).await;
    }
}

/// The words of an error without the part that every lost connection has in common.
pub(crate) fn reason_of(error: &Error) -> String {
    match error {
        Error::Disconnected { reason } => reason.clone(),
        error => error.to_string(),
    }
}

/// The events of a connection from [`Client::events`](crate::Client::events) on.
#[derive(Debug)]
pub struct ConnectionEvents {
    events: broadcast::Receiver<ConnectionEvent>,
    ended: bool,
}

impl ConnectionEvents {
    /// The next event; `None` after [`ConnectionEvent::Closed`]. Dropping the future loses nothing.
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
