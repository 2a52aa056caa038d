//! The configured addresses, and the sockets bound to them: all or none.

use elbus_plugin_api::{Host, PluginError};
use elbus_stream::Listener;
use serde::Deserialize;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
};

/// Length of the accept queue.
const BACKLOG: i32 = 4096;

/// One address or several, each `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "an address such as \"127.0.0.1:7777\", or a list of them")]
pub enum Addresses {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Addresses {
    /// Returns the addresses as configured.
    pub fn each(&self) -> &[String] {
        match self {
            Addresses::One(address) => std::slice::from_ref(address),
            Addresses::Several(addresses) => addresses,
        }
    }

    /// Checks the addresses without resolving names.
    ///
    /// # Errors
    /// The first address that is not `host:port`; or there is none.
    pub fn check(&self) -> Result<(), PluginError> {
        if self.each().is_empty() {
            return Err(PluginError::of_key("bind", "no address"));
        }
        for address in self.each() {
            let host_and_port = address.rsplit_once(':').filter(|(host, port)| {
                // an IPv6 address without brackets would lose its last part to the port
                !host.is_empty()
                    && (host.ends_with(']') || !host.contains(':'))
                    && port.parse::<u16>().is_ok()
            });
            if host_and_port.is_none() {
                let message =
                    format!("{address:?} is not HOST:PORT, such as \"127.0.0.1:7777\" or \"[::1]:7777\"");
                return Err(PluginError::of_key("bind", message));
            }
        }
        Ok(())
    }

    /// Binds all addresses and listens. A name is bound at each of its addresses that this machine has. Uses
    /// inherited sockets if there are any. `kind` is the prefix of the reported addresses.
    ///
    /// # Errors
    /// The first address that cannot be bound. None is bound then.
    pub fn bind(&self, host: &Host, kind: &str) -> Result<Vec<Listener>, PluginError> {
        let mut listeners = vec![];
        for address in self.each() {
            let refuse = |error: io::Error| {
                PluginError::of_key("bind", format!("cannot listen on {address:?}: {error}"))
            };
            let (bound, mut absent) = (listeners.len(), None);
            for resolved in address.to_socket_addrs().map_err(refuse)? {
                if let Some(socket) = host.inherited_listener(&format!("tcp:{resolved}")) {
                    listeners.push(Listener {
                        socket,
                        port: address.clone(),
                        address: format!("{kind}:{resolved}"),
                        inherited: true,
                    });
                    continue;
                }
                match listen(resolved).map_err(|error| (error.kind(), error)) {
                    Ok((socket, real)) => listeners.push(Listener {
                        socket: socket.into(),
                        port: address.clone(),
                        address: format!("{kind}:{real}"),
                        inherited: false,
                    }),
                    Err((io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported, error)) => {
                        absent = Some(error);
                    }
                    Err((_, error)) => return Err(refuse(error)),
                }
            }
            if listeners.len() == bound {
                return Err(refuse(absent.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())));
            }
        }
        Ok(listeners)
    }
}

fn listen(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // so that 0.0.0.0 and [::] can be bound at once
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let real = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok((socket, real))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_they_are_bound() {
        let one = |text: &str| Addresses::One(text.to_owned()).check();
        for good in ["127.0.0.1:7777", "[::1]:0", "localhost:1", "0.0.0.0:65535"] {
            assert_eq!(one(good), Ok(()), "{good}");
        }
        for bad in ["", "7777", ":7777", "::1:7777", "host", "host:", "host:65536", "host:http"] {
            let error = one(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("bind: {bad:?} is not HOST:PORT")), "{error}");
        }
        assert_eq!(Addresses::Several(vec![]).check().unwrap_err().to_string(), "bind: no address");
    }
}
