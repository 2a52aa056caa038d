//! The TCP transport of ELBUS: clients of the local network.
//!
//! It owns addresses and the options of sockets. All that happens on connections is `elbus-stream`'s.
//!
//! ```toml
//! [[plugin]]
//! name = "network"
//! library = "elbus_tcp"
//! [plugin.config]
//! bind = ["127.0.0.1:7777", "[::1]:7777"]   # or one address; names are resolved
//! no_delay = true                           # the default
//! keep_alive_seconds = 60                   # the default; 0: off
//! # and the keys of every stream transport, see `StreamSettings`
//! ```
#![deny(unsafe_code)]

mod bind;

use bind::Addresses;
use elbus_plugin_api::{Config, Host, Plugin, PluginError, Status};
use elbus_stream::{Origin, Server, StreamSettings, Transport};
use parking_lot::Mutex;
use serde::Deserialize;
use socket2::{SockRef, TcpKeepalive};
use std::{io, os::fd::OwnedFd, time::Duration};

/// The kernel takes no more than this, in seconds.
const MAX_KEEP_ALIVE_SECONDS: u64 = 32_767;

#[derive(Deserialize)]
struct Keys {
    bind: Addresses,
    #[serde(default = "yes")]
    no_delay: bool,
    #[serde(default = "a_minute")]
    keep_alive_seconds: u64,
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
    /// From `start` to `stop`. The lock is held for no call of the server that waits.
    running: Mutex<Option<Server>>,
}

impl Plugin for Tcp {
    const ABOUT: &'static str = "clients of the network, over TCP";

    fn create(host: Host, config: &Config) -> Result<Self, PluginError> {
        let keys: Keys = config.read()?;
        keys.bind.check()?;
        if keys.keep_alive_seconds > MAX_KEEP_ALIVE_SECONDS {
            let message = format!("{} exceeds {MAX_KEEP_ALIVE_SECONDS}", keys.keep_alive_seconds);
            return Err(PluginError::of_key("keep_alive_seconds", message));
        }
        let options = Options {
            no_delay: keys.no_delay,
            keep_alive: (keys.keep_alive_seconds > 0).then(|| Duration::from_secs(keys.keep_alive_seconds)),
        };
        let settings: StreamSettings = config.read()?;
        settings.check()?;
        Ok(Tcp { host, addresses: keys.bind, options, settings, running: Mutex::new(None) })
    }

    fn start(&self) -> Result<(), PluginError> {
        let listeners = self.addresses.bind(&self.host)?;
        let server = Server::start(self.host.clone(), self.settings.clone(), self.options, listeners)?;
        *self.running.lock() = Some(server);
        Ok(())
    }

    fn serve(&self) {
        if let Some(server) = &*self.running.lock() {
            server.serve();
        }
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

/// What is set on every connection.
#[derive(Clone, Copy)]
struct Options {
    no_delay: bool,
    keep_alive: Option<Duration>,
}

impl Transport for Options {
    fn kind(&self) -> &'static str {
        "tcp"
    }

    fn prepare(&self, accepted: OwnedFd) -> io::Result<(OwnedFd, Origin)> {
        let socket = SockRef::from(&accepted);
        socket.set_tcp_nodelay(self.no_delay)?;
        if let Some(time) = self.keep_alive {
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(time))?;
        }
        let source = socket.peer_addr()?.as_socket().map(|address| address.to_string());
        Ok((accepted, Origin { source, ..Origin::default() }))
    }
}

/// Apart from the rest, since what the macro writes needs unsafe attributes.
mod export {
    #![allow(unsafe_code)]
    elbus_plugin_api::export_plugin!(crate::Tcp);
}
pub use export::plugin;
