//! The task of one connection, from accepting to its end. Owns the order of ending: the queue first, then the log and
//! the broker, then the socket, so that a client that sees the end finds its name free, then the census.

use elbus_plugin_api::{Event, EventKind};
use elbus_socket::{Received, Socket};
use std::{
    future::poll_fn,
    io,
    os::fd::OwnedFd,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use crate::{
    connection::Connection,
    incoming::Incoming,
    instance::{Entered, Instance},
    listener::Origin,
    newcomer::Newcomer,
    pending::Place,
    reason::{Loudness, Reason},
    source::Source,
};

/// How long a refused client's bytes are still read, at most.
const LINGER: Duration = Duration::from_secs(1);

/// A connection being served. Dropping it, also unfinished when a runtime ends, ends the connection.
pub(crate) struct Session {
    connection: Arc<Connection>,
    socket: Arc<Socket>,
    incoming: Incoming,
    /// Its place in the census, until it has left.
    key: Option<usize>,
}

impl Session {
    /// Greets; `None` where the instance is stopping. The connection has the place until it is registered. Must be
    /// called within the runtime.
    pub(crate) fn begin(
        instance: Arc<Instance>,
        socket: OwnedFd,
        origin: Origin,
        port: Arc<str>,
        place: Place,
        is_paced: bool,
    ) -> io::Result<Option<Self>> {
        let socket = Arc::new(Socket::new(socket)?);
        let connection = Connection::new(instance, socket.clone(), Source::of(&origin));
        let key = match connection.instance.enter(&connection) {
            Entered::As(key) => key,
            Entered::Stopping => return Ok(None),
        };
        let (evicted, limit) = (connection.clone(), connection.instance.pending.limit());
        place.on_eviction(move || evicted.close(Reason::Evicted { limit }));
        connection.send(&elbus_protocol::handshake::GREETING);
        let newcomer = Newcomer::new(place, connection.source, key, is_paced);
        let incoming = Incoming::new(connection.clone(), socket.clone(), origin, port, newcomer);
        Ok(Some(Session { connection, socket, incoming, key: Some(key) }))
    }

    /// The connection it serves.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Serves it until its end. No `async fn`, whose future has room for its arguments twice, and this one is
    /// there for every connection.
    #[expect(clippy::manual_async_fn, reason = "half the memory")]
    pub(crate) fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let reason = self.read_until_end().await;
            if self.leave(reason) {
                self.may_be_evicted();
                // boxed, since every connection would have to make room for it
                Box::pin(linger(&self.socket)).await;
            }
        }
    }

    /// While what a refused client sends is still read, its place may be needed. No part of the task, which would have
    /// room for what is done here.
    fn may_be_evicted(&self) {
        let socket = self.socket.clone();
        self.incoming.on_eviction(move || socket.shutdown());
    }

    async fn read_until_end(&mut self) -> Reason {
        self.connection.set_reader().await;
        loop {
            if !self.incoming.is_stopped() {
                if self.connection.is_asked() {
                    // the peer may go on sending; others have their turn between two reads
                    Box::pin(tokio::task::yield_now()).await;
                }
                let mut readable = pin!(self.socket.readable());
                let readable = poll_fn(|context| match self.connection.is_asked() {
                    true => Poll::Ready(Ok(())),
                    false => readable.as_mut().poll(context),
                });
                if let Err(error) = readable.await {
                    return Reason::Broken(error);
                }
            }
            if self.connection.instance.is_stopping() {
                self.connection.until_ended_or(std::future::pending()).await;
            }
            if self.connection.has_ended() {
                let is_to_finish =
                    !self.connection.instance.is_stopping() && !self.connection.has_made_room();
                if self.incoming.is_stopped() && is_to_finish {
                    // boxed, as below
                    Box::pin(self.incoming.finish()).await;
                }
                return Reason::Gone;
            }
            match self.incoming.step() {
                Ok(false) => {}
                Ok(true) => {
                    if let Err(reason) = Box::pin(self.incoming.held_back()).await {
                        return reason;
                    }
                }
                Err(reason) => return reason,
            }
        }
    }

    /// Ends the connection, for `reason` or one that came first. `true`: the client's bytes are still to be read.
    fn leave(&mut self, reason: Reason) -> bool {
        let Some(key) = self.key.take() else { return false };
        self.connection.close(reason);
        let reason = self.connection.take_reason().unwrap_or(Reason::Gone);
        self.tell(&reason);
        let mut client_of = None;
        if let Some(mut client) = self.incoming.take_client() {
            client.set_close_reason(&reason.to_string());
            client_of = Some(self.connection.source);
        }
        if reason.is_of_the_broker() {
            self.socket.discard();
        }
        if reason.lingers() {
            self.socket.shutdown_write();
        } else {
            self.socket.shutdown();
        }
        self.connection.instance.leave(key, client_of);
        reason.lingers()
    }

    fn tell(&self, reason: &Reason) {
        let (client, source) = (self.connection.name(), self.incoming.origin().source.as_deref());
        let instance = &self.connection.instance;
        let shown = reason.notice().is_none_or(|notice| instance.admits(notice, self.connection.source));
        match reason.loudness() {
            _ if !shown => tracing::debug!(client, source, "connection ended: {reason}"),
            Loudness::Debug => tracing::debug!(client, source, "connection ended: {reason}"),
            Loudness::Info => tracing::info!(client, source, "connection ended: {reason}"),
            Loudness::Warn => tracing::warn!(client, source, "connection ended: {reason}"),
        }
        if matches!(reason, Reason::Full { .. } | Reason::Evicted { .. }) {
            instance.counts.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        if reason.is_slow_consumer() {
            instance.counts.slow.fetch_add(1, Ordering::Relaxed);
            instance.host.emit(&Event::now(EventKind::SlowConsumer, client, &reason.to_string()));
        } else if reason.is_refusal() {
            let from = source.unwrap_or(instance.transport.kind());
            instance.host.emit(&Event::now(EventKind::ConnectionRefused, from, &reason.to_string()));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave(Reason::Stopping);
    }
}

/// Reads and forgets until the client closes, too.
async fn linger(socket: &Socket) {
    let forget = async {
        while socket.readable().await.is_ok() {
            match socket.receive(&mut [0; 4096]) {
                Ok(Received::Bytes(_) | Received::Nothing) => {}
                Ok(Received::End) | Err(_) => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, forget).await; // whichever comes first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Entry;

    fn size_of_output<S, F>(_: impl FnOnce(S) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        let task = size_of_output(Session::run);
        let all = task + size_of::<Connection>() + size_of::<Socket>() + size_of::<Entry>();
        assert!(task <= 448 && all <= 808, "task {task}, all {all} bytes");
    }
}
