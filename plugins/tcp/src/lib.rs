//! The TCP transport of ELBUS: clients of the local network.
//!
//! It owns the addresses and the socket options. `elbus-stream` handles the connections.
//!
//! ```toml
//! [[plugin]]
//! name = "network"
//! library = "elbus_tcp"
//! [plugin.config]
//! bind = ["127.0.0.1:7777", "[::1]:7777"]   # or one address; names are resolved
//! no_delay = true                           # the default
//! keep_alive_seconds = 60                   # the default; 0: off
//! [plugin.config.tls]                       # none: plain TCP
//! certificate = "/etc/elbus/broker.pem"     # of the broker, then intermediate certificates
//! key = "/etc/elbus/broker.key"
//! client_ca = "/etc/elbus/clients.pem"      # authority of client certificates
//! client_certificates = "required"          # "none", "optional"; default: "required" with client_ca
//! max_handshakes = 256                      # handshakes in progress; a new one replaces the oldest
//! # and, in plugin.config, the keys of every stream transport, see `StreamSettings`
//! ```
//!
//! If the broker has inherited a socket that listens at one of these addresses, it uses that one.
#![deny(unsafe_code)]

mod bind;
mod client_certificates;
mod tls;

use bind::Addresses;
use elbus_plugin_api::{Config, Host, Plugin, PluginError, Status, config::check_range};
use elbus_stream::{PeerInfo, Prepared, Server, StreamSettings, Transport};
use parking_lot::Mutex;
use serde::Deserialize;
use socket2::{SockRef, TcpKeepalive};
use std::{io, os::fd::OwnedFd, pin::Pin, sync::Arc, time::Duration};
use tls::{Tls, TlsKeys};

/// Longest keep-alive time of the kernel, in seconds.
const MAX_KEEP_ALIVE_SECONDS: u64 = 32_767;

#[derive(Deserialize)]
struct Keys {
    bind: Addresses,
    #[serde(default = "yes")]
    no_delay: bool,
    #[serde(default = "a_minute")]
    keep_alive_seconds: u64,
    tls: Option<TlsKeys>,
}

fn yes() -> bool {
    true
}

fn a_minute() -> u64 {
    60
}

/// The transport.
pub struct Tcp {
    host: Host,
    addresses: Addresses,
    options: Options,
    settings: StreamSettings,
    /// `Some` from `start` to `stop`. Not locked during calls of the server that block.
    running: Mutex<Option<Server>>,
}

impl Plugin for Tcp {
    const ABOUT: &'static str = "clients of the network, over TCP";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let keys: Keys = config.read()?;
        keys.bind.check()?;
        check_range("keep_alive_seconds", keys.keep_alive_seconds, ..=MAX_KEEP_ALIVE_SECONDS)?;
        let settings: StreamSettings = config.read()?;
        settings.check()?;
        let tls = keys.tls.map(|keys| Tls::new(keys, settings.timeout())).transpose()?;
        let options = Options {
            no_delay: keys.no_delay,
            keep_alive: (keys.keep_alive_seconds > 0).then(|| Duration::from_secs(keys.keep_alive_seconds)),
            tls: tls.map(Arc::new),
        };
        Ok(Tcp { host, addresses: keys.bind, options, settings, running: Mutex::new(None) })
    }

    fn start(&self) -> Result<(), PluginError> {
        let listeners = self.addresses.bind(&self.host, self.options.kind())?;
        let server =
            Server::start(self.host.clone(), self.settings.clone(), self.options.clone(), listeners)?;
        *self.running.lock() = Some(server);
        Ok(())
    }

    fn serve(&self) {
        if let Some(server) = &*self.running.lock() {
            server.serve();
        }
    }

    /// Reads the certificates and keys of the table `tls` again, for new connections. Disconnects clients
    /// whose certificates are no longer valid. If a file is invalid, the previous files stay in use.
    fn refresh(&self) -> Result<(), PluginError> {
        self.options.tls.as_ref().map_or(Ok(()), |tls| tls.refresh())
    }

    fn stop(&self, deadline: Duration) {
        let running = self.running.lock().take();
        if let Some(server) = running {
            server.stop(deadline);
        }
    }

    fn status(&self) -> Status {
        self.running.lock().as_ref().map(Server::status).unwrap_or_default()
    }
}

/// Options of every connection.
#[derive(Clone)]
struct Options {
    no_delay: bool,
    keep_alive: Option<Duration>,
    tls: Option<Arc<Tls>>,
}

impl Transport for Options {
    fn kind(&self) -> &'static str {
        if self.tls.is_some() { "tls" } else { "tcp" }
    }

    fn prepare(&self, accepted: OwnedFd) -> io::Result<Prepared> {
        let socket = SockRef::from(&accepted);
        socket.set_tcp_nodelay(self.no_delay)?;
        if let Some(time) = self.keep_alive {
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(time))?;
        }
        let source = socket.peer_addr()?.as_socket().map(|address| address.to_string());
        let Some(tls) = self.tls.clone() else {
            return Ok(Prepared::Ready(accepted, PeerInfo { source, ..PeerInfo::default() }));
        };
        let peer = source.clone();
        let task = Box::new(move |permit| Box::pin(tls.serve(accepted, peer, permit)) as Pin<Box<_>>);
        Ok(Prepared::Later { source, task })
    }
}

/// A separate module, since the macro's code contains unsafe attributes.
mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(crate::Tcp);
}
pub use export::plugin;
