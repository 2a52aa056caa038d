//! Connections under TLS: what the user says of them, and the way to a socket like any other. Owns the name that the
//! broker's certificate must be for; the cryptography is `elbus-tls`'s.

use elbus_tls::{ClientFiles, Tunnel, tunnel};
use std::{
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, OnceLock},
};
use tokio::net::TcpStream;

use crate::Error;

/// How to connect under TLS; for [`ClientBuilder::tls`](crate::ClientBuilder::tls). The files are read for each connection, so
/// that one that is made again uses new ones.
///
/// ```no_run
/// # async fn example() -> Result<(), elbus_client::Error> {
/// use elbus_client::{Client, TlsConfig};
/// let tls = TlsConfig::new().roots("/etc/elbus/ca.pem").identity("plc-1.pem", "plc-1.key");
/// let (client, frames) = Client::builder("plant.plc-1").tls(tls).connect("tls://broker.plant:7778").await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "it is for ClientBuilder::tls"]
pub struct TlsConfig {
    files: ClientFiles,
    server_name: Option<String>,
}

impl TlsConfig {
    /// Trusts the root certificates of the system, shows no certificate, and expects one for the host of the address.
    pub fn new() -> Self {
        TlsConfig::default()
    }

    /// Trusts the certificates in this PEM file instead of those of the system.
    pub fn roots(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.roots = Some(file.into());
        self
    }

    /// Shows the certificate in the first PEM file, whose key is in the second.
    pub fn identity(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.files.identity = Some((certificate.into(), key.into()));
        self
    }

    /// The name or IP address that the broker's certificate must be for, where it is not that of the address.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Shakes hands, and carries the connection in a task of the runtime. Beside the socket: what was wrong with the
    /// connection once that has ended.
    pub(crate) async fn secure(
        &self,
        stream: TcpStream,
        address: &str,
    ) -> Result<(OwnedFd, Arc<OnceLock<io::Error>>), Error> {
        let refused = |what: String| Error::Tls { address: address.to_owned(), what };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = self.server_name.as_deref().unwrap_or(host);
        let dialer = self.files.load().map_err(|error| refused(error.to_string()))?;
        let secured =
            elbus_tls::dial(&dialer, name, stream).await.map_err(|error| refused(error.to_string()))?;
        let Tunnel { end, work, fault } = tunnel(secured).map_err(|error| refused(error.to_string()))?;
        tokio::spawn(work);
        Ok((end, fault))
    }
}
