//! What a transport contributes: bound sockets and a word on each connection; and the task that accepts. Owns what
//! happens when accepting fails.

use elbus_plugin_api::{Credentials, Locality};
use elbus_socket::Socket;
use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    Notice, Place, Source, connection::Connection, instance::Instance, pending::LEAST_TIME, reason::Reason,
    session::Session,
};

/// After a failure, which usually is a want of descriptors, so long nobody is accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// Likewise, where a connection was evicted: until it is closed.
const SHORT_PAUSE: Duration = Duration::from_millis(1);

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
    Ready(OwnedFd, Origin),
    /// A task works on it first. It has come from `source`, which is told where it is refused.
    Later {
        /// As in [`Origin`].
        source: Option<String>,
        /// What is to be done.
        task: Preparation,
    },
}

/// Makes the task that admits a connection, or refuses it.
pub type Preparation = Box<dyn FnOnce(Admission) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The right to begin one session.
pub struct Admission {
    instance: Arc<Instance>,
    port: Arc<str>,
    source: Source,
    place: Place,
}

impl Admission {
    /// Begins the session, of a socket that is non-blocking. The task may go on working for it; a transport that stops
    /// waits for it as long as it does for connections. `None`: the instance is stopping, or the connection is gone.
    pub fn begin(self, socket: OwnedFd, origin: Origin) -> Option<Attendance> {
        // before the session, so that whoever waits for the end of both finds one of them
        self.instance.census.lock().attendants += 1;
        let mut attendance = Attendance { instance: self.instance.clone(), connection: Weak::new() };
        let Admission { instance, port, place, .. } = self;
        let session = Session::begin(instance.clone(), socket, origin, port, place, true);
        if let Ok(Some(session)) = &session {
            attendance.connection = Arc::downgrade(session.connection());
        }
        run(&instance, session).then_some(attendance)
    }

    /// Where the connection comes from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The connection has said something useful: those that have not make room for others first.
    pub fn spoken(&self) {
        self.place.spoken();
    }

    /// Waits until the connection may go on, where only so many may in a second.
    pub async fn turn(&self) {
        let turn = self.instance.turns.as_ref().map(|turns| turns.ask(self.source, &self.instance.runtime));
        if let Some(Some(turn)) = turn {
            let _ = turn.await; // ends when it is its turn, or when the instance ends
        }
    }

    /// What to do when the place of the connection is needed for another one before its session begins: stop, and
    /// [tell](Self::evicted).
    pub fn on_eviction(&self, evict: impl FnOnce() + Send + 'static) {
        self.place.on_eviction(evict);
    }

    /// Tells that the connection was evicted; `why` if not because others wait to register.
    pub fn evicted(self, source: Option<&str>, why: Option<&str>) {
        let pending = Reason::Evicted { limit: self.instance.pending.limit() };
        self.instance.evicted((self.source, source), why.unwrap_or(&pending.to_string()));
    }

    /// Tells why there will be no session, unless the instance is stopping.
    pub fn refuse(self, source: Option<&str>, notice: Notice, why: &str) {
        if !self.instance.is_stopping() {
            self.instance.refuse((self.source, source), notice, why);
        }
    }
}

/// A task that works beside a session. To be dropped at its end.
pub struct Attendance {
    instance: Arc<Instance>,
    connection: Weak<Connection>,
}

/// Closes a connection from outside of its session.
pub struct Closer(Weak<Connection>);

impl Attendance {
    /// What closes the connection of the session.
    pub fn closer(&self) -> Closer {
        Closer(self.connection.clone())
    }
}

impl Closer {
    /// Closes the connection, unless it is gone; `why` is logged and announced.
    pub fn close(&self, why: &str) {
        if let Some(connection) = self.0.upgrade() {
            connection.close(Reason::Closed(why.into()));
        }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let mut census = self.instance.census.lock();
        census.attendants = census.attendants.saturating_sub(1);
        drop(census);
        self.instance.left.notify_all();
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// `ip:port`, where that means anything.
    pub source: Option<String>,
    /// The process at the other end, where it is known.
    pub credentials: Option<Credentials>,
    /// The unit of systemd it belongs to, where that is known.
    pub unit: Option<Box<String>>,
    /// What a verified certificate says of the client, where it has shown one.
    pub certificate: Option<Box<Certificate>>,
}

/// A client certificate that was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// As [`ClientInfo`](elbus_plugin_api::ClientInfo) lists them.
    pub names: Vec<String>,
}

/// A socket that is bound and listens.
#[derive(Debug)]
pub struct Listener {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    /// What `client.list` says of clients that came by it: the path or the address as configured.
    pub port: String,
    /// How clients reach it, as they would be told: `tcp:127.0.0.1:7777`.
    pub address: String,
    /// Whether somebody else has it as well, who wants to go on with it: it is not shut down at the end.
    pub inherited: bool,
}

/// A listener registered with the runtime.
pub(crate) struct Entrance {
    pub(crate) socket: Socket,
    pub(crate) port: Arc<str>,
    pub(crate) inherited: bool,
    /// Another socket has taken its place.
    pub(crate) replaced: AtomicBool,
}

impl Entrance {
    pub(crate) fn new(socket: Socket, port: String, inherited: bool) -> Self {
        Entrance { socket, port: port.into(), inherited, replaced: AtomicBool::new(false) }
    }

    /// Ends accepting although the instance goes on.
    pub(crate) fn replace(&self) {
        self.replaced.store(true, Ordering::Release);
        self.socket.shutdown();
    }

    fn is_closed(&self, instance: &Instance) -> bool {
        instance.is_stopping() || self.replaced.load(Ordering::Acquire)
    }
}

/// Accepts until the instance stops or another socket replaces this one. The census counts it from before it is spawned.
pub(crate) async fn accept(instance: Arc<Instance>, entrance: Arc<Entrance>) {
    let _present = Present(&instance);
    let mut failing = false;
    while !instance.is_stopping() {
        if entrance.socket.readable().await.is_err() {
            return; // the runtime ends
        }
        match entrance.socket.accept() {
            Ok(Some(socket)) => {
                if instance.pending.are_pressed() {
                    // the kernel keeps a burst for a moment
                    tokio::time::sleep(LEAST_TIME).await;
                }
                begin(&instance, socket, entrance.port.clone());
            }
            // once it is replaced, those who came before are still accepted
            Ok(None) if entrance.is_closed(&instance) => return,
            Ok(None) => failing = false,
            Err(_) if entrance.is_closed(&instance) => return,
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                let is_new = !std::mem::replace(&mut failing, true);
                if is_new && instance.admits(Notice::Accept, Source::Unknown) {
                    tracing::warn!(port = &*entrance.port, %error, "cannot accept connections for now");
                }
                // whoever has not registered yet makes room
                let pause = if instance.pending.evict_one() { SHORT_PAUSE } else { PAUSE };
                tokio::time::sleep(pause).await;
            }
        }
    }
}

fn begin(instance: &Arc<Instance>, socket: OwnedFd, port: Arc<str>) {
    match instance.transport.prepare(socket) {
        Ok(Prepared::Ready(socket, origin)) => {
            let place = instance.pending.take(Source::of(&origin));
            run(instance, Session::begin(instance.clone(), socket, origin, port, place, false));
        }
        Ok(Prepared::Later { source, task }) => {
            let source = Source::of_address(source.as_deref());
            let place = instance.pending.take(source);
            drop(instance.spawn(task(Admission { instance: instance.clone(), port, source, place })));
        }
        Err(error) => tracing::debug!(%error, "connection gone before it began"),
    }
}

/// Whether it runs.
fn run(instance: &Instance, session: io::Result<Option<Session>>) -> bool {
    match session {
        Ok(Some(session)) => {
            drop(instance.spawn(session.run()));
            true
        }
        Ok(None) => false,
        Err(error) => {
            tracing::debug!(%error, "connection gone before it began");
            false
        }
    }
}

/// The connection failed, not the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, PermissionDenied, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | PermissionDenied | TimedOut)
}

/// An accepting task in the census.
struct Present<'a>(&'a Instance);

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let mut census = self.0.census.lock();
        census.listeners = census.listeners.saturating_sub(1);
        drop(census);
        self.0.left.notify_all();
    }
}
