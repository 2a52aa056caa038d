//! The task of one connection, from accepting to closing. Owns the order of closing: the queue, the log and
//! the broker, the socket (so that a client that sees the end finds its name free), the connection table.

pub(crate) mod rate_limiter;
pub(crate) mod reader;
pub(crate) mod scratch;
pub(crate) mod time_slice;
pub(crate) mod unregistered;

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

use tracing::Level;

use crate::{
    connection::{Connection, close_reason::CloseReason},
    server::{fair_slots::Slot, peer_info::PeerInfo, source::Source, state::ServerState},
    session::{reader::Reader, unregistered::Unregistered},
};

/// Longest time for which bytes of a refused client are still read.
const LINGER: Duration = Duration::from_secs(1);

/// A connection that is served. Dropping it closes the connection, also if the runtime ends first.
pub(crate) struct Session {
    connection: Arc<Connection>,
    socket: Arc<Socket>,
    reader: Reader,
    /// Its key in the connection table, until it has left.
    key: Option<usize>,
}

impl Session {
    /// Sends the greeting; `None` if the instance is stopping. The connection holds the slot until it is
    /// registered. Must be called within the runtime.
    pub(crate) fn begin(
        server: Arc<ServerState>,
        socket: OwnedFd,
        peer: PeerInfo,
        port: Arc<str>,
        slot: Slot,
        is_queued: bool,
    ) -> io::Result<Option<Self>> {
        let socket = Arc::new(Socket::new(socket)?);
        let connection = Connection::new(server, socket.clone(), Source::of(&peer));
        let Some(key) = connection.server.insert(&connection) else { return Ok(None) };
        let (evicted, limit) = (connection.clone(), connection.server.pending.limit());
        slot.on_eviction(move || evicted.close(CloseReason::Evicted { limit }));
        connection.send(&elbus_protocol::handshake::GREETING);
        let unregistered = Unregistered::new(slot, connection.source, key, is_queued);
        let reader = Reader::new(connection.clone(), socket.clone(), peer, port, unregistered);
        Ok(Some(Session { connection, socket, reader, key: Some(key) }))
    }

    /// The connection it serves.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Serves the connection until it closes. Not an `async fn`: its future would store the arguments twice,
    /// for every connection.
    #[expect(clippy::manual_async_fn, reason = "half the memory")]
    pub(crate) fn run(mut self) -> impl Future<Output = ()> + Send {
        async move {
            let reason = self.read_until_end().await;
            if self.leave(reason) {
                self.may_be_evicted();
                // boxed, since it would be part of every connection's task
                Box::pin(linger(&self.socket)).await;
                self.socket.shutdown();
            }
            if let Some(unread) = self.socket.unread_rings() {
                drop(self.connection.server.spawn(unread));
            }
        }
    }

    /// Allows eviction while bytes of a refused client are read. Not part of the task, which would store its
    /// variables.
    fn may_be_evicted(&self) {
        let socket = self.socket.clone();
        self.reader.on_eviction(move || socket.shutdown());
    }

    async fn read_until_end(&mut self) -> CloseReason {
        self.connection.set_reader().await;
        loop {
            if !self.reader.is_stopped() {
                if self.connection.is_read_requested() {
                    // the peer can go on sending; other tasks run between two reads
                    Box::pin(tokio::task::yield_now()).await;
                }
                let mut readable = pin!(self.socket.readable());
                let readable = poll_fn(|context| match self.connection.is_read_requested() {
                    true => Poll::Ready(Ok(())),
                    false => readable.as_mut().poll(context),
                });
                if let Err(error) = readable.await {
                    return CloseReason::of_error(error);
                }
            }
            if self.connection.server.is_stopping() {
                self.connection.wait_unless_closed(std::future::pending()).await;
            }
            if self.connection.is_closed() {
                let is_to_finish =
                    !self.connection.server.is_stopping() && !self.connection.was_closed_for_memory();
                if self.reader.is_stopped() && is_to_finish {
                    // boxed, as below
                    Box::pin(self.reader.finish()).await;
                }
                return CloseReason::Gone;
            }
            match self.reader.step() {
                Ok(false) => {}
                Ok(true) => {
                    if let Err(reason) = Box::pin(self.reader.wait_for_capacity()).await {
                        return reason;
                    }
                }
                Err(reason) => return reason,
            }
        }
    }

    /// Closes the connection, for `reason` or an earlier one. Returns whether the client's bytes must still
    /// be read.
    fn leave(&mut self, reason: CloseReason) -> bool {
        let Some(key) = self.key.take() else { return false };
        self.connection.close(reason);
        let reason = self.connection.close_reason().unwrap_or_else(|| Arc::new(CloseReason::Gone));
        self.report(&reason);
        let mut client_of = None;
        if let Some(mut client) = self.reader.take_client() {
            client.set_close_reason(&reason.to_string());
            client.set_departure(reason.departure());
            client_of = Some(self.connection.source);
        }
        if reason.is_forced() {
            self.socket.discard();
        }
        if reason.lingers() {
            self.socket.shutdown_write();
        } else {
            self.socket.shutdown();
        }
        self.connection.server.remove(key, client_of);
        reason.lingers()
    }

    fn report(&self, reason: &CloseReason) {
        let (client, source) = (self.connection.name(), self.reader.peer().source.as_deref());
        let server = &self.connection.server;
        let shown = reason.category().is_none_or(|category| server.admits(category, self.connection.source));
        match reason.level() {
            _ if !shown => tracing::debug!(client, source, %reason, "connection ended"),
            Level::DEBUG => tracing::debug!(client, source, %reason, "connection ended"),
            Level::INFO => tracing::info!(client, source, %reason, "connection ended"),
            _ => tracing::warn!(client, source, %reason, "connection ended"),
        }
        if let Some(category) = reason.category() {
            server.counts.ended(category);
        }
        if matches!(reason, CloseReason::Full { .. } | CloseReason::Evicted { .. }) {
            server.counts.refused_connections.fetch_add(1, Ordering::Relaxed);
        }
        if reason.is_slow_consumer() {
            server.counts.slow_consumers.fetch_add(1, Ordering::Relaxed);
            server.host.emit(&Event::now(EventKind::SlowConsumer, client, &reason.to_string()));
        } else if reason.is_refusal() {
            let from = source.unwrap_or(server.transport.kind());
            server.host.emit(&Event::now(EventKind::ConnectionRefused, from, &reason.to_string()));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave(CloseReason::Stopping);
    }
}

/// Reads and discards until the client closes.
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
    use crate::{server::connection_table::Entry, settings::StreamSettings, testing::Pair};
    use elbus_socket::ReceivedAnswer;

    fn size_of_output<S, F>(_: impl FnOnce(S) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        let task = size_of_output(Session::run);
        let all = task + size_of::<Connection>() + size_of::<Socket>() + size_of::<Entry>();
        assert!(task <= 448 && all <= 816, "task {task}, all {all} bytes");
    }

    #[test]
    fn a_connection_that_ends_while_it_registers_passes_no_descriptors() {
        let pair = Pair::new(StreamSettings::default());
        let _within = pair.runtime.enter();
        let client = pair.peer.try_clone().unwrap();
        client.set_nonblocking(true).unwrap();
        let client = Socket::new(client.into()).unwrap();
        pair.connection.lock().socket().unwrap().offer_rings(65_536, Box::new(())).unwrap();
        pair.connection.push_answer(1);
        // access rules have not decided yet
        pair.connection.close(CloseReason::Evicted { limit: 1 });
        let answer = pair.runtime.block_on(async {
            client.readable().await.unwrap();
            client.receive_answer().unwrap()
        });
        assert!(matches!(answer, ReceivedAnswer::Byte(1, None)), "{answer:?}");
    }
}
