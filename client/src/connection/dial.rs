//! Connects an address: returns a connected socket, plain or under TLS. Never sends a byte of the protocol.

use elbus_socket::Socket;
use std::{
    fmt, io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::net::{TcpStream, UnixStream};

use crate::{address::Address, error::Error, settings::Settings};

/// Delay before a listener with a full backlog is tried again.
const BACKLOG_RETRY: Duration = Duration::from_millis(5);

/// A connected socket.
pub(crate) struct Dialed {
    pub(crate) socket: Arc<Socket>,
    /// Set for a connection under TLS.
    pub(crate) tls_fault: Option<TlsFault>,
}

/// Why a TLS connection has ended; empty before that.
#[derive(Debug, Clone)]
pub(crate) struct TlsFault(Arc<OnceLock<io::Error>>);

impl TlsFault {
    pub(crate) fn is_set(&self) -> bool {
        self.0.get().is_some()
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.get().map_or(Ok(()), |error| error.fmt(f))
    }
}

impl std::error::Error for TlsFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.get().map(|error| error as _)
    }
}

/// Connects to an address.
pub(crate) async fn dial(address: &Address, settings: &Settings) -> Result<Dialed, Error> {
    let (fd, tls_fault) = match address {
        Address::Unix(path) | Address::UnixWithRings(path) | Address::Default(path) => {
            let fd = connect_unix(path, address).await.map_err(|error| no_broker(address, error))?;
            (fd, None)
        }
        Address::Tcp(host) | Address::Tls(host) => {
            let stream = connect_tcp(host, settings.timeout).await;
            secure(stream.map_err(|error| no_broker(address, error))?, address, host, settings).await?
        }
    };
    let socket = Socket::new(fd).map_err(|error| no_broker(address, error))?;
    Ok(Dialed { socket: Arc::new(socket), tls_fault })
}

fn no_broker(address: &Address, error: io::Error) -> Error {
    Error::NoBroker { address: address.to_string(), source: Arc::new(error) }
}

#[cfg(feature = "tls")]
async fn secure(
    stream: TcpStream,
    address: &Address,
    host: &str,
    settings: &Settings,
) -> Result<(OwnedFd, Option<TlsFault>), Error> {
    if settings.tls.is_none() && matches!(address, Address::Tcp(_)) {
        return plain(stream, address);
    }
    let tls = settings.tls.clone().unwrap_or_default();
    let (fd, fault) = tls.secure(stream, host).await?;
    Ok((fd, Some(TlsFault(fault))))
}

#[cfg(not(feature = "tls"))]
async fn secure(
    stream: TcpStream,
    address: &Address,
    host: &str,
    _: &Settings,
) -> Result<(OwnedFd, Option<TlsFault>), Error> {
    if let Address::Tls(_) = address {
        let reason = "this program was built without TLS: enable the cargo feature tls of elbus-client";
        return Err(Error::Tls { address: host.to_owned(), reason: reason.to_owned(), source: None });
    }
    plain(stream, address)
}

fn plain(stream: TcpStream, address: &Address) -> Result<(OwnedFd, Option<TlsFault>), Error> {
    match stream.into_std() {
        Ok(stream) => Ok((stream.into(), None)),
        Err(error) => Err(no_broker(address, error)),
    }
}

async fn connect_tcp(host: &str, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(host).await?;
    stream.set_nodelay(true)?;
    // detects a lost peer although only pings are sent
    #[cfg(target_os = "linux")]
    rustix::net::sockopt::set_tcp_user_timeout(
        &stream,
        u32::try_from(timeout.saturating_mul(2).as_millis()).unwrap_or(u32::MAX),
    )?;
    Ok(stream)
}

async fn connect_unix(path: &Path, address: &Address) -> io::Result<OwnedFd> {
    let stream = loop {
        match UnixStream::connect(path).await {
            // the broker runs, and has not yet accepted the connections before this one
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(BACKLOG_RETRY).await;
            }
            result => break result?,
        }
    };
    check_owner(address, &stream)?;
    Ok(stream.into_std()?.into())
}

/// Checks that the socket at a default path that any user can create is served by a trusted user.
fn check_owner(address: &Address, stream: &UnixStream) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if address.may_be_served_by(uid) {
        return Ok(());
    }
    let message = format!(
        "served by user {uid}, who is neither root nor the user of this program; if that is intended, give \
         the address explicitly"
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}
