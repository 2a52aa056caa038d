//! The side that listens: its certificate, whom it demands one of, and the handshake. Owns no socket and no time limit.

use rustls::{
    ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use std::{io, path::PathBuf, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{FileError, Part, certificate_names, files, provider};

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Demand {
    /// They are not asked for one.
    #[default]
    None,
    /// One that is shown must be valid.
    Optional,
    /// Nobody gets in without.
    Required,
}

/// The files of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// Its certificate, then those between it and the root.
    pub certificate: PathBuf,
    /// The key of its certificate.
    pub key: PathBuf,
    /// What the certificates of clients must go back to; needed where any may be shown.
    pub client_ca: Option<PathBuf>,
    /// Who must show one.
    pub demand: Demand,
}

/// What a client has proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// See [`certificate_names`]; `None` where it has shown no certificate.
    pub names: Option<Vec<String>>,
}

/// A server that can shake hands. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl ServerFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// The first file that is of no use.
    pub fn load(&self) -> Result<Acceptor, FileError> {
        let chain = files::certificates(Part::Certificate, &self.certificate)?;
        let key = files::key(&self.key)?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| FileError::new(Part::Key, error.to_string()))?
            .with_client_cert_verifier(self.verifier()?)
            .with_single_cert(chain, key)
            .map_err(|error| files::misfit(&self.certificate, &self.key, &error))?;
        Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
    }

    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
        if self.demand == Demand::None {
            return Ok(WebPkiClientVerifier::no_client_auth());
        }
        let Some(path) = &self.client_ca else {
            return Err(FileError::new(
                Part::Roots,
                "no file to verify the certificates of clients with".into(),
            ));
        };
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(files::roots(path)?), provider());
        let builder = if self.demand == Demand::Optional { builder.allow_unauthenticated() } else { builder };
        builder
            .build()
            .map_err(|error| FileError::new(Part::Roots, format!("{path:?} cannot be used: {error}")))
    }
}

impl Acceptor {
    /// Shakes hands with a client.
    ///
    /// # Errors
    /// What was wrong, or what the connection failed of.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Verified)> {
        let stream = self.0.accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let names = shown.map(certificate_names);
        Ok((stream, Verified { names }))
    }
}
