//! What a transport contributes: bound sockets and a word on each connection; and the task that accepts. Owns what
//! happens when accepting fails.

use elbus_plugin_api::{Credentials, Locality};
use elbus_socket::Socket;
use std::{
    io,
    os::fd::OwnedFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Notice, instance::Instance, session::Session};

/// After a failure, which usually is a want of descriptors, so long nobody is accepted.
const PAUSE: Duration = Duration::from_millis(100);

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
        /// What is to be done; where the instance is full, it is not.
        task: Preparation,
    },
}

/// Makes the task that admits a connection, or refuses it.
pub type Preparation = Box<dyn FnOnce(Admission) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The right to begin one session.
pub struct Admission {
    instance: Arc<Instance>,
    port: Arc<str>,
}

impl Admission {
    /// Begins the session, of a socket that is non-blocking. The task may go on working for it; a transport that stops
    /// waits for it as long as it does for connections. `None`: the instance is stopping or full, or the connection is
    /// gone.
    pub fn begin(self, socket: OwnedFd, origin: Origin) -> Option<Attendance> {
        // before the session, so that whoever waits for the end of both finds one of them
        self.instance.census.lock().attendants += 1;
        let attendance = Attendance(self.instance.clone());
        let began = run(&self.instance, Session::begin(self.instance.clone(), socket, origin, self.port));
        began.then_some(attendance)
    }

    /// Tells why there will be no session, unless the instance is stopping.
    pub fn refuse(self, source: Option<&str>, notice: Notice, why: &str) {
        if !self.instance.is_stopping() {
            self.instance.refuse(source, notice, why);
        }
    }
}

/// A task that works beside a session. To be dropped at its end.
pub struct Attendance(Arc<Instance>);

impl Drop for Attendance {
    fn drop(&mut self) {
        let mut census = self.0.census.lock();
        census.attendants = census.attendants.saturating_sub(1);
        drop(census);
        self.0.left.notify_all();
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
                failing = false;
                begin(&instance, socket, entrance.port.clone());
                pause(&instance).await;
            }
            // once it is replaced, those who came before are still accepted
            Ok(None) if entrance.is_closed(&instance) => return,
            Ok(None) => {}
            Err(_) if entrance.is_closed(&instance) => return,
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(port = &*entrance.port, %error, "cannot accept connections for now");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Waits so long that no more are accepted in a second than may be.
async fn pause(instance: &Instance) {
    let Some(connects) = &instance.connects else { return };
    let mut wait = connects.lock().take(1, Instant::now());
    while !wait.is_zero() && !instance.is_stopping() {
        let step = wait.min(PAUSE);
        tokio::time::sleep(step).await;
        wait -= step;
    }
}

fn begin(instance: &Arc<Instance>, socket: OwnedFd, port: Arc<str>) {
    match instance.transport.prepare(socket) {
        Ok(Prepared::Ready(socket, origin)) => {
            run(instance, Session::begin(instance.clone(), socket, origin, port));
        }
        Ok(Prepared::Later { source, task }) => match instance.is_full() {
            None => drop(instance.runtime.spawn(task(Admission { instance: instance.clone(), port }))),
            Some(limit) => instance.turn_away(source.as_deref(), limit),
        },
        Err(error) => tracing::debug!(%error, "connection gone before it began"),
    }
}

/// Whether it runs.
fn run(instance: &Instance, session: io::Result<Option<Session>>) -> bool {
    match session {
        Ok(Some(session)) => {
            drop(instance.runtime.spawn(session.run()));
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
