//! What a transport contributes: bound sockets and a word on each connection; and the task that accepts. Owns what
//! happens when accepting fails.

use elbus_plugin_api::Credentials;
use elbus_socket::Socket;
use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use crate::{instance::Instance, session::Session};

/// After a failure, which usually is a want of descriptors, so long nobody is accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// A kind of byte stream.
pub trait Transport: Send + Sync + 'static {
    /// The kind of its connections, as `client.list` shows it.
    fn kind(&self) -> &'static str;

    /// Prepares a socket that was accepted, and says where it comes from. Called within the runtime; must not
    /// block, nor need another descriptor, as there may be none.
    ///
    /// # Errors
    /// Where the socket is not usable; it is closed then.
    fn prepare(&self, socket: OwnedFd) -> io::Result<(OwnedFd, Origin)>;
}

/// Where a connection comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// `ip:port`, where that means anything.
    pub source: Option<String>,
    /// The process at the other end, where it is known.
    pub credentials: Option<Credentials>,
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
}

/// Accepts until the instance stops. The census counts it from before it is spawned.
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
            }
            Ok(None) => {}
            Err(_) if instance.is_stopping() => return,
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

fn begin(instance: &Arc<Instance>, socket: OwnedFd, port: Arc<str>) {
    let session = instance
        .transport
        .prepare(socket)
        .and_then(|(socket, origin)| Session::begin(instance.clone(), socket, origin, port));
    match session {
        Ok(Some(session)) => drop(instance.runtime.spawn(session.run())),
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "connection gone before it began"),
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
