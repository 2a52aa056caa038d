//! The lifecycle of a client: connected, lost, connected again, ended. Owns the order of these states; does
//! not handle the connection itself.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tokio::time::sleep;

use super::{endpoint::Endpoint, inner::Inner, link::ActiveLink};
use crate::{
    error::Error,
    events::{ConnectionEvent, Status, reason_of},
    receive::inbox::Receiver,
    settings::{Reconnect, Settings},
};

/// Connects for the first time and starts the tasks. Returns the client's state and the queue of its frames.
pub(crate) async fn open(
    name: String,
    settings: Settings,
    endpoint: Endpoint,
    secondaries: Arc<AtomicU32>,
) -> Result<(Arc<Inner>, Receiver), Error> {
    let (inner, receiver) = Inner::new(name, settings, endpoint, secondaries);
    let link = inner.connect().await?;
    inner.attach(&link);
    tokio::spawn(supervise(EndGuard { inner: inner.clone(), reason: None }, link));
    Ok((inner, receiver))
}

/// Ends the client when it is dropped: when its task is done, or its runtime has ended.
struct EndGuard {
    inner: Arc<Inner>,
    reason: Option<Error>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        let runtime_ended = || Error::disconnected("the runtime of the client has ended");
        let reason = self.reason.take().unwrap_or_else(runtime_ended);
        self.inner.detach(&reason);
        self.inner.demux.end();
        self.inner.events.set(Status::Closed(reason));
    }
}

async fn supervise(mut guard: EndGuard, mut link: ActiveLink) {
    let inner = guard.inner.clone();
    let end = loop {
        let reason = inner.run(link).await;
        if inner.is_closing() {
            break Error::Closed;
        }
        tracing::debug!(client = inner.name, %reason, "connection lost");
        inner.detach(&reason);
        inner.events.set(Status::Disconnected(reason.clone()));
        link = match inner.reconnect(reason).await {
            Ok(link) => link,
            Err(end) => break end,
        };
        inner.reconnects.fetch_add(1, Ordering::Relaxed);
        inner.attach(&link);
    };
    guard.reason = Some(end);
}

impl Inner {
    /// Tries to connect until it succeeds or the attempts are used up.
    async fn reconnect(&self, mut reason: Error) -> Result<ActiveLink, Error> {
        let Reconnect::Backoff(backoff) = self.settings.reconnect else {
            return Err(reason);
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let Some(after) = backoff.delay(attempt) else { return Err(reason) };
            self.events.emit(ConnectionEvent::Retrying { attempt, after, reason: reason_of(&reason) });
            tokio::select! {
                () = sleep(after) => {}
                () = self.close_requested() => return Err(Error::Closed),
            }
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = self.close_requested() => return Err(Error::Closed),
            };
            match connected {
                Ok(link) => return Ok(link),
                Err(error) => reason = error,
            }
        }
    }
}
