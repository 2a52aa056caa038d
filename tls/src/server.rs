//! The side that listens: its certificate, whom it demands one of, and the handshake. Owns no socket and no
//! time limit.

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
    /// See [`certificate_names`].
    pub names: Vec<String>,
    /// What to verify again when the authority has changed.
    pub chain: Chain,
}

/// The certificate that a client has shown, then those between it and the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain(Box<[CertificateDer<'static>]>);

/// A server that can shake hands. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl ServerFiles {
    /// Reads the files. Beside the server there is what an operator should see to, though it keeps nobody
    /// from serving: certificates outside of the time for which they are valid, and a key that others can
    /// read.
    ///
    /// # Errors
    /// The first file that is of no use.
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
    /// Shakes hands with a client. `None`: it has shown no certificate.
    ///
    /// # Errors
    /// What was wrong, or what the connection failed of.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<Verified>)> {
        let stream = self.tls.accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let verified = shown.and_then(|chain| {
            let owned = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
            Some(Verified { names: certificate_names(chain.first()?), chain: Chain(owned) })
        });
        Ok((stream, verified))
    }

    /// Verifies a chain that a client has shown, as of now.
    ///
    /// # Errors
    /// Why it is not valid, or no longer.
    pub fn verify(&self, chain: &Chain) -> Result<(), String> {
        let Some((own, between)) = chain.0.split_first() else { return Err("no certificate".to_owned()) };
        let verified = self.verifier.verify_client_cert(own, between, UnixTime::now());
        verified.map(drop).map_err(|error| error.to_string())
    }
}
