//! The interface between a transport and its sessions: how an accepted socket is prepared, and what its task can do before
//! and beside the session. Owns no socket and no table.

use elbus_plugin_api::Locality;
use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::{Arc, Weak},
};

use crate::{
    connection::{Connection, close_reason::CloseReason},
    server::{
        fair_slots::Slot, log_throttle::LogCategory, peer_info::PeerInfo, source::Source, state::ServerState,
    },
    session::Session,
};

/// A kind of byte stream.
pub trait Transport: Send + Sync + 'static {
    /// The kind of its connections, as `client.list` shows it.
    fn kind(&self) -> &'static str;

    /// Where its peers run.
    fn locality(&self) -> Locality {
        Locality::Remote
    }

    /// Prepares a socket that was accepted, and says where it comes from. Called within the runtime; must not
    /// block, nor need another descriptor, as there may be none.
    ///
    /// # Errors
    /// Where the socket is not usable; it is closed then.
    fn prepare(&self, socket: OwnedFd) -> io::Result<Prepared>;
}

/// A socket that was accepted.
pub enum Prepared {
    /// Its session begins at once.
    Ready(OwnedFd, PeerInfo),
    /// A task works on it first. It has come from `source`, which is told where it is refused.
    Later {
        /// As in [`Origin`].
        source: Option<String>,
        /// What is to be done.
        task: Preparation,
    },
}

/// Makes the task that admits a connection, or refuses it.
pub type Preparation = Box<dyn FnOnce(SessionPermit) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The right to begin one session.
pub struct SessionPermit {
    pub(super) server: Arc<ServerState>,
    pub(super) port: Arc<str>,
    pub(super) source: Source,
    pub(super) slot: Slot,
}

impl SessionPermit {
    /// Begins the session, of a socket that is non-blocking. The task may go on working for it; a transport that stops
    /// waits for it as long as it does for connections. `None`: the instance is stopping, or the connection is gone.
    pub fn begin(self, socket: OwnedFd, peer: PeerInfo) -> Option<SessionGuard> {
        // before the session, so that whoever waits for the end of both finds one of them
        self.server.table.lock().helper_tasks += 1;
        let mut guard = SessionGuard { server: self.server.clone(), connection: Weak::new() };
        let SessionPermit { server, port, slot, .. } = self;
        let session = Session::begin(server.clone(), socket, peer, port, slot, true);
        if let Ok(Some(session)) = &session {
            guard.connection = Arc::downgrade(session.connection());
        }
        spawn(&server, session).then_some(guard)
    }

    /// Where the connection comes from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The connection has said something useful: those that have not make room for others first.
    pub fn mark_active(&self) {
        self.slot.mark_active();
    }

    /// Waits until the connection may go on, where only so many may in a second.
    pub async fn wait_for_turn(&self) {
        let turn = self.server.turns.as_ref().map(|turns| turns.ask(self.source, &self.server.runtime));
        if let Some(Some(turn)) = turn {
            let _ = turn.await; // ends when it is its turn, or when the instance ends
        }
    }

    /// What to do when the place of the connection is needed for another one before its session begins: stop, and
    /// [tell](Self::log_eviction).
    pub fn on_eviction(&self, evict: impl FnOnce() + Send + 'static) {
        self.slot.on_eviction(evict);
    }

    /// Tells that the connection was evicted; `why` if not because others wait to register.
    pub fn log_eviction(self, source: Option<&str>, why: Option<&str>) {
        let pending = CloseReason::Evicted { limit: self.server.pending.limit() };
        self.server.log_eviction((self.source, source), why.unwrap_or(&pending.to_string()));
    }

    /// Tells why there will be no session, unless the instance is stopping.
    pub fn reject(self, source: Option<&str>, category: LogCategory, why: &str) {
        if !self.server.is_stopping() {
            self.server.reject((self.source, source), category, why);
        }
    }
}

/// A task that works beside a session. To be dropped at its end.
pub struct SessionGuard {
    server: Arc<ServerState>,
    connection: Weak<Connection>,
}

/// Closes a connection from outside of its session.
pub struct Closer(Weak<Connection>);

impl SessionGuard {
    /// What closes the connection of the session.
    pub fn closer(&self) -> Closer {
        Closer(self.connection.clone())
    }
}

impl Closer {
    /// Closes the connection, unless it is gone; `why` is logged and announced.
    pub fn close(&self, why: &str) {
        if let Some(connection) = self.0.upgrade() {
            connection.close(CloseReason::Closed(why.into()));
        }
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

/// Runs a session that has begun; returns whether there is one.
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
