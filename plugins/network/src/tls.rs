//! The table `tls`, and the TLS handshake before a session. Owns the certificates in use and the number of
//! handshakes in progress; `elbus-tls` does the cryptography, `elbus-stream` the session.

use elbus_plugin_api::{PluginError, config::check_range};
use elbus_stream::{FairSlots, LogCategory, SessionGuard, SessionPermit};
use elbus_tls::{Acceptor, Chain, Demand, FileError, Part, ServerFiles, ServerStream};
use parking_lot::RwLock;
use serde::Deserialize;
use std::{io, net::TcpStream as StdStream, os::fd::OwnedFd, path::PathBuf, time::Duration};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{
    client_certificates::{ClientCertificates, RegisteredCertificate},
    eviction::{EvictedFrom, Evictor},
};

/// The first byte of a TLS connection: a handshake record.
const HANDSHAKE: u8 = 0x16;

/// Default of `max_handshakes`.
const DEFAULT_MAX_HANDSHAKES: usize = 256;

/// The table `tls`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsKeys {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_certificates: Option<CertificateRequest>,
    max_handshakes: Option<usize>,
}

/// `client_certificates`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CertificateRequest {
    None,
    Optional,
    Required,
}

/// TLS state shared by the connections of an instance.
pub struct Tls {
    files: ServerFiles,
    /// The number of times the files were read, and the acceptor made from them.
    acceptor: RwLock<(u64, Acceptor)>,
    client_certificates: ClientCertificates,
    /// Slots of handshakes in progress.
    handshakes: FairSlots,
    /// Time limit of a handshake.
    handshake_timeout: Duration,
}

/// A connection whose TLS handshake is complete.
pub struct SecuredStream {
    /// The connection.
    pub stream: ServerStream,
    /// The names in the verified certificate of the client, if it has presented one, and the chain for
    /// [`Tls::register`].
    pub certificate: Option<(Vec<String>, VerifiedChain)>,
}

/// A certificate chain, and how often the files had been read when it was verified.
pub struct VerifiedChain(Chain, u64);

/// Why a connection was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What the log line is about.
    pub category: LogCategory,
    /// The reason.
    pub why: String,
}

impl Tls {
    /// Reads the configured files.
    ///
    /// # Errors
    /// The first key whose value or file cannot be used.
    pub fn new(keys: TlsKeys, handshake_timeout: Duration) -> Result<Self, PluginError> {
        let TlsKeys { certificate, key, client_ca, client_certificates, max_handshakes } = keys;
        let demand = match client_certificates {
            Some(CertificateRequest::None) => Demand::None,
            Some(CertificateRequest::Optional) => Demand::Optional,
            Some(CertificateRequest::Required) => Demand::Required,
            // an authority implies that certificates are required
            None if client_ca.is_some() => Demand::Required,
            None => Demand::None,
        };
        if demand != Demand::None && client_ca.is_none() {
            let message =
                "missing key: the certificates of clients (client_certificates) are verified with it";
            return Err(PluginError::of_key("tls.client_ca", message));
        }
        let max_handshakes = max_handshakes.unwrap_or(DEFAULT_MAX_HANDSHAKES);
        check_range("tls.max_handshakes", max_handshakes, 1..)?;
        let files = ServerFiles { certificate, key, client_ca, demand };
        let acceptor = RwLock::new((0, load(&files)?));
        Ok(Tls {
            files,
            acceptor,
            client_certificates: ClientCertificates::default(),
            handshakes: FairSlots::new(max_handshakes),
            handshake_timeout,
        })
    }

    /// Reads the files again, for new handshakes, and verifies the certificates of connected clients again.
    /// If a file is invalid, nothing changes.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn refresh(&self) -> Result<(), PluginError> {
        let acceptor = load(&self.files)?;
        let mut current = self.acceptor.write();
        *current = (current.0 + 1, acceptor.clone());
        drop(current);
        let disconnected = self.client_certificates.verify(&acceptor);
        if disconnected > 0 {
            tracing::warn!(disconnected, "clients whose certificates are no longer valid were disconnected");
        }
        Ok(())
    }

    /// Registers the certificate of a client whose session has begun, until the result is dropped:
    /// [`refresh`](Self::refresh) disconnects the client if the certificate is no longer valid.
    pub fn register(&self, chain: VerifiedChain, guard: &SessionGuard) -> RegisteredCertificate<'_> {
        let VerifiedChain(chain, read) = chain;
        let registered = self.client_certificates.add(chain, guard.closer());
        // the files may have been read again between the verification and the registration of this chain
        let (latest, acceptor) = self.acceptor.read().clone();
        if latest != read {
            registered.verify(&acceptor);
        }
        registered
    }

    /// Performs the handshake; `None` if the client has closed the connection.
    ///
    /// # Errors
    /// Why the connection is refused: it carries no TLS, or the handshake failed or took too long.
    pub async fn handshake(
        &self,
        socket: OwnedFd,
        permit: &SessionPermit,
        evictor: Evictor,
    ) -> Result<Option<SecuredStream>, Rejection> {
        let mut end = Instant::now() + self.handshake_timeout;
        let refuse = |why: String| Rejection { category: LogCategory::Tls, why };
        let seconds = self.handshake_timeout.as_secs_f64();
        let Ok(stream) = TcpStream::from_std(StdStream::from(socket)) else { return Ok(None) };
        match timeout_at(end, first_byte(&stream)).await {
            Ok(Ok(Some(HANDSHAKE))) => {}
            Ok(Ok(Some(_))) => return Err(refuse("sent no TLS, a plain client on a TLS port?".into())),
            Ok(Ok(None) | Err(_)) => return Ok(None),
            Err(_) => {
                let why =
                    "sent nothing, perhaps a plain client that waits for a greeting (this port has TLS)";
                return Err(refuse(format!("{why}; timeout_seconds is {seconds}")));
            }
        }
        // has been silent so far; from here on the connection costs memory
        permit.mark_active();
        permit.wait_for_turn().await;
        end = end.max(Instant::now() + self.handshake_timeout);
        let slot = self.handshakes.take(permit.source());
        let limit = self.handshakes.limit();
        slot.on_eviction(move || evictor.evict(EvictedFrom::Handshake(limit)));
        let (read, acceptor) = self.acceptor.read().clone();
        let (stream, verified) = match timeout_at(end, acceptor.accept(stream)).await {
            Ok(Ok(handshaken)) => handshaken,
            Ok(Err(error)) => return Err(refuse(format!("TLS handshake failed: {error}"))),
            Err(_) => {
                return Err(refuse(format!(
                    "no complete TLS handshake in time (timeout_seconds is {seconds})"
                )));
            }
        };
        drop(slot);
        let certificate = verified.map(|it| (it.names, VerifiedChain(it.chain, read)));
        Ok(Some(SecuredStream { stream, certificate }))
    }
}

/// Reads the files, and logs warnings for the operator.
fn load(files: &ServerFiles) -> Result<Acceptor, PluginError> {
    let (acceptor, warnings) = files.load().map_err(|error| of_key(&error))?;
    for warning in warnings {
        tracing::warn!(reason = %of_key(&warning), "TLS file needs attention");
    }
    Ok(acceptor)
}

/// Returns the first byte without consuming it.
async fn first_byte(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut first = [0];
    Ok((stream.peek(&mut first).await? > 0).then_some(first[0]))
}

fn of_key(error: &FileError) -> PluginError {
    let key = match error.part {
        Part::Certificate => "tls.certificate",
        Part::Key => "tls.key",
        Part::Roots => "tls.client_ca",
    };
    PluginError::of_key(key, error.to_string())
}
