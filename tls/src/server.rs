//! The listening side: its certificate, the verification of client certificates, and the handshake. Owns no
//! socket and no time limit.

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, UnixTime},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use std::{io, path::PathBuf, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{FileError, Part, certificate_names, files, provider};

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Demand {
    /// Clients are not asked for a certificate.
    #[default]
    None,
    /// A client may connect without a certificate; one that it presents must be valid.
    Optional,
    /// Clients without a valid certificate are refused.
    Required,
}

/// Paths of a server's certificate files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// The server's certificate, followed by the intermediate certificates.
    pub certificate: PathBuf,
    /// The key of the server's certificate.
    pub key: PathBuf,
    /// Root certificates that client certificates are verified against; required unless `demand` is
    /// [`Demand::None`].
    pub client_ca: Option<PathBuf>,
    /// Whether clients must present a certificate.
    pub demand: Demand,
}

/// The verified identity of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// See [`certificate_names`].
    pub names: Vec<String>,
    /// The verified certificates, for verifying them again when the roots have changed.
    pub chain: Chain,
}

/// The certificate that a client presented, followed by the intermediate certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain(Box<[CertificateDer<'static>]>);

/// A server that can perform handshakes. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ServerFiles {
    /// Reads the files. Also returns warnings that do not prevent serving: certificates that have expired or
    /// are not valid yet, and a key that other users can read.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn load(&self) -> Result<(Acceptor, Vec<FileError>), FileError> {
        let chain = files::certificates(Part::Certificate, &self.certificate)?;
        let mut warnings = files::out_of_time(&self.certificate, &chain);
        let (key, warning) = files::key(&self.key)?;
        warnings.extend(warning);
        let verifier = self.verifier()?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| FileError::new(Part::Key, error.to_string()))?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(chain, key)
            .map_err(|error| files::misfit(&self.certificate, &self.key, &error))?;
        if self.demand != Demand::None {
            // a resumed session skips the verification: an expired or revoked certificate would get in
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok((Acceptor { tls: TlsAcceptor::from(Arc::new(config)), verifier }, warnings))
    }

    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
        if self.demand == Demand::None {
            return Ok(WebPkiClientVerifier::no_client_auth());
        }
        let Some(path) = &self.client_ca else {
            return Err(FileError::new(
                Part::Roots,
                "no root certificates to verify client certificates with".into(),
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
    /// Performs the handshake with a client. Returns `None` if the client presented no certificate.
    ///
    /// # Errors
    /// The handshake or the connection fails.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<Verified>)> {
        let stream = self.tls.accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let verified = shown.and_then(|chain| {
            let owned = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
            Some(Verified { names: certificate_names(chain.first()?), chain: Chain(owned) })
        });
        Ok((stream, verified))
    }

    /// Verifies again, at the current time, the certificates that a client presented.
    ///
    /// # Errors
    /// Why they are not valid, or not valid any more.
    pub fn verify(&self, chain: &Chain) -> Result<(), String> {
        let Some((own, between)) = chain.0.split_first() else { return Err("no certificate".to_owned()) };
        let verified = self.verifier.verify_client_cert(own, between, UnixTime::now());
        verified.map(drop).map_err(|error| error.to_string())
    }
}
