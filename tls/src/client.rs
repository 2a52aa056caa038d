//! The connecting side: trusted roots, client certificate, and the handshake. Owns no time limit.

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use std::{io, path::PathBuf, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{FileError, Part, files, provider};

/// Paths of a client's certificate files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ClientFiles {
    /// Trusted root certificates; the system's roots if absent.
    pub roots: Option<PathBuf>,
    /// The client's certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A client that can perform handshakes. Cheap to clone.
#[derive(Clone)]
pub struct Dialer(TlsConnector);

impl ClientFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// The first file that cannot be used; or the system has no root certificates.
    pub fn load(&self) -> Result<Dialer, FileError> {
        let roots = match &self.roots {
            Some(path) => files::roots(path)?,
            None => roots_of_the_system()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| FileError::new(Part::Roots, error.to_string()))?
            .with_root_certificates(roots);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    files::certificates(Part::Certificate, certificate)?,
                    files::key(key)?.0,
                )
                .map_err(|error| files::misfit(certificate, key, &error))?,
        };
        Ok(Dialer(TlsConnector::from(Arc::new(config))))
    }
}

fn roots_of_the_system() -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let text = "the system has no root certificates: configure a file with the certificate of the broker's authority";
        return Err(FileError::new(Part::Roots, text.into()));
    }
    Ok(roots)
}

/// Performs the handshake with the server `name`: a host name or an IP address that its certificate must
/// match.
///
/// # Errors
/// The handshake or the connection fails.
pub async fn dial(dialer: &Dialer, name: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let server = ServerName::try_from(name.to_owned()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a valid server name"))
    })?;
    dialer.0.connect(server, stream).await
}
