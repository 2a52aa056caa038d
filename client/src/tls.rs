//! TLS settings of a client, and the TLS side of a connection. Owns the name that the broker's certificate
//! must have; the cryptography is in `elbus-tls`.

use elbus_tls::{ClientFiles, Tunnel, tunnel};
use std::{
    error::Error as StdError,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, OnceLock},
};
use tokio::net::TcpStream;

use crate::error::Error;

/// TLS settings; for [`ClientBuilder::tls`](crate::ClientBuilder::tls). The files are read for each
/// connection, so that a reconnection uses renewed certificates.
///
/// ```no_run
/// # async fn example() -> Result<(), elbus_client::Error> {
/// use elbus_client::{Client, TlsConfig};
/// let tls = TlsConfig::new().roots("/etc/elbus/ca.pem").identity("plc-1.pem", "plc-1.key");
/// let (client, frames) = Client::builder("plant.plc-1").tls(tls).connect("tls://broker.plant:7778").await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "pass it to ClientBuilder::tls"]
pub struct TlsConfig {
    files: ClientFiles,
    server_name: Option<String>,
}

impl TlsConfig {
    /// Returns the defaults: trusts the root certificates of the system, has no client certificate, and
    /// expects the broker's certificate to be for the host of the address.
    pub fn new() -> Self {
        TlsConfig::default()
    }

    /// Trusts the certificates in this PEM file instead of those of the system.
    pub fn roots(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.roots = Some(file.into());
        self
    }

    /// Presents the client certificate in the first PEM file. The second file contains its key.
    pub fn identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.files.identity = Some((certificate.into(), key.into()));
        self
    }

    /// Expects the broker's certificate to be for this host name or IP address instead of the host of the
    /// address.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Performs the TLS handshake and spawns a task that carries the connection. Returns a plain socket, and
    /// the error of the TLS connection once that has ended.
    pub(crate) async fn secure(
        &self,
        stream: TcpStream,
        address: &str,
    ) -> Result<(OwnedFd, Arc<OnceLock<io::Error>>), Error> {
        fn failed(address: &str, source: impl StdError + Send + Sync + 'static) -> Error {
            let (address, reason) = (address.to_owned(), source.to_string());
            Error::Tls { address, reason, source: Some(Arc::new(source)) }
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = self.server_name.as_deref().unwrap_or(host);
        let dialer = self.files.load().map_err(|error| failed(address, error))?;
        let secured = elbus_tls::dial(&dialer, name, stream).await.map_err(|error| failed(address, error))?;
        let Tunnel { end, work, fault } = tunnel(secured).map_err(|error| failed(address, error))?;
        tokio::spawn(work);
        Ok((end, fault))
    }
}
