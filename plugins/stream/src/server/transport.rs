//! The interface between a transport and its sessions: how an accepted socket is prepared, and what its task
//! can do before and beside the session. Owns no socket and no table.

use elbus_plugin_api::Locality;
use std::{io, os::fd::OwnedFd, pin::Pin, sync::Arc};

use crate::{
    connection::{Connection, close_reason::CloseReason},
    server::{
        fair_slots::Slot, log_throttle::LogCategory, peer_info::PeerInfo, ring_quota::RingLimits,
        source::Source, state::ServerState,
    },
    session::Session,
};

/// A kind of byte stream.
pub trait Transport: Send + Sync + 'static {
    /// Returns the kind of its connections in `client.list`.
    fn kind(&self) -> &'static str;

    /// Returns where its peers run.
    fn locality(&self) -> Locality {
        Locality::Remote
    }

    /// Returns what clients get that ask for rings of shared memory; `None` if there are none. Only for UNIX
    /// sockets that the sessions use directly: descriptors are passed over them.
    fn rings(&self) -> Option<RingLimits> {
        None
    }

    /// Prepares an accepted socket and determines its peer. Called within the runtime; must not block or need
    /// another file descriptor, as there may be none.
    ///
    /// # Errors
    /// The socket is unusable and is closed.
    fn prepare(&self, socket: OwnedFd) -> io::Result<Prepared>;
}

/// An accepted socket.
pub enum Prepared {
    /// The session begins immediately.
    Ready(OwnedFd, PeerInfo),
    /// A task works on the socket first.
    Later {
        /// As in [`PeerInfo`].
        source: Option<String>,
        /// The task.
        task: Preparation,
    },
}

/// Creates the task that begins the session of a connection or rejects it.
pub type Preparation = Box<dyn FnOnce(SessionPermit) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The right to begin one session.
pub struct SessionPermit {
    pub(super) server: Arc<ServerState>,
    pub(super) port: Arc<str>,
    pub(super) source: Source,
    pub(super) slot: Slot,
}

impl SessionPermit {
    /// Begins the session of a non-blocking socket. The calling task can go on working for it; `stop` waits
    /// for the task as it does for connections. Returns `None` if the instance is stopping or the connection
    /// is gone.
    pub fn begin(self, socket: OwnedFd, peer: PeerInfo) -> Option<SessionGuard> {
        // before the session, so that `stop` finds at least one of the two
        self.server.table.lock().helper_tasks += 1;
        let mut guard = SessionGuard { server: self.server.clone(), connection: None };
        let SessionPermit { server, port, slot, .. } = self;
        let session = Session::begin(server.clone(), socket, peer, port, slot, true);
        if let Ok(Some(session)) = &session {
            guard.connection = Some(session.connection().clone());
        }
        spawn(&server, session).then_some(guard)
    }

    /// Returns the source of the connection.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Replaces the source of the connection, as in [`PeerInfo`]: it has come through a proxy.
    pub fn set_source(&mut self, source: Option<&str>) {
        self.source = Source::of_address(source);
        self.slot.move_to(self.source);
    }

    /// Marks that the peer has sent something useful: silent connections are evicted first.
    pub fn mark_active(&self) {
        self.slot.mark_active();
    }

    /// Waits for the connection's turn if registrations are limited per second.
    pub async fn wait_for_turn(&self) {
        let turn = self.server.turns.as_ref().map(|turns| turns.enqueue(self.source, &self.server.runtime));
        if let Some(Some(turn)) = turn {
            let _ = turn.await; // ends when it is its turn, or when the instance ends
        }
    }

    /// Sets what to do when the connection is evicted before its session begins: stop, and [log
    /// it](Self::log_eviction).
    pub fn on_eviction(&self, evict: impl FnOnce() + Send + 'static) {
        self.slot.on_eviction(evict);
    }

    /// Logs that the connection was evicted; `why` defaults to `max_pending`.
    pub fn log_eviction(self, source: Option<&str>, why: Option<&str>) {
        let pending = CloseReason::Evicted { limit: self.server.pending.limit() };
        self.server.log_eviction((self.source, source), why.unwrap_or(&pending.to_string()));
    }

    /// Logs why there will be no session, unless the instance is stopping.
    pub fn reject(self, source: Option<&str>, category: LogCategory, why: &str) {
        if !self.server.is_stopping() {
            self.server.reject((self.source, source), category, why);
        }
    }
}

/// Counts a task that works beside a session, until it is dropped.
pub struct SessionGuard {
    server: Arc<ServerState>,
    connection: Option<Arc<Connection>>,
}

/// Which side has ended a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// The client has closed its end, or the connection has failed.
    Left,
    /// The instance is stopping.
    Stopping,
    /// The broker has ended it for a reason that the client may learn.
    Refused(String),
    /// The broker has ended it for a reason of its own.
    Closed,
}

/// Closes a connection from outside of its session, and knows why it has ended. Cheap to clone. Keeps neither
/// its socket nor its queue.
#[derive(Clone)]
pub struct Closer(Option<Arc<Connection>>);

impl SessionGuard {
    /// Returns a handle that closes the session's connection.
    pub fn closer(&self) -> Closer {
        Closer(self.connection.clone())
    }
}

impl Closer {
    /// Closes the connection if it is still open; `why` is logged and announced.
    pub fn close(&self, why: &str) {
        if let Some(connection) = &self.0 {
            connection.close(CloseReason::Closed(why.into()));
        }
    }

    /// Returns why the session has ended; `None` while it goes on.
    pub fn end(&self) -> Option<SessionEnd> {
        let reason = self.0.as_ref()?.close_reason()?;
        Some(match &*reason {
            CloseReason::Left | CloseReason::Broken(_) | CloseReason::Gone | CloseReason::NoRings(_) => {
                SessionEnd::Left
            }
            CloseReason::Stopping => SessionEnd::Stopping,
            // it can name other clients
            CloseReason::Closed(_) => SessionEnd::Closed,
            CloseReason::Stalled { cycle, .. } if !cycle.is_empty() => SessionEnd::Closed,
            reason => SessionEnd::Refused(reason.to_string()),
        })
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let mut table = self.server.table.lock();
        table.helper_tasks = table.helper_tasks.saturating_sub(1);
        drop(table);
        self.server.left.notify_all();
    }
}

/// Spawns a session that has begun; returns whether there is one.
pub(crate) fn spawn(server: &ServerState, session: io::Result<Option<Session>>) -> bool {
    match session {
        Ok(Some(session)) => {
            drop(server.spawn(session.run()));
            true
        }
        Ok(None) => false,
        Err(error) => {
            tracing::debug!(%error, "connection gone before it began");
            false
        }
    }
}
