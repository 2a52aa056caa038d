//! Listening sockets and the task that accepts from one. Owns what happens when accepting fails.

use elbus_socket::Socket;
use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    server::{
        fair_slots::MIN_TENURE,
        log_throttle::LogCategory,
        source::Source,
        state::ServerState,
        transport::{Prepared, SessionPermit, spawn},
    },
    session::Session,
};

/// Pause after a failed accept, usually for lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause after a failed accept when a connection was evicted, until that is closed.
const SHORT_PAUSE: Duration = Duration::from_millis(1);

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    /// Port of its clients in `client.list`: the path or address as configured.
    pub port: String,
    /// Address for clients, such as `tcp:127.0.0.1:7777`.
    pub address: String,
    /// Whether another process goes on with the socket: it is not shut down at the end.
    pub inherited: bool,
}

/// A listener registered with the runtime.
pub(crate) struct BoundListener {
    pub(crate) socket: Socket,
    pub(crate) port: Arc<str>,
    pub(crate) inherited: bool,
    /// Whether another socket has replaced it.
    pub(crate) replaced: AtomicBool,
}

impl BoundListener {
    pub(crate) fn new(socket: Socket, port: String, inherited: bool) -> Self {
        BoundListener { socket, port: port.into(), inherited, replaced: AtomicBool::new(false) }
    }

    /// Stops accepting while the instance goes on.
    pub(crate) fn replace(&self) {
        self.replaced.store(true, Ordering::Release);
        self.socket.shutdown();
    }

    fn is_closed(&self, server: &ServerState) -> bool {
        server.is_stopping() || self.replaced.load(Ordering::Acquire)
    }
}

/// Accepts until the instance stops or another socket replaces this one. Counted in the table before it is
/// spawned.
pub(crate) async fn accept(server: Arc<ServerState>, listener: Arc<BoundListener>) {
    let _guard = ListenerGuard(&server);
    let mut failing = false;
    while !server.is_stopping() {
        if listener.socket.readable().await.is_err() {
            return; // the runtime ends
        }
        match listener.socket.accept() {
            Ok(Some(socket)) => {
                if server.pending.is_contended() {
                    // the kernel queues a burst for a moment
                    tokio::time::sleep(MIN_TENURE).await;
                }
                begin(&server, socket, listener.port.clone());
            }
            // connections made before the replacement are still accepted
            Ok(None) if listener.is_closed(&server) => return,
            Ok(None) => failing = false,
            Err(_) if listener.is_closed(&server) => return,
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                let is_new = !std::mem::replace(&mut failing, true);
                if is_new {
                    server.counts.ended(LogCategory::Accept);
                }
                if is_new && server.admits(LogCategory::Accept, Source::Unknown) {
                    tracing::warn!(port = &*listener.port, %error, "cannot accept connections for now");
                }
                // a connection that has not registered yet is evicted
                let pause = if server.pending.evict_one() { SHORT_PAUSE } else { PAUSE };
                tokio::time::sleep(pause).await;
            }
        }
    }
}

fn begin(server: &Arc<ServerState>, socket: OwnedFd, port: Arc<str>) {
    match server.transport.prepare(socket) {
        Ok(Prepared::Ready(socket, peer)) => {
            let slot = server.pending.take(Source::of(&peer));
            spawn(server, Session::begin(server.clone(), socket, peer, port, slot, false));
        }
        Ok(Prepared::Later { source, task }) => {
            let source = Source::of_address(source.as_deref());
            let slot = server.pending.take(source);
            drop(server.spawn(task(SessionPermit { server: server.clone(), port, source, slot })));
        }
        Err(error) => tracing::debug!(%error, "connection gone before it began"),
    }
}

/// Returns whether the connection failed rather than the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied | TimedOut)
}

/// Counts an accepting task in the table.
struct ListenerGuard<'a>(&'a ServerState);

impl Drop for ListenerGuard<'_> {
    fn drop(&mut self) {
        let mut table = self.0.table.lock();
        table.listeners = table.listeners.saturating_sub(1);
        drop(table);
        self.0.left.notify_all();
    }
}
