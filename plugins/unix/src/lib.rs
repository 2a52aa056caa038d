//! The UNIX socket transport of ELBUS: clients of the same machine.
//!
//! It owns the socket file: its path, its permissions, its removal. Connections are handled by
//! `elbus-stream`.
//!
//! ```toml
//! [[plugin]]
//! name = "local"
//! library = "elbus_unix"
//! [plugin.config]
//! path = "/run/elbus/bus.sock"
//! mode = "0660"                # the default
//! owner = "root"               # a name or a number; whom the broker runs as unless given
//! group = "bus"
//! rings = false                # rings of shared memory for clients that ask for them
//! ring_bytes = 524288          # size of each of the two rings of a client
//! max_rings = 256              # clients with rings; one user can have `max_source_share` of them
//! # and the keys of every stream transport, see `StreamSettings`
//! ```
//!
//! If the broker has inherited a socket that listens at this path, the plugin uses that socket and does not
//! change its file.
#![deny(unsafe_code)]

mod bind;
mod ring_settings;
mod socket_path;
mod unit;

use bind::SocketFile;
use elbus_plugin_api::{Config, Credentials, Figure, Host, Locality, Plugin, PluginError, Status};
use elbus_stream::{PeerInfo, Prepared, RingLimits, Server, StreamSettings, Transport};
use parking_lot::Mutex;
use socket_path::SocketPath;
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};
use tokio::net::UnixStream;

/// The transport.
pub struct Unix {
    host: Host,
    socket_path: SocketPath,
    settings: StreamSettings,
    rings: Option<RingLimits>,
    /// `Some` from `start` to `stop`. Not locked during calls of the server that block.
    running: Mutex<Option<Running>>,
}

struct Running {
    /// `None` if the socket is inherited.
    file: Option<SocketFile>,
    server: Server,
}

impl Plugin for Unix {
    const ABOUT: &'static str = "clients of the same machine, over a UNIX socket";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let socket_path = SocketPath::read(config)?;
        let settings: StreamSettings = config.read()?;
        settings.check()?;
        let rings = ring_settings::read(config)?;
        Ok(Unix { host, socket_path, settings, rings, running: Mutex::new(None) })
    }

    fn start(&self) -> Result<(), PluginError> {
        let (listener, file) = match bind::inherited(&self.host, &self.socket_path) {
            Some(listener) => (listener, None),
            None => bind::bind(&self.socket_path).map(|(listener, file)| (listener, Some(file)))?,
        };
        let server =
            Server::start(self.host.clone(), self.settings.clone(), Local(self.rings), vec![listener])?;
        *self.running.lock() = Some(Running { file, server });
        Ok(())
    }

    fn serve(&self) {
        if let Some(running) = &*self.running.lock() {
            running.server.serve();
        }
    }

    fn stop(&self, deadline: Duration) {
        let running = self.running.lock().take();
        if let Some(Running { file, server }) = running {
            drop(file); // first, so that no new client can connect
            server.stop(deadline);
        }
    }

    /// Binds a removed socket file again, so that clients find the broker.
    fn refresh(&self) -> Result<(), PluginError> {
        let mut running = self.running.lock();
        let Some(Running { file: Some(file), server }) = &mut *running else { return Ok(()) };
        if file.is_there() {
            return Ok(());
        }
        tracing::warn!(path = %self.socket_path.path.display(), "socket file is gone; binding it again");
        let (listener, again) = bind::bind(&self.socket_path)?;
        server.rebind(listener)?;
        *file = again;
        Ok(())
    }

    fn figures(&self) -> Vec<Figure> {
        self.running.lock().as_ref().map(|running| running.server.figures()).unwrap_or_default()
    }

    fn status(&self) -> Status {
        self.running.lock().as_ref().map(|running| running.server.status()).unwrap_or_default()
    }
}

/// Connections from the same machine, with what clients get that ask for rings.
struct Local(Option<RingLimits>);

impl Transport for Local {
    fn kind(&self) -> &'static str {
        "local_ipc"
    }

    fn locality(&self) -> Locality {
        Locality::SameHost
    }

    fn rings(&self) -> Option<RingLimits> {
        self.0
    }

    fn prepare(&self, socket: OwnedFd) -> io::Result<Prepared> {
        // not rustix: its process ids are never 0, which the kernel reports for clients in other pid
        // namespaces
        let stream = UnixStream::from_std(socket.into())?;
        let peer = stream.peer_cred()?;
        let credentials = Credentials { pid: peer.pid().unwrap_or(0), uid: peer.uid(), gid: peer.gid() };
        // determined now, since another process may have the id later
        let unit = unit::unit_of(stream.as_fd(), &credentials).map(Box::new);
        let peer = PeerInfo { credentials: Some(credentials), unit, ..PeerInfo::default() };
        Ok(Prepared::Ready(stream.into_std()?.into(), peer))
    }
}

/// A separate module, since the macro's code contains unsafe attributes.
mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(crate::Unix);
}
pub use export::plugin;
