//! The TCP transport of ELBUS: clients of the local network.
//!
//! It owns the keys. `elbus-network` binds the addresses and performs TLS handshakes, `elbus-stream` handles
//! the connections.
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

mod tls;

use elbus_network::{Addresses, SocketOptions, Tls, TlsKeys};
use elbus_plugin_api::{Config, Figure, Host, Plugin, PluginError, Status};
use elbus_stream::{PeerInfo, Prepared, Server, StreamSettings, Transport};
use parking_lot::Mutex;
use serde::Deserialize;
use std::{io, os::fd::OwnedFd, pin::Pin, sync::Arc, time::Duration};

#[derive(Deserialize)]
struct Keys {
    bind: Addresses,
    tls: Option<TlsKeys>,
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
        let socket: SocketOptions = config.read()?;
        socket.check()?;
        let settings: StreamSettings = config.read()?;
        settings.check()?;
        let tls = keys.tls.map(|keys| Tls::new(keys, settings.timeout())).transpose()?;
        let options = Options { socket, tls: tls.map(Arc::new) };
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

    fn figures(&self) -> Vec<Figure> {
        self.running.lock().as_ref().map(Server::figures).unwrap_or_default()
    }

    fn status(&self) -> Status {
        self.running.lock().as_ref().map(Server::status).unwrap_or_default()
    }
}

/// Options of every connection.
#[derive(Clone)]
struct Options {
    socket: SocketOptions,
    tls: Option<Arc<Tls>>,
}

impl Transport for Options {
    fn kind(&self) -> &'static str {
        if self.tls.is_some() { "tls" } else { "tcp" }
    }

    fn prepare(&self, accepted: OwnedFd) -> io::Result<Prepared> {
        let source = self.socket.apply(&accepted)?.map(|address| address.to_string());
        let Some(tls) = self.tls.clone() else {
            return Ok(Prepared::Ready(accepted, PeerInfo { source, ..PeerInfo::default() }));
        };
        let peer = source.clone();
        let task = Box::new(move |permit| Box::pin(tls::serve(tls, accepted, peer, permit)) as Pin<Box<_>>);
        Ok(Prepared::Later { source, task })
    }
}

/// A separate module, since the macro's code contains unsafe attributes.
mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(crate::Tcp);
}
pub use export::plugin;
