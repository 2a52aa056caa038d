//! The options of accepted sockets. Owns their keys, defaults and limits.

use elbus_plugin_api::{PluginError, config::check_range};
use serde::Deserialize;
use socket2::{SockRef, TcpKeepalive};
use std::{io, net::SocketAddr, os::fd::OwnedFd, time::Duration};

/// Longest keep-alive time of the kernel, in seconds.
const MAX_KEEP_ALIVE_SECONDS: u64 = 32_767;

/// The keys `no_delay` and `keep_alive_seconds`: `config.read::<SocketOptions>()`, then
/// [`check`](SocketOptions::check).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SocketOptions {
    /// Whether small segments are sent at once.
    pub no_delay: bool,
    /// Silence of the peer, in seconds, after which the kernel probes it; 0 for never.
    pub keep_alive_seconds: u64,
}

impl Default for SocketOptions {
    fn default() -> Self {
        SocketOptions { no_delay: true, keep_alive_seconds: 60 }
    }
}

impl SocketOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// The first key whose value is out of its range.
    pub fn check(&self) -> Result<(), PluginError> {
        check_range("keep_alive_seconds", self.keep_alive_seconds, ..=MAX_KEEP_ALIVE_SECONDS)
    }

    /// Sets the options of an accepted socket and returns the address of its peer.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn apply(&self, accepted: &OwnedFd) -> io::Result<Option<SocketAddr>> {
        let socket = SockRef::from(accepted);
        socket.set_tcp_nodelay(self.no_delay)?;
        if self.keep_alive_seconds > 0 {
            let time = Duration::from_secs(self.keep_alive_seconds);
            socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(time))?;
        }
        Ok(socket.peer_addr()?.as_socket())
    }
}
